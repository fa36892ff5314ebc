"""docs/gitops.md: its commands and examples work as they are written."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.api.v1alpha1 import KIND
from devcluster.cluster import DevCluster
from devcluster.tools import Tool, provide, version
from tests.cluster import judges
from tests.cluster.conftest import StartOperator
from tests.cluster.harness import Object, Objects, OperatorProcess, operator_config
from tests.cluster.pages import GITOPS

pytestmark = pytest.mark.cluster

STRICT = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
OF_KUSTOMIZE = "kustomize.config.k8s.io/v1beta1"
"""What kustomize reads is no object of an API server."""


def api_objects(namespace: str) -> list[Object]:
    """Return the examples that are objects of an API server, in a namespace that exists."""
    examples = [document for document in GITOPS.examples() if document["apiVersion"] != OF_KUSTOMIZE]
    return [{**document, "metadata": {**document["metadata"], "namespace": namespace}} for document in examples]


@pytest.mark.usefixtures("gitops_apis")
def test_the_api_server_accepts_every_example(cluster: DevCluster, namespace: str) -> None:
    """Each object in the page is valid, strictly, by the CustomResourceDefinition of the tool that it is for."""
    for document in api_objects(namespace):
        cluster.kubectl(*STRICT, stdin=yaml.safe_dump(document))
    kinds = {KIND, "Job", "Kustomization", "OCIRepository", "HelmRelease", "Application"}
    assert {document["kind"] for document in api_objects(namespace)} == kinds


@pytest.mark.usefixtures("gitops_apis")
@pytest.mark.parametrize("kind", ["Kustomization", "OCIRepository", "HelmRelease", "Application"])
def test_a_misspelt_example_would_be_refused(cluster: DevCluster, namespace: str, kind: str) -> None:
    """The validation that the test above relies on finds an unknown field in each kind."""
    example = next(document for document in api_objects(namespace) if document["kind"] == kind)
    example["spec"]["misspelt"] = True
    assert 'unknown field "spec.misspelt"' in cluster.kubectl(*STRICT, stdin=yaml.safe_dump(example), check=False)


@pytest.mark.parametrize("heading", ["Repositories first, then what pushes", "The operator and its objects"])
def test_the_examples_for_flux(heading: str) -> None:
    """The first Kustomization of each example waits and tries again soon, and the second one depends on it."""
    first, second = (one for one in GITOPS.examples(below=heading) if one["kind"] == "Kustomization")
    assert first["spec"]["wait"] is True
    assert first["spec"]["retryInterval"] == "1m"
    assert second["spec"]["dependsOn"] == [{"name": first["metadata"]["name"]}]


def test_the_example_for_kustomize(cluster: DevCluster, tmp_path: Path) -> None:
    """The kustomization.yaml in the page puts the repository into the image of a Deployment."""
    (example,) = GITOPS.examples(below="The URI in Git")
    container = {"name": "web", "image": "web"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(example))
    (tmp_path / example["resources"][0]).write_text(yaml.safe_dump(deployment))
    rendered = yaml.safe_load(cluster.kubectl("kustomize", tmp_path))
    image = rendered["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "localhost:5001/artifacts/team-a/web:1.0"


@pytest.mark.parametrize(
    ("binding", "spec", "uri"),
    [
        ({}, {}, "localhost:5001/artifacts/{namespace}/web"),
        ({"pathPrefix": ""}, {}, "localhost:5001/{namespace}/web"),
        ({"pathPrefix": "images"}, {"repositoryName": "team/api"}, "localhost:5001/images/team/api"),
        ({"repositoryTemplate": "{namespace}.{name}"}, {}, "localhost:5001/artifacts/{namespace}.web"),
    ],
)
def test_the_uri_is_predictable(
    cluster: DevCluster,
    objects: Objects,
    start_operator: StartOperator,
    binding: dict[str, Any],
    spec: dict[str, Any],
    uri: str,
) -> None:
    """The URI follows from the configuration and the object, as the page says."""
    config = operator_config(cluster.registry_url)
    config["registries"]["artifacts"] |= {"references": {"host": "localhost:5001"}, **binding}
    operator = start_operator(config)
    objects.create("web", spec)
    ready = objects.wait_ready("web", tell=operator.log)
    assert ready["status"]["uri"] == uri.format(namespace=objects.namespace)


def test_the_commands_for_kubectl(
    cluster: DevCluster, objects: Objects, operator: OperatorProcess, tmp_path: Path
) -> None:
    """The lines for kubectl work as they are written, and give the URI."""
    objects.create("web")
    lines = "\n".join(GITOPS.blocks("sh", below="kubectl"))
    kubeconfig = json.loads(cluster.kubeconfig.read_text())
    kubeconfig["contexts"][0]["context"]["namespace"] = objects.namespace
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    answer = subprocess.run(
        ["sh", "-euc", f'{lines}\necho "$uri"'],
        cwd=tmp_path,
        env={
            "PATH": f"{provide(Tool.KUBECTL).parent}:/usr/bin:/bin",
            "KUBECONFIG": "kubeconfig",
            # kubectl keeps a cache there.
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=70,
    )
    assert answer.returncode == 0, answer.stderr + operator.log()
    assert answer.stdout.splitlines()[-1] == objects.get("web")["status"]["uri"]
    assert "lastHandledReconcileAt" in objects.get("web")["status"]


def test_the_example_for_argo(cluster: DevCluster, objects: Objects) -> None:
    """The repository is in the first wave and not Healthy at once; the Job is a hook of the same phase, and later."""
    first, second = GITOPS.examples(below="Repositories first, then the job that pushes")
    assert [first["kind"], second["kind"]] == [KIND, "Job"]
    assert wave(first) < wave(second)
    assert second["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "Sync"
    first["metadata"]["namespace"] = objects.namespace
    cluster.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(first))
    (health,) = judges.health([objects.get(first["metadata"]["name"])])
    assert health["status"] == "Progressing"


def wave(object_: Object) -> int:
    """Return the sync wave of an object."""
    return int(object_["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])


@pytest.mark.parametrize("tool", [Tool.KUSTOMIZE_CONTROLLER, Tool.HELM])
def test_the_versions_in_the_page(tool: Tool) -> None:
    """The versions that the page says it was tried with are those that the tests run."""
    assert version(tool).removeprefix("v") in GITOPS.section("What was run, and what was only read")
