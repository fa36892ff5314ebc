"""A release's life on a real API server, by the real Helm and the real kubectl.

what is done                                | what is expected
install, upgrade, rollback                  | the objects of users are not touched; the CRD follows the chart
uninstall                                   | nothing of the release is left but the CRD, and with it the users' objects
install again                               | the CRD that was kept is taken over
uninstall with crds.keep=false              | nothing is left at all
everything rendered, for each file in ci/   | the API server takes it, with strict validation
apply -k and delete -k                      | the operator of manifests/ does the main job; nothing is left
the rendered Pods                           | fit the standard "restricted"; one that does not is refused there
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from devcluster.cluster import DevCluster
from devcluster.manifests import CHART, MANIFESTS
from tests.charts.pod import OperatorPod
from tests.charts.rendering import (
    CI_VALUES,
    FULL_NAME,
    NAMESPACE,
    RELEASE,
    Document,
    helm,
    only,
    render,
)
from tests.cluster.eventually import eventually
from tests.cluster.harness import Api, Object, Objects

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("uninstalled")]

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/artifactrepositories.artifacts.alien.dev"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{FULL_NAME}"

Helm = Callable[..., str]


@pytest.fixture
def release(cluster: DevCluster) -> Helm:
    """Return helm, with the release's name, its namespace and its registry."""

    def run(verb: str, *arguments: str | Path, chart: Path = CHART) -> str:
        registry = f"config.registries.artifacts.registryUrl={cluster.registry_url}"
        given = (RELEASE, chart, "--set", registry) if verb in ("install", "upgrade") else (RELEASE,)
        return helm(verb, *given, "--namespace", NAMESPACE, *arguments, kubeconfig=cluster.kubeconfig)

    return run


def of_release(cluster: DevCluster, name: str) -> list[str]:
    """Return all objects of a release by kind, namespace and name; the CRD carries no release's name."""
    kinds = "clusterrole,clusterrolebinding,role,rolebinding,serviceaccount,configmap,deployment,service,networkpolicy"
    told = cluster.kubectl("get", kinds, "-A", "-o", "json", "-l", f"app.kubernetes.io/instance={name}")
    items = [(item["kind"], item["metadata"]) for item in json.loads(told)["items"]]
    return [f"{kind} {metadata.get('namespace', '')}/{metadata['name']}" for kind, metadata in items]


