"""Local registry discovery: reports of changes of the ConfigMap, in virtual time (looptime)."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controller.addresses import RegistryHosting
from controller.errors import KubernetesError, KubernetesUnavailable
from controller.kube.localregistry import LocalRegistryDiscovery
from tests.unit.kube.fake_api import FakeApi

pytestmark = pytest.mark.looptime

PATH = "/api/v1/namespaces/kube-public/configmaps/local-registry-hosting"
KEY = "localRegistryHosting.v1"
INTERVAL = 40
"""A little more than the maximum interval between two reads, in seconds."""


def config_map(data: Any) -> dict[str, Any]:
    """Return the ConfigMap."""
    return {"kind": "ConfigMap", "metadata": {"name": "local-registry-hosting"}, "data": data}


class Discovery:
    """Discovery and its reports."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.reported: list[RegistryHosting | None] = []
        self.subject = LocalRegistryDiscovery(self.api, rng=random.Random(1))

    async def changed(self, hosting: RegistryHosting | None) -> None:
        """Record an advertisement."""
        self.reported.append(hosting)

    def advertise(self, text: str, *, key: str = KEY) -> None:
        """Write the ConfigMap."""
        self.api.objects[PATH] = config_map({key: text})

    @property
    def hosts(self) -> list[str | None]:
        """The host of each advertisement that was reported; None where there was none."""
        return [hosting.host if hosting else None for hosting in self.reported]


@asynccontextmanager
async def running() -> AsyncIterator[Discovery]:
    """Run discovery, at first without a ConfigMap."""
    discovery = Discovery()
    task = asyncio.create_task(discovery.subject.run(discovery.changed))
    await discovery.subject.wait_for_first_read()
    yield discovery
    assert not task.done(), "discovery has ended"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_changes_are_reported_once() -> None:
    """A created or changed advertisement is reported within one interval, once."""
    async with running() as discovery:
        assert discovery.reported == [None]
        discovery.advertise("host: localhost:5001")
        await asyncio.sleep(INTERVAL)
        discovery.advertise("host: localhost:5002")
        await asyncio.sleep(10 * INTERVAL)
    assert discovery.hosts == [None, "localhost:5001", "localhost:5002"]


async def test_the_last_valid_advertisement_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """Invalid, without its key or data, deleted: each is logged once, and the last two are reported after minutes."""
    caplog.set_level(logging.INFO)
    async with running() as discovery:
        discovery.advertise("host: localhost:5001")
        await asyncio.sleep(INTERVAL)
        caplog.clear()
        for text, key in (("host: http://x", KEY), ("- host", KEY), ("x", "other")):
            discovery.advertise(text, key=key)
            await asyncio.sleep(2 * INTERVAL)
        discovery.api.objects[PATH] = config_map(None)
        await asyncio.sleep(2 * INTERVAL)
        del discovery.api.objects[PATH]
        await asyncio.sleep(2 * INTERVAL)
        assert discovery.hosts == [None, "localhost:5001"]
        await asyncio.sleep(5 * INTERVAL)
        assert discovery.hosts == [None, "localhost:5001", None]
    expected = [
        "host must be host or host:port",
        "must be a flat mapping",
        "has no key localRegistryHosting.v1; the last valid one is kept for 300 s",
        "does not exist; the last valid one is kept for 300 s",
        "does not exist; addresses come from the configuration",
    ]
    assert len(caplog.messages) == len(expected)
    assert all(part in message for part, message in zip(expected, caplog.messages, strict=True))


async def test_an_advertisement_that_is_replaced_is_kept() -> None:
    """Deleted and created again within minutes: nothing is reported, and the next deletion has its own minutes."""
    async with running() as discovery:
        for _ in range(3):
            discovery.advertise("host: localhost:5001")
            await asyncio.sleep(INTERVAL)
            del discovery.api.objects[PATH]
            await asyncio.sleep(4 * INTERVAL)
    assert discovery.hosts == [None, "localhost:5001"]


async def test_discovery_that_is_switched_off() -> None:
    """The ConfigMap is not read and nothing waits for it; switched on, it is reported within an interval."""
    discovery = Discovery()
    enabled = [False]
    subject = LocalRegistryDiscovery(discovery.api, rng=random.Random(1), is_enabled=lambda: enabled[0])
    task = asyncio.create_task(subject.run(discovery.changed))
    await asyncio.wait_for(subject.wait_for_first_read(), 1)
    await asyncio.sleep(5 * INTERVAL)
    assert discovery.api.requests == []
    enabled[0] = True
    await asyncio.sleep(INTERVAL)
    assert discovery.reported == [None]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_config_map_is_read_at_an_interval() -> None:
    """There are about 120 reads per hour, also if they are forbidden."""
    async with running() as discovery:
        before = len(discovery.api.requests)
        await asyncio.sleep(3600)
        discovery.api.error = KubernetesError("no", status=403)
        await asyncio.sleep(3600)
        assert 200 <= len(discovery.api.requests) - before <= 280


async def test_the_first_read_is_retried_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """While the API server fails, the wait for the first read continues up to its limit, and the read is retried."""
    discovery = Discovery()
    discovery.api.error = KubernetesUnavailable("503", status=503)
    discovery.advertise("host: localhost:5001")
    task = asyncio.create_task(discovery.subject.run(discovery.changed))
    loop = asyncio.get_running_loop()
    started = loop.time()
    asyncio.get_running_loop().call_later(2, setattr, discovery.api, "error", None)
    await discovery.subject.wait_for_first_read()
    assert 2 <= loop.time() - started < 5
    assert discovery.hosts == ["localhost:5001"]
    assert "retrying" in caplog.text
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "nonsense",
    [
        {},
        {"kind": "Status", "status": "Success", "metadata": {}},
        {"kind": "ConfigMap", "metadata": None, "data": {KEY: "host: evil:5000"}},
        {**config_map("x"), "data": "text"},
        {"kind": "ConfigMap", "metadata": {"name": "another"}, "data": {KEY: "host: evil:5000"}},
    ],
)
async def test_nonsense_is_no_answer(nonsense: Any) -> None:
    """What is not this ConfigMap says nothing: it is read again soon, and nothing is reported until then."""
    discovery = Discovery()
    discovery.advertise("host: localhost:5001")
    discovery.api.nonsense = [nonsense] * 3
    task = asyncio.create_task(discovery.subject.run(discovery.changed))
    await asyncio.sleep(1)
    assert discovery.reported == []
    await asyncio.sleep(10)
    assert discovery.hosts == ["localhost:5001"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
