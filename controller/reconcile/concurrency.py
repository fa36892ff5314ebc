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

MINIMUM: Final = 16
"""Reconciles per registry that are always allowed, and enough where the CPU is the limit."""

_TOLERATED: Final = 0.02
"""Lag above which the limit is lowered, in seconds."""

_INTERVAL: Final = 0.05
"""Seconds between two measurements, while reconciles are in progress."""

_DECREASE: Final = 0.7
"""Factor of the limit after a measurement above the tolerated lag; after any other, it grows by one."""


class AdaptiveLimit:
    """The number of concurrent reconciles that the event loop can take at present.

    Args:
        maximum: The upper limit.
        clock: The time.
    """

    def __init__(self, maximum: int, clock: Clock) -> None:
        self._minimum = min(MINIMUM, maximum)
        self._maximum = maximum
        self._clock = clock
        self._limit = float(self._minimum)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def current(self) -> int:
        """The limit."""
        return int(self._limit)

    def measure(self, *, on_growth: Callable[[], None]) -> None:
        """Measure the lag once, in a moment. Call it when a reconcile starts: an idle event loop is left asleep.

        Args:
            on_growth: Called if the limit has grown.
        """
        if self._timer is None:
            due = self._clock.monotonic() + _INTERVAL
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._adapt, due, on_growth)

    def stop(self) -> None:
        """Cancel the measurement."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _adapt(self, due: float, on_growth: Callable[[], None]) -> None:
        self._timer = None
        if self._clock.monotonic() - due > _TOLERATED:
            self._limit = max(self._limit * _DECREASE, self._minimum)
        elif self._limit < self._maximum:
            self._limit = min(self._limit + 1, self._maximum)
            on_growth()
