"""manifests/ by kustomize: as they are, and moved to another namespace.

what sets the namespace                          | where everything is
nothing                                          | where manifests/ puts it
`namespace:` in the overlay of operations.md     | there, except for the Role and RoleBinding in kube-public
`namespace:` in manifests/ itself (Flux, Argo)   | the same
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from devcluster.cluster import DevCluster
from devcluster.manifests import MANIFESTS, NAMESPACE
from tests.charts.pod import OperatorPod
from tests.charts.rendering import Document, only
from tests.cluster.harness import ROOT, Api, Objects

pytestmark = pytest.mark.cluster

OPERATIONS = ROOT / "docs" / "operations.md"
NAME = "artifact-repository-controller"
HOSTING = f"{NAME}-local-registry-hosting"
OTHER = "platform"
HOSTING_PATH = "/api/v1/namespaces/kube-public/configmaps"
ADVERTISED = {
    "metadata": {"name": "local-registry-hosting"},
    "data": {"localRegistryHosting.v1": "host: advertised.example.com:5001"},
}

Move = Callable[[Path], Path]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return a copy of manifests/, in a folder of its own."""
    base = tmp_path / "overlay" / "manifests"
    shutil.copytree(MANIFESTS, base, ignore=shutil.ignore_patterns("kind", "samples", "argocd"))
    return base


def moved_by_overlay(base: Path) -> Path:
    """Write the overlay that operations.md shows; return its folder."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL)
    (overlay,) = (block for block in blocks if "kind: Kustomization" in block)
    assert yaml.safe_load(overlay)["namespace"] == OTHER
    (base.parent / "kustomization.yaml").write_text(overlay)
    return base.parent


def without_namespace(folder: Path) -> Path:
    """Add the patch that operations.md shows for a namespace that exists already; return the folder."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL)
    (patches,) = (block for block in blocks if "$patch: delete" in block)
    file = folder / "kustomization.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | yaml.safe_load(patches)))
    return folder


def moved_in_place(base: Path) -> Path:
    """Set the namespace where Flux (targetNamespace) and Argo CD (kustomize.namespace) set it; return the folder."""
    file = base / "kustomization.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"namespace": OTHER}))
    return base


def build(cluster: DevCluster, folder: Path) -> list[Document]:
    """Return what kustomize makes of a folder."""
    return [document for document in yaml.safe_load_all(cluster.kubectl("kustomize", folder)) if document]


def places(documents: list[Document]) -> dict[tuple[str, str], str | None]:
    """Return the namespace of each object by kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one["metadata"].get("namespace") for one in documents}


def test_roles_have_distinct_names(cluster: DevCluster) -> None:
    """No two Roles or RoleBindings differ in their namespace alone: in one namespace they would be the same object."""
    documents = build(cluster, MANIFESTS)
    assert len(places(documents)) == len(documents)
    assert {namespace for namespace in places(documents).values() if namespace} == {NAMESPACE, "kube-public"}


@pytest.mark.parametrize("move", [moved_by_overlay, moved_in_place], ids=["overlay", "in place"])
def test_only_kube_public_stays(cluster: DevCluster, base: Path, move: Move) -> None:
    """Everything else that has a namespace is in the other one, and each binding names the ServiceAccount there."""
    expected = {
        (kind, OTHER if kind == "Namespace" else name): OTHER if namespace == NAMESPACE else namespace
        for (kind, name), namespace in places(build(cluster, MANIFESTS)).items()
    }
    documents = build(cluster, move(base))
    assert places(documents) == expected
    for binding in documents:
        if binding["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            (subject,) = binding["subjects"]
            assert (subject["name"], subject["namespace"]) == (NAME, OTHER), binding["metadata"]["name"]
    role = only(documents, "RoleBinding", namespace="kube-public")["roleRef"]
    assert (role["kind"], role["name"]) == ("Role", HOSTING)


def test_a_namespace_that_exists_is_left_out(cluster: DevCluster, base: Path) -> None:
    """With the patch in operations.md nothing else changes."""
    everything = build(cluster, moved_by_overlay(base))
    rest = build(cluster, without_namespace(base.parent))
    assert [one for one in everything if one["kind"] != "Namespace"] == rest


@pytest.fixture
def moved(cluster: DevCluster, api: Api, base: Path) -> Iterator[list[Document]]:
    """Install the operator in the other namespace, as operations.md says, and advertise a registry (KEP-1755)."""
    folder = moved_by_overlay(base)
    cluster.kubectl("apply", "-k", folder)
    cluster.wait_established()
    api.must("POST", HOSTING_PATH, ADVERTISED)
    yield build(cluster, folder)
    api.must("DELETE", f"{HOSTING_PATH}/local-registry-hosting")
    cluster.kubectl("delete", "-k", folder, "--timeout=60s")


MAY = (
    "list artifactrepositories -n default",
    "watch artifactrepositories -n default",
    "patch artifactrepositories/web --subresource=status -n default",
    "create events -n default",
    f"create events -n {OTHER}",
    f"create leases -n {OTHER}",
    f"get leases/{NAME} -n {OTHER}",
    f"update leases/{NAME} -n {OTHER}",
    f"get pods -n {OTHER}",
    "get configmaps/local-registry-hosting -n kube-public",
)
MAY_NOT = (
    f"get leases/{NAME} -n {NAMESPACE}",
    f"get pods -n {NAMESPACE}",
    "get pods -n kube-public",
    f"get configmaps/local-registry-hosting -n {OTHER}",
    "list configmaps -n kube-public",
    f"get secrets -n {OTHER}",
)


def test_the_moved_operator_works(cluster: DevCluster, api: Api, moved: list[Document], tmp_path: Path) -> None:
    """Its ServiceAccount may do what it could before, no more, and objects get what kube-public advertises."""
    account = f"--as=system:serviceaccount:{OTHER}:{NAME}"
    told = {ask: cluster.kubectl("auth", "can-i", *ask.split(), account, check=False) for ask in (*MAY, *MAY_NOT)}
    assert {ask for ask, answer in told.items() if answer.endswith("yes\n")} == set(MAY), told
    binding = {"registryUrl": cluster.registry_url, "advertisedByCluster": True}
    config = {"defaultRegistry": "artifacts", "registries": {"artifacts": binding}}
    only(moved, "ConfigMap")["data"]["config.yaml"] = json.dumps(config)
    objects = Objects(api, "default")
    with OperatorPod(moved, cluster, tmp_path / "pod") as operator:
        objects.create("web")
        ready = objects.wait_ready("web", tell=operator.log)
        assert ready["status"]["references"]["host"].startswith("advertised.example.com:5001/")
        lease = api.must("GET", f"/apis/coordination.k8s.io/v1/namespaces/{OTHER}/leases/{NAME}")
        pod = operator.pod["metadata"]
        assert lease["spec"]["holderIdentity"].startswith(f"{OTHER}/{pod['name']}/{pod['uid']}/")
