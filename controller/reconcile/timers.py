"""Timers: keys with the times at which they are due."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

_COMPACT_ABOVE: Final = 64
"""Cancelled timers beyond the number of others that are kept before the heap is rebuilt."""

K = TypeVar("K", bound=Hashable)


class Timers(Generic[K]):
    """At most one timer for each key, the earliest first."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        """Also has timers that were cancelled or replaced; they are dropped when they come to the front."""
        self._sequence = 0

    def set(self, key: K, due: float) -> None:
        """Set the timer of a key, in place of an earlier one.

        Args:
            key: The key.
            due: When it is due.
        """
        self._due[key] = due
        self._sequence += 1  # keys need not have an order
        heapq.heappush(self._heap, (due, self._sequence, key))
        if len(self._heap) > 2 * len(self._due) + _COMPACT_ABOVE:
            self._heap = [timer for timer in self._heap if self._is_set(timer)]
            heapq.heapify(self._heap)

    def cancel(self, key: K) -> bool:
        """Cancel the timer of a key; return whether there was one."""
        return self._due.pop(key, None) is not None

    def next_due(self) -> float | None:
        """Return when the next key is due; None where there is no timer."""
        while self._heap and not self._is_set(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> K | None:
        """Return the next key that is due, without its timer; None where none is.

        Args:
            now: The time.
        """
        due = self.next_due()
        if due is None or due > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        return key

    def _is_set(self, timer: tuple[float, int, K]) -> bool:
        due, _, key = timer
        return self._due.get(key) == due
