"""Resync: every so often all objects are verified again, slowly, so that what no event told is found and mended."""

from __future__ import annotations

import asyncio
import logging
import random
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

    def enqueue_later(self, repository: ArtifactRepository, delay: float) -> None:
        """Have an object looked at within a time, unless it is to be looked at anyway."""
        ...

    def forget_unseen(self, seen: set[Key], *, since: float) -> None:
        """Drop every object that a complete list did not show, unless it was heard of after the list was begun."""
        ...


async def resync_forever(
    sink: ResyncSink, *, store: ObjectStore, interval: float, clock: Clock, rng: random.Random
) -> None:
    """Have all objects verified once an interval, until cancelled.

    Args:
        sink: Who verifies them.
        store: Where they are listed.
        interval: Mean time between two resyncs, in seconds.
        clock: The time.
        rng: Source of jitter.
    """
    while True:
        await asyncio.sleep(interval * rng.uniform(0.9, 1.1))
        try:
            await sweep(sink, store=store, clock=clock, rng=rng, spread=interval * _SPREAD)
        except KubernetesError as error:
            logger.warning("Resync put off, the objects cannot be listed: %s", error)


async def sweep(sink: ResyncSink, *, store: ObjectStore, clock: Clock, rng: random.Random, spread: float = 0.0) -> None:
    """Have all objects verified once.

    Args:
        sink: Who verifies them.
        store: Where they are listed.
        clock: The time.
        rng: Source of jitter.
        spread: Time over which they are spread, in seconds; 0: at once.

    Raises:
        KubernetesError: They cannot be listed.
    """
    begun = clock.monotonic()
    seen: set[Key] = set()
    async for page in store.list_pages():
        for repository in page:
            seen.add(repository.key)
            if spread:
                sink.enqueue_later(repository, rng.uniform(0, spread))
            else:
                sink.enqueue(repository, Priority.LOW)
    sink.forget_unseen(seen, since=begun)
