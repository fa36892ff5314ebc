"""The rate limit of new repositories."""

import pytest

from controller.config import Creations
from controller.reconcile.creations import CreationLimiter
from tests.unit.reconcile.test_breaker import ManualClock

LIMITS = Creations(per_second=10, burst=3)


def moments(limiter: CreationLimiter, number: int, namespace: str = "team") -> list[float]:
    """Reserve permits and return their moments."""
    return [limiter.reserve(namespace, LIMITS, None).moment for _ in range(number)]


def test_a_burst_and_then_one_by_one() -> None:
    """The first ones may act at once, the others at the configured rate; other namespaces are unaffected."""
    clock = ManualClock()
    clock.time = 100
    limiter = CreationLimiter(clock)
    assert [max(100, moment) for moment in moments(limiter, 6)] == pytest.approx([100, 100, 100, 100.1, 100.2, 100.3])
    assert max(moments(limiter, 3, "other")) <= 100
    clock.time = 101
    assert sum(moment <= 101 for moment in moments(limiter, 5)) == 3


def test_only_creations_count() -> None:
    """A permit that is given back can be had by the next object; one that was spent cannot."""
    limiter = CreationLimiter(ManualClock())
    for _ in range(100):
        permit = limiter.reserve("team", LIMITS, None)
        assert permit.moment <= 0
        permit.release()
        permit.release()  # a second call has no effect
    for _ in range(3):
        permit = limiter.reserve("team", LIMITS, None)
        permit.spend()
        permit.release()
    assert moments(limiter, 1) == [pytest.approx(0.1)]


def test_a_permit_is_kept_until_the_limits_change() -> None:
    """An object keeps its turn, unless a new configuration gives all of them a new one."""
    limiter = CreationLimiter(ManualClock())
    moments(limiter, 10)
    held = limiter.reserve("team", LIMITS, None)
    assert limiter.reserve("team", LIMITS, held) is held
    assert limiter.reserve("team", Creations(per_second=10, burst=4), held).moment <= 0


def test_memory_is_bounded_by_the_namespaces_in_use() -> None:
    """Namespaces that create nothing any more are forgotten; one that waits is not."""
    clock = ManualClock()
    limiter = CreationLimiter(clock)
    waiting = [limiter.reserve("busy", LIMITS, None) for _ in range(100_000)][-1]
    for number in range(5000):
        clock.time += 1
        limiter.reserve(f"namespace-{number}", LIMITS, None).spend()
        assert len(limiter) <= 64
    assert limiter.reserve("busy", LIMITS, waiting) is waiting
