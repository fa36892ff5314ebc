"""A Lease whose holder has ended: candidates in memory, virtual time (looptime).

what the candidate finds out about the holder         | what it does
its Pod is deleted, replaced or terminated            | takes the Lease at once
it was the previous process of the candidate's Pod    | the same, without a question
anything else, and no answer                          | waits for the Lease to expire
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from controller.errors import KubernetesError, KubernetesUnavailable, ObjectGone
from controller.kube.holder import HolderPod, new_identity
from tests.unit.kube.fake_api import FakeApi
from tests.unit.kube.test_lease import PATH, TIMINGS, Log, campaign, elector

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
    """Return a Lease that was renewed so many times."""
    spec = {"holderIdentity": by, "leaseDurationSeconds": 15, "renewTime": f"2026-01-01T00:00:00.{number:06}Z"}
    return {"metadata": {"name": "operator", "resourceVersion": f"held-{number}"}, "spec": spec}


async def time_to_acquire(api: FakeApi, identity: str = OTHER) -> float:
    """Return how long a new candidate waits for the Lease."""
    begun = asyncio.get_running_loop().time()
    await elector(api, identity).acquire()
    assert api.objects[PATH]["spec"]["holderIdentity"] == identity
    return asyncio.get_running_loop().time() - begun


def questions(api: FakeApi) -> int:
    """Return how many times the holder's Pod was asked for."""
    return api.requests.count(f"GET {POD}")


@pytest.mark.parametrize(
    "found",
    [None, pod("uid-of-a-namesake"), pod(phase="Succeeded"), pod(phase="Failed")],
    ids=["deleted", "replaced", "succeeded", "failed"],
)
async def test_a_holder_that_has_ended_is_not_waited_for(found: dict[str, Any] | None) -> None:
    """One question about its Pod is enough."""
    api = FakeApi()
    api.objects |= {PATH: held()} if found is None else {PATH: held(), POD: found}
    assert await time_to_acquire(api) < 0.1
    assert questions(api) == 1


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
async def test_without_a_definite_answer_the_lease_has_to_expire(found: Any) -> None:
    """A Pod that exists, one that cannot be read, and an answer that no API server gives."""
    api = FakeApi()
    api.objects[PATH] = held()
    if isinstance(found, Mapping):
        api.objects[POD] = dict(found)
    elif isinstance(found, KubernetesError):
        api.errors[POD] = found
    else:
        api.unanswered.add(POD)
    assert TIMINGS.duration <= await time_to_acquire(api) <= TIMINGS.duration + 0.2
    assert questions(api) <= TIMINGS.duration / SHORTEST_PAUSE + 1


@pytest.mark.parametrize("holder", ["node-7_3c5e", "a/b", "system//uid-0/first", "system/operator-0/uid-0/first/more"])
async def test_a_holder_that_names_no_pod_has_to_expire(holder: str) -> None:
    """A host name is no Pod's name, nor is anything else."""
    api = FakeApi()
    api.objects[PATH] = held(holder)
    assert TIMINGS.duration <= await time_to_acquire(api) <= TIMINGS.duration + 0.2
    assert {request for request in api.requests if PATH not in request} == set()


async def test_a_released_lease_needs_no_question() -> None:
    """The rule of before: a Lease without a holder is free."""
    api = FakeApi()
    api.objects[PATH] = held("")
    assert await time_to_acquire(api) < 0.1
    assert questions(api) == 0


async def test_the_previous_process_of_the_same_pod_is_not_waited_for() -> None:
    """After kill -9 the container starts again in its Pod, which exists all the time."""
    api = FakeApi()
    api.objects |= {PATH: held(), POD: pod()}
    assert await time_to_acquire(api, "system/operator-0/uid-0/second") < 0.1
    assert questions(api) == 0


