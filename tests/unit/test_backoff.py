"""Exponential backoff with jitter."""

import random
from itertools import islice

from controller.backoff import OPERATOR_BACKOFF, Backoff


def test_bounds_double_up_to_the_cap() -> None:
    """The bound doubles with each failure and stays at the cap."""
    backoff = Backoff(first=1, cap=60)
    assert [backoff.bound(failures) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.bound(10_000) == 60


def test_delays_have_jitter() -> None:
    """Each delay is drawn between the minimum and the bound, so that clients do not retry in step."""
    rng = random.Random(1)
    delays = [Backoff(first=1, cap=60).delay(1, rng) for _ in range(500)]
    assert 0 <= min(delays) < 0.1
    assert 0.9 < max(delays) <= 1
    assert min(Backoff(first=1, cap=60, minimum=0.5).delay(1, rng) for _ in range(500)) >= 0.5


def test_delays_are_endless() -> None:
    """The delays of an operation grow to the cap and stay there."""
    delays = list(islice(OPERATOR_BACKOFF.delays(random.Random(1)), 1000))
    assert all(15 <= delay <= 30 for delay in delays[10:])
