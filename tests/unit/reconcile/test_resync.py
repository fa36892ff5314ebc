"""Lists: when the watch begins, once per interval, and again after a failure."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from controller.api.v1alpha1 import Key
from controller.errors import KubernetesError, KubernetesUnavailable
from controller.reconcile import controller
from controller.reconcile.interfaces import Page
from controller.reconcile.resync import Resync
from controller.reconcile.workqueue import Priority
from tests.unit.objects import make_config
from tests.unit.reconcile.world import MemoryStore, World

URL = {"registryUrl": "http://registry:5000"}


class Forbidden(MemoryStore):
    """A store of two namespaces, of which one cannot be listed."""

    def __init__(self) -> None:
        super().__init__()
        self.error: KubernetesError | None = KubernetesError("forbidden", status=403)
        self.lists = 0

    async def list_pages(self, namespace: str) -> AsyncIterator[Page]:
        """List a namespace."""
        if namespace == "lost":
            self.lists += 1
            if self.error is not None:
                raise self.error
        async for page in super().list_pages(namespace):
            yield page


@asynccontextmanager
async def resyncing(world: World, **options: Any) -> AsyncIterator[Resync]:
    """Run a resync in a world; afterwards, both are stopped."""
    resync = world.resync(**options)
    running = asyncio.create_task(resync.run())
    try:
        yield resync
        assert not running.done()
    finally:
        running.cancel()
        await world.controller.stop(grace=0)


@pytest.mark.looptime
async def test_objects_are_listed_when_the_watch_begins() -> None:
    """At once, whenever it begins anew; those that wait to be handled come first. What was deleted is forgotten."""
    world = World(concurrent=1)
    for name in ("a", "b"):
        world.put(name)
    await asyncio.sleep(5)
    world.store.put("new")
    world.registry.asked.clear()
    async with resyncing(world) as resync:
        await asyncio.sleep(1)
        assert world.registry.asked == []
        resync.request()
        await asyncio.sleep(5)
        assert world.registry.asked == ["team/new", "team/a", "team/b"]
        world.registry.asked.clear()
        world.store.remove(Key("team", "a"))
        resync.request()
        await asyncio.sleep(5)
        assert world.registry.asked == ["team/b", "team/new"]
        assert len(world.controller._records.ready_statuses()) == 2


@pytest.mark.looptime
async def test_a_watch_that_cannot_be_had_does_not_hold_up_the_objects() -> None:
    """They are listed after some seconds, and at the interval from then on."""
    world = World()
    key = world.store.put("web").key
    async with resyncing(world, interval=lambda: 600):
        await asyncio.sleep(15)
        assert world.ready(key) == ("True", "RepositoryReady")
        world.registry.asked.clear()
        await asyncio.sleep(1300)
        assert world.registry.asked == ["team/web"]


@pytest.mark.looptime
async def test_a_namespace_that_cannot_be_listed_is_listed_later() -> None:
    """The other one is reconciled at once, nothing of the first one is forgotten, and the request is not lost."""
    store = Forbidden()
    world = World(store=store)
    lost, web = store.put("lost", namespace="lost"), store.put("web")
    for repository in (lost, web):
        world.controller.enqueue(repository, Priority.HIGH)
    await asyncio.sleep(1)
    world.registry.asked.clear()
    async with resyncing(world, namespace="lost") as one, resyncing(world, namespace="team") as another:
        one.request()
        another.request()
        await asyncio.sleep(1)
        assert world.registry.asked == ["team/web"]
        await asyncio.sleep(600)
        assert 10 < store.lists < 60
        assert len(world.controller._records.ready_statuses()) == 2
        store.error = None
        await asyncio.sleep(60)
        assert world.registry.asked == ["team/web", "lost/lost"]


@pytest.mark.looptime
async def test_a_resync_that_fails_is_repeated_soon() -> None:
    """With a backoff, and no earlier than the API server asks, instead of an interval later."""
    store = Forbidden()
    world = World(store=store)
    lost = store.put("lost", namespace="lost")
    store.error = KubernetesUnavailable("busy", status=429, retry_after=20)
    async with resyncing(world, namespace="lost"):
        await asyncio.sleep(4200)
        assert 100 <= store.lists <= 210
        store.error = None
        await asyncio.sleep(60)
        assert store.read(lost.key).is_handled


@pytest.mark.looptime
async def test_a_list_is_read_no_faster_than_its_objects_are_reconciled(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many objects there are, few of them are in memory; those that wait to be handled do not wait for them."""
    monkeypatch.setattr(controller, "_ROOM", 5)
    world = World(concurrent=1)
    for number in range(60):
        world.put(f"repo-{number:02}")
    await world.until(lambda: len(world.store.writes) == 60)
    last = world.store.put("z-last").key
    world.registry.asked.clear()
    world.registry.latency = 1.0
    async with resyncing(world) as resync:
        resync.request()
        depths = []
        while len(world.registry.asked) < 61:
            depths.append(len(world.controller._queue))
            await asyncio.sleep(0.5)
        assert max(depths) <= 5 + 1 + 2  # ready, in flight, and a page
        assert world.registry.asked.index(str(last)) <= 1
        assert len(set(world.registry.asked)) == 61


