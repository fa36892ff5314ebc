"""Leader election among candidates with a fake API server, in virtual time (looptime).

leader                   | other candidate
works                    | is standby
stops                    | takes over at once
is killed                | takes over within the duration of the Lease
cannot renew             | starts after the work of the leader was cancelled
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controller.errors import KubernetesError, KubernetesUnavailable, LeadershipLost
from controller.kube.leaderelection import LeaderElector, LeaseTimings
from tests.unit.kube.fake_api import FakeApi
from tests.unit.reconcile.world import LoopClock

pytestmark = [pytest.mark.looptime]

TIMINGS = LeaseTimings()
PATH = "/apis/coordination.k8s.io/v1/namespaces/system/leases/operator"


class JumpingClock(LoopClock):
    """Clock that can advance while the event loop stands still, as after a process was frozen."""

    def __init__(self) -> None:
        self.jump = 0.0

    def monotonic(self) -> float:
        """Return the true time."""
        return super().monotonic() + self.jump


def elector(api: FakeApi, identity: str, clock: LoopClock | None = None) -> LeaderElector:
    """Return a candidate."""
    rng = random.Random(identity)
    return LeaderElector(
        api, namespace="system", name="operator", identity=identity, rng=rng, clock=clock or LoopClock()
    )


def another_connection(api: FakeApi) -> FakeApi:
    """Return another connection to the same API server."""
    other = FakeApi()
    other.objects = api.objects
    other._version = 1000
    return other


class WorkLog:
    """Start and end of the work of each candidate."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.ended: dict[str, float] = {}

    def work(self, name: str, seconds: float = 1e6) -> Callable[[], Awaitable[None]]:
        """Return work that takes a time."""

        async def work() -> None:
            loop = asyncio.get_running_loop()
            self.begun[name] = loop.time()
            try:
                await asyncio.sleep(seconds)
            finally:
                self.ended[name] = loop.time()

        return work


async def acquire_and_lead(candidate: LeaderElector, work: Callable[[], Awaitable[None]]) -> None:
    """Acquire the Lease, then work."""
    await candidate.acquire()
    await candidate.lead(work)


async def test_one_leads_and_the_other_stands_by() -> None:
    """For an hour, the Lease names the first candidate and the second one never starts."""
    api, log = FakeApi(), WorkLog()
    tasks = [asyncio.create_task(acquire_and_lead(elector(api, name), log.work(name))) for name in ("a", "b")]
    await asyncio.sleep(3600)
    assert len(log.begun) == 1
    assert api.objects[PATH]["spec"]["holderIdentity"] in log.begun
    assert api.objects[PATH]["spec"]["leaseTransitions"] == 1
    assert api.objects[PATH]["spec"]["leaseDurationSeconds"] == 15
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_renewal_is_one_request() -> None:
    """The leader knows the Lease as it has written it; its resourceVersion proves that nobody else has since."""
    api, log = FakeApi(), WorkLog()
    leading = asyncio.create_task(acquire_and_lead(elector(api, "a"), log.work("a")))
    await asyncio.sleep(60)
    assert api.requests[:2] == [f"GET {PATH}", f"POST {PATH.rpartition('/')[0]}"]
    assert set(api.requests[2:]) == {f"PUT {PATH}"}
    assert 25 <= len(api.requests[2:]) <= 37
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)


@pytest.mark.parametrize("how", ["labelled", "deleted"])
async def test_a_lease_that_is_not_as_it_was_written(how: str) -> None:
    """Somebody changes its metadata or deletes it: it is read once, and the leader stays the leader."""
    api, log = FakeApi(), WorkLog()
    leading = asyncio.create_task(acquire_and_lead(elector(api, "a"), log.work("a")))
    await asyncio.sleep(60)
    before = len(api.requests)
    if how == "deleted":
        del api.objects[PATH]
    else:
        api.objects[PATH]["metadata"] |= {"labels": {"team": "a"}, "resourceVersion": "changed"}
    await asyncio.sleep(60)
    assert list(log.begun) == ["a"]
    assert not log.ended
    assert api.requests[before:].count(f"GET {PATH}") == 1
    assert api.objects[PATH]["spec"]["holderIdentity"] == "a"
    if how != "deleted":
        assert api.objects[PATH]["metadata"]["labels"] == {"team": "a"}
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)


