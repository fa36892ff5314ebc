"""Rate limiter for status writes of many objects at once."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Hashable
from operator import attrgetter
from typing import Final

from controller.reconcile.interfaces import Clock

_TOLERATED: Final = 10
"""A flow cedes reservations to one that has fewer, beyond a difference of this many."""


class RateLimiter:
    """Reserves moments at a fixed rate, without blocking a worker.

    Flows (namespaces) share the rate: one that has reserved much cedes moments to one that comes later, so that
    thousands of failing objects of one tenant do not delay the message of another tenant's only one.

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
        self._held: dict[Hashable, list[Reservation]] = {}
        """Reservations by flow, the earliest first."""

    def reserve(self, flow: Hashable) -> Reservation:
        """Reserve a moment; the caller keeps the reservation and comes back then.

        Args:
            flow: The flow that the reservation counts for.
        """
        held = self._held.setdefault(flow, [])
        most = max(self._held.values(), key=len)
        is_ceded = len(most) > len(held) + _TOLERATED
        moment = self._withdraw(most[len(held)]) if is_ceded else self._next_free()
        reservation = Reservation(self, flow, moment)
        bisect.insort(held, reservation, key=attrgetter("moment"))
        return reservation

    def _next_free(self) -> float:
        now = self._clock.monotonic()
        while self._free:
            moment = heapq.heappop(self._free)
            if moment >= now:
                return moment
        moment = max(now, self._next)
        self._next = moment + self._interval
        return moment

    def release(self, reservation: Reservation) -> None:
        """Make the moment of a reservation free again (see :meth:`Reservation.release`).

        Reservations of a past outage must not delay the first write of the next one.
        """
        if reservation.is_held and self._withdraw(reservation) > self._clock.monotonic():
            heapq.heappush(self._free, reservation.moment)

    def _withdraw(self, reservation: Reservation) -> float:
        """Take a reservation from its holder; return its moment."""
        reservation.is_held = False
        held = self._held[reservation.flow]
        del held[bisect.bisect_left(held, reservation.moment, key=attrgetter("moment"))]  # no two have the same moment
        if not held:
            del self._held[reservation.flow]
        return reservation.moment


class Reservation:
    """The right to act once, from a moment on.

    Args:
        limiter: The limiter.
        flow: The flow that it counts for.
        moment: The moment, on the monotonic clock.
    """

    def __init__(self, limiter: RateLimiter, flow: Hashable, moment: float) -> None:
        self._limiter = limiter
        self.flow = flow
        self.moment = moment
        self.is_held = True
        """Whether it was neither released nor ceded to another flow."""

    def release(self) -> None:
        """Release it, used or not; without effect if it is not held any more."""
        self._limiter.release(self)
