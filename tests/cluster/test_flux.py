"""A life of objects in a real Kustomization of Flux: kustomize-controller applies, waits and prunes.

what happens                                         | what Flux does
an outage that may pass                              | waits until the Kustomization's timeout
an outage beyond the progress deadline               | gives up early; recovers by itself when the registry is back
suspended or annotated by kubectl                    | takes it back, except where one of the documented ways is used
spec goes back to `{}`                               | applies it
a wrong repositoryName                               | corrects it until the repository exists
builds depend on repositories                        | holds them back until these are Ready
an object goes from Git while the operator is down   | prunes it at once
nothing, five times                                  | writes nothing
"""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from controller.api.v1alpha1 import REQUESTED_AT_ANNOTATION
from devcluster.cluster import DevCluster
from tests.cluster.conftest import StartOperator
from tests.cluster.flux import FLUX_NAMESPACE, FLUX_USER, Flux, run_flux
from tests.cluster.flux_source import GitRepository
from tests.cluster.harness import (
    OPERATOR_USER,
    Api,
    Audit,
    Object,
    Objects,
    OperatorProcess,
    condition,
    is_ready,
    operator_config,
    ready,
)
from tests.cluster.pages import GITOPS
from tests.cluster.proxy import FaultProxy

pytestmark = pytest.mark.cluster

FORCE = {"kustomize.toolkit.fluxcd.io/force": "enabled"}
MERGE = {"kustomize.toolkit.fluxcd.io/ssa": "Merge"}
SUSPEND = ("--type=merge", "-p", '{"spec": {"suspend": true}}')


@pytest.fixture(scope="module")
def flux(cluster: DevCluster, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flux]:
    """Run Flux on the session's cluster."""
    with run_flux(cluster, api, tmp_path_factory.mktemp("flux")) as flux:
        yield flux


@pytest.fixture
def git(flux: Flux, namespace: str) -> GitRepository:
    """Return the Git repository of the test's namespace."""
    return flux.repository(namespace)


def manifests(objects: Objects, specs: Mapping[str, Mapping[str, Any]], **metadata: Any) -> dict[str, list[Object]]:
    """Return what Git has: a file for each object."""
    return {f"{name}.yaml": [objects.manifest(name, spec, **metadata)] for name, spec in specs.items()}


def two_registries(url: str, **fields: Any) -> Object:
    """Return a configuration with the registries ``artifacts``, the default, and ``other``."""
    config = operator_config(url, **fields)
    config["registries"]["other"] = {"registryUrl": url}
    return config


def test_an_outage_and_its_end(
    flux: Flux, git: GitRepository, objects: Objects, start_operator: StartOperator, registry_proxy: FaultProxy
) -> None:
    """Flux waits while an outage may pass, gives up early once objects are Stalled, and recovers by itself."""
    timings = {"unavailableAfter": "2s", "probeInterval": "300ms"}
    operator = start_operator(operator_config(registry_proxy.url, timings=timings))
    git.push(manifests(objects, {"web": {}}))
    # Flux takes no shorter timeout than 30 s.
    deployed = flux.deploy(objects.namespace, timeout="30s", retryInterval="4s")
    deployed.wait("True")
    assert is_ready(objects.get("web"))

    registry_proxy.refuse()
    # Several, since the operator takes a registry for down after three failures.
    late = [f"late-{number}" for number in range(3)]
    revision = git.push(manifests(objects, {name: {} for name in ("web", *late)}))
    waited = deployed.wait("False", "timeout waiting for: [", revision=revision)
    told = condition(waited, "Ready")["message"]
    assert condition(waited, "Ready")["reason"] == "HealthCheckFailed"
    for name in ("web", *late):
        assert f"ArtifactRepository/{objects.namespace}/{name} status: 'InProgress'" in told

    operator.process.stop()
    start_operator(operator_config(registry_proxy.url, timings={**timings, "progressDeadline": "1s"}))
    failed = deployed.wait("False", "failed early due to stalled resources: [", revision=revision)
    assert "status: 'Failed'" in condition(failed, "Ready")["message"]

    registry_proxy.listen()
    deployed.wait("True", f"Applied revision: {revision}", revision=revision)
    assert all(is_ready(object_) for object_ in objects.list())


