"""Timers: at most one for each key, the earliest first, in bounded memory."""

from __future__ import annotations

from controller.reconcile.timers import Timers


def test_the_earliest_comes_first() -> None:
    """Keys come out in the order of their times, and none before its time."""
    timers: Timers[str] = Timers()
    timers.set("late", 2)
    timers.set("early", 1)
    assert timers.next_due() == 1
    assert timers.pop(0.5) is None
    assert [timers.pop(2), timers.pop(2), timers.pop(2)] == ["early", "late", None]


def test_a_timer_is_replaced() -> None:
    """Only the last time of a key counts, whether it is earlier or later."""
    timers: Timers[str] = Timers()
    timers.set("a", 5)
    timers.set("a", 1)
    timers.set("b", 1)
    timers.set("b", 7)
    assert timers.pop(1) == "a"
    assert timers.pop(5) is None
    assert timers.next_due() == 7


def test_a_cancelled_timer_is_never_due() -> None:
    """Cancelling says whether there was a timer, and takes it away."""
    timers: Timers[str] = Timers()
    timers.set("a", 1)
    assert timers.cancel("a")
    assert not timers.cancel("a")
    assert timers.next_due() is None
    assert timers.pop(9) is None
