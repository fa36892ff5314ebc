"""The rate limiter of failure writes."""

import itertools

import pytest

from controller.reconcile.ratelimit import RateLimiter
from tests.unit.reconcile.test_breaker import ManualClock


def test_reservations_are_spread() -> None:
    """A thousand objects that want to write at once get their moments one after the other."""
    limiter = RateLimiter(rate=100, clock=ManualClock())
    moments = [limiter.reserve().moment for _ in range(1000)]
    assert moments[0] == 0
    assert moments[-1] == pytest.approx(9.99)


def test_used_reservations_keep_the_rate() -> None:
    """Objects that write at once, one after the other, are as fast as the rate allows."""
    clock = ManualClock()
    limiter = RateLimiter(rate=100, clock=clock)
    for number in range(50):
        reservation = limiter.reserve()
        assert reservation.moment == pytest.approx(number / 100)
        clock.time = reservation.moment
        reservation.release()


def test_reservations_of_an_outage_that_is_over_delay_nothing() -> None:
    """Once the last one was given up, the first failure of the next outage is written at once."""
    clock = ManualClock()
    limiter = RateLimiter(rate=100, clock=clock)
    reservations = [limiter.reserve() for _ in range(2000)]
    clock.time = 1
    for reservation in reservations:
        reservation.release()
        reservation.release()  # a second call has no effect
    assert limiter.reserve().moment == pytest.approx(1, abs=0.011)


def test_reservations_of_an_outage_that_goes_on_delay_nothing() -> None:
    """One object still fails when the others have recovered: the moments of these are free, each for one object."""
    clock = ManualClock()
    limiter = RateLimiter(rate=100, clock=clock)
    reservations = [limiter.reserve() for _ in range(2000)]
    clock.time = 1
    for reservation in reservations[:-1]:
        reservation.release()
    moments = [limiter.reserve().moment for _ in range(2000)]
    assert moments[0] == pytest.approx(1, abs=0.011)
    assert min(after - before for before, after in itertools.pairwise(moments)) > 0.009
