"""kill -9 at any moment, and SIGTERM under load: nothing is lost, nothing is made twice, nobody's tag is touched.

what happens                                     | what is expected
kill -9 again and again during 200 creates       | all Ready in the end, each repository once, users' tags as they were
SIGTERM while much is under way                  | what is under way ends, readiness drops, exit code 0
SIGTERM twice                                    | the second one ends it at once
"""

import os
import random
import signal
import time

import httpx
import pytest

from controller.registry import marker
from devcluster.cluster import DevCluster
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import Objects, is_ready, operator_config
from tests.cluster.proxy import Delay, FaultProxy, Hold
from tests.cluster.test_lifecycle import fetch, put_image
from tests.settings import FULL

pytestmark = pytest.mark.cluster

KILLS = 50 if FULL else 8
OBJECTS = 200
SEED = 20260101


def catalog(registry_url: str, prefix: str) -> list[str]:
    """Return the repositories that a registry holds below a prefix."""
    found: list[str] = []
    while True:
        query: dict[str, str | int] = {"n": 1000, "last": found[-1] if found else prefix}
        page = httpx.get(f"{registry_url}/v2/_catalog", params=query, trust_env=False).json()["repositories"] or []
        found += [name for name in page if name.startswith(prefix)]
        if not page or not page[-1].startswith(prefix):
            return sorted(found)


@pytest.mark.timeout(600)
def test_kill_9_again_and_again(cluster: DevCluster, objects: Objects, start_operator: StartOperator) -> None:
    """Killed at random moments (seeded; 50 times with FAULTS=full) during a burst: everything converges by itself."""
    dice = random.Random(SEED)
    prefix = f"artifacts/{objects.namespace}/"
    names = [f"web-{number:03}" for number in range(OBJECTS)]
    pushed = {name: put_image(cluster.registry_url, prefix + name, "latest") for name in dice.sample(names, 10)}
    tagged = {
        name: put_image(cluster.registry_url, prefix + name, "v1")
        for name in dice.sample([name for name in names if name not in pushed], 10)
    }
    operator = start_operator()
    remaining = list(names)
    for _ in range(KILLS):
        for name in remaining[: OBJECTS // KILLS]:
            objects.create(name)
        del remaining[: OBJECTS // KILLS]
        time.sleep(dice.uniform(0, 0.3))
        operator.process.kill()
        operator.process.start()
        time.sleep(dice.uniform(0.5, 1.2))  # somewhere between its start and its work
    for name in remaining:
        objects.create(name)

    def all_ready() -> bool:
        seen = objects.list()
        return len(seen) == OBJECTS and all(map(is_ready, seen))

    eventually(all_ready, within=60, tell=operator.log)
    assert catalog(cluster.registry_url, prefix) == [prefix + name for name in names]
    for name in names:
        tags = fetch(cluster.registry_url, prefix + name, "tags/list").json()["tags"]
        assert tags == (["v1"] if name in tagged else ["latest"])
        expected = pushed.get(name) or tagged.get(name) or marker.MANIFEST
        assert fetch(cluster.registry_url, prefix + name, f"manifests/{tags[0]}").content == expected


def test_sigterm_under_load(cluster: DevCluster, objects: Objects, start_operator: StartOperator) -> None:
    """What was begun is finished and written; what was not is left for the next operator; exit code 0."""
    with FaultProxy(cluster.registry_url) as proxy, proxy.rule("PUT", "/manifests/", Delay(2)):
        operator = start_operator(operator_config(proxy.url), "--concurrent=16")
        for number in range(40):
            objects.create(f"web-{number:02}")
        eventually(lambda: proxy.count("PUT", "/manifests/") >= 16, tell=operator.log)
        pid = operator.process.pid
        assert pid is not None
        _send(pid, signal.SIGTERM)
        eventually(lambda: operator.health("readyz") == (503, "stopping"), tell=operator.log)
        eventually(lambda: not operator.process.running, within=40, tell=operator.log)
        operator.process.stop()
    assert operator.process.exit_code == 0
    done = [object_["metadata"]["name"] for object_ in objects.list() if is_ready(object_)]
    assert len(done) == 16
    prefix = f"artifacts/{objects.namespace}/"
    assert catalog(cluster.registry_url, prefix) == sorted(prefix + name for name in done)


def test_a_second_sigterm_ends_it_at_once(cluster: DevCluster, objects: Objects, start_operator: StartOperator) -> None:
    """Who is in a hurry says so twice; the exit code tells the signal, and not that work under way was finished."""
    with FaultProxy(cluster.registry_url) as proxy, proxy.rule("GET", "", Hold()):
        operator = start_operator(operator_config(proxy.url))
        objects.create("web")
        eventually(lambda: proxy.count("GET", "/tags/list"), tell=operator.log)
        pid = operator.process.pid
        assert pid is not None
        _send(pid, signal.SIGTERM)
        eventually(lambda: operator.health("readyz")[0] == 503, tell=operator.log)
        _send(pid, signal.SIGTERM)
        eventually(lambda: not operator.process.running, tell=operator.log)
        operator.process.stop()
    assert operator.process.exit_code == 128 + signal.SIGTERM


def _send(pid: int, number: signal.Signals) -> None:
    """Send a signal to the operator itself, as the kubelet does."""
    os.kill(pid, number)
