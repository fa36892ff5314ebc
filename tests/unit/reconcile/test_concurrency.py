"""The adaptive limit of concurrent reconciles."""

import asyncio
from datetime import UTC, datetime

from controller.reconcile.concurrency import MINIMUM, AdaptiveLimit
from tests.unit.reconcile.world import World


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


def _ignore() -> None:
    """Nothing depends on the limit."""


async def _measure(limit: AdaptiveLimit, clock: LateClock, *, times: int, lag: float = 0.0) -> int:
    for _ in range(times):
        limit.measure(on_growth=_ignore)
        clock.lost += lag
        await asyncio.sleep(0.1)
    return limit.current


async def test_the_limit_follows_the_lag() -> None:
    """It grows to its maximum while the event loop keeps up, and falls to its minimum while the loop lags."""
    clock = LateClock()
    limit = AdaptiveLimit(40, clock)
    assert limit.current == MINIMUM
    assert await _measure(limit, clock, times=5) == MINIMUM + 5
    assert await _measure(limit, clock, times=30) == 40
    assert await _measure(limit, clock, times=1, lag=0.05) == 28
    assert await _measure(limit, clock, times=20, lag=0.05) == MINIMUM
    assert await _measure(limit, clock, times=20, lag=0.001) == 36


async def test_a_maximum_below_the_minimum_is_kept() -> None:
    """``--concurrent 3`` means three, with and without lag."""
    clock = LateClock()
    limit = AdaptiveLimit(3, clock)
    assert await _measure(limit, clock, times=5) == 3
    assert await _measure(limit, clock, times=5, lag=1) == 3


async def test_nothing_is_measured_while_nothing_happens() -> None:
    """An idle operator does not wake up for it, and none of its timers outlives it."""
    clock = LateClock()
    limit = AdaptiveLimit(40, clock)
    limit.measure(on_growth=_ignore)
    await asyncio.sleep(0.1)
    clock.lost += 5
    await asyncio.sleep(10)
    assert limit.current == MINIMUM + 1
    limit.measure(on_growth=_ignore)
    limit.stop()
    await asyncio.sleep(1)
    assert limit.current == MINIMUM + 1


async def test_a_slow_registry_gets_all_workers() -> None:
    """Reconciles that wait for a registry leave the event loop idle."""
    world = World(concurrent=30)
    world.registry.latency = 0.5
    for number in range(300):
        world.put(f"repo-{number}")
    await asyncio.sleep(20)
    assert world.registry.most_busy == 30
    await world.controller.stop(grace=0)
