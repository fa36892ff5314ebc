"""One hiccup of the API server does not spread: nonsense, throttling, one namespace, one missing permission."""

import json
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from controller.api.selector import check_label_selector
from controller.errors import ConfigError
from devcluster.cluster import DevCluster
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import (
    OPERATOR_NAMESPACE,
    Api,
    Audit,
    Object,
    Objects,
    OperatorProcess,
    operator_config,
    write_kubeconfig,
)
from tests.cluster.proxy import FaultProxy, Response

pytestmark = pytest.mark.cluster

STATUS = "artifactrepositories/[^/]+/status"
LIST = r"artifactrepositories\?limit=50"  # at first; kopf begins with 500
WATCH = r"artifactrepositories\?.*watch=true"
CONFIG_MAP = "configmaps/local-registry-hosting"
ADVERTISED = "/api/v1/namespaces/kube-public/configmaps"


def failure(status: int, message: str, **headers: str) -> Response:
    """Return a response of the API server that rejects a request."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": message}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, json.dumps(body).encode(), {"Content-Type": "application/json", **named})


@pytest.fixture
def advertisement(api: Api, cluster: DevCluster) -> Iterator[str]:
    """Advertise a local registry (KEP-1755); return its host."""
    host = "localhost:5991"
    metadata = {"name": "local-registry-hosting"}
    called = cluster.registry_url.removeprefix("http://")
    text = f"host: {host}\nhostFromClusterNetwork: {called}\n"
    body = {"metadata": metadata, "data": {"localRegistryHosting.v1": text}}
    api.must("POST", ADVERTISED, body)
    yield host
    api.must("DELETE", f"{ADVERTISED}/local-registry-hosting")


@pytest.mark.parametrize("asked", ["10", "date"])
def test_throttled_writes_wait(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy, asked: str
) -> None:
    """While the API server asks to wait, hardly any write is attempted; afterwards all objects become Ready."""
    operator = start_operator(server=api_proxy.url)
    seconds = 10.0
    if asked == "date":
        asked = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + seconds))
    with api_proxy.rule("PATCH", STATUS, failure(429, "too many requests", Retry_After=asked)) as throttled:
        objects.create_many([f"repo-{number}" for number in range(200)])
        eventually(lambda: throttled.seen, tell=operator.log)
        time.sleep(seconds - 3)
        assert throttled.seen <= 64
    objects.wait_all(lambda one: one["status"]["observedGeneration"] == 1, within=60, tell=operator.log)
    assert operator.log().count("Failed to write the status") <= 1


def test_the_operator_identifies_itself(
    objects: Objects, audit: Audit, start_operator: StartOperator, cluster: DevCluster
) -> None:
    """User-Agent of all requests, those of the watch and the Lease included; field manager of status; log."""
    mark = audit.mark()
    lease = f"lease-{uuid.uuid4().hex[:8]}"
    permission = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}
    role = {"metadata": {"name": lease}, "rules": [permission]}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{objects.namespace}"
    objects.api.must("POST", f"{rbac}/roles", role)
    subject = {"kind": "ServiceAccount", "name": "artifact-repository-controller", "namespace": OPERATOR_NAMESPACE}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": lease}
    binding = {"metadata": {"name": lease}, "roleRef": reference, "subjects": [subject]}
    objects.api.must("POST", f"{rbac}/rolebindings", binding)
    operator = start_operator(None, "--leader-elect", "--lease-namespace", objects.namespace, "--lease-name", lease)
    objects.create("web")
    made = objects.wait_ready("web", tell=operator.log)
    managed = [field for field in made["metadata"]["managedFields"] if field.get("subresource") == "status"]
    assert {field["manager"] for field in managed} == {"artifact-repository-controller"}
    operator.terminate()  # a watch is noted when it ends
    requests = eventually(lambda: [one for one in audit.since(mark) if one["verb"] == "watch"] and audit.since(mark))
    resources = {each["objectRef"]["resource"] for each in requests if "objectRef" in each}
    assert resources >= {"leases", "artifactrepositories"}
    assert {each["verb"] for each in requests} >= {"watch", "list", "patch"}
    agents = {each["userAgent"] for each in requests}
    assert len(agents) == 1
    agent = agents.pop()
    assert agent.startswith("artifact-repository-controller/")
    assert f"Starting {agent}; the API server is {cluster.url}" in operator.process.log.read_text()


def test_an_advertisement_that_cannot_be_read_at_a_restart(
    objects: Objects, audit: Audit, start_operator: StartOperator, api_proxy: FaultProxy, advertisement: str
) -> None:
    """Objects that are Ready are not written; a new one does not wait, and gets the advertised address later."""
    before = start_operator(server=api_proxy.url)
    objects.create_many([f"repo-{number}" for number in range(20)])
    ready = objects.wait_all(lambda one: one["status"].get("uri", "").startswith(advertisement), tell=before.log)
    before.terminate()
    mark = audit.mark()
    with api_proxy.rule("GET", CONFIG_MAP, failure(503, "not now")):
        after = start_operator(server=api_proxy.url)
        objects.create("new")
        made = objects.wait_ready("new", tell=after.log)
        assert not made["status"]["uri"].startswith(advertisement)
        time.sleep(5)
        assert set(audit.writes(mark)) == {f"patch artifactrepositories/status {objects.namespace}/new"}
    objects.wait("new", lambda one: one["status"]["uri"].startswith(advertisement), within=60, tell=after.log)
    versions = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in objects.list()}
    assert all(versions[one["metadata"]["name"]] == one["metadata"]["resourceVersion"] for one in ready)


def test_one_failed_read_of_the_advertisement_at_a_restart(
    objects: Objects, audit: Audit, start_operator: StartOperator, api_proxy: FaultProxy, advertisement: str
) -> None:
    """One 503 at a restart with 20 objects costs no write at all."""
    before = start_operator(server=api_proxy.url)
    objects.create_many([f"repo-{number}" for number in range(20)])
    objects.wait_all(lambda one: one["status"].get("uri", "").startswith(advertisement), tell=before.log)
    before.terminate()
    mark = audit.mark()
    with api_proxy.rule("GET", CONFIG_MAP, failure(503, "not now"), times=1) as failed:
        start_operator(server=api_proxy.url)
        time.sleep(5)
    assert failed.seen == 1
    assert audit.writes(mark) == []


def test_one_forbidden_namespace(
    api: Api, cluster: DevCluster, objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy
) -> None:
    """Forbidden from the start: it is reported, the other one is served and gets changes; served once it is allowed."""
    other = Objects(api, f"other-{uuid.uuid4().hex[:8]}")
    api.must("POST", "/api/v1/namespaces", {"metadata": {"name": other.namespace}})
    config = operator_config(cluster.registry_url)
    with api_proxy.rule("GET", f"namespaces/{other.namespace}/", failure(403, "is forbidden")) as forbidden:
        operator = start_operator(config, "--namespace", other.namespace, server=api_proxy.url)
        objects.create("web")
        objects.wait_ready("web", tell=operator.log)
        assert operator.health("readyz") == (200, "ok")
        up = 'artifact_repository_watch_up{watched_namespace="%s"}'
        eventually(lambda: operator.metrics()[up % objects.namespace] == 1.0, tell=operator.log)
        assert operator.metrics()[up % other.namespace] == 0.0
        assert f"namespace {other.namespace}: the API server returned 403" in operator.process.log.read_text()
        for host in ("one:5000", "two:5000"):
            config["registries"]["artifacts"]["references"] = {"host": host}
            operator.configure(config)
            objects.wait("web", partial(is_at, host), tell=operator.log)
        other.create("web")
        assert forbidden.seen < 60
    other.wait("web", lambda one: one["status"].get("uri", "").startswith("two:5000"), within=60, tell=operator.log)
    eventually(lambda: operator.metrics()[up % other.namespace] == 1.0, within=60, tell=operator.log)


NONSENSE = {
    "empty object": b"{}",
    "null items": b'{"kind": "ArtifactRepositoryList", "metadata": {"resourceVersion": "1"}, "items": null}',
    "status": b'{"kind": "Status", "status": "Success", "metadata": {}}',
    "array": b"[]",
    "html": b"<html>hello</html>",
    "truncated": b'{"kind": "ArtifactRepo',
    "null metadata": b'{"kind": "ConfigMap", "metadata": null, "data": null, "items": [{"metadata": null}]}',
    "strings": b'{"kind": "Event", "metadata": "x", "data": "x", "items": "x", "type": "ADDED", "object": "x"}',
    "deep": b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "event of nothing": b'{"type": "ADDED", "object": {"metadata": {"uid": "x"}}}\n',
}


@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_from_the_api_server(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy, body: bytes
) -> None:
    """Whatever a proxy says once instead of the API server: the process goes on, and serves objects afterwards."""
    nonsense = Response(200, body)
    environment = {"POD_NAME": "operator-0", "POD_NAMESPACE": objects.namespace, "POD_UID": "u"}
    with (
        api_proxy.rule("GET", CONFIG_MAP, nonsense, times=1) as advertisement,
        api_proxy.rule("GET", LIST, nonsense, times=2) as lists,
    ):
        operator = start_operator(server=api_proxy.url, environment=environment)
    pid = operator.process.pid
    with (
        api_proxy.rule("PATCH", STATUS, nonsense, times=1) as write,
        api_proxy.rule("GET", WATCH, nonsense, times=2) as watches,
        api_proxy.rule("POST", "/events", nonsense, times=1) as event,
    ):
        api_proxy.cut()
        objects.create("meanwhile")
        operator.config.write_text("[")
        eventually(lambda: write.seen and watches.seen == 2 and event.seen, within=60, tell=operator.log)
    objects.wait_ready("meanwhile", within=60, tell=operator.log)
    operator.config.write_text("]")
    eventually(lambda: "InvalidConfiguration" in json.dumps(events_in(objects)), within=60, tell=operator.log)
    eventually(lambda: operator.health("readyz") == (200, "ok"), within=60, tell=operator.log)
    assert (operator.process.pid, advertisement.seen) == (pid, 1)
    assert lists.seen


def is_at(host: str, object_: Object) -> bool:
    """Tell whether an object's repository is at an address."""
    return str(object_["status"].get("uri", "")).startswith(host)


