"""Kubernetes events: counted up instead of repeated, limited, and never in the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller.engine.ports import EventType
from controller.errors import KubernetesError
from controller.kube.events import KubernetesEvents
from tests.unit.engine.world import LoopClock
from tests.unit.kube.fake_api import FakeApi
from tests.unit.objects import make_object

pytestmark = [pytest.mark.looptime]

WARNING = EventType.WARNING


@pytest.fixture
def api() -> FakeApi:
    """Return an API server in memory."""
    return FakeApi()


@asynccontextmanager
async def recording(api: FakeApi) -> AsyncIterator[KubernetesEvents]:
    """Run a recorder; no fixture, since those are made before the test's time begins."""
    events = KubernetesEvents(api, LoopClock())
    running = asyncio.create_task(events.run())
    yield events
    running.cancel()


async def test_an_event_says_what_happened_to_what(api: FakeApi) -> None:
    """``kubectl describe`` finds it by the object's uid."""
    async with recording(api) as events:
        events.about_object(make_object(), WARNING, "RepositoryRecreated", "made again")
        await asyncio.sleep(1)
        (event,) = api.objects.values()
        assert event["involvedObject"]["uid"] == "uid-of-web"
        assert event["involvedObject"]["kind"] == "ArtifactRepository"
        assert (event["type"], event["reason"], event["message"]) == ("Warning", "RepositoryRecreated", "made again")
        assert event["metadata"]["namespace"] == "team"


async def test_what_happens_again_is_counted(api: FakeApi) -> None:
    """Within ten minutes one event, with its count; later a new one; another object has its own."""
    async with recording(api) as events:
        for _ in range(3):
            events.about_object(make_object(), WARNING, "R", "m")
        events.about_object(make_object("other"), WARNING, "R", "m")
        await asyncio.sleep(1)
        assert sorted(event["count"] for event in api.objects.values()) == [1, 3]
        await asyncio.sleep(601)
        events.about_object(make_object(), WARNING, "R", "m")
        await asyncio.sleep(1)
        assert len(api.objects) == 3


async def test_an_event_that_expired_on_the_server_is_made_again(api: FakeApi) -> None:
    """The API server drops events after an hour, or somebody deletes them."""
    async with recording(api) as events:
        events.about_object(make_object(), WARNING, "R", "m")
        await asyncio.sleep(1)
        api.objects.clear()
        events.about_object(make_object(), WARNING, "R", "m")
        await asyncio.sleep(1)
        assert len(api.objects) == 1


async def test_a_flood_is_cut_off(api: FakeApi) -> None:
    """A thousand objects in trouble make no thousand events."""
    async with recording(api) as events:
        for number in range(1000):
            events.about_object(make_object(f"web-{number}"), WARNING, "R", "m")
        await asyncio.sleep(60)
        assert len(api.objects) == 50


async def test_trouble_with_events_is_no_trouble(api: FakeApi) -> None:
    """Without the right to write events the operator goes on, and so does recording once it has it."""
    async with recording(api) as events:
        api.error = KubernetesError("forbidden", status=403)
        events.about_object(make_object(), WARNING, "R", "m")
        await asyncio.sleep(1)
        api.error = None
        events.about_object(make_object(), WARNING, "R", "m")
        await asyncio.sleep(1)
        assert len(api.objects) == 1


async def test_the_operators_own_events(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """On its Pod, where the downward API names it; nowhere outside of a cluster."""
    async with recording(api) as events:
        for name in ("POD_NAME", "POD_NAMESPACE", "POD_UID"):
            monkeypatch.delenv(name, raising=False)
        events.about_operator(WARNING, "RegistryUnavailable", "m")
        await asyncio.sleep(1)
        assert api.objects == {}
        monkeypatch.setenv("POD_NAME", "operator-0")
        monkeypatch.setenv("POD_NAMESPACE", "system")
        monkeypatch.setenv("POD_UID", "u")
        events.about_operator(WARNING, "RegistryUnavailable", "m")
        await asyncio.sleep(1)
        (event,) = api.objects.values()
        assert event["involvedObject"] == {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "system",
            "name": "operator-0",
            "uid": "u",
        }
