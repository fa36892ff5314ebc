"""Rate limiter for status writes of many objects at once."""

from __future__ import annotations

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
        self._outstanding = 0

    def reserve(self) -> Reservation:
        """Reserve the next free moment; the caller keeps the reservation and comes back then."""
        moment = max(self._clock.monotonic(), self._next)
        self._next = moment + self._interval
        self._outstanding += 1
        return Reservation(self, moment)

    def release(self) -> None:
        """Release one reservation (see :meth:`Reservation.release`).

        When none is left, the next one is at most one interval away: reservations of a past outage must not delay the
        first write of the next one.
        """
        self._outstanding -= 1
        if not self._outstanding:
            self._next = min(self._next, self._clock.monotonic() + self._interval)


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
            self._limiter.release()
            self._limiter = None
