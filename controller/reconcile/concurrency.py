"""Adaptive concurrency: fewer reconciles at the same time while the event loop lags.

Watch events, the Lease and the health endpoints share the event loop with the reconciles. kopf handles about one new
object per turn of the loop, and each reconcile in progress makes a turn longer: if all workers are busy with one
namespace, an object in another one is seen late. A registry that is slow to respond leaves the loop idle, and then all
workers are used. The limit follows the lag by additive increase and multiplicative decrease, as congestion control in
TCP does (RFC 5681).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from controller.reconcile.interfaces import Clock

MINIMUM: Final = 8
"""Reconciles per registry that are always allowed, and nearly enough where the CPU is the limit."""

_TOLERATED: Final = 0.002
"""Mean lag above which the limit is lowered, in seconds: some lag is normal, even with few reconciles."""

_WEIGHT: Final = 0.2
"""Weight of one measurement in the mean, which is exponential."""

_INTERVAL: Final = 0.05
"""Seconds between two measurements, while reconciles are in progress."""

_DECREASE: Final = 0.7
"""Factor of the limit, per measurement, while the mean lag is above the tolerated one."""

_INCREASE: Final = 1.0
"""What is added to the limit, per measurement, without lag; less, the closer the mean is to the tolerated lag."""


class AdaptiveLimit:
    """The number of concurrent reconciles that the event loop can take at present.

    Args:
        maximum: The upper limit.
        clock: The time.
        is_busy: Returns whether reconciles are in progress.
        on_growth: Called if the limit may have grown.
    """

    def __init__(
        self, maximum: int, clock: Clock, *, is_busy: Callable[[], bool], on_growth: Callable[[], None]
    ) -> None:
        self._minimum = min(MINIMUM, maximum)
        self._maximum = maximum
        self._clock = clock
        self._is_busy = is_busy
        self._on_growth = on_growth
        self._limit = float(self._minimum)
        self._mean = 0.0
        """Mean lag, in seconds."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def current(self) -> int:
        """The limit."""
        return round(self._limit)

    def measure(self) -> None:
        """Measure the lag from now on, until nothing is in progress: an idle event loop is left asleep."""
        if self._timer is None:
            due = self._clock.monotonic() + _INTERVAL
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._adapt, due)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _adapt(self, due: float) -> None:
        self._timer = None
        lag = max(self._clock.monotonic() - due, 0.0)
        self._mean += _WEIGHT * (lag - self._mean)
        if self._mean > _TOLERATED:
            self._limit = max(self._limit * _DECREASE, self._minimum)
        elif self._limit < self._maximum:
            self._limit = min(self._limit + _INCREASE * (1 - self._mean / _TOLERATED), self._maximum)
            self._on_growth()
        if self._is_busy():
            self.measure()
