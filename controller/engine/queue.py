"""The work queue: which object is looked at next.

A plain data structure without tasks, clocks or randomness of its own (the time is an argument, the random source a
constructor argument), so that its promises are tested without sleeping:

* a key is in the queue once, and in flight at most once; what arrives meanwhile is looked at afterwards;
* the newest state of a key wins, whatever the order in which states arrive;
* create and update overtake resume and resync, which still get their share;
* keys of one lane and priority wait for their own kind only: where one is full, the others go on;
* failures back off per key, exponentially, with full jitter and a cap, and are forgotten on success;
* what is remembered is bounded by the number of keys.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Generic, TypeVar

_LOW_SHARE: Final = 8
"""After so many urgent keys in a row one that can wait is served, so that a stream of creates starves nobody."""

_COMPACT_ABOVE: Final = 64
"""Outdated timers that may lie around before the heap is rebuilt, beyond as many as there are live ones."""


class Priority(IntEnum):
    """How soon a key is served."""

    HIGH = 0
    """Somebody waits for it: created, changed."""

    LOW = 1
    """Nobody waits for it: resumed, resynced."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: each delay is drawn between zero and a bound that doubles.

    Args:
        first: The first bound, in seconds.
        cap: The largest bound, in seconds.
    """

    first: float
    cap: float

    def bound(self, failures: int) -> float:
        """Return the longest delay after so many failures in a row (1 or more), in seconds."""
        return float(min(self.cap, self.first * 2 ** min(failures - 1, 63)))


K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(slots=True)
class _Entry(Generic[T]):
    item: T
    priority: Priority
    in_flight: bool = False
    again: bool = False
    """Asked for while in flight."""
    forgotten: bool = False
    """Forgotten while in flight: kept until it lands, so that a key is never in flight twice."""
    due: float | None = None
    """When a waiting key becomes ready; None when it is ready or in flight."""
    failures: int = 0
    failing_since: float | None = None
    added: float = 0.0
    """When it last became ready."""
    lane: Hashable = None
    """Where it last became ready."""


class _Lane(Generic[K]):
    """The ready keys of one lane."""

    def __init__(self) -> None:
        self.ready: dict[Priority, OrderedDict[K, None]] = {priority: OrderedDict() for priority in Priority}
        self._high_in_a_row = 0

    def __len__(self) -> int:
        return sum(map(len, self.ready.values()))

    def pop(self, served: Collection[Priority]) -> K:
        """Return the next key of one of these priorities; each of them must have one."""
        if Priority.HIGH in served and not (Priority.LOW in served and self._high_in_a_row >= _LOW_SHARE):
            self._high_in_a_row += 1
            return self.ready[Priority.HIGH].popitem(last=False)[0]
        self._high_in_a_row = 0
        return self.ready[Priority.LOW].popitem(last=False)[0]


@dataclass(frozen=True, slots=True)
class Work(Generic[K, T]):
    """What :meth:`WorkQueue.take` hands out.

    Args:
        key: The key, now in flight.
        item: Its newest state.
        failing_since: Time of the first of its failures in a row; None where the last try succeeded.
        waited: How long it was ready before it was taken, in seconds.
        lane: The lane that it was taken from.
        priority: How urgent it was.
    """

    key: K
    item: T
    failing_since: float | None
    waited: float
    lane: Hashable
    priority: Priority


Full = Callable[[Hashable, Priority], bool]
"""Tells whether keys of a lane and a priority are to be left alone."""


class WorkQueue(Generic[K, T]):
    """See the module's text.

    Args:
        newer: Tells whether the first of two states of a key is newer than the second.
        rng: Source of the jitter.
        lane: Tells the lane of a state; there must be few.
    """

    def __init__(
        self,
        *,
        newer: Callable[[T, T], bool],
        rng: random.Random,
        lane: Callable[[T], Hashable] = lambda _: None,
    ) -> None:
        self._newer = newer
        self._rng = rng
        self._lane = lane
        self._entries: dict[K, _Entry[T]] = {}
        self._lanes: dict[Hashable, _Lane[K]] = {}
        """Those with ready keys; the first one is served next."""
        self._timers: list[tuple[float, int, K]] = []
        self._sequence = 0
        self._in_flight = 0
        self._waiting = 0

    def __len__(self) -> int:
        """Return the number of keys known: ready, waiting and in flight."""
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    @property
    def depth(self) -> int:
        """The number of keys that are ready to be taken."""
        return sum(map(len, self._lanes.values()))

    @property
    def in_flight(self) -> int:
        """The number of keys that are taken and not done."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """The number of keys that wait for their time."""
        return self._waiting

    def add(self, key: K, item: T, *, now: float, priority: Priority = Priority.HIGH) -> None:
        """Have a key looked at as soon as possible, even if it is waiting for a retry.

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
        lane = self._lanes.get(entry.lane)
        if lane is not None and key in lane.ready[entry.priority]:
            if priority < entry.priority:
                del lane.ready[entry.priority][key]
                lane.ready[priority][key] = None
                entry.priority = priority
            return
        if entry.due is not None:
            self._waiting -= 1
        self._make_ready(key, entry, priority, now)

    def add_after(self, key: K, item: T, delay: float, *, now: float) -> None:
        """Have a key looked at later, at low priority; a key that is known already is left as it is.

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
            self._wait(key, entry, now + delay)

    def expedite(self, key: K, *, now: float) -> None:
        """Make a waiting key ready at low priority; any other key is left as it is.

        Args:
            key: The key.
            now: The time, in seconds.
        """
        entry = self._entries.get(key)
        if entry is not None and entry.due is not None:
            self._waiting -= 1
            self._make_ready(key, entry, Priority.LOW, now)

    def take(self, *, now: float, full: Full = lambda _lane, _priority: False) -> Work[K, T] | None:
        """Return the next key and mark it as in flight; None where none is ready.

        Args:
            now: The time, in seconds.
            full: What to leave alone.
        """
        self._wake(now)
        for name, lane in self._lanes.items():
            served = [priority for priority in Priority if lane.ready[priority] and not full(name, priority)]
            if served:
                break
        else:
            return None
        key = lane.pop(served)
        del self._lanes[name]
        if lane:
            self._lanes[name] = lane  # behind the others
        entry = self._entries[key]
        entry.in_flight = True
        self._in_flight += 1
        return Work(key, entry.item, entry.failing_since, now - entry.added, name, entry.priority)

    def done(self, key: K, item: T, *, now: float) -> None:
        """End a key's flight: it is well, and forgotten unless it was asked for meanwhile.

        Args:
            key: The key.
            item: Its state as it is now; a request that came with an older one is answered already.
            now: The time, in seconds.
        """
        entry = self._land(key, item)
        entry.failures, entry.failing_since = 0, None
        if entry.again:
            self._make_ready(key, entry, entry.priority, now)
        else:
            del self._entries[key]

    def park(self, key: K, item: T, delay: float, *, now: float) -> None:
        """End a key's flight: it waits; its failures are neither counted nor forgotten.

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
            self._wait(key, entry, now + delay)

    def retry(self, key: K, item: T, backoff: Backoff, *, now: float, at_most: float | None = None) -> float:
        """End a key's flight: it failed, and is to be tried again after its backoff.

        Args:
            key: The key.
            item: Its state as it is now.
            backoff: How to wait.
            now: The time, in seconds.
            at_most: Longest delay to draw, in seconds, where something else is due then.

        Returns:
            The delay in seconds.
        """
        entry = self._entries[key]
        entry.failures += 1
        if entry.failing_since is None:
            entry.failing_since = now
        delay = self._rng.uniform(0, backoff.bound(entry.failures))
        if at_most is not None:
            delay = min(delay, at_most)
        self.park(key, item, delay, now=now)
        return delay

    def forget(self, key: K) -> None:
        """Drop a key, wherever it is; when it is in flight, it goes when it lands."""
        entry = self._entries.get(key)
        if entry is None:
            return
        if entry.in_flight:
            entry.forgotten, entry.again = True, False
            return
        del self._entries[key]
        if entry.due is not None:
            self._waiting -= 1
        elif lane := self._lanes.get(entry.lane):
            lane.ready[entry.priority].pop(key, None)
            if not lane:
                del self._lanes[entry.lane]

    def next_due(self) -> float | None:
        """Return when the next waiting key becomes ready; None where none waits."""
        while self._timers and not self._is_live(self._timers[0]):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _remember(self, key: K, item: T, priority: Priority) -> _Entry[T]:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(item, priority)
        elif self._newer(item, entry.item):
            entry.item = item
        return entry

    def _land(self, key: K, item: T) -> _Entry[T]:
        """Take a key out of flight; a request that came meanwhile is answered unless it brought something newer."""
        entry = self._entries[key]
        entry.in_flight = False
        self._in_flight -= 1
        if entry.again and not self._newer(entry.item, item):
            entry.again = False
        if not entry.again:
            entry.item = item
        return entry

    def _make_ready(self, key: K, entry: _Entry[T], priority: Priority, now: float) -> None:
        entry.due, entry.again, entry.forgotten = None, False, False
        entry.priority = priority
        entry.added = now
        entry.lane = self._lane(entry.item)
        if entry.lane not in self._lanes:
            self._lanes[entry.lane] = _Lane()
        self._lanes[entry.lane].ready[priority][key] = None

    def _wait(self, key: K, entry: _Entry[T], due: float) -> None:
        entry.due = due
        self._waiting += 1
        self._sequence += 1
        heapq.heappush(self._timers, (due, self._sequence, key))
        if len(self._timers) > 2 * self._waiting + _COMPACT_ABOVE:
            self._timers = [timer for timer in self._timers if self._is_live(timer)]
            heapq.heapify(self._timers)

    def _is_live(self, timer: tuple[float, int, K]) -> bool:
        entry = self._entries.get(timer[2])
        return entry is not None and entry.due == timer[0]

    def _wake(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            _, _, key = heapq.heappop(self._timers)
            self._waiting -= 1
            self._make_ready(key, self._entries[key], Priority.LOW, now)