def events_in(objects: Objects) -> list[object]:
    """Return the events in a namespace."""
    items: list[object] = objects.api.must("GET", f"/api/v1/namespaces/{objects.namespace}/events")["items"]
    return items


def test_discovery_that_was_incomplete_once(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy
) -> None:
    """Kopf discovers resources once: where its first answer is empty, the watch is started again."""
    with api_proxy.rule("GET", "^/apis/artifacts.alien.dev/v1alpha1$", Response(200, b'{"resources": []}')) as first:
        operator = start_operator(server=api_proxy.url, wait=False)
        eventually(lambda: first.seen, within=30, tell=operator.log)
    objects.create("web")
    objects.wait_ready("web", within=100, tell=operator.log)
    eventually(lambda: operator.health("readyz") == (200, "ok"), within=100, tell=operator.log)


def test_no_right_to_write_status(api: Api, cluster: DevCluster, objects: Objects, tmp_path: Path) -> None:
    """The operator is not ready, and says which permission is missing; once it is granted, it goes on."""
    namespace, account = objects.namespace, "reader"
    api.must("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": account}})
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    verbs = ["get", "list", "watch"]
    reading = {"apiGroups": ["artifacts.alien.dev"], "resources": ["artifactrepositories"], "verbs": verbs}
    writing = {**reading, "resources": ["artifactrepositories/status"], "verbs": ["patch"]}
    role = {"metadata": {"name": account}, "rules": [reading]}
    api.must("POST", f"{rbac}/roles", role)
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
    binding = {"metadata": {"name": account}, "roleRef": reference, "subjects": [subject]}
    api.must("POST", f"{rbac}/rolebindings", binding)
    kubeconfig = write_kubeconfig(tmp_path / "reader", cluster.service_account_kubeconfig(namespace, account))
    config = operator_config(cluster.registry_url)
    arguments = ("--namespace", namespace)
    with OperatorProcess(tmp_path / "operator", config=config, kubeconfig=kubeconfig, arguments=arguments) as operator:
        for number in range(5):
            objects.create(f"repo-{number}")
        eventually(lambda: operator.health("readyz")[0] == 503, tell=operator.log)
        assert "cannot patch resource" in operator.health("readyz")[1]
        metrics = operator.metrics()
        assert metrics['artifact_repository_status_write_failures_total{code="403"}'] >= 1
        assert metrics['artifact_repository_objects{condition="Ready",status="Unknown"}'] == 5
        time.sleep(5)
        assert operator.process.log.read_text().count("cannot patch resource") == 1
        api.must("PUT", f"{rbac}/roles/{account}", {**role, "rules": [reading, writing]})
        objects.wait_all(lambda one: one["status"]["observedGeneration"] == 1, within=60, tell=operator.log)
        eventually(lambda: operator.health("readyz") == (200, "ok"), tell=operator.log)
        assert operator.metrics()['artifact_repository_objects{condition="Ready",status="True"}'] == 5


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--namespace", "team-*", "is not the name of a namespace"),
        ("--namespace", "", "is not the name of a namespace"),
        ("--watch-label-selector", "shard in (a", "is invalid"),
    ],
)
def test_a_scope_that_cannot_be_watched(start_operator: StartOperator, option: str, value: str, said: str) -> None:
    """A pattern, an empty name and a selector that is none are refused at start with a sentence."""
    operator = start_operator(None, option, value, wait=False)
    eventually(lambda: not operator.process.running, tell=operator.log)
    assert said in operator.log()


