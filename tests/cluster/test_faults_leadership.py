"""Two replicas, one Lease: one works, the other takes over.

what happens to the leader        | what is expected
nothing                           | the other one stands by: ready, and without a write
its file becomes invalid          | it exports that, and after it the other one
SIGTERM                           | it gives the Lease back; the other one works in a second or two
kill -9                           | the other one works within the lease's 15 seconds
SIGSTOP, and SIGCONT afterwards   | the same; the old one writes nothing when it wakes, and stands by
cut off from the API server       | it stops before the other one begins
a rolling replacement             | no object of a steady stream waits longer than the lease and a little
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from devcluster.certificates import CertificateAuthority
from devcluster.cluster import DevCluster
from tests.cluster.eventually import eventually
from tests.cluster.harness import (
    OPERATOR_ACCOUNT,
    OPERATOR_NAMESPACE,
    Api,
    Audit,
    Object,
    Objects,
    OperatorProcess,
    is_ready,
    operator_config,
    operator_kubeconfig,
)
from tests.cluster.proxy import FaultProxy

pytestmark = pytest.mark.cluster

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases/{OPERATOR_ACCOUNT}"
DURATION = 15.0
UNRELEASED = DURATION - 3.0
"""Seconds for which a Lease that was not given back is valid at least: it is renewed every other second."""

StartReplica = Callable[..., OperatorProcess]


@pytest.fixture
def start_replica(cluster: DevCluster, api: Api, namespace: str, tmp_path: Path) -> Iterator[StartReplica]:
    """Return what starts a replica; the Lease is not there before the test."""
    api.request("DELETE", LEASE)
    with ExitStack() as stack:

        def start(name: str, *, kubeconfig: Path | None = None) -> OperatorProcess:
            arguments = ("--namespace", namespace, "--leader-elect", "--lease-namespace", OPERATOR_NAMESPACE)
            operator = OperatorProcess(
                tmp_path / name,
                config=operator_config(cluster.registry_url),
                kubeconfig=kubeconfig or operator_kubeconfig(cluster),
                arguments=arguments,
            )
            return stack.enter_context(operator)

        yield start


def leads(operator: OperatorProcess) -> bool:
    """Tell whether a replica says that it holds the Lease."""
    return operator.metrics()["artifact_repository_leader"] == 1


def holder(api: Api) -> str:
    """Return who holds the Lease; empty where nobody does."""
    lease: Object = api.request("GET", LEASE)
    return str(lease.get("spec", {}).get("holderIdentity", ""))


def pair(start_replica: StartReplica) -> tuple[OperatorProcess, OperatorProcess]:
    """Start two replicas; return the one that leads first."""
    leader = start_replica("a")
    eventually(lambda: leads(leader), tell=leader.log)
    return leader, start_replica("b")


def time_to_serve(objects: Objects, name: str, *, within: float = 20.0, tell: Callable[[], str]) -> float:
    """Create an object; return how long it took to get Ready, in seconds."""
    begun = time.monotonic()
    objects.create(name)
    objects.wait_ready(name, within=within, tell=tell)
    return time.monotonic() - begun


def test_one_works_and_the_other_stands_by(objects: Objects, start_replica: StartReplica, api: Api) -> None:
    """Both are ready for their kubelet; only one holds the Lease and works."""
    leader, other = pair(start_replica)
    time_to_serve(objects, "web", tell=leader.log)
    assert other.health("readyz") == (200, "ok")
    assert leads(leader)
    assert not leads(other)
    assert other.metrics().get("artifact_repository_status_writes_total", 0) == 0
    assert holder(api)


def test_an_invalid_file_is_reported_by_the_leader(start_replica: StartReplica) -> None:
    """The gauge of the alert is exported by the leader alone, and is 1 again once the file is good, whoever leads."""
    good = "artifact_repository_config_good"
    leader, other = pair(start_replica)
    content = leader.config.read_text()
    for replica in (leader, other):
        replica.config.write_text("broken")
    eventually(lambda: leader.metrics().get(good) == 0, tell=leader.log)
    assert good not in other.metrics()
    leader.process.stop(timeout=30)
    eventually(lambda: other.metrics().get(good) == 0, tell=other.log)
    other.config.write_text(content)
    eventually(lambda: other.metrics().get(good) == 1, tell=other.log)


def test_a_clean_stop_hands_over_at_once(objects: Objects, start_replica: StartReplica, api: Api) -> None:
    """SIGTERM: exit code 0, the Lease given back, and the other one serves within a few tries."""
    leader, other = pair(start_replica)
    first = holder(api)
    leader.process.stop(timeout=30)
    assert leader.process.exit_code == 0
    assert time_to_serve(objects, "web", tell=other.log) < UNRELEASED
    assert holder(api) not in ("", first)


def test_after_kill_9_the_other_one_takes_over_within_the_lease(objects: Objects, start_replica: StartReplica) -> None:
    """Nobody gives the Lease back; it expires."""
    leader, other = pair(start_replica)
    leader.process.kill()
    time_to_serve(objects, "web", within=DURATION + 10, tell=other.log)


def test_a_frozen_leader_loses_the_lease_and_does_no_harm_when_it_wakes(
    objects: Objects, start_replica: StartReplica, audit: Audit, api: Api
) -> None:
    """SIGSTOP for longer than the lease, then SIGCONT: one writer at a time, and the old one stands by."""
    leader, other = pair(start_replica)
    leader.process.suspend()
    try:
        time_to_serve(objects, "web", within=DURATION + 10, tell=other.log)
        mark = audit.mark()
        second = holder(api)
    finally:
        leader.process.resume()
    eventually(lambda: not leads(leader), tell=leader.log)
    time_to_serve(objects, "later", tell=other.log)
    assert holder(api) == second
    assert audit.writes(mark).count(f"patch artifactrepositories/status {objects.namespace}/later") == 1
    assert leader.process.running
    assert leader.health("readyz") == (200, "ok")


def test_a_leader_that_is_cut_off_stops_before_the_other_begins(
    cluster: DevCluster, objects: Objects, start_replica: StartReplica, api: Api, tmp_path: Path
) -> None:
    """Its connections to the API server alone are frozen: its own log says it stopped before the Lease passed on."""
    authority = CertificateAuthority(tmp_path / "ca")
    with FaultProxy(cluster.url, certificate=authority.issue("proxy"), ca_file=cluster.ca_file) as proxy:
        access = yaml.safe_load(operator_kubeconfig(cluster).read_text())
        access["clusters"][0]["cluster"] = {"server": proxy.url, "certificate-authority": str(authority.ca_file)}
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(access))
        leader = start_replica("cut", kubeconfig=kubeconfig)
        eventually(lambda: leads(leader), tell=leader.log)
        first = holder(api)
        other = start_replica("other")
        proxy.freeze()
        eventually(lambda: not leads(leader), within=DURATION, tell=leader.log)
        assert holder(api) == first, "another one began while this one may still have worked"
        time_to_serve(objects, "web", within=DURATION + 10, tell=other.log)
        assert leader.process.running
        proxy.thaw()
        eventually(lambda: leader.health("readyz")[0] == 200, within=60, tell=leader.log)
        assert not leads(leader)


def test_a_rolling_replacement_under_a_steady_stream(objects: Objects, start_replica: StartReplica) -> None:
    """New replicas come, old ones go, objects keep coming: nobody waits longer than the lease and a little."""
    old = list(pair(start_replica))
    names = [f"web-{number}" for number in range(60)]
    replaced: list[OperatorProcess] = []
    for number, name in enumerate(names):
        objects.create(name)
        time.sleep(0.2)
        if number in (20, 40):
            replaced.append(start_replica(f"new-{number}"))
            old.pop(0).process.stop(timeout=30)

    def all_ready() -> Sequence[Object] | None:
        seen = objects.list()
        return seen if len(seen) == len(names) and all(map(is_ready, seen)) else None

    seen = eventually(all_ready, within=DURATION + 10, tell=replaced[-1].log)
    waited = []
    for object_ in seen:
        became = next(c["lastTransitionTime"] for c in object_["status"]["conditions"] if c["type"] == "Ready")
        created = object_["metadata"]["creationTimestamp"]
        waited.append((datetime.fromisoformat(became) - datetime.fromisoformat(created)).total_seconds())
    assert max(waited) <= DURATION + 10
