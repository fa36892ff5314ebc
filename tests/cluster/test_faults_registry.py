"""The registry's faults: what status says meanwhile, what is written, and what is asked of a registry that is down.

what happens                          | what is expected
stopped, frozen, 5xx, for long        | the status table row by row, and back; one write a row
the same, the operator is restarted   | the same rows; the deadline counts on
a blip of seconds                     | nothing is written to Ready objects
429 with Retry-After, both forms      | not asked again before the time
a broken connection, a lost answer    | tried again; the repository is made once
nonsense for an answer                | said so; nothing is made of it
it answers, but takes no pushes       | the table for new objects; few tries
one registry hangs                    | objects of another one are served as ever
1,000 objects, a long outage          | three writes and two events an object; memory and CPU stay low
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from controller.registry import marker
from devcluster.cluster import DevCluster
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import (
    Api,
    Audit,
    History,
    Object,
    Objects,
    condition,
    is_ready,
    operator_config,
    ready,
    row,
)
from tests.cluster.proxy import Action, Cut, FaultProxy, Lose, Response
from tests.cluster.test_lifecycle import fetch
from tests.settings import FULL

pytestmark = pytest.mark.cluster

SHORT = {"unavailableAfter": "2s", "progressDeadline": "6s", "probeInterval": "300ms"}

READY = "True RepositoryReady"
WAITING = "False RegistryUnavailable Reconciling"
UNKNOWN = "Unknown RegistryUnavailable Reconciling"
STALLED = "False RegistryUnavailable Stalled"
UNKNOWN_STALLED = "Unknown RegistryUnavailable Stalled"

Outage = Callable[[], AbstractContextManager[object]]


@pytest.fixture
def outages(mended: DevCluster, registry_proxy: FaultProxy) -> Mapping[str, Outage]:
    """Return what takes the registry away for the length of a ``with`` block."""

    @contextmanager
    def stopped() -> Iterator[None]:
        mended.registry.stop()
        yield
        mended.registry.restart()

    @contextmanager
    def frozen() -> Iterator[None]:
        mended.registry.suspend()
        yield
        mended.registry.resume()

    @contextmanager
    def failing() -> Iterator[None]:
        with ExitStack() as rules:
            for method in ("GET", "HEAD", "POST"):
                rules.enter_context(registry_proxy.rule(method, "", Response(503)))
            yield

    return {"stopped": stopped, "frozen": frozen, "503": failing}


@pytest.mark.parametrize(
    ("outage", "restarted"),
    [("stopped", True), ("frozen", False), ("503", False)],
    ids=["stopped-restarted", "frozen", "503"],
)
def test_status_through_a_long_outage(
    outage: str,
    restarted: bool,
    outages: Mapping[str, Outage],
    registry_proxy: FaultProxy,
    objects: Objects,
    start_operator: StartOperator,
    audit: Audit,
) -> None:
    """The table of docs/status.md: each row is entered once, by one write, and an operator's restart changes nothing.

    An object that was never ready and one that was: the registry fails, the time that counts as an outage passes, then
    the deadline, then the registry is back. The deadline is counted from Reconciling's lastTransitionTime.
    """
    config = operator_config(registry_proxy.url, timings=SHORT)
    operator = start_operator(config)
    objects.create("old")
    uri = objects.wait_ready("old", tell=operator.log)["status"]["uri"]
    mark = audit.mark()
    with History(objects) as history:
        with outages[outage]():
            # Three of them, since a gate closes after three failures, and one that hangs takes 15 seconds to fail.
            objects.create_many(["new", "new-1", "new-2"])
            waiting = objects.wait("new", lambda o: row(o) == WAITING, within=25, tell=operator.log)
            unknown = objects.wait("old", lambda o: row(o) == UNKNOWN, tell=operator.log)
            if restarted:
                operator.process.stop()
                operator = start_operator(config)
            for name in ("new", "old"):
                stalled = objects.wait(name, lambda o: condition(o, "Stalled"), within=30, tell=operator.log)
                assert condition(stalled, "Stalled")["reason"] == "ProgressDeadlineExceeded"
        for name in ("new", "old"):
            objects.wait_ready(name, tell=operator.log)
        assert history.rows("old") == [READY, UNKNOWN, UNKNOWN_STALLED, READY]
        assert [one for one in history.rows("new") if one != "None None"] == [WAITING, STALLED, READY]
        versions = [object_ for _, object_ in history.seen if object_["metadata"]["name"] == "old"]
    assert {version["status"]["uri"] for version in versions} == {uri}
    assert "image:" not in condition(unknown, "Ready")["message"]
    assert registry_proxy.url in condition(waiting, "Ready")["message"]
    for name in ("new", "old"):
        patch = f"patch artifactrepositories/status {objects.namespace}/{name}"
        assert audit.writes(mark).count(patch) == 3
    _check_deadline(versions, timedelta(seconds=6))


def _check_deadline(versions: list[Object], deadline: timedelta) -> None:
    """Check that Stalled came as long after Reconciling as it should, whoever wrote them; times are whole seconds."""
    since = next(c for v in versions if (c := condition(v, "Reconciling")))["lastTransitionTime"]
    until = next(c for v in versions if (c := condition(v, "Stalled")))["lastTransitionTime"]
    took = datetime.fromisoformat(until) - datetime.fromisoformat(since)
    # A frozen registry keeps the first tries after a restart for 15 seconds.
    assert deadline - timedelta(seconds=1) <= took <= deadline + timedelta(seconds=20)


def test_a_blip_costs_no_write(
    mended: DevCluster, objects: Objects, start_operator: StartOperator, audit: Audit
) -> None:
    """Ready objects that are verified just while the registry is away for seconds: not one write, and it goes on."""
    timings = {"resyncInterval": "1s", "unavailableAfter": "20s", "probeInterval": "300ms"}
    operator = start_operator(timings=timings)
    objects.create_many(f"repo-{number}" for number in range(20))
    objects.wait_all(is_ready, tell=operator.log)
    mark = audit.mark()
    mended.registry.stop()
    eventually(lambda: operator.metrics()['artifact_repository_registry_up{registry="artifacts"}'] == 0)
    time.sleep(2)
    mended.registry.restart()
    objects.create("new")
    objects.wait_ready("new", tell=operator.log)
    eventually(lambda: operator.metrics()['artifact_repository_registry_up{registry="artifacts"}'] == 1)
    assert [write for write in audit.writes(mark, but=("leases", "events")) if not write.endswith("/new")] == []


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed(
    form: str, registry_proxy: FaultProxy, objects: Objects, start_operator: StartOperator
) -> None:
    """A registry that asks for patience with its 429 is not asked again before: not by this object, not by another."""
    operator = start_operator(operator_config(registry_proxy.url, timings=SHORT))
    objects.create("first")
    objects.wait_ready("first", tell=operator.log)
    wait = "4" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=5), usegmt=True)
    begun = time.monotonic()
    with registry_proxy.rule("GET", "tags/list", Response(429, headers={"Retry-After": wait}), times=1) as rule:
        objects.create("second")
        eventually(lambda: rule.seen, tell=operator.log)
        asked = len(registry_proxy.requests)
        objects.create("third")
        time.sleep(max(0.0, begun + 3.5 - time.monotonic()))
        assert len(registry_proxy.requests) == asked
    for name in ("second", "third"):
        objects.wait_ready(name, within=10, tell=operator.log)


def test_a_broken_request_is_made_again(
    registry_proxy: FaultProxy, objects: Objects, start_operator: StartOperator
) -> None:
    """Whichever request of a create is cut, answered by 500 or carried out without an answer: Ready, and Created.

    Three bindings of one registry, so that each has a first create, which uploads, and others, which mount.
    """
    actions: Mapping[str, Action] = {"cut": Cut(), "lost": Lose(), "answered": Response(500)}
    requests = {"blob": "PUT uploads/", "look": "GET tags/list", "post": "POST uploads/", "push": "PUT manifests/"}
    registries = {name: {"registryUrl": registry_proxy.url} for name in actions}
    operator = start_operator({"defaultRegistry": "cut", "registries": registries, "timings": SHORT})
    for binding, action in actions.items():
        for what, request in requests.items():
            name = f"{binding}-{what}"
            method, _, target = request.partition(" ")
            with registry_proxy.rule(method, f"{name}/.*{target}", action, times=1) as rule:
                objects.create(name, {"registry": binding})
                status = objects.wait_ready(name, tell=operator.log)["status"]
            assert rule.seen == 1, name
            assert status["origin"] == "Created"
            path = status["uri"].partition("/")[2]
            assert fetch(registry_proxy.url, path, "manifests/latest").content == marker.MANIFEST
            assert fetch(registry_proxy.url, path, "tags/list").json()["tags"] == ["latest"]


@pytest.mark.parametrize(
    "answer",
    [
        Response(200, b"<html>Welcome to the hotel's WLAN</html>", {"Content-Type": "text/html"}),
        Response(200, b'{"name": "x", "tags": ["late'),
        Response(302, headers={"Location": "http://192.0.2.1/"}),
    ],
    ids=["html", "half", "elsewhere"],
)
def test_nonsense_is_not_believed(
    answer: Response, registry_proxy: FaultProxy, objects: Objects, start_operator: StartOperator
) -> None:
    """What is no answer of a registry is neither "nothing there" nor "it exists"; once it is mended, asking helps."""
    operator = start_operator(operator_config(registry_proxy.url, timings=SHORT))
    with registry_proxy.rule("GET", "tags/list", answer) as rule:
        objects.create("web")
        expected = ("False", "UnexpectedAnswer")
        objects.wait("web", lambda o: ready(o) == expected and condition(o, "Reconciling"), tell=operator.log)
    assert rule.seen
    assert registry_proxy.count("PUT", "") == registry_proxy.count("POST", "") == 0
    objects.patch("web", {"metadata": {"annotations": {"artifacts.alien.dev/requestedAt": "mended"}}})
    objects.wait_ready("web", tell=operator.log)


def test_a_registry_that_hangs_does_not_slow_another_one(
    cluster: DevCluster, registry_proxy: FaultProxy, objects: Objects, start_operator: StartOperator
) -> None:
    """Sixty objects wait for a registry that takes connections and says nothing: another one's are Ready meanwhile.

    The sixty are more than may be worked on at the same time, and each request takes 15 seconds to time out: longer
    than the others are waited for.
    """
    registries = {"good": {"registryUrl": cluster.registry_url}, "hangs": {"registryUrl": registry_proxy.url}}
    operator = start_operator({"defaultRegistry": "good", "registries": registries, "timings": SHORT})
    objects.create("warm")
    objects.wait_ready("warm", tell=operator.log)
    registry_proxy.freeze()
    objects.create_many((f"hangs-{number}" for number in range(60)), {"registry": "hangs"})
    for number in range(20):
        objects.create(f"good-{number}")
        objects.wait_ready(f"good-{number}", within=10, tell=operator.log)
    registry_proxy.thaw()
    objects.wait_all(is_ready, within=30, tell=operator.log)


def test_a_registry_that_takes_no_pushes(
    registry_proxy: FaultProxy, objects: Objects, start_operator: StartOperator
) -> None:
    """A full disk: reads are answered, pushes are not. New objects go through the table's rows, by few tries.

    Objects that are Ready are verified meanwhile, and not written; once there is place, all are served without help.
    """
    timings = {**SHORT, "progressDeadline": "4s", "resyncInterval": "1s"}
    operator = start_operator(operator_config(registry_proxy.url, timings=timings))
    objects.create_many(f"old-{number}" for number in range(10))
    objects.wait_all(is_ready, tell=operator.log)
    old = {object_["metadata"]["name"]: object_["metadata"]["resourceVersion"] for object_ in objects.list()}
    begun = time.monotonic()
    with registry_proxy.rule("POST", "", Response(507)) as pushes, History(objects) as history:
        objects.create_many(f"new-{number}" for number in range(10))
        for number in range(10):
            objects.wait(f"new-{number}", lambda o: condition(o, "Stalled"), tell=operator.log)
        time.sleep(4)
        assert pushes.seen < 20 + 5 * (time.monotonic() - begun)
        now = {object_["metadata"]["name"]: object_["metadata"]["resourceVersion"] for object_ in objects.list()}
        assert old.items() <= now.items()
    for number in range(10):
        assert [one for one in history.rows(f"new-{number}") if one != "None None"] == [WAITING, STALLED]
    objects.wait_all(is_ready, tell=operator.log)


def test_a_long_outage_with_many_objects(
    registry_proxy: FaultProxy, objects: Objects, start_operator: StartOperator, audit: Audit, api: Api
) -> None:
    """Three writes and two events an object; memory does not grow, and the processor rests.

    The outage lasts through both deadlines, which are shortened; then come eight seconds in which nothing is left to
    do. A thousand objects in the full form, else 300.
    """
    names = [f"repo-{number}" for number in range(1000 if FULL else 300)]
    pod = {"POD_NAME": "operator-0", "POD_NAMESPACE": objects.namespace, "POD_UID": "0-0-0"}
    timings = {**SHORT, "progressDeadline": "12s", "resyncInterval": "5s", "probeInterval": "1s"}
    operator = start_operator(operator_config(registry_proxy.url, timings=timings), environment=pod)
    objects.create_many(names)
    objects.wait_all(is_ready, within=60, tell=operator.log)
    mark, memory = audit.mark(), operator.resident_bytes()
    registry_proxy.refuse()
    objects.wait_all(lambda o: row(o) == UNKNOWN, within=40, tell=operator.log)
    objects.wait_all(lambda o: row(o) == UNKNOWN_STALLED, within=60, tell=operator.log)

    def events() -> list[Object]:
        found: list[Object] = api.must("GET", f"/api/v1/namespaces/{objects.namespace}/events")["items"]
        return found

    eventually(lambda: len(events()) == 1 + len(names), within=60, tell=operator.log)
    asked, cpu, begun = audit.mark(), operator.cpu_seconds(), time.monotonic()
    time.sleep(8)
    idle = (operator.cpu_seconds() - cpu) / (time.monotonic() - begun)
    assert audit.writes(asked) == []
    registry_proxy.listen()
    objects.wait_all(is_ready, within=40, tell=operator.log)
    assert operator.resident_bytes() < memory + (20 << 20)
    assert idle < 0.1

    expected = {
        ("Warning", "RegistryUnavailable", "operator-0", 1),
        ("Normal", "RegistryAvailable", "operator-0", 1),
        *(("Warning", "RegistryUnavailable", name, 1) for name in names),
        *(("Normal", "RepositoryReady", name, 1) for name in names),
    }
    eventually(lambda: len(events()) == len(expected), within=60, tell=operator.log)
    assert {(e["type"], e["reason"], e["involvedObject"]["name"], e["count"]) for e in events()} == expected
    writes = audit.writes(mark)
    assert all(write.startswith("create events ") for write in writes if "/status" not in write)
    assert sum("events" in write for write in writes) == len(expected)
    costs = Counter(write.rpartition("/")[2] for write in writes if "/status" in write)
    assert costs == dict.fromkeys(names, 3)
