"""Lists: when the watch begins, once per interval, and again after a failure."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.errors import KubernetesError, KubernetesUnavailable
from controller.reconcile.resync import Sweep
from controller.reconcile.workqueue import Priority
from tests.unit.reconcile.world import MemoryStore, World


class Forbidden(MemoryStore):
    """A store of two namespaces, of which one cannot be listed."""

    def __init__(self) -> None:
        super().__init__()
        self.error: KubernetesError | None = KubernetesError("forbidden", status=403)
        self.lists = 0

    @property
    def namespaces(self) -> Sequence[str]:
        """A namespace that fails, and one that does not."""
        return ("lost", "team")

    async def list_pages(self, namespace: str) -> AsyncIterator[Sequence[ArtifactRepository]]:
        """List a namespace."""
        if namespace == "lost":
            self.lists += 1
            if self.error is not None:
                raise self.error
        async for page in super().list_pages(namespace):
            yield page


@pytest.mark.looptime
async def test_objects_are_listed_when_the_watch_begins() -> None:
    """At once, whenever it begins anew; those that wait to be handled come first. What was deleted is forgotten."""
    world = World(concurrent=1)
    for name in ("a", "b"):
        world.put(name)
    await asyncio.sleep(5)
    world.store.put("new")
    world.registry.asked.clear()
    resync = world.resync()
    running = asyncio.create_task(resync.run())
    await asyncio.sleep(1)
    assert world.registry.asked == []
    resync.watch_began()
    await asyncio.sleep(5)
    assert world.registry.asked == ["team/a", "team/new", "team/b"]  # a was on the first page
    world.registry.asked.clear()
    world.store.remove(Key("team", "a"))
    resync.watch_began()
    await asyncio.sleep(5)
    assert world.registry.asked == ["team/b", "team/new"]
    assert len(world.controller._records.ready_statuses()) == 2
    running.cancel()
    await world.controller.stop(grace=0)


@pytest.mark.looptime
async def test_a_watch_that_cannot_be_had_does_not_hold_up_the_objects() -> None:
    """They are listed after some seconds, and at the interval from then on."""
    world = World()
    key = world.store.put("web").key
    running = asyncio.create_task(world.resync(interval=lambda: 600).run())
    await asyncio.sleep(15)
    assert world.ready(key) == ("True", "RepositoryReady")
    world.registry.asked.clear()
    await asyncio.sleep(1300)
    assert world.registry.asked == ["team/web"]
    running.cancel()
    await world.controller.stop(grace=0)


@pytest.mark.looptime
async def test_a_namespace_that_cannot_be_listed_does_not_stop_a_sweep() -> None:
    """The other one is reconciled at once, nothing of the first one is forgotten, and it is listed again later."""
    store = Forbidden()
    world = World(store=store)
    lost, web = store.put("lost", namespace="lost"), store.put("web")
    for repository in (lost, web):
        world.controller.enqueue(repository, Priority.HIGH)
    await asyncio.sleep(1)
    world.registry.asked.clear()
    sweep = Sweep(world.controller, store=store, clock=world.clock, rng=world.rng)
    running = asyncio.create_task(sweep.run())
    await sweep()
    await asyncio.sleep(1)
    assert world.registry.asked == ["team/web"]
    await asyncio.sleep(600)
    assert 10 < store.lists < 60
    assert len(world.controller._records.ready_statuses()) == 2
    store.error = None
    await asyncio.sleep(60)
    assert world.registry.asked == ["team/web", "lost/lost"]
    running.cancel()
    await world.controller.stop(grace=0)


@pytest.mark.looptime
async def test_a_resync_that_fails_is_repeated_soon() -> None:
    """With a backoff, and no earlier than the API server asks, instead of an interval later."""
    store = Forbidden()
    world = World(store=store)
    lost = store.put("lost", namespace="lost")
    store.error = KubernetesUnavailable("busy", status=429, retry_after=20)
    resync = asyncio.create_task(world.resync(namespace="lost").run())
    await asyncio.sleep(4200)
    assert 100 <= store.lists <= 210
    store.error = None
    await asyncio.sleep(60)
    assert store.read(lost.key).is_handled
    resync.cancel()
    await world.controller.stop(grace=0)