def test_life(cluster: DevCluster, api: Api, release: Helm) -> None:
    """Install, upgrade, roll back, uninstall, install again: a user's object and its status stay as they are."""
    release("install")
    cluster.wait_established()
    expected = {
        f"{document['kind']} {document['metadata'].get('namespace', '')}/{document['metadata']['name']}"
        for document in render("--set", "config.registries.artifacts.registryUrl=x")
        if document["kind"] != "CustomResourceDefinition"
        and "helm.sh/hook" not in document["metadata"].get("annotations", {})
    }
    assert set(of_release(cluster, RELEASE)) == expected
    objects = Objects(api, "default")
    objects.create("web")
    status = {"conditions": [{"type": "Ready", "status": "True", "reason": "RepositoryReady", "message": "x"}]}
    status["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    before = objects.patch("web", {"status": status}, subresource="/status")

    def arguments() -> list[str]:
        found: list[str] = api.must("GET", DEPLOYMENT)["spec"]["template"]["spec"]["containers"][0]["args"]
        return found

    assert "--concurrent=32" in arguments()
    release("upgrade", "--set", "concurrent=4,replicaCount=2")
    assert "--concurrent=4" in arguments()
    release("rollback", "1")
    assert "--concurrent=32" in arguments()
    release("uninstall")
    assert of_release(cluster, RELEASE) == []
    assert objects.get("web") == before
    release("install")
    assert objects.get("web") == before
    release("upgrade", "--set", "crds.keep=false")
    release("uninstall")
    eventually(lambda: of_release(cluster, RELEASE) == [], tell=lambda: str(of_release(cluster, RELEASE)))
    eventually(lambda: api.request("GET", CRD)["kind"] == "Status")


def test_upgrade_brings_the_crd(api: Api, release: Helm, tmp_path: Path) -> None:
    """Of a release whose chart had an older CRD, an upgrade makes the present one, and a rollback the older one."""
    older = tmp_path / "older"
    shutil.copytree(CHART, older)
    template = older / "templates" / "crd.yaml"
    column = "        - name: URI\n"
    assert column in template.read_text()
    template.write_text(template.read_text().replace(column, "        - name: Address\n"))

    def columns() -> list[str]:
        found = api.must("GET", CRD)["spec"]["versions"][0]["additionalPrinterColumns"]
        return [one["name"] for one in found]

    release("install", chart=older)
    assert "Address" in columns()
    release("upgrade")
    assert "URI" in columns()
    assert "Address" not in columns()
    release("rollback", "1")
    assert "Address" in columns()


def test_two_releases_side_by_side(cluster: DevCluster, release: Helm) -> None:
    """A second operator for namespaces of its own needs nothing of the first but its CRD, and goes without a trace."""
    release("install")
    arguments = ("--namespace", "team-a", "--values", CHART / "ci" / "namespaces-values.yaml")
    helm("install", "second", CHART, *arguments, kubeconfig=cluster.kubeconfig)
    assert len(of_release(cluster, "second")) == 11
    helm("uninstall", "second", "--namespace", "team-a", kubeconfig=cluster.kubeconfig)
    assert of_release(cluster, "second") == []
    assert len(of_release(cluster, RELEASE)) > 10


@pytest.mark.usefixtures("prometheus_operator")
def test_the_api_server_takes_everything(cluster: DevCluster) -> None:
    """Everything that is rendered for any values file passes strict validation on the server."""
    for values in CI_VALUES:
        rendered = render("--values", values)
        namespace = only(rendered, "Deployment")["metadata"]["namespace"]
        cluster.kubectl("create", "namespace", namespace, check=False)
        # kubectl takes each field that the server does not know for an error, and says which.
        told = cluster.kubectl(
            *("apply", "--dry-run=server", "--validate=strict", "-f", "-"), stdin=yaml.safe_dump_all(rendered)
        )
        assert told.count("(server dry run)") == len(rendered), values.name
        assert "Warning" not in told


def test_a_typing_error_would_be_found(cluster: DevCluster) -> None:
    """The server's validation, as the test above uses it, is one."""
    deployment = only(render("--set", "config.registries.artifacts.registryUrl=x"), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    told = cluster.kubectl(
        *("apply", "--dry-run=server", "--validate=strict", "-f", "-"), stdin=yaml.safe_dump(deployment), check=False
    )
    assert 'unknown field "spec.template.spec.containers[0].livenessprobe"' in told


def test_people_may_use_the_api(cluster: DevCluster, release: Helm) -> None:
    """Who may view a namespace sees its objects, who may edit it changes them; neither writes their status."""
    release("install")

    def may(role: str, verb: str, *further: str) -> bool:
        user = ("--as=somebody", "--as-group=system:authenticated", "-n", f"as-{role}")
        return cluster.kubectl("auth", "can-i", verb, "artifactrepositories", *user, *further, check=False) == "yes\n"

    for role in ("view", "edit", "admin"):
        cluster.kubectl("create", "namespace", f"as-{role}")
        cluster.kubectl("create", "rolebinding", "it", f"--clusterrole={role}", "--user=somebody", "-n", f"as-{role}")
    # The controller manager aggregates a moment later.
    eventually(lambda: may("view", "list") and may("edit", "delete") and may("admin", "delete"))
    for role in ("view", "edit", "admin"):
        assert may(role, "watch")
        for verb in ("create", "update", "patch", "delete", "deletecollection"):
            assert may(role, verb) == (role != "view")
        assert not may(role, "patch", "--subresource=status")


def test_kustomize(cluster: DevCluster, api: Api, tmp_path: Path) -> None:
    """`kubectl apply -k manifests/` installs an operator that does the main job; `delete -k` takes all of it away."""
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    shutil.copytree(MANIFESTS, overlay / "base", ignore=shutil.ignore_patterns("kind", "samples", "argocd"))
    config = {"defaultRegistry": "artifacts", "registries": {"artifacts": {"registryUrl": cluster.registry_url}}}
    patch = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "artifact-repository-controller", "namespace": NAMESPACE},
        "data": {"config.yaml": json.dumps(config)},
    }
    kustomization = {"resources": ["base"], "patches": [{"patch": json.dumps(patch)}]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    cluster.kubectl("apply", "-k", overlay)
    cluster.wait_established()
    documents = list(yaml.safe_load_all(cluster.kubectl("kustomize", overlay)))
    (namespace,) = (document for document in documents if document["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    objects = Objects(api, "default")
    with OperatorPod(documents, cluster, tmp_path) as operator:
        objects.create("web")
        objects.wait_ready("web", tell=operator.log)
    cluster.kubectl("delete", "-k", overlay, "--timeout=60s")
    assert of_release(cluster, "artifact-repository-controller") == []
    assert api.request("GET", CRD)["kind"] == "Status"
    cluster.kubectl("create", "namespace", NAMESPACE)


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_pods_fit_the_restricted_standard(cluster: DevCluster, api: Api, values: Path) -> None:
    """The operator's Pod and that of `helm test` are let into a namespace that enforces "restricted"."""
    documents = render("--values", values)
    template = only(documents, "Deployment")["spec"]["template"]
    pods = [only(documents, "Pod")["spec"], template["spec"]]
    for spec in pods:
        assert "violates" not in try_pod(cluster, api, spec).get("message", "")
    loose = json.loads(json.dumps(template["spec"]))
    del loose["securityContext"]["runAsNonRoot"]
    loose["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    told = try_pod(cluster, api, loose)["message"]
    assert 'violates PodSecurity "restricted' in told
    assert "allowPrivilegeEscalation" in told
    assert "runAsNonRoot" in told


def try_pod(cluster: DevCluster, api: Api, spec: Document) -> Object:
    """Ask the API server whether it would take a Pod where "restricted" is enforced; return its answer."""
    name = spec.get("serviceAccountName", "default")
    namespace = "restricted"
    if "uid" not in api.request("GET", f"/api/v1/namespaces/{namespace}").get("metadata", {}):
        cluster.kubectl("create", "namespace", namespace)
        cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    if "uid" not in api.request("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}")["metadata"]:
        eventually(lambda: cluster.kubectl("create", "serviceaccount", name, "-n", namespace, check=False))
    pod = {"metadata": {"name": "try"}, "spec": spec}
    answer = api.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict", pod)
    assert answer["kind"] in ("Pod", "Status")
    assert answer.get("reason") in (None, "Forbidden"), answer["message"]
    return answer
