"""Work queue: which object is reconciled next.

A plain data structure without tasks, clocks or randomness (the time is an argument), so that its guarantees are tested
without sleeping:

* a key is in the queue once, and in flight at most once; additions while it is in flight are handled afterwards;
* the newest state of a key wins, whatever the order in which states arrive;
* create and update overtake resume and resync, which still get their share;
* a full lane does not delay other lanes;
* within a lane, flows (namespaces) take turns, so that one with many keys does not delay the others;
* memory is bounded by the number of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Generic, TypeVar

from controller.reconcile.timers import Timers
from controller.reconcile.turns import Turns

_LOW_SHARE: Final = 8
"""After this many consecutive high-priority keys, a low-priority one is served, so that it does not starve."""


class Priority(IntEnum):
    """Priority of a key."""

    HIGH = 0
    """Created or changed."""

    LOW = 1
    """Resumed, resynced or retried."""


_PRIORITIES: Final = tuple(Priority)

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(slots=True)
class _Entry(Generic[T]):
    item: T
    priority: Priority
    in_flight: bool = False
    again: bool = False
    """Added while in flight."""
    forgotten: bool = False
    """Forgotten while in flight: kept until then, so that a key is never in flight twice."""
    added: float = 0.0
    """When it last became ready."""
    lane: Hashable = None
    """The lane in which it last became ready."""


class _Lane(Generic[K]):
    """The ready keys of one lane."""

    def __init__(self, flow: Callable[[K], Hashable]) -> None:
        self.ready: dict[Priority, Turns[K]] = {priority: Turns(flow) for priority in _PRIORITIES}
        self._high_in_a_row = 0

    def __len__(self) -> int:
        return sum(map(len, self.ready.values()))

    def pop(self, served: Collection[Priority]) -> K:
        """Return the next key of one of these priorities; each of them must have one."""
        if Priority.HIGH in served and not (Priority.LOW in served and self._high_in_a_row >= _LOW_SHARE):
            self._high_in_a_row += 1
            return self.ready[Priority.HIGH].pop()
        self._high_in_a_row = 0
        return self.ready[Priority.LOW].pop()


@dataclass(frozen=True, slots=True)
class Item(Generic[K, T]):
    """A key in flight, as returned by :meth:`WorkQueue.get`.

    Args:
        key: The key, now in flight.
        state: Its newest state.
        waited: Time between ready and now, in seconds.
        lane: Its lane.
        priority: Its priority.
    """

    key: K
    state: T
    waited: float
    lane: Hashable
    priority: Priority


Full = Callable[[Hashable, Priority], bool]
"""Returns whether all workers of a lane and a priority are busy."""


class WorkQueue(Generic[K, T]):
    """Work queue with priorities, lanes and delays.

    Args:
        newer: Returns whether the first of two states of a key is newer than the second.
        lane: Returns the lane of a state; there must be few lanes.
        flow: Returns the flow of a key; flows with keys of the same lane and priority take turns.
    """

    def __init__(
        self,
        *,
        newer: Callable[[T, T], bool],
        lane: Callable[[T], Hashable] = lambda _: None,
        flow: Callable[[K], Hashable] = lambda _: None,
    ) -> None:
        self._newer = newer
        self._lane = lane
        self._flow = flow
        self._entries: dict[K, _Entry[T]] = {}
        self._lanes: dict[Hashable, _Lane[K]] = {}
        """Lanes with ready keys; the first one is served next."""
        self._timers: Timers[K] = Timers()
        """Of the delayed keys."""

    def __len__(self) -> int:
        """Return the number of keys known: ready, delayed and in flight."""
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    @property
    def depth(self) -> int:
        """The number of keys that are ready."""
        return sum(map(len, self._lanes.values()))

    def ready_in(self, lane: Hashable) -> int:
        """Return the number of keys of a lane that are ready."""
        return len(self._lanes.get(lane, ()))

    def add(self, key: K, item: T, *, now: float, priority: Priority = Priority.HIGH) -> None:
        """Make a key ready, even if it is delayed.

        Args:
            key: The key.
            item: A state of it; ignored where a newer one is known.
            now: The time, in seconds.
            priority: A key that is queued already keeps the more urgent one.
        """
        entry = self._remember(key, item, priority)
        if entry.in_flight:
            entry.priority = min(entry.priority, priority) if entry.again else priority
            entry.again, entry.forgotten = True, False
            return
        if self._is_ready(key, entry):
            self._place(key, entry, min(priority, entry.priority))
            return
        self._timers.cancel(key)
        self._make_ready(key, entry, priority, now)

    def add_after(self, key: K, item: T, delay: float, *, now: float) -> None:
        """Make a key ready later, at low priority; a key that is known already is left as it is.

        Args:
            key: The key.
            item: A state of it; ignored where a newer one is known.
            delay: Seconds from now.
            now: The time, in seconds.
        """
        known = self._entries.get(key)
        if known is not None and known.forgotten:
            self.add(key, item, now=now, priority=Priority.LOW)
            return
        entry = self._remember(key, item, Priority.LOW)
        if known is None:
            self._timers.set(key, now + delay)
        elif self._is_ready(key, entry):
            self._place(key, entry, entry.priority)

    def expedite(self, key: K, *, now: float) -> None:
        """Make a delayed key ready at low priority; any other key is left as it is.

        Args:
            key: The key.
            now: The time, in seconds.
        """
        if self._timers.cancel(key):
            self._make_ready(key, self._entries[key], Priority.LOW, now)

    def get(self, *, now: float, full: Full = lambda _lane, _priority: False) -> Item[K, T] | None:
        """Return the next key, now in flight; None where none is ready.

        Args:
            now: The time, in seconds.
            full: Returns whether to skip a lane and a priority.
        """
        self._wake(now)
        for name, lane in self._lanes.items():
            served = [priority for priority in _PRIORITIES if lane.ready[priority] and not full(name, priority)]
            if served:
                break
        else:
            return None
        key = lane.pop(served)
        del self._lanes[name]
        if lane:
            self._lanes[name] = lane  # after the others
        entry = self._entries[key]
        entry.in_flight = True
        return Item(key, entry.item, now - entry.added, name, entry.priority)

    def done(self, key: K, item: T, *, now: float) -> None:
        """End the processing of a key: it is dropped unless it was added in the meantime.

        Args:
            key: The key.
            item: Its state as it is now; an addition with an older one is covered already.
            now: The time, in seconds.
        """
        entry = self._land(key, item)
        if entry.again:
            self._make_ready(key, entry, entry.priority, now)
        else:
            del self._entries[key]

    def requeue(self, key: K, item: T, delay: float, *, now: float) -> None:
        """End the processing of a key: it is ready again after a delay.

        Args:
            key: The key.
            item: Its state as it is now.
            delay: Seconds from now.
            now: The time, in seconds.
        """
        entry = self._land(key, item)
        if entry.again:
            self._make_ready(key, entry, entry.priority, now)
        elif entry.forgotten:
            del self._entries[key]
        else:
            self._timers.set(key, now + delay)

    def forget(self, key: K) -> None:
        """Drop a key; one in flight is dropped when its processing ends."""
        entry = self._entries.get(key)
        if entry is None:
            return
        if entry.in_flight:
            entry.forgotten, entry.again = True, False
            return
        del self._entries[key]
        if not self._timers.cancel(key):
            self._withdraw(key, entry)

    def next_due(self) -> float | None:
        """Return when the next delayed key becomes ready; None where none is delayed."""
        return self._timers.next_due()

    def _remember(self, key: K, item: T, priority: Priority) -> _Entry[T]:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(item, priority)
        elif self._newer(item, entry.item):
            entry.item = item
        return entry

    def _land(self, key: K, item: T) -> _Entry[T]:
        """Take a key out of flight; an addition in the meantime is covered unless it brought something newer."""
        entry = self._entries[key]
        entry.in_flight = False
        if entry.again and not self._newer(entry.item, item):
            entry.again = False
        if not entry.again:
            entry.item = item
        return entry

    def _make_ready(self, key: K, entry: _Entry[T], priority: Priority, now: float) -> None:
        entry.again, entry.forgotten = False, False
        entry.added = now
        entry.priority, entry.lane = priority, self._lane(entry.item)
        self._ready(entry).add(key)

    def _is_ready(self, key: K, entry: _Entry[T]) -> bool:
        lane = self._lanes.get(entry.lane)
        return lane is not None and key in lane.ready[entry.priority]

    def _place(self, key: K, entry: _Entry[T], priority: Priority) -> None:
        """Move a ready key to another priority and to its present lane, unless it is there."""
        lane = self._lane(entry.item)
        if (lane, priority) == (entry.lane, entry.priority):
            return
        self._withdraw(key, entry)
        entry.priority, entry.lane = priority, lane
        self._ready(entry).add(key)

    def _ready(self, entry: _Entry[T]) -> Turns[K]:
        """Return the ready keys of an entry's lane and priority."""
        lane = self._lanes.get(entry.lane)
        if lane is None:
            lane = self._lanes[entry.lane] = _Lane(self._flow)
        return lane.ready[entry.priority]

    def _withdraw(self, key: K, entry: _Entry[T]) -> None:
        """Remove a ready key from its lane."""
        lane = self._lanes[entry.lane]
        lane.ready[entry.priority].remove(key)
        if not lane:
            del self._lanes[entry.lane]

    def _wake(self, now: float) -> None:
        while (key := self._timers.pop(now)) is not None:
            self._make_ready(key, self._entries[key], Priority.LOW, now)