SELECTORS = [
    "a=b", "a==b", "a!=b", "a", "!a", "! a", "a in (b)", "a in (b, c)", "a notin(b)", "a in (b,,c)", "a=", "a=b,c",
    "x.io/a=b", "a in ()", "a in (", "a in b", "=b", "a=b,", ",a=b", "a b", "!a=b", "-a=b", "a=-b", "a=b c", "X.io/a=b",
    "x/y/z", "/a", f"{'a' * 63}=b", f"{'a' * 64}=b", f"a={'b' * 63}", f"a={'b' * 64}", "a>1", "a<x", "a=b;c",
    "a in (b),!c", "a=b in (c)", "in", "a in in (b)", "a = b , c != d", "a\t=\tb", "\u00e4=b", "a=\u00e4", "a>-1",
]  # fmt: skip


@pytest.mark.parametrize("selector", SELECTORS)
def test_label_selectors_are_judged_as_by_the_api_server(api: Api, objects: Objects, selector: str) -> None:
    """What the API server rejects is refused, and nothing else."""
    path = f"/api/v1/namespaces/{objects.namespace}/pods?labelSelector={quote(selector)}"
    accepted = api.request("GET", path).get("kind") == "PodList"
    try:
        check_label_selector(selector)
    except ConfigError:
        assert not accepted
    else:
        assert accepted
