"""The adaptive limit of concurrent reconciles, in virtual time (looptime)."""

import asyncio
from datetime import UTC, datetime

import pytest

from controller.reconcile.concurrency import MINIMUM, AdaptiveLimit
from tests.unit.reconcile.world import World

pytestmark = pytest.mark.looptime

INTERVAL = 0.05
"""Seconds between two measurements."""


class LateClock:
    """The loop's time, of which some is lost in callbacks."""

    def __init__(self) -> None:
        self.lost = 0.0

    def monotonic(self) -> float:
        """Return the time as a clock outside the loop shows it."""
        return asyncio.get_running_loop().time() + self.lost

    def now(self) -> datetime:
        """Return the time of day."""
        return datetime.now(UTC)


class Subject:
    """A limit, and what it depends on.

    Args:
        maximum: Its maximum.
    """

    def __init__(self, maximum: int = 40) -> None:
        self.clock = LateClock()
        self.busy = True
        self.grown = 0
        self.limit = AdaptiveLimit(maximum, self.clock, is_busy=lambda: self.busy, on_growth=self.grow)

    def grow(self) -> None:
        """Count a growth."""
        self.grown += 1

    async def measure(self, *, times: int, lag: float = 0.0) -> int:
        """Let it measure some times, with the same lag each; return the limit."""
        self.limit.measure()
        for _ in range(times):
            self.clock.lost += lag
            await asyncio.sleep(INTERVAL)
        return self.limit.current


async def test_the_limit_follows_the_lag() -> None:
    """It grows to its maximum while the event loop keeps up, and falls to its minimum while the loop lags."""
    subject = Subject()
    assert subject.limit.current == MINIMUM
    assert await subject.measure(times=5) == MINIMUM + 5
    assert await subject.measure(times=30) == 40
    assert await subject.measure(times=1, lag=0.05) == 28
    assert await subject.measure(times=20, lag=0.05) == MINIMUM
    assert await subject.measure(times=60) == 40
    assert await subject.measure(times=60, lag=0.003) == MINIMUM


async def test_a_single_lag_is_forgiven() -> None:
    """One callback that takes long, such as a garbage collection, does not undo what was learnt before."""
    subject = Subject()
    assert await subject.measure(times=60) == 40
    assert await subject.measure(times=1, lag=0.009) == 40


async def test_the_limit_grows_slowly_near_the_tolerated_lag() -> None:
    """Otherwise, it would swing between its minimum and its maximum under a steady load."""
    assert await Subject().measure(times=60, lag=0.0019) < MINIMUM + 16


async def test_a_maximum_below_the_minimum_is_kept() -> None:
    """``--concurrent 3`` means three, with and without lag."""
    subject = Subject(3)
    assert await subject.measure(times=5) == 3
    assert await subject.measure(times=5, lag=1) == 3


async def test_nothing_is_measured_while_nothing_happens() -> None:
    """An idle operator does not wake up for it, and none of its timers outlives it."""
    subject = Subject()
    subject.busy = False
    assert await subject.measure(times=3) == MINIMUM + 1
    subject.clock.lost += 5
    await asyncio.sleep(10)
    assert subject.limit.current == MINIMUM + 1
    subject.limit.measure()
    subject.limit.stop()
    await asyncio.sleep(1)
    assert subject.grown == 1


async def test_reconciles_that_hang_do_not_end_the_measurement() -> None:
    """After a lag at the start, the limit grows although no reconcile starts or ends."""
    subject = Subject()
    assert await subject.measure(times=20, lag=0.05) == MINIMUM
    await asyncio.sleep(5)
    assert subject.limit.current == 40


async def test_a_slow_registry_gets_all_workers() -> None:
    """Reconciles that wait for a registry leave the event loop idle."""
    world = World(concurrent=30)
    world.registry.latency = 0.5
    for number in range(300):
        world.put(f"repo-{number}")
    await asyncio.sleep(20)
    assert world.registry.most_busy == 30
    await world.controller.stop(grace=0)