def test_suspend_by_kubectl(
    flux: Flux, git: GitRepository, cluster: DevCluster, objects: Objects, operator: OperatorProcess
) -> None:
    """Flux takes back what kubectl suspends, but not the command in docs/gitops.md, nor with the Merge annotation."""
    (block,) = GITOPS.blocks("sh", below="Suspend, resume and verify")
    suspend, resume = ([*shlex.split(line, comments=True)[1:], "-n", objects.namespace] for line in block.splitlines())
    git.push(manifests(objects, {"web": {}, "plain": {}}) | manifests(objects, {"merged": {}}, annotations=MERGE))
    deployed = flux.deploy(objects.namespace)
    deployed.wait("True")
    cluster.kubectl(*suspend)
    for name in ("plain", "merged"):
        cluster.kubectl("patch", f"artrepo/{name}", "-n", objects.namespace, *SUSPEND)
    deployed.reconcile()
    deployed.wait("True")
    suspended = {object_["metadata"]["name"] for object_ in objects.list() if object_["spec"] == {"suspend": True}}
    assert suspended == {"web", "merged"}
    assert objects.get("plain")["spec"] == {}

    cluster.kubectl(*resume)
    cluster.kubectl(*resume[:2], "merged", *resume[3:])
    deployed.reconcile()
    deployed.wait("True")
    assert [object_["spec"] for object_ in objects.wait_all(is_ready, tell=operator.log)] == [{}, {}, {}]


def test_verify_now_by_kubectl(
    flux: Flux,
    git: GitRepository,
    cluster: DevCluster,
    objects: Objects,
    operator: OperatorProcess,
    audit: Audit,
) -> None:
    """Flux removes the annotation that asks for a verification; the answer stays, and that costs no write."""
    git.push(manifests(objects, {"web": {}}))
    deployed = flux.deploy(objects.namespace)
    deployed.wait("True")
    cluster.kubectl("annotate", "artrepo/web", "-n", objects.namespace, f"{REQUESTED_AT_ANNOTATION}=now")
    objects.wait("web", lambda seen: seen["status"].get("lastHandledReconcileAt") == "now", tell=operator.log)
    mark = audit.mark()
    deployed.reconcile()
    seen = objects.get("web")
    assert REQUESTED_AT_ANNOTATION not in seen["metadata"].get("annotations", {})
    # A second object that becomes Ready shows that the operator has seen the change of the first one.
    objects.create("later")
    objects.wait_ready("later", tell=operator.log)
    assert objects.get("web")["status"]["lastHandledReconcileAt"] == "now"
    written = [entry for entry in audit.writes(mark, user=OPERATOR_USER) if objects.namespace in entry]
    assert written == [f"patch artifactrepositories/status {objects.namespace}/later"]


def test_spec_goes_back_to_nothing(
    flux: Flux, git: GitRepository, cluster: DevCluster, objects: Objects, start_operator: StartOperator
) -> None:
    """A spec whose last field is removed from Git is applied, and the Kustomization stays Ready."""
    start_operator(two_registries(cluster.registry_url))
    git.push(manifests(objects, {"web": {"registry": "other", "suspend": False}}))
    deployed = flux.deploy(objects.namespace)
    deployed.wait("True")
    revision = git.push(manifests(objects, {"web": {}}))
    deployed.wait("True", f"Applied revision: {revision}", revision=revision)
    assert objects.get("web")["spec"] == {}
    assert is_ready(objects.get("web"))


