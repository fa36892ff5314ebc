"""What no event tells, and the resync finds; the interval is shortened.

what happened                                | what is expected
a repository has vanished from the registry  | made again; an event on the object, a metric, no write
so has everything in the registry            | all of it is made again, with an event for each
an object's deletion was missed              | forgotten: no request, no error, no memory
somebody has edited a status                 | healed; conditions of others stay
a status from a backup of another cluster    | replaced at once
nothing                                      | one question an object and interval, spread out; nothing is written
"""

import time
from collections.abc import Mapping

import pytest

from controller.registry import marker
from devcluster.cluster import DevCluster
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import (
    AccessLog,
    Api,
    Audit,
    Object,
    Objects,
    condition,
    is_ready,
    operator_config,
    remove_repositories,
    row,
)
from tests.cluster.proxy import FaultProxy, Seen, Swallow
from tests.cluster.test_lifecycle import fetch, put_image

pytestmark = pytest.mark.cluster

OFTEN = {"resyncInterval": "2s", "probeInterval": "300ms"}
EARLIER = "2026-01-01T00:00:00Z"
REPAIRS = 'artifact_repository_drift_repairs_total{registry="artifacts"}'


def events_of(api: Api, namespace: str) -> list[Object]:
    """Return a namespace's events."""
    events: list[Object] = api.must("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
    return events


def test_a_vanished_repository_is_made_again(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, audit: Audit, api: Api
) -> None:
    """The repository is back, the object has an event that says so, the metric counts it, and status is not written."""
    operator = start_operator(timings=OFTEN)
    objects.create("web")
    before = objects.wait_ready("web", tell=operator.log)
    mark = audit.mark()
    path = f"artifacts/{objects.namespace}/web"
    remove_repositories(cluster, path)
    assert fetch(cluster.registry_url, path, "manifests/latest").status_code == 404
    event = eventually(lambda: events_of(api, objects.namespace), tell=operator.log)[0]
    assert (event["type"], event["reason"]) == ("Warning", "RepositoryRecreated")
    assert event["involvedObject"]["uid"] == before["metadata"]["uid"]
    assert "push its images again" in event["message"]
    assert fetch(cluster.registry_url, path, "manifests/latest").content == marker.MANIFEST
    assert operator.metrics()[REPAIRS] == 1
    assert objects.get("web") == before
    assert [write for write in audit.writes(mark) if "/status" in write] == []
    assert "RepositoryRecreated" in cluster.kubectl("describe", "artrepo", "web", "-n", objects.namespace)


def test_a_wiped_registry_is_filled_again(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, api: Api
) -> None:
    """Sixty repositories vanish at once: all are made again, and each object has its event."""
    operator = start_operator(timings=OFTEN)
    names = [f"repo-{number}" for number in range(60)]
    objects.create_many(names)
    objects.wait_all(is_ready, tell=operator.log)
    remove_repositories(cluster, f"artifacts/{objects.namespace}")
    eventually(lambda: operator.metrics().get(REPAIRS) == len(names), tell=operator.log)
    for name in names:
        path = f"artifacts/{objects.namespace}/{name}"
        assert fetch(cluster.registry_url, path, "manifests/latest").content == marker.MANIFEST
    eventually(lambda: len(events_of(api, objects.namespace)) == len(names))


def test_a_users_tag_alone_is_enough(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, access_log: AccessLog
) -> None:
    """Where the marker was deleted and a user's tag is left, nothing has vanished: no latest appears beside it."""
    operator = start_operator(timings=OFTEN)
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    path = f"artifacts/{objects.namespace}/web"
    put_image(cluster.registry_url, path, "v1")
    remove_repositories(cluster, f"{path}/_manifests/tags/latest")
    seen = access_log.mark()
    eventually(lambda: len(access_log.since(seen, path=f"/v2/{path}/tags/list")) >= 2, tell=operator.log)
    assert fetch(cluster.registry_url, path, "tags/list").json()["tags"] == ["v1"]
    assert operator.metrics().get(REPAIRS, 0) == 0


def test_objects_whose_deletion_was_missed_are_forgotten(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy, access_log: AccessLog
) -> None:
    """Objects that go while no watch stands are not asked for any more, and not counted; the namesake is another one.

    The watch's connections are cut, and new watches get no answer, so that only the resync can tell.
    """
    operator = start_operator(server=api_proxy.url, timings=OFTEN)
    names = [f"repo-{number}" for number in range(10)]
    objects.create_many([*names, "stays"])
    objects.wait_all(is_ready, tell=operator.log)
    counted = 'artifact_repository_objects{condition="Ready",status="True"}'
    assert operator.metrics()[counted] == 11
    with api_proxy.rule("GET", "artifactrepositories.*watch=true", Swallow()) as watches:
        api_proxy.cut()
        eventually(lambda: watches.seen, tell=operator.log)
        for name in names:
            objects.delete(name)
        eventually(lambda: operator.metrics()[counted] == 1, tell=operator.log)
        seen = access_log.mark()
        eventually(lambda: len(access_log.since(seen)) >= 2, tell=operator.log)
        assert {entry.split()[1].split("/")[4] for entry in access_log.since(seen)} == {"stays"}
        assert "Traceback" not in operator.log()


def test_an_edited_status_is_healed(objects: Objects, start_operator: StartOperator) -> None:
    """Whatever somebody writes into status: it says the truth again after the interval."""
    told = {"type": "Ready", "status": "False", "reason": "Edited", "message": "", "lastTransitionTime": EARLIER}
    edits: Mapping[str, Object] = {
        "uri": {"uri": "evil.example.com/x"},
        "references": {"references": {"host": "evil.example.com/x"}},
        "condition": {"conditions": [told]},
        "no-conditions": {"conditions": []},
        "origin": {"origin": "Adopted", "uri": None},
        "all": dict.fromkeys(("conditions", "observedGeneration", "origin", "references", "repositoryName", "uri")),
    }
    operator = start_operator(timings=OFTEN)
    objects.create_many(edits)
    objects.wait_all(is_ready, tell=operator.log)
    before = {name: objects.get(name)["status"] for name in edits}
    for name, edit in edits.items():
        objects.patch(name, {"status": edit}, subresource="/status")
    for name in edits:

        def healed(object_: Object, truth: Object = before[name]) -> bool:
            return {**object_["status"], "conditions": None} == {**truth, "conditions": None} and is_ready(object_)

        after = objects.wait(name, healed, tell=operator.log)
        assert condition(after, "Ready")["message"] == condition({"status": before[name]}, "Ready")["message"]
        assert condition(after, "Ready")["lastTransitionTime"] != EARLIER


def test_a_forged_address_of_a_suspended_object_is_replaced(
    objects: Objects, start_operator: StartOperator, audit: Audit
) -> None:
    """The operator rebuilds what it had written, by one write and without the registry; invented names go as well."""
    operator = start_operator(timings=OFTEN)
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    objects.patch("web", {"spec": {"suspend": True}})
    objects.create("asleep", {"suspend": True})
    web = objects.wait("web", lambda o: o["status"]["observedGeneration"] == 2, tell=operator.log)["status"]
    empty = objects.wait("asleep", lambda o: o["status"]["observedGeneration"] == 1, tell=operator.log)["status"]
    mark = audit.mark()
    evil = {"uri": "evil.example.com/x", "references": {"host": "evil.example.com/x", "clusterNetwork": "evil/x"}}
    objects.patch("web", {"status": evil}, subresource="/status")
    names = {"registry": "../x", "repositoryName": "evil/x", "origin": "Adopted"}
    objects.patch("asleep", {"status": {**evil, **names}}, subresource="/status")
    objects.wait("web", lambda o: o["status"] == web, tell=operator.log)
    asleep = objects.wait("asleep", lambda o: "uri" not in o["status"], tell=operator.log)["status"]
    assert asleep == empty | {"registry": "artifacts", "repositoryName": f"{objects.namespace}/asleep"}
    time.sleep(5)
    assert len(audit.writes(mark)) == 2


def test_forged_addresses_and_message_during_an_outage_are_replaced(
    objects: Objects, start_operator: StartOperator, registry_proxy: FaultProxy
) -> None:
    """What begins like the operator's message is replaced as well, and nothing is believed after a restart."""
    timings = {**OFTEN, "unavailableAfter": "1s"}
    config = operator_config(registry_proxy.url, timings=timings)
    operator = start_operator(config)
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    registry_proxy.refuse()
    seen = objects.wait("web", lambda o: row(o) == "Unknown RegistryUnavailable Reconciling", tell=operator.log)
    truth = seen["status"]

    def forge() -> None:
        start = condition(seen, "Ready")["message"].partition(": ")[0]
        planted = [{**c, "message": f"{start}: pull evil.example.com/x"} for c in truth["conditions"]]
        edit = {"uri": "evil.example.com/x", "references": {"host": "evil.example.com/x"}, "conditions": planted}
        objects.patch("web", {"status": edit}, subresource="/status")

    forge()
    objects.wait("web", lambda o: o["status"] == truth, tell=operator.log)
    operator.process.kill()
    forge()
    operator = start_operator(config)
    healed = objects.wait("web", lambda o: "evil" not in str(o["status"]), tell=operator.log)["status"]
    assert (healed["uri"], healed["references"]) == (truth["uri"], truth["references"])


def test_restored_status_is_corrected_at_once(
    objects: Objects, start_operator: StartOperator, audit: Audit, access_log: AccessLog
) -> None:
    """The Ready status of another cluster, from a backup, is replaced long before the resync, by one write."""
    operator = start_operator()
    objects.create("web")
    truth = objects.wait_ready("web", tell=operator.log)["status"]
    mark, asked = audit.mark(), access_log.mark()
    uri = "registry.elsewhere.example:5000/artifacts/team/web"
    objects.patch("web", {"status": {**truth, "uri": uri, "references": {"host": uri}}}, subresource="/status")
    after = objects.wait("web", lambda o: o["status"] == truth, within=10, tell=operator.log)
    assert is_ready(after)
    assert audit.writes(mark) == [f"patch artifactrepositories/status {objects.namespace}/web"]
    assert len([entry for entry in access_log.since(asked) if f"{objects.namespace}/web/" in entry]) == 1


def test_foreign_conditions_and_fields_survive(objects: Objects, start_operator: StartOperator, audit: Audit) -> None:
    """A condition of somebody else is neither removed nor a reason to write, nor is it lost when we have to."""
    operator = start_operator(timings=OFTEN)
    objects.create("web")
    ours = objects.wait_ready("web", tell=operator.log)["status"]["conditions"]
    foreign = {
        "type": "scanner.example.com/Scanned",
        "status": "True",
        "reason": "Clean",
        "message": "",
        "lastTransitionTime": EARLIER,
    }
    mark = audit.mark()
    edited = objects.patch("web", {"status": {"conditions": [*ours, foreign]}}, subresource="/status")
    time.sleep(5)
    assert audit.writes(mark) == []
    assert objects.get("web") == edited
    objects.patch("web", {"status": {"uri": "evil.example.com/x"}}, subresource="/status")
    after = objects.wait("web", lambda o: "evil" not in o["status"]["uri"], tell=operator.log)
    assert condition(after, foreign["type"]) == foreign


def test_the_steady_state_costs_one_question_an_object(
    objects: Objects, start_operator: StartOperator, audit: Audit, registry_proxy: FaultProxy
) -> None:
    """Intervals pass: one HEAD an object and interval, not all at once; a LIST; not one write, and nothing changes."""
    operator = start_operator(operator_config(registry_proxy.url, timings={"resyncInterval": "2s"}))
    names = [f"repo-{number}" for number in range(40)]
    objects.create_many(names)
    before = objects.wait_all(is_ready, tell=operator.log)
    eventually(lambda: registry_proxy.count("HEAD", "") > len(names), tell=operator.log)
    mark, begun = audit.mark(), time.monotonic()

    def since() -> list[Seen]:
        return [request for request in list(registry_proxy.requests) if request.at >= begun]

    eventually(lambda: len(since()) >= 3 * len(names), within=60, tell=operator.log)
    asked = since()
    intervals = (asked[-1].at - begun) / 2
    assert {request.method for request in asked} == {"HEAD"}
    assert len(asked) <= (intervals + 1) * len(names)
    busiest = max(sum(at <= other.at < at + 0.2 for other in asked) for at in (request.at for request in asked))
    assert busiest <= len(names) / 2
    assert audit.writes(mark) == []
    assert len([event for event in audit.since(mark) if event["verb"] == "list"]) <= intervals + 1
    assert objects.list() == before
