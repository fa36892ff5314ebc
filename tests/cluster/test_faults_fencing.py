"""Leadership under load: no two replicas write at a time, whatever happens to the one that leads.

Each replica has a token and proxies of its own, so that everything it sends can be told from what the other one sends.

what happens to the leader               | what is expected
SIGSTOP in the middle of its work        | when it wakes, it begins no write, and stands by
cut off from the API server alone        | its last request to the registry is older than the other one's first
SIGTERM in the middle of its work        | what is under way is finished before the other one begins
SIGTERM while nobody answers it          | it ends after its grace period, by exit code 0
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from devcluster.cluster import DevCluster
from tests.cluster import harness
from tests.cluster.eventually import eventually
from tests.cluster.harness import (
    OPERATOR_ACCOUNT,
    OPERATOR_NAMESPACE,
    Api,
    Objects,
    OperatorProcess,
    is_ready,
    operator_config,
    operator_kubeconfig,
    write_kubeconfig,
)
from tests.cluster.proxy import Delay, FaultProxy, Seen

pytestmark = pytest.mark.cluster

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases/{OPERATOR_ACCOUNT}"
LEASE_SECONDS = 15.0
UNRELEASED = LEASE_SECONDS - 3.0
"""Seconds for which a Lease that was not given back is valid at least: it is renewed every other second."""

WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass
class Replica:
    """One of two operators, and its own ways.

    Args:
        operator: The process.
        api: Its way to the API server.
        registry: Its way to the registry.
    """

    operator: OperatorProcess
    api: FaultProxy
    registry: FaultProxy

    @property
    def leads(self) -> bool:
        """Whether it says that it holds the Lease."""
        return self.operator.metrics()["artifact_repository_leader"] == 1

    def writes(self) -> list[Seen]:
        """Return what it has written, in the registry and in the API server but for the Lease."""
        requests = [*self.registry.requests, *(r for r in self.api.requests if "/leases" not in r.target)]
        return sorted((r for r in requests if r.method in WRITES), key=lambda request: request.at)


class Stream:
    """Objects that keep being created, about ten a second, in the ``with`` block.

    Args:
        objects: Where.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._flow, name="stream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(10)

    def _flow(self) -> None:
        number = 0
        while not self._over.wait(0.1):
            self._objects.create(f"web-{number:04}")
            number += 1


StartReplica = Callable[..., Replica]


@pytest.fixture
def start(cluster: DevCluster, api: Api, namespace: str, tmp_path: Path) -> Iterator[StartReplica]:
    """Return what starts a replica; each step of a create takes a while, so that there is work under way."""
    api.request("DELETE", LEASE)
    with ExitStack() as stack:

        def start(name: str, *further: str) -> Replica:
            to_api = stack.enter_context(harness.api_proxy(cluster))
            to_registry = stack.enter_context(FaultProxy(cluster.registry_url))
            for method in ("GET", "POST", "PUT"):
                stack.enter_context(to_registry.rule(method, "/v2/.", Delay(0.2)))
            config = operator_config(to_registry.url)
            # Where people find the registry must not depend on the replica that is asked.
            addresses = dict.fromkeys(("host", "containerRuntime", "clusterNetwork"), "registry.example.com:5000")
            config["registries"]["artifacts"]["references"] = addresses
            kubeconfig = write_kubeconfig(tmp_path / f"{name}.json", operator_kubeconfig(cluster), server=to_api.url)
            arguments = ("--namespace", namespace, "--leader-elect", "--lease-namespace", OPERATOR_NAMESPACE, *further)
            operator = OperatorProcess(tmp_path / name, config=config, kubeconfig=kubeconfig, arguments=arguments)
            return Replica(stack.enter_context(operator), to_api, to_registry)

        yield start


@pytest.mark.parametrize("silent", ["api", "registry"])
def test_a_stop_waits_for_nobody_longer_than_its_grace(silent: str, objects: Objects, start: StartReplica) -> None:
    """The API server, or the registry, hangs with work under way: SIGTERM is obeyed all the same."""
    operator = start("first", "--grace-period", "2")
    eventually(lambda: operator.leads, tell=operator.operator.log)
    objects.create_many(f"web-{number}" for number in range(40))
    eventually(operator.writes, tell=operator.operator.log)
    way = operator.api if silent == "api" else operator.registry
    way.freeze()
    time.sleep(1)
    told = time.monotonic()
    assert operator.operator.terminate() == 0
    assert time.monotonic() - told < 12  # the requests that are not answered take 15 seconds or 30 to time out


def pair(start: StartReplica) -> tuple[Replica, Replica]:
    """Start two replicas; return the leader and the other one."""
    leader = start("leader")
    eventually(lambda: leader.leads, tell=leader.operator.log)
    other = start("other")
    assert not other.leads
    return leader, other


def test_a_leader_that_was_frozen_at_work_writes_nothing_when_it_wakes(objects: Objects, start: StartReplica) -> None:
    """Answers to its last requests wait for it in its sockets; it is to ask whether it still leads, first."""
    leader, other = pair(start)
    with Stream(objects):
        eventually(lambda: len(leader.writes()) > 60, tell=leader.operator.log)
        leader.operator.process.suspend()
        try:
            eventually(other.writes, within=LEASE_SECONDS + 8, tell=other.operator.log)
            time.sleep(1)
        finally:
            woken = time.monotonic()
            leader.operator.process.resume()
        eventually(lambda: not leader.leads, tell=leader.operator.log)
        time.sleep(3)
    late = [f"{r.method} {r.target}" for r in leader.writes() if r.at > woken]
    # A process that is frozen between its question and the system call that sends cannot know. It has one thread, so
    # that is one request at most; a PATCH is refused by its resourceVersion then. (The question: tests/unit.)
    assert len(late) <= 1
    assert leader.operator.health("readyz") == (200, "ok")
    objects.wait_all(is_ready, within=20, tell=other.operator.log)


def test_a_leader_that_cannot_renew_stops_before_the_other_begins(objects: Objects, start: StartReplica) -> None:
    """The registry answers it as ever, so it could go on; what it does there ends before the other one's begins."""
    leader, other = pair(start)
    with Stream(objects):
        eventually(lambda: len(leader.writes()) > 60, tell=leader.operator.log)
        leader.api.freeze()
        eventually(other.writes, within=LEASE_SECONDS + 8, tell=other.operator.log)
        time.sleep(2)
    begun = min(request.at for request in (*other.registry.requests, *other.writes()))
    assert max(request.at for request in leader.registry.requests) < begun
    assert not leader.leads
    leader.api.thaw()
    objects.wait_all(is_ready, within=20, tell=other.operator.log)
    assert leader.operator.process.running
    assert max(request.at for request in leader.registry.requests) < begun


def test_a_leader_that_is_told_to_stop_finishes_before_the_other_begins(objects: Objects, start: StartReplica) -> None:
    """What is under way is finished and written, then the Lease is given back, then the other one begins."""
    leader, other = pair(start)
    with Stream(objects):
        eventually(lambda: len(leader.writes()) > 60, tell=leader.operator.log)
        told = time.monotonic()
        assert leader.operator.terminate() == 0
        eventually(other.writes, tell=other.operator.log)
    begun = min(request.at for request in other.writes())
    assert max(request.at for request in leader.writes()) < begun
    assert begun - told < UNRELEASED
    objects.wait_all(is_ready, within=20, tell=other.operator.log)
