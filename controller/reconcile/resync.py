"""Resync: verifies all objects at an interval, spread over time, to detect drift."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.backoff import OPERATOR_BACKOFF
from controller.errors import KubernetesError
from controller.reconcile.interfaces import Clock, ObjectStore
from controller.reconcile.workqueue import Priority

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

    def forget_unseen(self, seen: set[Key], *, since: float) -> None:
        """Drop every object that a complete list does not contain, unless it was seen after the list was started."""
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
    try:
        async for page in store.list_pages():
            for object_ in page:
                listed[object_.uid] = object_.resource_version
                target.enqueue(object_, Priority.LOW if object_.is_handled else Priority.HIGH)
    except KubernetesError as error:
        logger.warning("Failed to list the objects before the watch, which will list them: %s", error)
    return listed


async def resync_forever(
    target: ResyncTarget, *, store: ObjectStore, interval: Callable[[], float], clock: Clock, rng: random.Random
) -> None:
    """Have all objects verified once per interval, until cancelled.

    Args:
        target: The controller.
        store: Lists the objects.
        interval: Returns the mean time between two resyncs, in seconds; it may change with the configuration.
        clock: The time.
        rng: Source of jitter.
    """

    def enqueue_later(object_: ArtifactRepository, listed: float) -> None:
        target.enqueue_later(object_, rng.uniform(0, interval() * _SPREAD), listed=listed)

    while True:
        started, jitter = clock.monotonic(), rng.uniform(0.9, 1.1)
        while clock.monotonic() < started + interval() * jitter:  # noqa: ASYNC110 - the interval may be shortened
            await asyncio.sleep(min(_MAX_SLEEP, interval() / 10))
        try:
            await _visit_all(target, store, clock, enqueue_later)
        except KubernetesError as error:
            logger.warning("Resync postponed, failed to list the objects: %s", error)


class Sweep:
    """Has all objects reconciled as soon as possible.

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

    async def __call__(self, only: Callable[[ArtifactRepository], bool] | None = None) -> None:
        """Enqueue the objects; where they cannot be listed, retry until they can.

        Args:
            only: Selects objects; None for all.
        """

        def enqueue(object_: ArtifactRepository, _: float) -> None:
            if only is None or only(object_):
                self._target.enqueue(object_, Priority.LOW)

        for delay in OPERATOR_BACKOFF.delays(self._rng):
            try:
                await _visit_all(self._target, self._store, self._clock, enqueue)
            except KubernetesError as error:
                logger.warning("Failed to list the objects, retrying: %s", error)
                await asyncio.sleep(delay)
            else:
                return


async def _visit_all(
    target: ResyncTarget, store: ObjectStore, clock: Clock, visit: Callable[[ArtifactRepository, float], None]
) -> None:
    """Visit every object, with the time at which the list was started; forget those that no longer exist."""
    started = clock.monotonic()
    seen: set[Key] = set()
    async for page in store.list_pages():
        for object_ in page:
            seen.add(object_.key)
            visit(object_, started)
    target.forget_unseen(seen, since=started)