@pytest.mark.looptime
async def test_a_resync_verifies_at_a_steady_rate() -> None:
    """Its objects are spread over most of the interval, and few of them are in memory at a time."""
    world = World()
    for number in range(60):
        world.put(f"repo-{number:02}")
    async with resyncing(world, interval=lambda: 600):
        await asyncio.sleep(100)
        world.registry.asked.clear()
        asked, depths = [], []
        for _ in range(90):
            await asyncio.sleep(20)
            asked.append(len(world.registry.asked))
            depths.append(len(world.controller._queue))
        rates = [later - earlier for earlier, later in pairwise(asked)]
        assert 100 <= asked[-1] <= 150
        assert max(rates) <= 6
        assert max(depths) <= 4


@pytest.mark.looptime
async def test_a_request_interrupts_a_resync_which_is_finished_later() -> None:
    """Objects that were requested are reconciled at once; no other one is left out of the resync, or verified twice."""
    world = World()
    for number in range(40):
        world.put(f"repo-{number:02}")
    await asyncio.sleep(1)
    async with resyncing(world, interval=lambda: 1000) as resync:
        await world.until(lambda: len(world.registry.asked) == 80)  # created, and verified at the first list
        world.registry.asked.clear()
        await world.until(lambda: len(world.registry.asked) >= 20, every=0.5)
        for _ in range(3):
            resync.request(lambda object_: object_.key.name == "repo-00")
            await asyncio.sleep(1)
        assert world.registry.asked.count("team/repo-00") == 4
        started = world.clock.monotonic()
        await world.until(lambda: len(set(world.registry.asked)) == 40, every=0.5)
        assert world.clock.monotonic() - started < 1000
        assert len(world.registry.asked) <= 45


@pytest.mark.looptime
async def test_an_object_that_was_deleted_while_its_list_is_read_is_left_alone() -> None:
    """A list tells of it once more at most, and it is forgotten again."""
    world = World()
    for number in range(6):
        world.put(f"repo-{number}")
    await asyncio.sleep(1)
    async with resyncing(world, interval=lambda: 600):
        await asyncio.sleep(12)
        world.controller.deleted(world.store.remove(Key("team", "repo-5")))
        world.store.remove(Key("team", "repo-4"))  # nobody tells of this one
        world.registry.asked.clear()
        await asyncio.sleep(1400)
        assert set(world.registry.asked) == {f"team/repo-{number}" for number in range(4)}
        assert len(world.controller._records.ready_statuses()) == 4


@pytest.mark.looptime
async def test_a_slow_registry_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its objects wait, however many; those of another registry are verified meanwhile."""
    monkeypatch.setattr(controller, "_ROOM", 2)
    world = World(make_config({"slow": URL, "swift": URL}, defaultRegistry="swift"))
    for number in range(40):
        world.put(f"slow-{number:02}", {"registry": "slow"})
    for number in range(40):
        world.put(f"swift-{number:02}", {"registry": "swift"})
    await world.until(lambda: len(world.store.writes) == 80)
    world.registries["slow"].latency = 3600.0
    async with resyncing(world) as resync:
        resync.request()
        world.registries["swift"].asked.clear()
        await asyncio.sleep(60)
        assert len(world.registries["swift"].asked) == 40


@pytest.mark.looptime
async def test_an_empty_cluster_is_listed_again() -> None:
    """At each interval, although there is nothing to spread."""
    world = World()
    async with resyncing(world, interval=lambda: 60):
        await asyncio.sleep(200)
        key = world.store.put("web").key
        await asyncio.sleep(100)
        assert world.ready(key) == ("True", "RepositoryReady")


@pytest.mark.looptime
async def test_requests_that_cannot_be_served_do_not_add_up() -> None:
    """The API server fails for a day while requests go on: they are served together in the end."""
    store = Forbidden()
    world = World(store=store)
    lost, other = store.put("lost", namespace="lost"), store.put("other", namespace="lost")
    for repository in (lost, other):
        world.controller.enqueue(repository, Priority.HIGH)
    await asyncio.sleep(1)
    async with resyncing(world, namespace="lost", interval=lambda: 1e7) as resync:
        await asyncio.sleep(20)
        for _ in range(288):
            resync.request(lambda object_: object_.key == lost.key)
            await asyncio.sleep(300)
        world.registry.asked.clear()
        store.error = None
        await asyncio.sleep(120)
        assert sorted(world.registry.asked) == ["lost/lost", "lost/other"]
