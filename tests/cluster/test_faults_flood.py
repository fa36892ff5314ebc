"""What the API server is spared while it is in trouble, and what an operator makes of nonsense.

what happens                                    | what is expected
every watch is accepted and ends at once        | ever longer pauses; then nothing has been missed
every watch is cut, or refused                  | the same
no connection answers any more                  | few requests, no work for the processor; then all is made up for
lists are answered with what is no list         | tried again; the process lives on
a write is swallowed, or answered too late      | given up after 30 seconds, tried again, written once
the connections of a leader die without a FIN   | it goes on leading by new ones
"""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from devcluster.cluster import DevCluster
from tests.cluster import harness
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import OPERATOR_NAMESPACE, Objects, OperatorProcess, is_ready
from tests.cluster.proxy import Action, Cut, FaultProxy, Late, Response, Swallow

pytestmark = pytest.mark.cluster

ANY = r"artifactrepositories\?"
WATCH = rf"{ANY}.*watch=true"
LONGEST_PAUSE = 35.0


def refusal(code: int) -> Response:
    """Return an answer as the API server gives it."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "by the proxy", "code": code}
    return Response(code, json.dumps(status).encode())


def ended(code: int) -> Response:
    """Return a watch that is accepted and ends with an ERROR event."""
    return Response(200, json.dumps({"type": "ERROR", "object": json.loads(refusal(code).body)}).encode() + b"\n")


@dataclass
class Way:
    """An operator and its own way to the API server.

    Args:
        proxy: The way.
        operator: The operator.
    """

    proxy: FaultProxy
    operator: OperatorProcess


def test_watches_that_end_at_once_are_no_flood(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator
) -> None:
    """Seven ways for every watch to fail, an operator for each: a handful of tries in twelve seconds, ever fewer.

    The operators look for objects with a label of their own; what is created meanwhile is served by each of them.
    """
    answers: Mapping[str, Action] = {
        "gone": ended(410),
        "error": ended(500),
        "empty": Response(200),
        "cut": Cut(),
        "unavailable": refusal(503),
        "busy": refusal(429),
        "forbidden": refusal(403),
    }
    with ExitStack() as stack:
        ways: dict[str, Way] = {}
        for name in answers:
            proxy = stack.enter_context(harness.api_proxy(cluster))
            arguments = ("--watch-label-selector", f"way={name}")
            ways[name] = Way(proxy, start_operator(None, *arguments, server=proxy.url))
        rules = stack.enter_context(ExitStack())
        begun = time.monotonic()
        for name, answer in answers.items():
            rules.enter_context(ways[name].proxy.rule("GET", WATCH, answer))
            ways[name].proxy.cut()
            objects.create(name, labels={"way": name})
        time.sleep(12)
        asked = {
            name: [f"{r.at - begun:.1f}" for r in way.proxy.requests if r.at >= begun and ANY[:-2] in r.target]
            for name, way in ways.items()
        }
        rules.close()
        assert {name: times for name, times in asked.items() if len(times) > 20} == {}
        assert {name: times for name, times in asked.items() if len([t for t in times if float(t) > 6]) > 8} == {}
        for name, way in ways.items():
            objects.wait_ready(name, within=LONGEST_PAUSE, tell=way.operator.log)
            assert way.operator.health("healthz") == (200, "ok")


def test_an_api_server_that_hangs_is_not_flooded(
    objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy
) -> None:
    """Fifty objects wait for a write, and nothing is answered for ten seconds: few requests, and no work meanwhile."""
    operator = start_operator(server=api_proxy.url, timings={"resyncInterval": "3s"})
    with api_proxy.rule("PATCH", "/status", Swallow()) as writes:
        objects.create_many(f"repo-{number}" for number in range(50))
        eventually(lambda: writes.seen >= 16, tell=operator.log)
        api_proxy.freeze()
        begun, cpu = time.monotonic(), operator.cpu_seconds()
        time.sleep(10)
        assert len([request for request in api_proxy.requests if request.at >= begun]) < 50
        assert operator.cpu_seconds() - cpu < 2
        assert operator.health("healthz") == (200, "ok")
    api_proxy.cut()
    api_proxy.thaw()
    objects.wait_all(is_ready, within=LONGEST_PAUSE + 10, tell=operator.log)


@pytest.mark.parametrize("body", ["<html>", '{"kind": "List"', "{}", '{"items": 1}', '{"items": [{}]}'])
def test_a_list_that_is_none(body: str, objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy) -> None:
    """As a broken proxy in between answers, for the watch's lists and the resync's: the operator outlives it."""
    operator = start_operator(server=api_proxy.url, timings={"resyncInterval": "1s"})
    pid = operator.process.pid
    with (
        api_proxy.rule("GET", WATCH, ended(410), times=1),
        api_proxy.rule("GET", ANY, Response(200, body.encode())) as rule,
    ):
        eventually(lambda: rule.seen >= 2, tell=operator.log)
        api_proxy.cut()
        objects.create("meanwhile")
        eventually(lambda: rule.seen >= 4, tell=operator.log)
    objects.wait_ready("meanwhile", within=LONGEST_PAUSE, tell=operator.log)
    assert operator.process.pid == pid


def test_writes_that_hang_are_given_up(objects: Objects, start_operator: StartOperator, api_proxy: FaultProxy) -> None:
    """A status PATCH is swallowed, another one carried out but answered too late: tried again, written once.

    It takes the 30 seconds of a request's timeout.
    """
    operator = start_operator(server=api_proxy.url)
    with (
        api_proxy.rule("PATCH", "/swallowed/status", Swallow(), times=1) as swallowed,
        api_proxy.rule("PATCH", "/late/status", Late(), times=1) as late,
    ):
        objects.create_many(["swallowed", "late", "other"])
        objects.wait_ready("other", within=15, tell=operator.log)
        eventually(lambda: swallowed.seen and late.seen, tell=operator.log)
        version = objects.wait_ready("late", tell=operator.log)["metadata"]["resourceVersion"]
        objects.wait_ready("swallowed", within=LONGEST_PAUSE, tell=operator.log)
    assert objects.get("late")["metadata"]["resourceVersion"] == version


def test_a_leader_whose_connections_die_goes_on_leading(start_operator: StartOperator, api_proxy: FaultProxy) -> None:
    """As behind a load balancer that has lost its table: what renews the Lease does not wait for a dead connection."""
    operator = start_operator(None, "--leader-elect", "--lease-namespace", OPERATOR_NAMESPACE, server=api_proxy.url)
    eventually(lambda: operator.metrics()["artifact_repository_leader"] == 1, within=25, tell=operator.log)
    eventually(lambda: operator.health("readyz") == (200, "ok"), tell=operator.log)
    eventually(lambda: api_proxy.count("PUT", "/leases/") >= 2, tell=operator.log)
    api_proxy.freeze(new=False)
    begun = time.monotonic()
    time.sleep(14)
    assert operator.metrics()["artifact_repository_leader"] == 1, operator.log()
    assert api_proxy.count("PUT", "/leases/", since=begun) >= 3
    assert api_proxy.count("GET", ANY, since=begun) == 0, "it has lost the Lease in between, and begun anew"
    api_proxy.thaw()
