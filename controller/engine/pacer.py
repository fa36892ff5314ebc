"""Paces writes that many objects want to make at the same moment, without blocking a worker."""

from __future__ import annotations

from controller.resource import Key


class WritePacer:
    """Hands out the moments at which objects may write, one after the other.

    An object that has to wait comes back at its moment, and is then let through; it need not hold a worker meanwhile.

    Args:
        rate: Writes per second.
    """

    def __init__(self, *, rate: float) -> None:
        self._interval = 1 / rate
        self._next = 0.0
        self._reserved: dict[Key, float] = {}

    def wait(self, key: Key, *, now: float) -> float:
        """Return how long an object has to wait until it may write, in seconds; 0: it may now.

        Args:
            key: The object.
            now: The time, in seconds.
        """
        moment = self._reserved.pop(key, None)
        if moment is None:
            moment = max(now, self._next)
            self._next = moment + self._interval
        if moment <= now:
            return 0.0
        self._reserved[key] = moment
        return moment - now

    def drop(self, key: Key) -> None:
        """Forget the moment of an object that does not want to write any more."""
        self._reserved.pop(key, None)
