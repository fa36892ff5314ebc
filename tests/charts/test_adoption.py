"""Releases that take over what others left behind, and a chart that has the operator's chart as a dependency."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from devcluster.cluster import DevCluster
from devcluster.manifests import CHART, MANIFESTS
from tests.charts.rendering import NAMESPACE, RELEASE, helm
from tests.cluster.harness import Api, Object, Objects

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("uninstalled")]

DEPENDENCY = {"name": "artifact-repository-controller", "version": "*", "repository": ""}
OBJECT: Object = {
    "apiVersion": "artifacts.alien.dev/v1alpha1",
    "kind": "ArtifactRepository",
    "metadata": {"name": "web", "namespace": "team-a"},
    "spec": {},
}

Install = Callable[..., str]


@pytest.fixture
def install(cluster: DevCluster) -> Install:
    """Return what installs the chart."""

    def run(release: str, *arguments: str, namespace: str = NAMESPACE, check: bool = True) -> str:
        registry = ("--set", f"config.registries.artifacts.registryUrl={cluster.registry_url}")
        where = ("--namespace", namespace)
        return helm(
            "install", release, CHART, *where, *registry, *arguments, kubeconfig=cluster.kubeconfig, check=check
        )

    return run


def test_a_kept_definition_is_taken_over(cluster: DevCluster, api: Api, install: Install) -> None:
    """The definition that a release left behind keeps others out, until one of them takes its ownership."""
    install("first")
    cluster.wait_established()
    objects = Objects(api, "team-a")
    before = objects.create("web")
    helm("uninstall", "first", "--namespace", NAMESPACE, kubeconfig=cluster.kubeconfig)
    assert "invalid ownership metadata" in install(RELEASE, check=False)
    install(RELEASE, "--take-ownership")
    assert objects.get("web") == before


def test_from_manifests_to_helm(cluster: DevCluster, api: Api, install: Install) -> None:
    """A release named like what manifests/ installs takes all of it over, with the flags that docs/gitops.md names."""
    # All but the namespace, which the other tests use as it is.
    manifests = [
        one for one in yaml.safe_load_all(cluster.kubectl("kustomize", MANIFESTS)) if one["kind"] != "Namespace"
    ]
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))
    cluster.wait_established()
    objects = Objects(api, "team-a")
    before = objects.create("web")
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
    (deployment,) = api.must("GET", path)["items"]
    release = deployment["metadata"]["name"]
    assert "invalid ownership metadata" in install(release, check=False)
    install(release, "--take-ownership", "--force-conflicts")
    (after,) = api.must("GET", path)["items"]
    assert after["metadata"]["uid"] == deployment["metadata"]["uid"]
    assert objects.get("web") == before
    helm("uninstall", release, "--namespace", NAMESPACE, kubeconfig=cluster.kubeconfig)
    assert api.must("GET", path)["items"] == []


@pytest.fixture
def umbrella(cluster: DevCluster, tmp_path: Path) -> Path:
    """Return a chart that has the operator's chart as a dependency."""
    folder = tmp_path / "umbrella"
    shutil.copytree(CHART, folder / "charts" / CHART.name)
    (folder / "templates").mkdir()
    chart = {"apiVersion": "v2", "name": "umbrella", "version": "1.0.0", "dependencies": [DEPENDENCY]}
    (folder / "Chart.yaml").write_text(json.dumps(chart))
    values = {CHART.name: {"config": {"registries": {"artifacts": {"registryUrl": cluster.registry_url}}}}}
    (folder / "values.yaml").write_text(json.dumps(values))
    return folder


def test_an_umbrella_chart(cluster: DevCluster, api: Api, umbrella: Path) -> None:
    """It installs the operator; an object among its templates is refused at first, one that is a hook is not."""

    def install(annotations: Mapping[str, str], *, check: bool = True) -> str:
        metadata = {**OBJECT["metadata"], "annotations": dict(annotations)}
        (umbrella / "templates" / "web.yaml").write_text(yaml.safe_dump({**OBJECT, "metadata": metadata}))
        arguments = ("install", RELEASE, umbrella, "--namespace", NAMESPACE)
        return helm(*arguments, kubeconfig=cluster.kubeconfig, check=check)

    assert "ensure CRDs are installed first" in install({}, check=False)
    install({"helm.sh/hook": "post-install,post-upgrade"})
    objects = Objects(api, "team-a")
    assert objects.exists("web")
    helm("uninstall", RELEASE, "--namespace", NAMESPACE, kubeconfig=cluster.kubeconfig)
    assert objects.exists("web")