def test_a_wrong_name_can_be_corrected(
    flux: Flux, git: GitRepository, cluster: DevCluster, objects: Objects, start_operator: StartOperator
) -> None:
    """Git can correct a name until the repository exists; afterwards the change is refused.

    A revert heals that, and so does the annotation by which Flux replaces the object.
    """
    config = operator_config(cluster.registry_url)
    config["registries"]["artifacts"]["repositoryPolicy"] = "Namespaced"
    start_operator(config)
    right = {"repositoryName": f"{objects.namespace}/web"}
    revision = git.push(manifests(objects, {"web": {"repositoryName": "elsewhere/web"}}))
    deployed = flux.deploy(objects.namespace)
    deployed.wait("False", "failed early due to stalled resources", revision=revision)
    revision = git.push(manifests(objects, {"web": right}))
    deployed.wait("True", revision=revision)

    revision = git.push(manifests(objects, {"web": {"repositoryName": f"{objects.namespace}/other"}, "second": {}}))
    deployed.wait("False", "repositoryName cannot be changed", revision=revision)
    # One refused object stops its whole Kustomization.
    assert not objects.exists("second")
    revision = git.push(manifests(objects, {"web": right, "second": {}}))
    deployed.wait("True", revision=revision)
    before = objects.get("web")
    assert before["spec"] == right

    moved = {"repositoryName": f"{objects.namespace}/other"}
    revision = git.push(manifests(objects, {"web": moved}, annotations=FORCE) | manifests(objects, {"second": {}}))
    deployed.wait("True", revision=revision)
    after = objects.get("web")
    assert after["status"]["uri"].endswith("/other")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


def test_the_example_in_the_page(flux: Flux, api: Api, objects: Objects, start_operator: StartOperator) -> None:
    """The example in docs/gitops.md holds back what pushes until the repositories are Ready."""
    builds = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "build", "namespace": objects.namespace}}
    build = f"/api/v1/namespaces/{objects.namespace}/configmaps/build"
    git = flux.repository(FLUX_NAMESPACE, "flux-system")
    git.push({"repositories/web.yaml": [objects.manifest("web")], "image-builds/build.yaml": [builds]})
    repositories, image_builds = map(flux.apply, GITOPS.examples(below="Repositories first, then what pushes"))
    image_builds.wait("False", "dependency 'flux-system/repositories' is not ready")
    objects.wait("web", lambda seen: "uid" in seen["metadata"], tell=flux.controller.log)
    assert ready(objects.get("web")) == (None, None)
    assert api.request("GET", build)["code"] == 404
    operator = start_operator()
    repositories.wait("True")
    image_builds.wait("True")
    assert is_ready(objects.get("web")), operator.log()
    assert "uid" in api.request("GET", build)["metadata"]
    image_builds.delete()
    repositories.delete()
    assert objects.list() == []


def test_prune_while_the_operator_is_down(
    flux: Flux, git: GitRepository, objects: Objects, start_operator: StartOperator
) -> None:
    """What is removed from Git is gone at once, without the operator; so is everything with its Kustomization."""
    operator = start_operator()
    git.push(manifests(objects, {"web": {}, "old": {}}))
    deployed = flux.deploy(objects.namespace)
    deployed.wait("True")
    operator.process.kill()
    revision = git.push(manifests(objects, {"web": {}}))
    deployed.wait("True", revision=revision)
    assert [object_["metadata"]["name"] for object_ in objects.list()] == ["web"]
    deployed.delete()
    assert objects.list() == []


@pytest.mark.usefixtures("operator")
def test_reconciling_again_writes_nothing(flux: Flux, git: GitRepository, objects: Objects, audit: Audit) -> None:
    """Five reconciliations without a change in Git change no object, and neither Flux nor the operator writes."""
    specs: Mapping[str, Mapping[str, Any]] = {
        "plain": {},
        "named": {"repositoryName": f"{objects.namespace}/named"},
        "full": {"repositoryName": f"{objects.namespace}/full", "registry": "artifacts", "suspend": False},
    }
    git.push(manifests(objects, specs))
    deployed = flux.deploy(objects.namespace)
    deployed.wait("True")
    deployed.reconcile()
    before, mark = objects.list(), audit.mark()
    for _ in range(5):
        deployed.reconcile()
    assert objects.list() == before
    assert all(is_ready(object_) for object_ in before)
    assert audit.writes(mark, user=OPERATOR_USER) == []
    written = [
        f"{event['verb']} {event['requestURI']}"
        for event in audit.since(mark, user=FLUX_USER)
        if event["verb"] not in ("get", "list", "watch")
        and event["objectRef"]["resource"] == "artifactrepositories"
        and "dryRun=All" not in event["requestURI"]
    ]
    assert written == []
