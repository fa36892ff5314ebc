"""The event recorder: aggregation, pace, and failures that do not affect the operator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller.errors import KubernetesError, KubernetesUnavailable
from controller.kube.recorder import KubernetesEventRecorder
from controller.reconcile.interfaces import EventType
from tests.unit.kube.fake_api import FakeApi
from tests.unit.objects import make_object
from tests.unit.reconcile.world import LoopClock

pytestmark = [pytest.mark.looptime]

WARNING = EventType.WARNING


@pytest.fixture
def api() -> FakeApi:
    """Return an API server in memory."""
    return FakeApi()


@asynccontextmanager
async def recording(api: FakeApi) -> AsyncIterator[KubernetesEventRecorder]:
    """Run a recorder. Not a fixture, because fixtures start before the virtual time of a test."""
    events = KubernetesEventRecorder(api, LoopClock())
    running = asyncio.create_task(events.run())
    yield events
    running.cancel()


async def test_an_event_regards_its_object(api: FakeApi) -> None:
    """``kubectl describe`` finds an event by the uid of the object."""
    async with recording(api) as events:
        events.event(make_object(), WARNING, "RepositoryRecreated", "made again")
        await asyncio.sleep(1)
        (event,) = api.objects.values()
        assert event["involvedObject"]["uid"] == "uid-of-web"
        assert event["involvedObject"]["kind"] == "ArtifactRepository"
        assert (event["type"], event["reason"], event["message"]) == ("Warning", "RepositoryRecreated", "made again")
        assert event["metadata"]["namespace"] == "team"


async def test_repeated_events_are_counted(api: FakeApi) -> None:
    """Within ten minutes there is one event with a count, later a new one; another object has its own."""
    async with recording(api) as events:
        for _ in range(3):
            events.event(make_object(), WARNING, "R", "m")
        events.event(make_object("other"), WARNING, "R", "m")
        await asyncio.sleep(1)
        assert sorted(event["count"] for event in api.objects.values()) == [1, 3]
        await asyncio.sleep(601)
        events.event(make_object(), WARNING, "R", "m")
        await asyncio.sleep(1)
        assert len(api.objects) == 3


async def test_an_event_that_expired_on_the_server_is_created_again(api: FakeApi) -> None:
    """The API server deletes events after an hour."""
    async with recording(api) as events:
        events.event(make_object(), WARNING, "R", "m")
        await asyncio.sleep(1)
        api.objects.clear()
        events.event(make_object(), WARNING, "R", "m")
        await asyncio.sleep(1)
        assert len(api.objects) == 1


async def test_a_flood_of_events_is_paced(api: FakeApi) -> None:
    """A thousand objects that fail at once get their events, a hundred in a second."""
    async with recording(api) as events:
        for number in range(1000):
            events.event(make_object(f"web-{number}"), WARNING, "R", "m")
        await asyncio.sleep(1)
        assert 50 <= len(api.objects) <= 110
        await asyncio.sleep(60)
        assert len(api.objects) == 1000


async def test_namespaces_take_turns(api: FakeApi) -> None:
    """A thousand objects of one namespace do not delay the event of another one."""
    async with recording(api) as events:
        for number in range(1000):
            events.event(make_object(f"web-{number}"), WARNING, "R", "m")
        events.event(make_object("lone", namespace="other"), WARNING, "R", "m")
        await asyncio.sleep(0.1)
        assert "lone" in {event["involvedObject"]["name"] for event in api.objects.values()}


async def test_the_number_of_waiting_events_is_bounded(api: FakeApi) -> None:
    """While the API server takes none, memory is bounded; events beyond that are dropped."""
    async with recording(api) as events:
        for number in range(12_000):
            events.event(make_object(f"web-{number}"), WARNING, "R", "m")
        await asyncio.sleep(1000)
        assert len(api.objects) == 10_000


async def test_a_failed_event_does_not_stop_the_recorder(api: FakeApi) -> None:
    """Without the permission to write events recording continues, and succeeds once it is granted."""
    async with recording(api) as events:
        api.error = KubernetesError("forbidden", status=403)
        events.event(make_object(), WARNING, "R", "m")
        await asyncio.sleep(1)
        api.error = None
        events.event(make_object(), WARNING, "R", "m")
        await asyncio.sleep(1)
        assert len(api.objects) == 1


@pytest.mark.parametrize("nonsense", [{}, {"metadata": None}, {"kind": "Event", "metadata": {"name": 1}}])
async def test_nonsense_does_not_stop_the_recorder(api: FakeApi, nonsense: object) -> None:
    """After a response that is no Event, recording continues."""
    async with recording(api) as events:
        api.nonsense = [nonsense]
        events.event(make_object(), WARNING, "R", "m")
        await asyncio.sleep(1)
        events.event(make_object(), WARNING, "R", "m")
        await asyncio.sleep(1)
        assert len(api.objects) == 1


async def test_a_throttled_recorder_waits(api: FakeApi) -> None:
    """After a Retry-After there is no request before that time, and failures are logged once."""
    async with recording(api) as events:
        api.error = KubernetesUnavailable("busy", status=429, retry_after=20)
        for number in range(10):
            events.event(make_object(f"web-{number}"), WARNING, "R", "m")
        await asyncio.sleep(19)
        assert len(api.requests) == 1
        await asyncio.sleep(20)
        assert len(api.requests) == 2


async def test_the_operators_own_events(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events about the operator regard its Pod, named by the downward API, and are dropped outside of one."""
    async with recording(api) as events:
        for name in ("POD_NAME", "POD_NAMESPACE", "POD_UID"):
            monkeypatch.delenv(name, raising=False)
        events.event(None, WARNING, "RegistryUnavailable", "m")
        await asyncio.sleep(1)
        assert api.objects == {}
        monkeypatch.setenv("POD_NAME", "operator-0")
        monkeypatch.setenv("POD_NAMESPACE", "system")
        monkeypatch.setenv("POD_UID", "u")
        events.event(None, WARNING, "RegistryUnavailable", "m")
        await asyncio.sleep(1)
        (event,) = api.objects.values()
        assert event["involvedObject"] == {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "system",
            "name": "operator-0",
            "uid": "u",
        }
