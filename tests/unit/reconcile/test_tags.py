"""Tags in status: read only where that is configured, written only when they change."""

import asyncio

import pytest

from controller.api.conditions import ConditionType
from controller.errors import RegistryError, RegistryUnavailable
from tests.unit.objects import make_config
from tests.unit.reconcile.world import World

pytestmark = [pytest.mark.looptime]

REGISTRY = {"registryUrl": "http://registry:5000", "reportTags": 2}


async def test_tags_follow_the_registry() -> None:
    """A new repository has none, without a request; later each change is written, and only a change."""
    world = World(make_config({"artifacts": REGISTRY}))
    key = world.put("web")
    await asyncio.sleep(1)
    assert world.store.read(key).status["tags"] == {"count": 0, "names": []}
    assert world.store.read(key).condition(ConditionType.POPULATED)["status"] == "False"
    assert world.registry.listed == []
    world.registry.tags["team/web"] = ("v9", "v10", "v8")
    await world.verify_all()
    await asyncio.sleep(1)
    assert world.store.read(key).status["tags"] == {"count": 3, "names": ["v10", "v9"]}
    assert world.store.read(key).condition(ConditionType.POPULATED)["status"] == "True"
    writes = len(world.store.writes)
    await world.verify_all()
    await asyncio.sleep(1)
    assert len(world.store.writes) == writes
    assert world.registry.listed == ["team/web"] * 2


async def test_tags_are_not_read_without_need() -> None:
    """By default no request is made for them, and status does not have them."""
    world = World()
    key = world.put("web")
    await asyncio.sleep(1)
    await world.verify_all()
    await asyncio.sleep(1)
    assert world.registry.listed == []
    assert "tags" not in world.store.read(key).status
    assert not world.has(key, ConditionType.POPULATED)


@pytest.mark.parametrize("kind", [RegistryError, RegistryUnavailable])
async def test_tags_that_cannot_be_read_are_no_failure(kind: type[RegistryError]) -> None:
    """The object stays Ready, and keeps the tags that were last read."""
    world = World(make_config({"artifacts": REGISTRY}))
    key = world.put("web")
    await asyncio.sleep(1)
    world.registry.tags["team/web"] = ("v1",)
    await world.verify_all()
    await asyncio.sleep(1)
    world.registry.tags_error = kind("list tags of team/web", "http://registry:5000", "501 Not Implemented")
    writes = len(world.store.writes)
    await world.verify_all()
    await asyncio.sleep(300)
    assert world.ready(key) == ("True", "RepositoryReady")
    assert world.store.read(key).status["tags"]["count"] == 1
    assert len(world.store.writes) == writes