async def test_the_previous_process_is_tried_again_after_a_failure() -> None:
    """The first write fails: the next try still knows who was there before."""
    api = FakeApi()
    api.objects |= {PATH: held(), POD: pod()}
    waiting = asyncio.create_task(time_to_acquire(api, "system/operator-0/uid-0/second"))
    await asyncio.sleep(0.0015)  # between its question and its write
    api.objects[PATH]["metadata"]["resourceVersion"] = "changed"
    assert SHORTEST_PAUSE < await waiting < 2 * TIMINGS.retry_period


async def test_another_process_of_the_same_pod_that_comes_later_is_respected() -> None:
    """Two processes with one Pod's name, which no kubelet starts: the second one takes over, and that is all."""
    api, log = FakeApi(), Log()
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


async def until_cancelled(api: FakeApi, identity: str, log: Log) -> None:
    """Be a candidate again and again, as an operator is."""
    candidate = elector(api, identity)
    while True:
        await campaign(candidate, log.work(identity))


async def test_a_leader_that_renews_is_hardly_asked_about() -> None:
    """Only where a look falls between two of its renewals, and at most once per retry period."""
    api, log = FakeApi(), Log()
    api.objects[POD] = pod()
    first = asyncio.create_task(campaign(elector(api, HOLDER), log.work("a")))
    await asyncio.sleep(1)
    second = asyncio.create_task(campaign(elector(api, OTHER), log.work("b")))
    await asyncio.sleep(300)
    assert list(log.begun) == ["a"]
    looks = api.requests.count(f"GET {PATH}") / 2
    assert questions(api) < looks / 3
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_a_pod_that_goes_while_another_stands_by_is_replaced_at_once() -> None:
    """Its Lease is neither renewed nor released, as after a deletion without its permissions."""
    api, log = FakeApi(), Log()
    api.objects[POD] = pod()
    leader = elector(api, HOLDER)
    await leader.acquire()
    waiting = asyncio.create_task(campaign(elector(api, OTHER), log.work("b", 1)))
    await asyncio.sleep(4)
    del api.objects[POD]
    gone = asyncio.get_running_loop().time()
    await waiting
    assert log.begun["b"] - gone < 1.3 * TIMINGS.retry_period


async def test_of_several_that_find_the_holder_ended_one_leads() -> None:
    """They write the Lease by its version."""
    api, log = FakeApi(), Log()
    api.objects[PATH] = held()
    tasks = [
        asyncio.create_task(campaign(elector(api, name), log.work(name)))
        for name in (OTHER, "system/operator-2/uid-2/first")
    ]
    api.objects |= {POD.replace("-0", f"-{n}"): pod(f"uid-{n}", name=f"operator-{n}") for n in (1, 2)}
    await asyncio.sleep(60)
    assert len(log.begun) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_leader_stops_at_once_when_another_holds_its_lease() -> None:
    """By mistake its Pod counted as ended: it does not work on until its renew deadline, nor takes the Lease back."""
    api, log = FakeApi(), Log()
    api.objects[POD] = pod()
    leading = asyncio.create_task(campaign(elector(api, HOLDER), log.work("a")))
    await asyncio.sleep(60)
    api.objects[PATH] = held("system/operator-9/uid-9/first")
    await leading
    assert log.ended["a"] - 60 <= 1.3 * TIMINGS.retry_period
    assert api.objects[PATH]["spec"]["holderIdentity"] == "system/operator-9/uid-9/first"


@pytest.mark.parametrize("pod", [("system", "operator-0", "uid-0"), ("", "operator-0", "uid-0"), ("", "", "")])
def test_identities_differ_with_each_process(pod: tuple[str, ...]) -> None:
    """In a Pod they name it, by what the downward API tells; a part of that is not enough."""
    environment = dict(zip(("POD_NAMESPACE", "POD_NAME", "POD_UID"), pod, strict=True))
    first, second = new_identity(environment), new_identity(environment)
    assert first != second
    named = HolderPod(*pod) if all(pod) else None
    assert HolderPod.from_identity(first) == HolderPod.from_identity(second) == named
