"""The list at start: objects that wait to be handled come before the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.errors import KubernetesError, KubernetesUnavailable
from controller.reconcile.resync import Sweep, enqueue_existing, resync_forever
from controller.reconcile.workqueue import Priority
from tests.unit.reconcile.world import MemoryStore, World


class Target:
    """Records what is enqueued."""

    def __init__(self) -> None:
        self.enqueued: list[tuple[str, Priority]] = []

    def enqueue(self, repository: ArtifactRepository, priority: Priority) -> None:
        """Record it."""
        self.enqueued.append((repository.key.name, priority))


class FailingStore(MemoryStore):
    """A store that lists one page, and then fails."""

    async def list_pages(self, namespace: str) -> AsyncIterator[Sequence[ArtifactRepository]]:
        """Return the first page."""
        async for page in super().list_pages(namespace):
            yield page
            raise KubernetesUnavailable("shutting down", status=503)


async def test_objects_that_wait_have_priority() -> None:
    """At start, an object that is not handled is urgent and the others are not; each is listed with its version."""
    store, target = MemoryStore(), Target()
    handled = store.put("handled")
    handled = store.touch(handled.key, {"observedGeneration": 1})
    new = store.put("new")
    listed = await enqueue_existing(target, store=store)
    assert target.enqueued == [("handled", Priority.LOW), ("new", Priority.HIGH)]
    assert listed == {each.uid: each.resource_version for each in (handled, new)}


async def test_a_list_that_fails_at_start_is_left_to_the_watch() -> None:
    """Where the list fails at start, what it returned is enqueued and the operator goes on."""
    store, target = FailingStore(), Target()
    for name in ("a", "b", "c"):
        store.put(name)
    listed = await enqueue_existing(target, store=store)
    assert [name for name, _ in target.enqueued] == ["a", "b"]
    assert listed.keys() == {store.read(Key("team", name)).uid for name in ("a", "b")}


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
    resync = asyncio.create_task(
        resync_forever(
            world.controller, store=store, namespace="lost", interval=lambda: 3600.0, clock=world.clock, rng=world.rng
        )
    )
    await asyncio.sleep(4200)
    assert 2 <= store.lists <= 60
    store.error = None
    await asyncio.sleep(60)
    await asyncio.sleep(3000)
    assert store.read(lost.key).is_handled
    resync.cancel()
    await world.controller.stop(grace=0)
