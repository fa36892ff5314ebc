"""How long objects wait while the operator's Pods come and go.

what happens                | what is promised
rolling update, 2 replicas  | no object waits longer than the Lease lasts
SIGKILL of the process      | the kubelet starts it again; no object waits longer than the Lease and that start
drain                       | the PodDisruptionBudget keeps one replica, and it works
a Pod is deleted            | exit code 0, long before the grace period is over
SIGTERM while it starts     | exit code 0, as PID 1, from the first moment that Python code runs
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from devcluster.manifests import NAMESPACE
from tests.charts.rendering import FULL_NAME, RELEASE
from tests.cluster.eventually import eventually
from tests.cluster.harness import Api, Objects
from tests.node.release import DEPLOYMENT, Release
from tests.node.stream import Stream

T = TypeVar("T")

# For a container to be started again, or a Pod to be scheduled, on a machine that is busy with other tests.
_START = 15.0


def lease_seconds(api: Api) -> float:
    """Return how long the operator's Lease lasts if nobody renews it."""
    lease = api.must("GET", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{FULL_NAME}")
    return float(lease["spec"]["leaseDurationSeconds"])


@pytest.fixture
def replicated(release: Release) -> Iterator[Release]:
    """Run two replicas with a PodDisruptionBudget; afterwards one."""
    release.upgrade("replicaCount=2", "podDisruptionBudget.enabled=true")
    yield release
    release.upgrade()


def test_rolling_update(
    replicated: Release, api: Api, objects: Objects, record_property: Callable[[str, object], None]
) -> None:
    """While both replicas are replaced, no object waits longer than the Lease lasts."""
    bound = lease_seconds(api)
    before = {pod["metadata"]["name"] for pod in replicated.pods()}
    with Stream(objects, replicated.log) as stream:
        replicated.node.kubectl("rollout", "restart", "-n", NAMESPACE, DEPLOYMENT)
        replicated.node.kubectl("rollout", "status", "-n", NAMESPACE, DEPLOYMENT, "--timeout=90s")
        eventually(
            lambda: before.isdisjoint(pod["metadata"]["name"] for pod in replicated.pods(ending=True)), within=40
        )
    longest = max(stream.waits())
    record_property("longest wait of an object during a rolling update (s)", round(longest, 1))
    assert longest < bound


def test_killed_process(
    release: Release, api: Api, objects: Objects, record_property: Callable[[str, object], None]
) -> None:
    """After SIGKILL of the only process the kubelet starts it again, and all objects become Ready."""
    bound = lease_seconds(api) + _START
    pod = release.pod()
    restarts = pod["status"]["containerStatuses"][0]["restartCount"]
    with Stream(objects, release.log) as stream:
        release.node.run("kill", "-KILL", str(release.pid(pod)))
        eventually(
            lambda: release.pod()["status"]["containerStatuses"][0]["restartCount"] == restarts + 1, within=_START
        )
    longest = max(stream.waits())
    record_property("longest wait of an object after SIGKILL (s)", round(longest, 1))
    assert longest < bound
    assert release.pod()["metadata"]["uid"] == pod["metadata"]["uid"]


def test_drain(replicated: Release, objects: Objects) -> None:
    """A drain evicts one replica, waits because of the PodDisruptionBudget, and objects become Ready meanwhile."""
    node = replicated.node
    before = {pod["metadata"]["name"] for pod in replicated.pods()}
    drain = ("drain", "node1", f"--pod-selector=app.kubernetes.io/instance={RELEASE}", "--timeout=100s")
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(node.kubectl, *drain, check=False)
        try:
            # Its replacement finds no node, so the second one has to stay.
            eventually(lambda: {"Pending", "Running"} == phases(replicated), within=30, tell=replicated.log)
            objects.create("while-drained")
            objects.wait_ready("while-drained", within=20, tell=replicated.log)
            assert not drained.done()
            (left,) = (pod for pod in replicated.pods() if pod["status"]["phase"] == "Running")
            assert left["metadata"]["name"] in before
        finally:
            node.kubectl("uncordon", "node1")
        told = drained.result(timeout=110)
    assert "violate the pod's disruption budget" in told
    assert "node/node1 drained" in told


def phases(release: Release) -> set[str]:
    """Return the phases of the operator's Pods."""
    return {pod["status"]["phase"] for pod in release.pods()}


class LastSight:
    """The last state in which a Pod was seen, while it is deleted.

    Args:
        api: The API server.
        name: The Pod, in the operator's namespace.
    """

    def __init__(self, api: Api, name: str) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{NAMESPACE}/pods?watch=true&fieldSelector=metadata.name%3D{name}"
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._pod: dict[str, Any] = {}
        self._thread.start()

    def terminated(self, within: float) -> dict[str, Any]:
        """Return how its container has ended.

        Args:
            within: For how many seconds it is waited until the Pod is gone.
        """
        self._thread.join(within)
        assert not self._thread.is_alive(), "the Pod is still there"
        state: dict[str, Any] = self._pod["status"]["containerStatuses"][0]["state"]
        return dict(state["terminated"])

    def _follow(self) -> None:
        for line in self._api.lines(self._path, silence=60):
            event = json.loads(line)
            self._pod = event["object"]
            if event["type"] == "DELETED":
                return


def test_deleted_pod(release: Release, api: Api, objects: Objects) -> None:
    """The operator ends in order when its Pod is deleted, and the Lease is free for the next one at once."""
    pod = release.pod()
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    last = LastSight(api, pod["metadata"]["name"])
    begun = time.monotonic()
    release.node.kubectl("delete", "pod", "-n", NAMESPACE, pod["metadata"]["name"], "--wait=false")
    assert last.terminated(within=grace)["exitCode"] == 0
    assert time.monotonic() - begun < grace / 2
    objects.create("after-deletion")
    objects.wait_ready("after-deletion", within=_START, tell=release.log)


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.7])
def test_signal_while_starting(release: Release, api: Api, delay: float) -> None:
    """As PID 1, which the kernel spares signals without a handler, it obeys SIGTERM as soon as Python code runs."""
    deployment = api.must("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{FULL_NAME}")
    name = f"starting-{delay:g}".replace(".", "-")
    spec = deployment["spec"]["template"]["spec"] | {"restartPolicy": "Never"}
    created = api.must("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", {"metadata": {"name": name}, "spec": spec})
    process = at_once(lambda: process_of(created["metadata"]["uid"]), "its process")
    at_once(lambda: handles(process, signal.SIGTERM), "a handler of SIGTERM")
    time.sleep(delay)
    os.kill(process, signal.SIGTERM)
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"
    ended = eventually(
        lambda: seen if (seen := api.must("GET", path))["status"]["phase"] in ("Succeeded", "Failed") else None,
        within=spec["terminationGracePeriodSeconds"] / 2,
        tell=release.log,
    )
    assert ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    if not delay:
        assert release.node.kubectl("logs", name, "-n", NAMESPACE) == "", "it had started already"
    api.must("DELETE", path)


def at_once(look: Callable[[], T | None], what: str) -> T:
    """Return what ``look`` returns in the very moment when that is true.

    Args:
        look: Returns something true, or something false as long as it has to be waited for.
        what: What is waited for.
    """
    deadline = time.monotonic() + _START
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {_START:g} s: {what}"
    return seen


def process_of(uid: str) -> int | None:
    """Return the process id, on this machine, of the operator in a Pod; None as long as there is none."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command, cgroup = (entry / "cmdline").read_bytes(), (entry / "cgroup").read_text()
        except OSError:
            continue
        if b"artifact-repository-controller" in command and uid in cgroup:
            return int(entry.name)
    return None


def handles(process: int, number: signal.Signals) -> bool:
    """Tell whether a process has a handler for a signal."""
    status = Path(f"/proc/{process}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)
