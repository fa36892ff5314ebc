"""Takeover of a Lease whose holder has ended, in virtual time (looptime).

holder                                                 | candidate
its Pod is deleted, replaced or terminated             | takes over the Lease at once
the previous process of the candidate's Pod            | the same, without a request for the Pod
anything else, or no response                          | waits for the Lease to expire
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from controller.errors import KubernetesError, KubernetesUnavailable, ObjectGone
from controller.kube.holder import HolderPod, new_identity
from tests.unit.kube.fake_api import FakeApi
from tests.unit.kube.test_leaderelection import PATH, TIMINGS, WorkLog, acquire_and_lead, elector

pytestmark = [pytest.mark.looptime]

POD = "/api/v1/namespaces/system/pods/operator-0"
HOLDER = "system/operator-0/uid-0/first"
OTHER = "system/operator-1/uid-1/first"
SHORTEST_PAUSE = 0.8 * TIMINGS.retry_period


def pod(uid: str = "uid-0", *, phase: str = "Running", **metadata: str) -> dict[str, Any]:
    """Return the holder's Pod."""
    metadata = {"namespace": "system", "name": "operator-0", "uid": uid, **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"phase": phase}}


def held(by: str = HOLDER, *, number: int = 0) -> dict[str, Any]:
    """Return a Lease after a number of renewals."""
    spec = {"holderIdentity": by, "leaseDurationSeconds": 15, "renewTime": f"2026-01-01T00:00:00.{number:06}Z"}
    return {"kind": "Lease", "metadata": {"name": "operator", "resourceVersion": f"held-{number}"}, "spec": spec}


async def time_to_acquire(api: FakeApi, identity: str = OTHER) -> float:
    """Return how long a new candidate waits for the Lease."""
    begun = asyncio.get_running_loop().time()
    await elector(api, identity).acquire()
    assert api.objects[PATH]["spec"]["holderIdentity"] == identity
    return asyncio.get_running_loop().time() - begun


def pod_requests(api: FakeApi) -> int:
    """Return the number of requests for the holder's Pod."""
    return api.requests.count(f"GET {POD}")


@pytest.mark.parametrize(
    "found",
    [None, pod("uid-of-a-namesake"), pod(phase="Succeeded"), pod(phase="Failed")],
    ids=["deleted", "replaced", "succeeded", "failed"],
)
async def test_a_holder_that_has_ended_is_not_waited_for(found: dict[str, Any] | None) -> None:
    """One request for its Pod is enough."""
    api = FakeApi()
    api.objects |= {PATH: held()} if found is None else {PATH: held(), POD: found}
    assert await time_to_acquire(api) < 0.1
    assert pod_requests(api) == 1


INDEFINITE: dict[str, Any] = {
    "running": pod(),
    "pending": pod(phase="Pending"),
    "unknown": pod(phase="Unknown"),
    "terminating": pod(deletionTimestamp="2026-01-01T00:00:00Z"),
    "no uid": {"kind": "Pod", "metadata": {}},
    "nonsense": {"kind": "Pod", "metadata": "nonsense", "status": "nonsense"},
    "not a Pod": {"kind": "Status", "metadata": {"uid": "x"}, "status": "Success"},
    "forbidden": KubernetesError("pods is forbidden", status=403),
    "unreachable": KubernetesUnavailable("the API server does not answer"),
    "404 of a proxy": ObjectGone(f"GET {POD} was answered with status 404", status=404),
    "silence": None,
}


@pytest.mark.parametrize("found", INDEFINITE.values(), ids=INDEFINITE.keys())
async def test_without_a_definite_response_the_lease_has_to_expire(found: Any) -> None:
    """The Pod exists, cannot be read, or the response is not one of an API server."""
    api = FakeApi()
    api.objects[PATH] = held()
    if isinstance(found, Mapping):
        api.objects[POD] = dict(found)
    elif isinstance(found, KubernetesError):
        api.errors[POD] = found
    else:
        api.unanswered.add(POD)
    assert TIMINGS.duration <= await time_to_acquire(api) <= TIMINGS.duration + 0.2
    assert pod_requests(api) <= TIMINGS.duration / SHORTEST_PAUSE + 1


@pytest.mark.parametrize("holder", ["node-7_3c5e", "a/b", "system//uid-0/first", "system/operator-0/uid-0/first/more"])
async def test_a_holder_that_names_no_pod_has_to_expire(holder: str) -> None:
    """A host name or another text does not name a Pod."""
    api = FakeApi()
    api.objects[PATH] = held(holder)
    assert TIMINGS.duration <= await time_to_acquire(api) <= TIMINGS.duration + 0.2
    assert {request for request in api.requests if PATH not in request} == set()


async def test_a_released_lease_needs_no_request() -> None:
    """A Lease without a holder is free."""
    api = FakeApi()
    api.objects[PATH] = held("")
    assert await time_to_acquire(api) < 0.1
    assert pod_requests(api) == 0


