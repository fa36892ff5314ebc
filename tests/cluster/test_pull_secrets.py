"""docs/pull-secrets.md: its commands work as they are written, and its objects are those that the tools read."""

import os
import subprocess

import pytest
import yaml

from devcluster.cluster import DevCluster
from devcluster.gitops import Crds, provide_crds
from devcluster.tools import Tool, provide
from tests.cluster.eventually import eventually
from tests.cluster.flux import install_crds
from tests.cluster.harness import Api, Object
from tests.cluster.pages import Page

pytestmark = pytest.mark.cluster

PAGE = Page("docs/pull-secrets.md")
REPLICATOR = "With kubernetes-replicator"
OPERATOR = "With External Secrets Operator"
STRICT = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")


def shell(cluster: DevCluster, text: str) -> None:
    """Run commands of the page as an administrator."""
    folder = provide(Tool.KUBECTL).parent
    environment = {
        "PATH": f"{folder}:{os.defpath}",
        "HOME": str(cluster.folder),
        "KUBECONFIG": str(cluster.kubeconfig),
    }
    subprocess.run(["bash", "-euo", "pipefail", "-c", text], env=environment, check=True, timeout=60)


@pytest.fixture(scope="module")
def source(cluster: DevCluster) -> None:
    """Label a namespace and create the source, as the page says."""
    cluster.kubectl("create", "namespace", "team-a")
    (before,) = PAGE.blocks("sh", below="Prerequisites")
    shell(cluster, before)


def namespaces(cluster: DevCluster, selector: str) -> list[str]:
    """Return the namespaces that a label selector selects."""
    return cluster.kubectl("get", "namespaces", "-l", selector, "-o", "name").split()


@pytest.mark.usefixtures("source")
def test_the_source_for_the_replicator(cluster: DevCluster, api: Api) -> None:
    """The annotation selects the namespace that the page labels, and no other; the role is a valid object."""
    (annotate,) = PAGE.blocks("sh", below=REPLICATOR)
    shell(cluster, annotate)
    secret = api.must("GET", "/api/v1/namespaces/registry-secrets/secrets/registry-pull")
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    (selector,) = secret["metadata"]["annotations"].values()
    assert namespaces(cluster, selector) == ["namespace/team-a"]
    for document in PAGE.examples(below=REPLICATOR):
        cluster.kubectl(*STRICT, stdin=yaml.safe_dump(document))


@pytest.fixture(scope="module")
def external_secrets(cluster: DevCluster, source: None) -> list[Object]:
    """Install the CustomResourceDefinitions of External Secrets Operator; return the page's objects for it."""
    del source
    install_crds(cluster, sorted(provide_crds(Crds.EXTERNAL_SECRETS).iterdir()))
    return PAGE.examples(below=OPERATOR)


def test_the_objects_for_external_secrets_operator(cluster: DevCluster, external_secrets: list[Object]) -> None:
    """Each object is valid, strictly; a misspelt one is refused."""
    for document in external_secrets:
        cluster.kubectl(*STRICT, stdin=yaml.safe_dump(document))
    theirs = [document for document in external_secrets if document["apiVersion"].startswith("external-secrets.io/")]
    assert [document["kind"] for document in theirs] == ["ClusterSecretStore", "ClusterExternalSecret"]
    for document in theirs:
        misspelt = {**document, "spec": {**document["spec"], "misspelt": True}}
        refused = cluster.kubectl(*STRICT, stdin=yaml.safe_dump(misspelt), check=False)
        assert 'unknown field "spec.misspelt"' in refused


def test_the_objects_for_external_secrets_operator_fit(
    cluster: DevCluster, api: Api, external_secrets: list[Object]
) -> None:
    """They name each other, the source, and the labelled namespaces; the ServiceAccount may read the source."""
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(external_secrets[:3]))
    store, copies = (document["spec"] for document in external_secrets[3:])
    account = store["provider"]["kubernetes"]["auth"]["serviceAccount"]
    user = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    namespace = store["provider"]["kubernetes"]["remoteNamespace"]
    (extract,) = copies["externalSecretSpec"]["dataFrom"]
    api.must("GET", f"/api/v1/namespaces/{namespace}/secrets/{extract['extract']['key']}")
    told = cluster.kubectl("auth", "can-i", "get", "secrets", "-n", namespace, f"--as={user}")
    assert told.strip() == "yes"
    reference = {"kind": "ClusterSecretStore", "name": external_secrets[3]["metadata"]["name"]}
    assert copies["externalSecretSpec"]["secretStoreRef"] == reference
    for selector in (store["conditions"][0]["namespaceSelector"], copies["namespaceSelectors"][0]):
        ((name, value),) = selector["matchLabels"].items()
        assert namespaces(cluster, f"{name}={value}") == ["namespace/team-a"]


@pytest.mark.usefixtures("source")
def test_pods_use_it(cluster: DevCluster, api: Api) -> None:
    """With the ServiceAccount as the page patches it, the API server adds the pull secret to a Pod without one."""
    path = "/api/v1/namespaces/team-a/serviceaccounts/default"
    eventually(lambda: api.request("GET", path)["kind"] == "ServiceAccount")
    (patch,) = PAGE.blocks("sh", below="Use the Secrets")
    shell(cluster, patch)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "registry.example.com/artifacts/team-a/web:v1"}]},
    }
    created = api.must("POST", "/api/v1/namespaces/team-a/pods?dryRun=All", pod)
    assert created["spec"]["imagePullSecrets"] == [{"name": "registry-pull"}]
