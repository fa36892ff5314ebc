"""Resync: lists all objects and verifies them, to find what no watch has reported.

A list is read no faster than its objects are reconciled, so that memory does not grow with their number.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from math import inf
from typing import Final, NoReturn, Protocol

from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.errors import KubernetesError
from controller.logs import Throttled
from controller.reconcile.interfaces import Clock, ObjectStore
from controller.reconcile.workqueue import Priority
from controller.supervision import Delays

logger = logging.getLogger(__name__)

_MAX_SLEEP: Final = 1.0
"""Longest time before the interval is read again, in seconds."""

_FULL_SLEEP: Final = 0.1
"""Time before the length of a full queue is looked at again, in seconds."""

_PATIENCE: Final = 2.0
"""Longest wait for room, in seconds: a slow registry must not hold up the objects of others on the next pages."""

_MAX_REQUESTS: Final = 16
"""Number of different requests beyond which all objects are listed."""

_FIRST: Final = 10.0
"""Longest time before the first list, in seconds."""

_SPREAD: Final = 0.8
"""Fraction of the interval over which the objects of one resync are spread."""

Selection = Callable[[ArtifactRepository], bool]
"""Returns whether an object is to be reconciled."""


class ResyncTarget(Protocol):
    """The controller, as a resync uses it."""

    def has_room(self, like: Sequence[ArtifactRepository]) -> bool:
        """Return whether more objects of the same registries may be enqueued, without urgency."""
        ...

    def enqueue(self, repository: ArtifactRepository, priority: Priority, *, unless_since: float = inf) -> None:
        """Have an object reconciled as soon as possible, unless it was reported or reconciled since a moment."""
        ...

    def enqueue_later(self, repository: ArtifactRepository, delay: float, *, unless_since: float) -> None:
        """Have an object reconciled within a time, unless it was reported or reconciled since a moment."""
        ...

    def forget_unseen(self, since: float, *, namespace: str, listed: AbstractSet[Key] = frozenset()) -> None:
        """Drop every object of a namespace that a list lacks and that was not seen since a moment."""
        ...


class Resync:
    """Lists the objects of a namespace once per interval, and whenever that is requested.

    A request has them reconciled as soon as possible, those that wait to be handled before the others. At the interval,
    they are verified at a steady rate.

    Args:
        target: The controller.
        store: Lists the objects.
        namespace: The namespace; empty for all.
        interval: Returns the mean time between two resyncs, in seconds; it may change with the configuration.
        clock: The time.
        rng: Source of jitter.
    """

    def __init__(
        self,
        target: ResyncTarget,
        *,
        store: ObjectStore,
        namespace: str,
        interval: Callable[[], float],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._target = target
        self._store = store
        self._namespace = namespace
        self._interval = interval
        self._clock = clock
        self._rng = rng
        self._log = Throttled(logger, clock=clock.monotonic)
        self._requests: list[Selection] = []
        self._requested = asyncio.Event()
        self._size = 0
        """Number of objects in the last complete list."""

    def request(self, only: Selection | None = None) -> None:
        """Have objects listed and reconciled as soon as possible, for example because the watch begins anew.

        Args:
            only: Selects them; None for all.
        """
        self._add_requests([only or _every])

    def _add_requests(self, requests: Sequence[Selection]) -> None:
        self._requests.extend(requests)
        if _every in self._requests or len(self._requests) > _MAX_REQUESTS:
            self._requests = [_every]
        self._requested.set()

    async def run(self) -> NoReturn:
        """Run until cancelled."""
        last, jitter, delays = self._clock.monotonic(), 1.0, Delays(self._rng)
        unfinished: float | None = None  # when a resync began that was interrupted or has failed
        await self._wait(lambda: _FIRST, since=last)  # a watch that cannot be had must not hold up the objects
        self.request()
        while True:
            await self._wait(lambda jitter=jitter: self._interval() * jitter, since=last)  # type: ignore[misc]
            requests, self._requests = self._requests, []
            self._requested.clear()
            started = self._clock.monotonic()
            try:
                if requests:
                    complete = await self._hurry(requests, started)
                else:
                    unfinished = started if unfinished is None else unfinished
                    complete = await self._spread(since=unfinished)
            except KubernetesError as error:
                complete = False
                where = f" of namespace {self._namespace}" if self._namespace else ""
                message = "Failed to list the objects%s, retrying: %s"
                self._log.log(logging.WARNING, (type(error), error.status), message, where, error)
                await asyncio.sleep(delays.next(error))
            else:
                delays.reset()
            if not complete and requests:
                self._add_requests(requests)
            elif complete and (not requests or _every in requests):
                last, jitter, unfinished = started, self._rng.uniform(0.9, 1.1), None

    async def _hurry(self, requests: Sequence[Selection], started: float) -> bool:
        """Enqueue the objects that wait to be handled, then the others; return False if a request interrupts that."""

        def only(object_: ArtifactRepository) -> bool:
            return any(select(object_) for select in requests)

        def enqueue(object_: ArtifactRepository, _: float) -> None:
            if only(object_):
                self._target.enqueue(object_, Priority.LOW, unless_since=started)

        are_others = await self._enqueue_waiting(only, started)
        return not are_others or await self._visit(enqueue)

    async def _enqueue_waiting(self, only: Selection, started: float) -> bool:
        """Enqueue the objects that wait to be handled, and forget those that are gone; return if there are others."""
        listed: set[Key] = set()
        are_others = False
        async for page in self._store.list_pages(self._namespace):
            for object_ in page.objects:
                listed.add(object_.key)
                if not only(object_):
                    continue
                if object_.is_handled:
                    are_others = True
                else:
                    self._target.enqueue(object_, Priority.HIGH)
        self._size = len(listed)
        self._target.forget_unseen(started, namespace=self._namespace, listed=listed)
        return are_others

    async def _spread(self, *, since: float) -> bool:
        """Enqueue all objects, spread over most of the interval; return False if a request interrupts that.

        Args:
            since: Those that were reported or reconciled since this moment are left out.
        """

        def enqueue(object_: ArtifactRepository, seconds: float) -> None:
            self._target.enqueue_later(object_, self._rng.uniform(0, seconds), unless_since=since)

        listed = self._clock.monotonic()
        if not await self._visit(enqueue, spread=self._interval() * _SPREAD):
            return False
        self._target.forget_unseen(listed, namespace=self._namespace)
        return True

    async def _visit(self, enqueue: Callable[[ArtifactRepository, float], None], *, spread: float = 0.0) -> bool:
        """Read a list no faster than its objects are reconciled; return False if a request interrupts that.

        Args:
            enqueue: Called with each object, and with the seconds until the next page is read.
            spread: Seconds that the whole list takes at least.
        """
        size = 0
        async for page in self._store.list_pages(self._namespace):
            size += len(page.objects)
            seconds = spread * len(page.objects) / max(size, self._size, 1)
            for object_ in page.objects:
                enqueue(object_, seconds)
            if not page.is_last and not await self._pause(seconds, page.objects):
                return False
        self._size = size
        return True

    async def _pause(self, seconds: float, like: Sequence[ArtifactRepository]) -> bool:
        """Wait for a time, and until there is room for another page; return False as soon as there is a request."""
        until = self._clock.monotonic() + seconds
        while not self._requested.is_set():
            left = until - self._clock.monotonic()
            if left <= -_PATIENCE or (left <= 0 and self._target.has_room(like)):
                return True
            await self._sleep(max(left, _FULL_SLEEP))
        return False

    async def _wait(self, seconds: Callable[[], float], *, since: float) -> None:
        """Wait for a time that may shrink meanwhile, at most until there is a request."""
        while (left := since + seconds() - self._clock.monotonic()) > 0 and not self._requested.is_set():
            await self._sleep(min(_MAX_SLEEP, left, self._interval() / 10))

    async def _sleep(self, seconds: float) -> None:
        """Sleep at most until there is a request."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._requested.wait(), seconds)


def _every(_: ArtifactRepository) -> bool:
    """Select all objects."""
    return True