async def test_the_previous_process_of_the_same_pod_is_not_waited_for() -> None:
    """After kill -9 the container restarts in its Pod, which still exists."""
    api = FakeApi()
    api.objects |= {PATH: held(), POD: pod()}
    assert await time_to_acquire(api, "system/operator-0/uid-0/second") < 0.1
    assert pod_requests(api) == 0


async def test_the_predecessor_is_remembered_after_a_failure() -> None:
    """The first write fails; the next attempt still knows the previous holder."""
    api = FakeApi()
    api.objects |= {PATH: held(), POD: pod()}
    waiting = asyncio.create_task(time_to_acquire(api, "system/operator-0/uid-0/second"))
    await asyncio.sleep(0.0015)  # between its question and its write
    api.objects[PATH]["metadata"]["resourceVersion"] = "changed"
    assert SHORTEST_PAUSE < await waiting < 2 * TIMINGS.retry_period


async def test_another_process_of_the_same_pod_that_comes_later_is_respected() -> None:
    """Of two processes in one Pod, which a kubelet never starts, the second one takes over only once."""
    api, log = FakeApi(), WorkLog()
    api.objects[POD] = pod()
    names = [HOLDER, "system/operator-0/uid-0/second"]
    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(until_cancelled(api, name, log)))
        await asyncio.sleep(5)
    await asyncio.sleep(300)
    assert list(log.begun) == names
    assert list(log.ended) == names[:1]
    assert log.begun[HOLDER] < 1
    assert api.objects[PATH]["spec"]["leaseTransitions"] == 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until_cancelled(api: FakeApi, identity: str, log: WorkLog) -> None:
    """Be a candidate again and again, as an operator is."""
    candidate = elector(api, identity)
    while True:
        await acquire_and_lead(candidate, log.work(identity))


async def test_the_pod_of_a_live_leader_is_hardly_requested() -> None:
    """Only if a read falls between two renewals, and at most once per retry period."""
    api, log = FakeApi(), WorkLog()
    api.objects[POD] = pod()
    first = asyncio.create_task(acquire_and_lead(elector(api, HOLDER), log.work("a")))
    await asyncio.sleep(1)
    second = asyncio.create_task(acquire_and_lead(elector(api, OTHER), log.work("b")))
    await asyncio.sleep(300)
    assert list(log.begun) == ["a"]
    looks = api.requests.count(f"GET {PATH}") / 2
    assert pod_requests(api) < looks / 3
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_a_deleted_pod_is_replaced_at_once_by_a_standby() -> None:
    """Its Lease is neither renewed nor released, as after a deletion of its permissions."""
    api, log = FakeApi(), WorkLog()
    api.objects[POD] = pod()
    leader = elector(api, HOLDER)
    await leader.acquire()
    waiting = asyncio.create_task(acquire_and_lead(elector(api, OTHER), log.work("b", 1)))
    await asyncio.sleep(4)
    del api.objects[POD]
    gone = asyncio.get_running_loop().time()
    await waiting
    assert log.begun["b"] - gone < 1.3 * TIMINGS.retry_period


async def test_one_of_several_candidates_replaces_an_ended_holder() -> None:
    """They write the Lease with its resourceVersion."""
    api, log = FakeApi(), WorkLog()
    api.objects[PATH] = held()
    tasks = [
        asyncio.create_task(acquire_and_lead(elector(api, name), log.work(name)))
        for name in (OTHER, "system/operator-2/uid-2/first")
    ]
    api.objects |= {POD.replace("-0", f"-{n}"): pod(f"uid-{n}", name=f"operator-{n}") for n in (1, 2)}
    await asyncio.sleep(60)
    assert len(log.begun) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_leader_stops_at_once_when_another_holds_its_lease() -> None:
    """A leader whose Pod wrongly counted as ended stops before its renew deadline, and does not take the Lease back."""
    api, log = FakeApi(), WorkLog()
    api.objects[POD] = pod()
    leading = asyncio.create_task(acquire_and_lead(elector(api, HOLDER), log.work("a")))
    await asyncio.sleep(60)
    api.objects[PATH] = held("system/operator-9/uid-9/first")
    await leading
    assert log.ended["a"] - 60 <= 1.3 * TIMINGS.retry_period
    assert api.objects[PATH]["spec"]["holderIdentity"] == "system/operator-9/uid-9/first"


@pytest.mark.parametrize("pod", [("system", "operator-0", "uid-0"), ("", "operator-0", "uid-0"), ("", "", "")])
def test_identities_differ_with_each_process(pod: tuple[str, ...]) -> None:
    """In a Pod the identity names it, if the downward API provides all parts."""
    environment = dict(zip(("POD_NAMESPACE", "POD_NAME", "POD_UID"), pod, strict=True))
    first, second = new_identity(environment), new_identity(environment)
    assert first != second
    named = HolderPod(*pod) if all(pod) else None
    assert HolderPod.from_identity(first) == HolderPod.from_identity(second) == named
