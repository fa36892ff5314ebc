"""Events about objects, as ``kubectl events`` and ``kubectl describe`` show them during and after an outage."""

import json
import time
from typing import Any

import pytest

from devcluster.cluster import DevCluster
from devcluster.process import free_port
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import Audit, Objects, operator_config, ready
from tests.cluster.proxy import FaultProxy, Response

pytestmark = pytest.mark.cluster


def events_about(cluster: DevCluster, namespace: str, name: str) -> list[dict[str, Any]]:
    """Return the events about an object, the oldest first."""
    found = json.loads(cluster.kubectl("get", "events", "-n", namespace, "-o", "json"))["items"]
    about = [event for event in found if event["involvedObject"]["name"] == name]
    return sorted(about, key=lambda event: str(event["firstTimestamp"]))


def test_an_undisturbed_object_has_no_event(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, audit: Audit
) -> None:
    """Creation, verification and a change of spec are in status, and make no events."""
    operator = start_operator(timings={"resyncInterval": "1s"})
    mark = audit.mark()
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    objects.patch("web", {"spec": {"registry": "artifacts"}})
    objects.wait("web", lambda o: o["status"]["observedGeneration"] == 2, tell=operator.log)
    time.sleep(3)
    assert events_about(cluster, objects.namespace, "web") == []
    assert [write for write in audit.writes(mark) if "/events" in write] == []


def test_a_failure_and_its_end_are_events(cluster: DevCluster, objects: Objects, start_operator: StartOperator) -> None:
    """One Warning with the message of Ready, and one Normal when the object is Ready again; a person sees both."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    operator = start_operator(operator_config(nowhere))
    objects.create("web")
    failed = objects.wait("web", lambda o: ready(o) == ("False", "RegistryUnavailable"), tell=operator.log)

    def warning() -> dict[str, Any] | None:
        found = events_about(cluster, objects.namespace, "web")
        return found[0] if found else None

    first = eventually(warning, tell=operator.log)
    assert (first["type"], first["reason"]) == ("Warning", "RegistryUnavailable")
    assert first["message"] == failed["status"]["conditions"][0]["message"]
    assert "connection refused" in cluster.kubectl("describe", "artrepo", "web", "-n", objects.namespace)
    assert "RegistryUnavailable" in cluster.kubectl("events", "--for", "artrepo/web", "-n", objects.namespace)

    operator.configure(operator_config(cluster.registry_url))
    uri = objects.wait_ready("web", within=60, tell=operator.log)["status"]["uri"]
    eventually(lambda: len(events_about(cluster, objects.namespace, "web")) == 2, tell=operator.log)
    last = events_about(cluster, objects.namespace, "web")[1]
    assert (last["type"], last["reason"], last["count"]) == ("Normal", "RepositoryReady", 1)
    assert uri in last["message"]


def test_a_failure_that_comes_back_is_counted(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, registry_proxy: FaultProxy
) -> None:
    """Two outages make one Warning with the count two, and as many Normals."""
    short = {"unavailableAfter": "1s", "probeInterval": "200ms", "resyncInterval": "1s"}
    operator = start_operator(operator_config(registry_proxy.url, timings=short))
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    for number in (1, 2):
        with registry_proxy.rule("HEAD", "", Response(503)), registry_proxy.rule("GET", "", Response(503)):
            objects.wait("web", lambda o: ready(o)[0] == "Unknown", within=30, tell=operator.log)
        objects.wait_ready("web", within=30, tell=operator.log)

        def counts(number: int = number) -> bool:
            found = events_about(cluster, objects.namespace, "web")
            kinds = {event["type"]: event["count"] for event in found}
            return len(found) == 2 and kinds == {"Warning": number, "Normal": number}

        eventually(counts, tell=lambda: f"{events_about(cluster, objects.namespace, 'web')}\n{operator.log()}")
