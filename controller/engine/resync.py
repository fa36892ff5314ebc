"""Resync: every so often all objects are verified again, slowly, so that what no event told is found and mended."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from controller.engine.ports import Clock, ObjectStore
from controller.engine.queue import Priority
from controller.errors import KubernetesError
from controller.resource import ArtifactRepository, Key

logger = logging.getLogger(__name__)

_SPREAD: Final = 0.8
"""Part of the interval over which the objects of one resync are spread."""


class ResyncSink(Protocol):
    """Who verifies the objects: the engine."""

    def enqueue(self, repository: ArtifactRepository, priority: Priority) -> None:
        """Have an object looked at as soon as possible."""
        ...

    def enqueue_later(self, repository: ArtifactRepository, delay: float, *, listed: float = inf) -> None:
        """Have an object looked at within a time, unless it is to be or was looked at since it was listed."""
        ...

    def forget_unseen(self, seen: set[Key], *, since: float) -> None:
        """Drop every object that a complete list did not show, unless it was heard of after the list was begun."""
        ...


async def resync_forever(
    sink: ResyncSink, *, store: ObjectStore, interval: Callable[[], float], clock: Clock, rng: random.Random
) -> None:
    """Have all objects verified once an interval, until cancelled.

    Args:
        sink: Who verifies them.
        store: Where they are listed.
        interval: Returns the mean time between two resyncs, in seconds; it may change with the configuration.
        clock: The time.
        rng: Source of jitter.
    """

    def enqueue_later(object_: ArtifactRepository, listed: float) -> None:
        sink.enqueue_later(object_, rng.uniform(0, interval() * _SPREAD), listed=listed)

    while True:
        await asyncio.sleep(interval() * rng.uniform(0.9, 1.1))
        try:
            await _take_stock(sink, store, clock, enqueue_later)
        except KubernetesError as error:
            logger.warning("Resync put off, the objects cannot be listed: %s", error)


async def sweep(
    sink: ResyncSink,
    *,
    store: ObjectStore,
    clock: Clock,
    only: Callable[[ArtifactRepository], bool] | None = None,
) -> None:
    """Have all objects looked at as soon as possible.

    Args:
        sink: Who looks at them.
        store: Where they are listed.
        clock: The time.
        only: Tells which objects are meant; None: all.

    Raises:
        KubernetesError: They cannot be listed.
    """

    def enqueue(object_: ArtifactRepository, _: float) -> None:
        if only is None or only(object_):
            sink.enqueue(object_, Priority.LOW)

    await _take_stock(sink, store, clock, enqueue)


async def _take_stock(
    sink: ResyncSink, store: ObjectStore, clock: Clock, see: Callable[[ArtifactRepository, float], None]
) -> None:
    """See every object once, with the time at which the list was begun; forget those that are not there any more."""
    begun = clock.monotonic()
    seen: set[Key] = set()
    async for page in store.list_pages():
        for object_ in page:
            seen.add(object_.key)
            see(object_, begun)
    sink.forget_unseen(seen, since=begun)