async def test_a_clean_stop_releases_the_lease() -> None:
    """The other one starts within an attempt or two, not after the duration of the Lease."""
    api, log = FakeApi(), WorkLog()
    first = asyncio.create_task(acquire_and_lead(elector(api, "a"), log.work("a", 60)))
    await asyncio.sleep(1)
    second = asyncio.create_task(acquire_and_lead(elector(api, "b"), log.work("b", 60)))
    await first
    await asyncio.sleep(5)
    assert log.ended["a"] <= log.begun["b"] <= log.ended["a"] + 2.5
    await second
    assert api.objects[PATH]["spec"]["holderIdentity"] == ""


async def test_a_killed_leader_is_replaced_within_the_duration() -> None:
    """After kill -9 the Lease is neither renewed nor released."""
    api, log = FakeApi(), WorkLog()
    dead = elector(api, "a")
    await dead.acquire()
    died = asyncio.get_running_loop().time()
    second = asyncio.create_task(acquire_and_lead(elector(api, "b"), log.work("b", 1)))
    await second
    assert TIMINGS.duration - 1 <= log.begun["b"] - died <= TIMINGS.duration + 0.2


@pytest.mark.parametrize("how", ["errors", "hangs"])
async def test_a_leader_that_cannot_renew_stops_before_another_starts(how: str) -> None:
    """Cut off by errors or timeouts, its work ends before that of the other one starts."""
    mine, log = FakeApi(), WorkLog()
    theirs = another_connection(mine)
    first = asyncio.create_task(acquire_and_lead(elector(mine, "a"), log.work("a")))
    second = asyncio.create_task(acquire_and_lead(elector(theirs, "b"), log.work("b", 1)))
    await asyncio.sleep(60)
    assert list(log.begun) == ["a"]
    if how == "errors":
        mine.error = KubernetesUnavailable("503", status=503)
    else:
        mine.hangs = True
    await first
    await second
    assert log.ended["a"] < log.begun["b"]
    assert log.ended["a"] - 60 <= TIMINGS.renew_deadline + 0.1


async def test_a_short_failure_does_not_cost_leadership() -> None:
    """Renewal is retried until the deadline."""
    api, log = FakeApi(), WorkLog()
    task = asyncio.create_task(acquire_and_lead(elector(api, "a"), log.work("a", 100)))
    await asyncio.sleep(10)
    api.error = KubernetesUnavailable("503", status=503)
    await asyncio.sleep(6)
    api.error = None
    await task
    assert log.ended["a"] - log.begun["a"] == pytest.approx(100)


async def test_a_candidate_stands_by_only_next_to_a_live_leader() -> None:
    """A standby has seen the Lease renewed, and that has not expired."""
    api, log = FakeApi(), WorkLog()
    leading = asyncio.create_task(acquire_and_lead(elector(api, "a"), log.work("a")))
    await asyncio.sleep(1)
    theirs = another_connection(api)
    candidate = elector(theirs, "b")
    standing_by = asyncio.create_task(candidate.acquire())
    assert not candidate.stands_by
    await asyncio.sleep(5)
    assert candidate.stands_by
    theirs.error = KubernetesUnavailable("503", status=503)
    await asyncio.sleep(TIMINGS.duration + 2)
    assert not candidate.stands_by
    for task in (leading, standing_by):
        task.cancel()
    await asyncio.gather(leading, standing_by, return_exceptions=True)


