"""The operator and objects of it in one Kustomization of Flux, on a control plane of its own."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from devcluster.cluster import DevCluster
from devcluster.manifests import MANIFESTS, NAMESPACE
from tests.charts.pod import OperatorPod
from tests.cluster.eventually import eventually
from tests.cluster.flux import FLUX_NAMESPACE, Flux, run_flux
from tests.cluster.harness import Api, Object, Objects, is_ready

pytestmark = pytest.mark.cluster

DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/artifact-repository-controller"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/artifactrepositories.artifacts.alien.dev"
CONFIG_MAP = f"/api/v1/namespaces/{NAMESPACE}/configmaps/artifact-repository-controller"
NOT_INSTALLED = ("argocd", "kind", "samples")
"""Folders in manifests/ that are not part of its kustomization."""


@pytest.fixture(scope="module")
def bare() -> Iterator[DevCluster]:
    """Run a control plane with nothing of the operator in it."""
    with DevCluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def bare_api(bare: DevCluster) -> Iterator[Api]:
    """Return its API server, as an administrator sees it."""
    api = Api(bare)
    yield api
    api.close()


@pytest.fixture(scope="module")
def flux(bare: DevCluster, bare_api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flux]:
    """Run Flux on it."""
    with run_flux(bare, bare_api, tmp_path_factory.mktemp("flux")) as flux:
        yield flux


@pytest.fixture(scope="module")
def files(bare: DevCluster) -> dict[str, str]:
    """Return what Git has: manifests/ with a patched configuration, and an object beside it."""
    config = {"defaultRegistry": "artifacts", "registries": {"artifacts": {"registryUrl": bare.registry_url}}}
    patch = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "artifact-repository-controller", "namespace": NAMESPACE},
        "data": {"config.yaml": json.dumps(config)},
    }
    kustomization = {"resources": ["operator", "web.yaml"], "patches": [{"patch": json.dumps(patch)}]}
    files = (path.relative_to(MANIFESTS) for path in MANIFESTS.rglob("*.yaml"))
    return {
        "kustomization.yaml": yaml.safe_dump(kustomization),
        "web.yaml": (MANIFESTS / "samples" / "web.yaml").read_text(),
        **{f"operator/{file}": (MANIFESTS / file).read_text() for file in files if file.parts[0] not in NOT_INSTALLED},
    }


@contextmanager
def operator_of(api: Api, cluster: DevCluster, directory: Path) -> Iterator[OperatorPod]:
    """Stand in for the node: run the operator of the Deployment that Flux has made, and report that as available."""

    def created() -> Object | None:
        return seen if "spec" in (seen := api.request("GET", DEPLOYMENT)) else None

    deployment = {"kind": "Deployment", **eventually(created, what="the Deployment")}
    config_map = {"kind": "ConfigMap", **api.must("GET", CONFIG_MAP)}
    with OperatorPod([deployment, config_map], cluster, directory) as operator:
        reasons = {"Available": "MinimumReplicasAvailable", "Progressing": "NewReplicaSetAvailable"}
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            **dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1),
            "conditions": [{"type": type_, "status": "True", "reason": reason} for type_, reason in reasons.items()],
        }
        api.must("PATCH", f"{DEPLOYMENT}/status", {"status": status}, content_type="application/merge-patch+json")
        yield operator


def test_the_operator_and_its_objects(
    flux: Flux, bare: DevCluster, bare_api: Api, files: dict[str, str], tmp_path: Path
) -> None:
    """One Kustomization installs the API, the operator and an object at once, and is Ready when the object is.

    When it is deleted, it takes its own object and the operator with it. The API stays, and with it every other object.
    """
    git = flux.repository(FLUX_NAMESPACE)
    git.push(files)
    installed = flux.deploy(FLUX_NAMESPACE, timeout="1m")
    objects = Objects(bare_api, "default")
    with operator_of(bare_api, bare, tmp_path) as operator:
        installed.wait("True")
        assert is_ready(objects.get("web"))
        objects.create("of-somebody-else")
        before = objects.wait_ready("of-somebody-else", tell=operator.log)
    installed.delete()
    assert bare_api.request("GET", DEPLOYMENT)["code"] == 404
    assert "spec" in bare_api.request("GET", CRD)
    assert objects.list() == [before]
