"""The status writer: what stands between a decision and its one PATCH. A proxy before the API server makes it happen.

between decision and write        | what is expected
PATCH answered 409, 422, 429, 5xx | tried again with growing pauses, until it is written
PATCH carried out, answer lost    | read again: nothing is written twice
the object is deleted             | forgotten
deleted and created again         | the namesake gets its own facts only
a foreign condition appears       | it survives
the registry comes back           | the object that was told to wait does not wait for its deadline
"""

import json
import time

import pytest

from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import (
    AccessLog,
    Audit,
    History,
    Objects,
    condition,
    is_ready,
    operator_config,
    ready,
)
from tests.cluster.proxy import FaultProxy, Hold, Late, Lose, Response

pytestmark = pytest.mark.cluster

FOREIGN = {
    "type": "scanner.example.com/Scanned",
    "status": "True",
    "reason": "Clean",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


def refusal(code: int, **headers: str) -> Response:
    """Return an answer as the API server gives it."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "by the proxy", "code": code}
    return Response(code, json.dumps(status).encode(), headers)


def test_a_refused_write_is_tried_again(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy, audit: Audit
) -> None:
    """Each answer that is no yes, three times in a row: then the write gets through, and it is one."""
    answers = {
        "conflict": refusal(409),
        "invalid": refusal(422),
        "busy": refusal(429, **{"Retry-After": "1"}),
        "error": refusal(500),
        "unavailable": refusal(503),
        "forbidden": refusal(403),
        "garbage": Response(200, b"<html>"),
        "empty": Response(502, headers={"Content-Type": "text/html"}),
    }
    operator = start_operator(server=api_proxy.url)
    mark = audit.mark()
    for name, answer in answers.items():
        with api_proxy.rule("PATCH", f"/{name}/status", answer, times=3) as rule:
            objects.create(name)
            objects.wait_ready(name, tell=operator.log)
        assert rule.seen == 3
        assert api_proxy.count("PATCH", f"/{name}/status") == 4
    assert sorted(audit.writes(mark)) == sorted(
        f"patch artifactrepositories/status {objects.namespace}/{name}" for name in answers
    )


def test_a_write_that_goes_on_failing_is_no_flood(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy
) -> None:
    """Twenty objects that cannot be written for six seconds: few tries each, ever fewer; all Ready after it."""
    operator = start_operator(server=api_proxy.url)
    with api_proxy.rule("PATCH", "/status", refusal(500)) as rule:
        objects.create_many(f"repo-{number}" for number in range(20))
        time.sleep(3)
        early = rule.seen
        time.sleep(3)
        late = rule.seen - early
    assert late < early < 20 * 10
    objects.wait_all(is_ready, within=40, tell=operator.log)


def test_a_write_whose_answer_is_lost_is_not_made_twice(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy
) -> None:
    """The API server has written, and its response is lost: the watch shows that there is nothing left to write."""
    operator = start_operator(server=api_proxy.url)
    with History(objects) as history:
        with api_proxy.rule("PATCH", "/web/status", Lose(), times=1) as rule:
            objects.create("web")
            eventually(lambda: rule.seen, tell=operator.log)
            objects.wait_ready("web", tell=operator.log)
        objects.create("next")
        objects.wait_ready("next", tell=operator.log)
        eventually(lambda: "True RepositoryReady" in history.rows("next"))
        assert len([one for _, one in history.seen if one["metadata"]["name"] == "web"]) == 2


def test_a_deleted_object_is_not_written(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy
) -> None:
    """An object that goes while its status is under way is forgotten: no second try, no error in the log."""
    operator = start_operator(server=api_proxy.url)
    with api_proxy.rule("PATCH", "/web/status", Hold()) as rule:
        objects.create("web")
        eventually(lambda: rule.seen, tell=operator.log)
        objects.delete("web")
    objects.create("next")
    objects.wait_ready("next", tell=operator.log)
    eventually(lambda: operator.metrics().get('artifact_repository_reconciles_total{result="gone"}') == 1)
    assert api_proxy.count("PATCH", "/web/status") == 1
    assert "web" not in operator.log()


def test_a_namesake_is_not_written_with_old_facts(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy
) -> None:
    """Deleted and created again, with another name for its repository, while the old status is on its way."""
    operator = start_operator(server=api_proxy.url)
    with History(objects) as history:
        with api_proxy.rule("PATCH", "/web/status", Hold(), times=1) as rule:
            objects.create("web", {"repositoryName": "old/facts"})
            eventually(lambda: rule.seen, tell=operator.log)
            objects.delete("web")
            uid = objects.create("web", {"repositoryName": "new/facts"})["metadata"]["uid"]
        seen = objects.wait_ready("web", tell=operator.log)
        eventually(lambda: history.rows("web") == ["None None", "True RepositoryReady"])
    assert seen["metadata"]["uid"] == uid
    told = [one["status"].get("repositoryName") for _, one in history.seen if one["metadata"]["uid"] == uid]
    assert set(told) == {None, "new/facts"}


def test_a_foreign_condition_that_appears_meanwhile_survives(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy
) -> None:
    """It is added after we have decided and before we write: both conditions are there in the end."""
    operator = start_operator(server=api_proxy.url)
    with api_proxy.rule("PATCH", "/web/status", Hold(), times=1) as rule:
        objects.create("web")
        eventually(lambda: rule.seen, tell=operator.log)
        objects.patch("web", {"status": {"conditions": [FOREIGN]}}, subresource="/status")
    seen = objects.wait_ready("web", tell=operator.log)
    assert condition(seen, FOREIGN["type"]) == FOREIGN


def test_what_is_told_to_wait_does_not_wait_for_its_deadline(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy, registry_proxy: FaultProxy
) -> None:
    """The registry comes back while an object's "waiting" is being written: it is served like the others."""
    config = operator_config(registry_proxy.url, timings={"probeInterval": "300ms"})
    operator = start_operator(config, server=api_proxy.url)
    registry_proxy.refuse()
    objects.create_many(f"repo-{number}" for number in range(5))
    objects.wait_all(lambda o: ready(o) == ("False", "RegistryUnavailable"), tell=operator.log)
    with api_proxy.rule("PATCH", "/late/status", Hold(), times=1) as rule:
        objects.create("late")
        eventually(lambda: rule.seen, tell=operator.log)
        registry_proxy.listen()
        for number in range(5):
            objects.wait_ready(f"repo-{number}", tell=operator.log)
    objects.wait_ready("late", tell=operator.log)


def test_a_stale_list_is_no_reason_to_write(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy, access_log: AccessLog
) -> None:
    """A resync's list that was made before an object was written comes back after it: the object is left alone."""
    operator = start_operator(server=api_proxy.url, timings={"resyncInterval": "3s"})
    with api_proxy.rule("PATCH", "/web/status", Hold()) as write:
        objects.create("web")
        eventually(lambda: write.seen, tell=operator.log)
        with api_proxy.rule("GET", "artifactrepositories.*limit=50", Late(), times=1) as list_:
            eventually(lambda: list_.seen, tell=operator.log)
            time.sleep(0.5)  # for the API server to answer it
            write.release()
            objects.wait_ready("web", tell=operator.log)
            seen = access_log.mark()
    eventually(lambda: access_log.since(seen), tell=operator.log)
    objects.create("next")
    objects.wait_ready("next", tell=operator.log)
    assert api_proxy.count("PATCH", "/web/status") == 1
