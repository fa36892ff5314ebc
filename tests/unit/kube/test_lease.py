"""Leader election among candidates in memory; the minutes pass without waiting (looptime).

the leader               | the other one
works                    | stands by
stops in order           | takes over at once
is gone (kill -9)        | takes over within the lease's duration
cannot renew             | its work is cancelled before the other one can begin
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from controller.errors import KubernetesUnavailable
from controller.kube.lease import LeaderElector, LeaseTimings
from tests.unit.engine.world import LoopClock
from tests.unit.kube.fake_api import FakeApi

pytestmark = [pytest.mark.looptime]

TIMINGS = LeaseTimings()
PATH = "/apis/coordination.k8s.io/v1/namespaces/system/leases/operator"


class JumpingClock(LoopClock):
    """A clock that goes on while the event loop's stands still, as a frozen process finds it."""

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


def share(api: FakeApi) -> FakeApi:
    """Return another connection to the same API server."""
    other = FakeApi()
    other.objects = api.objects
    other._version = 1000
    return other


class Log:
    """Who works from when to when."""

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


async def campaign(candidate: LeaderElector, work: Callable[[], Awaitable[None]]) -> None:
    """Wait for the Lease, then work."""
    await candidate.acquire()
    await candidate.lead(work)


async def test_one_leads_and_the_other_stands_by() -> None:
    """For an hour: the Lease names the first, and the second never begins."""
    api, log = FakeApi(), Log()
    tasks = [asyncio.create_task(campaign(elector(api, name), log.work(name))) for name in ("a", "b")]
    await asyncio.sleep(3600)
    assert len(log.begun) == 1
    assert api.objects[PATH]["spec"]["holderIdentity"] in log.begun
    assert api.objects[PATH]["spec"]["leaseTransitions"] == 1
    assert api.objects[PATH]["spec"]["leaseDurationSeconds"] == 15
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_leader_that_stops_in_order_gives_the_lease_back() -> None:
    """The other one begins within a try or two, not after the lease's duration."""
    api, log = FakeApi(), Log()
    first = asyncio.create_task(campaign(elector(api, "a"), log.work("a", 60)))
    await asyncio.sleep(1)
    second = asyncio.create_task(campaign(elector(api, "b"), log.work("b", 60)))
    await first
    await asyncio.sleep(5)
    assert log.ended["a"] <= log.begun["b"] <= log.ended["a"] + 2.5
    await second
    assert api.objects[PATH]["spec"]["holderIdentity"] == ""


async def test_a_leader_that_is_gone_is_replaced_within_the_duration() -> None:
    """After kill -9 nothing renews, nothing is given back."""
    api, log = FakeApi(), Log()
    dead = elector(api, "a")
    await dead.acquire()
    died = asyncio.get_running_loop().time()
    second = asyncio.create_task(campaign(elector(api, "b"), log.work("b", 1)))
    await second
    assert TIMINGS.duration - 1 <= log.begun["b"] - died <= TIMINGS.duration + 0.2


@pytest.mark.parametrize("how", ["errors", "hangs"])
async def test_a_leader_that_cannot_renew_stops_before_another_begins(how: str) -> None:
    """Cut off from the API server, by refusals or by silence: its work ends first."""
    mine, log = FakeApi(), Log()
    theirs = share(mine)
    first = asyncio.create_task(campaign(elector(mine, "a"), log.work("a")))
    second = asyncio.create_task(campaign(elector(theirs, "b"), log.work("b", 1)))
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


async def test_a_short_trouble_does_not_cost_the_leadership() -> None:
    """Renewing is tried again until the deadline."""
    api, log = FakeApi(), Log()
    task = asyncio.create_task(campaign(elector(api, "a"), log.work("a", 100)))
    await asyncio.sleep(10)
    api.error = KubernetesUnavailable("503", status=503)
    await asyncio.sleep(6)
    api.error = None
    await task
    assert log.ended["a"] - log.begun["a"] == pytest.approx(100)


async def test_a_candidate_stands_by_only_next_to_a_live_leader() -> None:
    """It has seen the Lease renewed, and that was not too long ago."""
    api, log = FakeApi(), Log()
    leading = asyncio.create_task(campaign(elector(api, "a"), log.work("a")))
    await asyncio.sleep(1)
    theirs = share(api)
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
    """A Lease that is only read, and never renewed, may be anybody's: nothing is ready next to it."""
    api = FakeApi()
    await elector(api, "a").acquire()
    reader = share(api)
    candidate = elector(reader, "b")
    waiting = asyncio.create_task(candidate.acquire())
    seen = []
    while not waiting.done():
        seen.append(candidate.stands_by)
        await asyncio.sleep(0.5)
    assert len(seen) > 20
    assert not any(seen)


async def test_who_was_frozen_knows_it_before_the_event_loop_does() -> None:
    """Woken in the middle of a round of callbacks, where the loop has the time of before: not surely the holder."""
    api, clock = FakeApi(), JumpingClock()
    candidate = elector(api, "a", clock)
    held = []

    async def work() -> None:
        held.append(candidate.holds())
        clock.jump = TIMINGS.renew_deadline + 1
        held.append(candidate.holds())

    assert not candidate.holds()
    await campaign(candidate, work)
    assert held == [True, False]
    assert not candidate.holds()


async def test_a_clock_of_another_machine_does_not_matter() -> None:
    """A holder whose clock is a day behind keeps its Lease as long as it renews it."""
    api, log = FakeApi(), Log()
    first = asyncio.create_task(campaign(elector(api, "a"), log.work("a")))
    await asyncio.sleep(1)
    second = asyncio.create_task(campaign(elector(api, "b"), log.work("b")))
    for number in range(100):
        await asyncio.sleep(1)
        api.objects[PATH]["spec"]["renewTime"] = f"2020-01-01T00:00:{number % 60:02}.000000Z"
    assert list(log.begun) == ["a"]
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_an_error_of_the_work_ends_the_leadership_and_is_seen() -> None:
    """The Lease is given back, and the error comes out."""
    api = FakeApi()

    async def fail() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await campaign(elector(api, "a"), fail)
    assert api.objects[PATH]["spec"]["holderIdentity"] == ""
