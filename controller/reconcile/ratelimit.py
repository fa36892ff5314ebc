"""Rate limiter for status writes of many objects at once."""

from __future__ import annotations

import heapq

from controller.reconcile.interfaces import Clock


class RateLimiter:
    """Reserves moments at a fixed rate, without blocking a worker.

    Args:
        rate: Reservations per second.
        clock: The time.
    """

    def __init__(self, *, rate: float, clock: Clock) -> None:
        self._interval = 1 / rate
        self._clock = clock
        self._next = 0.0
        self._free: list[float] = []
        """Moments that were reserved and released before they came."""

    def reserve(self) -> Reservation:
        """Reserve the next free moment; the caller keeps the reservation and comes back then."""
        now = self._clock.monotonic()
        while self._free:
            moment = heapq.heappop(self._free)
            if moment >= now:
                return Reservation(self, moment)
        moment = max(now, self._next)
        self._next = moment + self._interval
        return Reservation(self, moment)

    def release(self, moment: float) -> None:
        """Make a moment free again (see :meth:`Reservation.release`).

        Reservations of a past outage must not delay the first write of the next one.
        """
        if moment > self._clock.monotonic():
            heapq.heappush(self._free, moment)


class Reservation:
    """The right to act once, from a moment on.

    Args:
        limiter: The limiter.
        moment: The moment, on the monotonic clock.
    """

    def __init__(self, limiter: RateLimiter, moment: float) -> None:
        self._limiter: RateLimiter | None = limiter
        self.moment = moment

    def release(self) -> None:
        """Release it, used or not; a second call has no effect."""
        if self._limiter is not None:
            self._limiter.release(self.moment)
            self._limiter = None
