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
        held = self._held.get(flow, [])
        most = max(self._held.values(), key=len, default=held)
        is_ceded = len(most) > len(held) + _TOLERATED
        moment = most[len(held)].cede() if is_ceded else self._next_free()
        reservation = Reservation(self, flow, moment)
        bisect.insort(self._held.setdefault(flow, held), reservation, key=attrgetter("moment"))
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

    def forget(self, reservation: Reservation) -> None:
        """Remove a reservation (see :meth:`Reservation.release` and :meth:`Reservation.cede`)."""
        held = self._held[reservation.flow]
        del held[bisect.bisect_left(held, reservation.moment, key=attrgetter("moment"))]  # no two have the same moment
        if not held:
            del self._held[reservation.flow]

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
        if self.is_held:
            self.cede()
            self._limiter.release(self.moment)

    def cede(self) -> float:
        """Give up its moment, and return it."""
        self.is_held = False
        self._limiter.forget(self)
        return self.moment
