"""The rate limiter of failure writes."""

import itertools
import random

import pytest

from controller.reconcile.ratelimit import RateLimiter
from tests.unit.reconcile.test_breaker import ManualClock


def test_reservations_are_spread() -> None:
    """A thousand objects that want to write at once get their moments one after the other."""
    limiter = RateLimiter(rate=100, clock=ManualClock())
    moments = [limiter.reserve("a").moment for _ in range(1000)]
    assert moments[0] == 0
    assert moments[-1] == pytest.approx(9.99)


def test_used_reservations_keep_the_rate() -> None:
    """Objects that write at once, one after the other, are as fast as the rate allows."""
    clock = ManualClock()
    limiter = RateLimiter(rate=100, clock=clock)
    for number in range(50):
        reservation = limiter.reserve("a")
        assert reservation.moment == pytest.approx(number / 100)
        clock.time = reservation.moment
        reservation.release()


def test_reservations_of_an_outage_that_is_over_delay_nothing() -> None:
    """Once the last one was given up, the first failure of the next outage is written at once."""
    clock = ManualClock()
    limiter = RateLimiter(rate=100, clock=clock)
    reservations = [limiter.reserve("a") for _ in range(2000)]
    clock.time = 1
    for reservation in reservations:
        reservation.release()
        reservation.release()  # a second call has no effect
    assert limiter.reserve("a").moment == pytest.approx(1, abs=0.011)


def test_reservations_of_an_outage_that_goes_on_delay_nothing() -> None:
    """One object still fails when the others have recovered: the moments of these are free, each for one object."""
    clock = ManualClock()
    limiter = RateLimiter(rate=100, clock=clock)
    reservations = [limiter.reserve("a") for _ in range(2000)]
    clock.time = 1
    for reservation in reservations[:-1]:
        reservation.release()
    moments = [limiter.reserve("a").moment for _ in range(2000)]
    assert moments[0] == pytest.approx(1, abs=0.011)
    assert min(after - before for before, after in itertools.pairwise(moments)) > 0.009


def test_many_reservations_of_a_namespace_do_not_delay_another_one() -> None:
    """The only object of a namespace gets the next moment, although thousands of another one have reserved theirs."""
    clock = ManualClock()
    limiter = RateLimiter(rate=100, clock=clock)
    many = [limiter.reserve("many") for _ in range(10_000)]
    clock.time = 5
    for reservation in many[:500]:
        reservation.release()
    only = limiter.reserve("only")
    assert only.moment == pytest.approx(5)
    ousted = [reservation for reservation in many[500:] if not reservation.is_held]
    assert [reservation.moment for reservation in ousted] == [only.moment]
    assert limiter.reserve("many").moment == pytest.approx(100), "what was ceded comes at the end"


def test_namespaces_share_the_rate() -> None:
    """Half of the moments for each of two that have as many objects, whichever came first; none is given twice."""
    limiter = RateLimiter(rate=100, clock=ManualClock())
    first = [limiter.reserve("first") for _ in range(2000)]
    second = [limiter.reserve("second") for _ in range(1000)]
    held = [reservation for reservation in (*first, *second) if reservation.is_held]
    assert len({reservation.moment for reservation in held}) == len(held)
    soon = [reservation.flow for reservation in held if reservation.moment < 4.995]
    assert len(soon) == 500
    assert soon.count("second") == pytest.approx(250, abs=10)


def test_what_was_ceded_is_not_released() -> None:
    """Its moment is somebody else's."""
    limiter = RateLimiter(rate=100, clock=ManualClock())
    many = [limiter.reserve("many") for _ in range(20)]
    only = limiter.reserve("only")
    many[0].release()
    assert only.is_held
    assert limiter.reserve("other").moment != only.moment


def test_reservations_are_released_in_any_order() -> None:
    """Objects recover in the order in which they come, not in that of their reservations."""
    limiter = RateLimiter(rate=100, clock=ManualClock())
    reservations = [limiter.reserve("a") for _ in range(1000)]
    random.Random(0).shuffle(reservations)
    for reservation in reservations:
        reservation.release()
    assert [limiter.reserve("a").moment for _ in range(999)] == pytest.approx([n / 100 for n in range(1, 1000)])
