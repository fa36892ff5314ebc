"""Resync: verifies all objects at an interval, spread over time, to detect drift."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
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

_SPREAD: Final = 0.8
"""Fraction of the interval over which the objects of one resync are spread."""


class Queue(Protocol):
    """Receiver of objects: the controller."""

    def enqueue(self, repository: ArtifactRepository, priority: Priority) -> None:
        """Have an object reconciled as soon as possible."""
        ...


class ResyncTarget(Queue, Protocol):
    """The controller, as a resync uses it."""

    def enqueue_later(self, repository: ArtifactRepository, delay: float, *, listed: float = inf) -> None:
        """Have an object reconciled within a time, unless it is queued or was reconciled since it was listed."""
        ...

    def forget_unseen(self, seen: set[Key], *, since: float, namespace: str) -> None:
        """Drop every object of a namespace that its list lacks, unless it was seen after the list was started."""
        ...


async def enqueue_existing(target: Queue, *, store: ObjectStore) -> dict[str, str]:
    """Enqueue all objects at start, those that wait to be handled before the others.

    kopf starts a task for each object that it lists, and an object that waits would be behind all of them.

    Args:
        target: The controller.
        store: Lists the objects.

    Returns:
        The resourceVersion of each object, by uid; incomplete if the list failed.
    """
    listed: dict[str, str] = {}

    async def enqueue(namespace: str) -> None:
        try:
            async for page in store.list_pages(namespace):
                for object_ in page:
                    listed[object_.uid] = object_.resource_version
                    target.enqueue(object_, Priority.LOW if object_.is_handled else Priority.HIGH)
        except KubernetesError as error:
            message = "Failed to list the objects%s before the watch, which will list them: %s"
            logger.warning(message, _within(namespace), error)

    await asyncio.gather(*map(enqueue, store.namespaces))
    return listed


async def resync_forever(
    target: ResyncTarget,
    *,
    store: ObjectStore,
    namespace: str,
    interval: Callable[[], float],
    clock: Clock,
    rng: random.Random,
) -> None:
    """Have all objects of a namespace verified once per interval, until cancelled.

    Args:
        target: The controller.
        store: Lists the objects.
        namespace: The namespace; empty for all.
        interval: Returns the mean time between two resyncs, in seconds; it may change with the configuration.
        clock: The time.
        rng: Source of jitter.
    """

    def enqueue_later(object_: ArtifactRepository, listed: float) -> None:
        target.enqueue_later(object_, rng.uniform(0, interval() * _SPREAD), listed=listed)

    log, delays = Throttled(logger, clock=clock.monotonic), Delays(rng)
    retry = inf
    while True:
        started, jitter = clock.monotonic(), rng.uniform(0.9, 1.1)
        while clock.monotonic() < started + min(interval() * jitter, retry):  # noqa: ASYNC110 - it may shrink
            await asyncio.sleep(min(_MAX_SLEEP, interval() / 10))
        try:
            await _visit_all(target, store, namespace, clock, enqueue_later)
        except KubernetesError as error:
            retry = delays.next(error)
            cause = (type(error), error.status)
            message = "Resync postponed, failed to list the objects%s: %s"
            log.log(logging.WARNING, cause, message, _within(namespace), error)
        else:
            delays.reset()
            retry = inf


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
