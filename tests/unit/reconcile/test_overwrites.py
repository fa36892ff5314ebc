"""Status that somebody else wrote, as the watch reports it to the controller."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from controller.api.v1alpha1 import ArtifactRepository, Key
from tests.unit.reconcile.world import MemoryStore, World

pytestmark = [pytest.mark.looptime]

FOREIGN = {"type": "example.com/X", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "t"}


class WatchedStore(MemoryStore):
    """A store whose watch reports each write, before or after the response to it."""

    world: "WatchedWorld"
    early = False

    async def patch_status(self, repository: ArtifactRepository, patch: Mapping[str, Any]) -> ArtifactRepository:
        """Write, and report the write."""
        written = await super().patch_status(repository, patch)
        if self.early:
            self.world.report(written.key)
        else:
            asyncio.get_running_loop().call_later(0.01, self.world.report, written.key)
        await asyncio.sleep(0.001)
        return written


class WatchedWorld(World):
    """A world with a watch."""

    store: WatchedStore

    def __init__(self) -> None:
        super().__init__(store=WatchedStore())
        self.store.world = self

    def report(self, key: Key) -> None:
        """Do what the handlers do after a MODIFIED event of a handled object."""
        repository = self.store.read(key)
        if self.controller.is_overwritten(repository):
            self.controller.correct(repository)

    def overwrite(self, key: Key, **fields: object) -> None:
        """Write status as somebody else, and report it."""
        self.store.touch(key, {**self.store.read(key).status, **fields})
        self.report(key)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[WatchedWorld]:
    """Return a world with a watch."""
    world = WatchedWorld()
    yield world
    await world.controller.stop(grace=0)


@pytest.mark.parametrize("early", [True, False])
async def test_own_writes_cost_nothing(world: WatchedWorld, early: bool) -> None:
    """The report of an own write, before or after its response, leads to no request and no write."""
    world.store.early = early
    keys = [world.put(f"repo-{number}") for number in range(50)]
    await asyncio.sleep(10)
    assert len(world.registry.asked) == len(world.store.writes) == len(keys)


async def test_restored_status_is_corrected_at_once(world: WatchedWorld) -> None:
    """A status from another cluster is replaced within a second, by one request and one write."""
    key = world.put("web")
    await asyncio.sleep(1)
    good = world.store.read(key).status
    world.overwrite(key, uri="registry.elsewhere:5000/artifacts/team/web", references={})
    await asyncio.sleep(1)
    assert world.store.read(key).status == good
    assert (len(world.registry.asked), len(world.store.writes)) == (2, 2)


async def test_status_restored_during_a_reconcile(world: WatchedWorld) -> None:
    """A foreign status that arrives between the write and its response is corrected, too."""
    key = world.put("web")
    world.store.early = True
    report = world.report

    def overwrite_first(key: Key) -> None:
        world.report = report  # type: ignore[method-assign]
        world.overwrite(key, uri="elsewhere")

    world.report = overwrite_first  # type: ignore[method-assign]
    await asyncio.sleep(1)
    assert world.store.read(key).status["uri"] != "elsewhere"
    assert len(world.store.writes) == 2


async def test_conditions_of_others_are_theirs(world: WatchedWorld) -> None:
    """Another owner's condition, or a label, leads to no request."""
    key = world.put("web")
    await asyncio.sleep(1)
    world.overwrite(key, conditions=[*world.store.read(key).status["conditions"], FOREIGN])
    world.overwrite(key)
    await asyncio.sleep(1)
    assert (len(world.registry.asked), len(world.store.writes)) == (1, 1)


async def test_stubborn_writer_gets_one_answer_a_minute(world: WatchedWorld) -> None:
    """Somebody who writes again and again does not make the operator write as often."""
    key = world.put("web")
    await asyncio.sleep(1)
    for _ in range(150):
        world.overwrite(key, uri="elsewhere")
        await asyncio.sleep(1)
    assert len(world.store.writes) <= 1 + 3
    await asyncio.sleep(60)
    assert world.store.read(key).status["uri"] != "elsewhere"


async def test_deleted_object_is_forgotten(world: WatchedWorld) -> None:
    """Nothing is kept of an object that was deleted while it was reconciled."""
    key = world.put("web")
    await asyncio.sleep(0.002)
    gone = world.store.remove(key)
    world.controller.deleted(gone)
    await asyncio.sleep(1)
    assert not world.controller.is_overwritten(gone)