async def test_the_lease_of_a_dead_leader_does_not_make_a_standby() -> None:
    """A Lease that is read but never seen renewed does not make a candidate ready."""
    api = FakeApi()
    await elector(api, "a").acquire()
    reader = another_connection(api)
    candidate = elector(reader, "b")
    waiting = asyncio.create_task(candidate.acquire())
    seen = []
    while not waiting.done():
        seen.append(candidate.stands_by)
        await asyncio.sleep(0.5)
    assert len(seen) > 20
    assert not any(seen)


async def test_a_frozen_process_notices_before_the_event_loop() -> None:
    """The check uses the true time, which the event loop does not know within an iteration."""
    api, clock = FakeApi(), JumpingClock()
    candidate = elector(api, "a", clock)

    async def work() -> None:
        candidate.check()
        clock.jump = TIMINGS.renew_deadline + 1
        with pytest.raises(LeadershipLost):
            candidate.check()

    for _ in range(2):
        with pytest.raises(LeadershipLost):
            candidate.check()
        await acquire_and_lead(candidate, work)
        clock.jump = 0


async def test_clocks_of_other_machines_do_not_matter() -> None:
    """A holder whose clock is a day behind keeps its Lease as long as it renews it."""
    api, log = FakeApi(), WorkLog()
    first = asyncio.create_task(acquire_and_lead(elector(api, "a"), log.work("a")))
    await asyncio.sleep(1)
    second = asyncio.create_task(acquire_and_lead(elector(api, "b"), log.work("b")))
    for number in range(100):
        await asyncio.sleep(1)
        api.objects[PATH]["spec"]["renewTime"] = f"2020-01-01T00:00:{number % 60:02}.000000Z"
    assert list(log.begun) == ["a"]
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_an_error_of_the_work_is_raised() -> None:
    """The Lease is released, and the error propagates."""
    api = FakeApi()

    async def fail() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await acquire_and_lead(elector(api, "a"), fail)
    assert api.objects[PATH]["spec"]["holderIdentity"] == ""


def lease(metadata: Any, spec: Any) -> dict[str, Any]:
    """Return what claims to be a Lease."""
    return {"kind": "Lease", "metadata": metadata, "spec": spec}


VERSION = {"resourceVersion": "1"}
NONSENSE: list[Any] = [
    {},
    {"kind": "Status", "status": "Success", "metadata": {}},
    lease({}, {}),
    lease(None, None),
    lease(VERSION, {"holderIdentity": 5}),
    lease(VERSION, {"holderIdentity": "x", "leaseDurationSeconds": "9"}),
    lease(VERSION, {"holderIdentity": "x", "leaseDurationSeconds": 9**999}),
    lease(VERSION, "text"),
]


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_nonsense_costs_neither_the_lease_nor_the_process(nonsense: Any) -> None:
    """A leader that gets one goes on leading, and a candidate that gets one goes on trying."""
    api, log = FakeApi(), WorkLog()
    api.nonsense = [nonsense]
    task = asyncio.create_task(acquire_and_lead(elector(api, "a"), log.work("a")))
    await asyncio.sleep(20)
    for _ in range(10):
        api.nonsense = [nonsense]
        await asyncio.sleep(7)
    assert not task.done()
    assert list(log.begun) == ["a"]
    assert log.ended == {}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_lease_that_cannot_be_read_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """In ten minutes a candidate tries 300 times, and logs one warning."""
    api = FakeApi()
    api.error = KubernetesError("leases is forbidden", status=403)
    task = asyncio.create_task(elector(api, "a").acquire())
    await asyncio.sleep(590)
    task.cancel()
    assert 200 < len(api.requests) < 400
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_throttled_candidate_waits() -> None:
    """Retry-After is the lower bound of the next attempt, but one more has to fit into the renew deadline."""
    api = FakeApi()
    api.error = KubernetesUnavailable("busy", status=429, retry_after=60)
    task = asyncio.create_task(elector(api, "a").acquire())
    await asyncio.sleep(49)
    assert len(api.requests) == 10
    task.cancel()
