"""Resync: verifies all objects at an interval, spread over time, to detect drift."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
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

_FIRST: Final = 10.0
"""Longest time before the first list, in seconds."""

_SPREAD: Final = 0.8
"""Fraction of the interval over which the objects of one resync are spread."""


class ResyncTarget(Protocol):
    """The controller, as a resync uses it."""

    def enqueue(self, repository: ArtifactRepository, priority: Priority) -> None:
        """Have an object reconciled as soon as possible."""
        ...

    def enqueue_later(self, repository: ArtifactRepository, delay: float, *, listed: float = inf) -> None:
        """Have an object reconciled within a time, unless it is queued or was reconciled since it was listed."""
        ...

    def forget_unseen(self, seen: set[Key], *, since: float, namespace: str) -> None:
        """Drop every object of a namespace that its list lacks, unless it was seen after the list was started."""
        ...


class Resync:
    """Lists the objects of a namespace whenever its watch begins anew, and once per interval.

    When the watch begins, all objects are reconciled as soon as possible, those that wait to be handled before the
    others; those of an interval are spread over time.

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
        self._watch_began = asyncio.Event()

    def watch_began(self) -> None:
        """List the objects now: the watch begins anew, and reports only what happens from now on."""
        self._watch_began.set()

    async def run(self) -> NoReturn:
        """Run until cancelled."""
        await self._wait(lambda: _FIRST)  # a watch that cannot be had must not hold up the objects
        await self._list(self._enqueue)
        while True:
            jitter = self._rng.uniform(0.9, 1.1)
            await self._wait(lambda jitter=jitter: self._interval() * jitter)  # type: ignore[misc]
            await self._list(self._enqueue if self._watch_began.is_set() else self._enqueue_later)

    async def _wait(self, seconds: Callable[[], float]) -> None:
        """Wait until the watch begins, for at most so many seconds, which may shrink meanwhile."""
        started = self._clock.monotonic()
        while (left := started + seconds() - self._clock.monotonic()) > 0 and not self._watch_began.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._watch_began.wait(), min(_MAX_SLEEP, left, self._interval() / 10))

    async def _list(self, enqueue: Callable[[ArtifactRepository, float], None]) -> None:
        """List all objects, again with a backoff until that succeeds."""
        delays = Delays(self._rng)
        while True:
            self._watch_began.clear()
            try:
                await _visit_all(self._target, self._store, self._namespace, self._clock, enqueue)
            except KubernetesError as error:
                message = "Failed to list the objects%s, retrying: %s"
                self._log.log(logging.WARNING, (type(error), error.status), message, _within(self._namespace), error)
                await asyncio.sleep(delays.next(error))
                if self._watch_began.is_set():
                    enqueue = self._enqueue
            else:
                return

    def _enqueue(self, object_: ArtifactRepository, _listed: float) -> None:
        self._target.enqueue(object_, Priority.LOW if object_.is_handled else Priority.HIGH)

    def _enqueue_later(self, object_: ArtifactRepository, listed: float) -> None:
        self._target.enqueue_later(object_, self._rng.uniform(0, self._interval() * _SPREAD), listed=listed)


class Sweep:
    """Has all objects reconciled as soon as possible.

    A namespace that cannot be listed does not delay the others: it is listed later, by :meth:`run`.

    Args:
        target: The controller.
        store: Lists the objects.
        clock: The time.
        rng: Source of jitter.
    """

    def __init__(self, target: ResyncTarget, *, store: ObjectStore, clock: Clock, rng: random.Random) -> None:
        self._target = target
        self._store = store
        self._clock = clock
        self._rng = rng
        self._log = Throttled(logger, clock=clock.monotonic)
        self._missed: set[str] = set()
        """Namespaces that could not be listed."""
        self._has_missed = asyncio.Event()

    async def __call__(self, only: Callable[[ArtifactRepository], bool] | None = None) -> None:
        """Enqueue the objects.

        Args:
            only: Selects objects; None for all. Ignored in namespaces that are listed later.
        """
        failures = await asyncio.gather(*(self._visit(namespace, only) for namespace in self._store.namespaces))
        if any(failures):
            self._has_missed.set()

    async def run(self) -> NoReturn:
        """List namespaces that could not be listed, with a backoff, until cancelled."""
        while True:
            await self._has_missed.wait()
            self._has_missed.clear()
            delays, error = Delays(self._rng), KubernetesError("")
            while self._missed:
                await asyncio.sleep(delays.next(error))
                failures = await asyncio.gather(*(self._visit(namespace) for namespace in sorted(self._missed)))
                error = next(filter(None, failures), error)

    async def _visit(
        self, namespace: str, only: Callable[[ArtifactRepository], bool] | None = None
    ) -> KubernetesError | None:
        """Enqueue the objects of a namespace; return why it could not be listed."""

        def enqueue(object_: ArtifactRepository, _: float) -> None:
            if only is None or only(object_):
                self._target.enqueue(object_, Priority.LOW)

        try:
            await _visit_all(self._target, self._store, namespace, self._clock, enqueue)
        except KubernetesError as error:
            self._missed.add(namespace)
            message = "Failed to list the objects%s, retrying: %s"
            self._log.log(logging.WARNING, (namespace, error.status), message, _within(namespace), error)
            return error
        if only is None:
            self._missed.discard(namespace)
        return None


async def _visit_all(
    target: ResyncTarget,
    store: ObjectStore,
    namespace: str,
    clock: Clock,
    visit: Callable[[ArtifactRepository, float], None],
) -> None:
    """Visit the objects of a namespace, with the time at which the list was started; forget those that are gone."""
    started = clock.monotonic()
    seen: set[Key] = set()
    async for page in store.list_pages(namespace):
        for object_ in page:
            seen.add(object_.key)
            visit(object_, started)
    target.forget_unseen(seen, since=started, namespace=namespace)


def _within(namespace: str) -> str:
    """Return where objects were listed, for a message."""
    return f" of namespace {namespace}" if namespace else ""
