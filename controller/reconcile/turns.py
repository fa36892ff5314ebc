"""First in, first out, except that flows take turns: fair queuing, for the ready keys of one lane and priority."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Turns(Generic[K]):
    """Ordered set of keys: each flow keeps its order, and the flows are served round robin.

    A flow that had nothing waiting queues up behind the others, so that between two of its keys each flow is served at
    most once, however many keys it has. Every operation takes constant time, and an empty flow leaves nothing behind.

    Args:
        flow: Returns the flow of a key, which must not change.
    """

    def __init__(self, flow: Callable[[K], Hashable]) -> None:
        self._flow = flow
        self._flows: OrderedDict[Hashable, OrderedDict[K, None]] = OrderedDict()
        """Flows with keys; the first one is served next."""
        self._length = 0

    def __len__(self) -> int:
        """Return the number of keys."""
        return self._length

    def __contains__(self, key: K) -> bool:
        return key in self._flows.get(self._flow(key), ())

    def add(self, key: K) -> None:
        """Add a key at the end of its flow, unless it is there."""
        keys = self._flows.setdefault(self._flow(key), OrderedDict())
        self._length += key not in keys
        keys[key] = None

    def remove(self, key: K) -> None:
        """Remove a key, which must be there."""
        flow = self._flow(key)
        keys = self._flows[flow]
        del keys[key]
        self._length -= 1
        if not keys:
            del self._flows[flow]

    def pop(self) -> K:
        """Remove and return the next key; there must be one."""
        flow, keys = next(iter(self._flows.items()))
        key = next(iter(keys))
        self.remove(key)
        if keys:
            self._flows.move_to_end(flow)
        return key
