"""Distribution in other modes and failures: read-only, behind another name, stopped, frozen."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from controller.errors import ProtocolViolation, RegistryReadOnly, RegistryUnavailable
from controller.registry.local import LocalArtifactRegistry
from controller.registry.protocol import Origin
from controller.registry.transport import Timeouts
from devcluster.registries import RegistryKind
from tests.contract import images
from tests.contract.conftest import Starter, binding
from tests.fakes.raw_server import Writer, raw_server

pytestmark = pytest.mark.timeout(900)

SHORT = Timeouts(connect=2.0, read=2.0, pool=2.0, total=10.0)
DISTRIBUTIONS = [RegistryKind.DISTRIBUTION_3, RegistryKind.DISTRIBUTION_2]


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
async def test_read_only(start: Starter, kind: RegistryKind, name: str) -> None:
    """In maintenance mode, existing repositories are verified, and a create raises RegistryReadOnly."""
    writable = start(kind)
    async with httpx.AsyncClient(base_url=writable.url, trust_env=False) as other:
        await images.push_image(other, f"artifacts/{name}", "v1")
    readonly = {"maintenance": {"readonly": {"enabled": True}}, "filesystem": {"rootdirectory": str(writable.storage)}}
    server = start(kind, config={"storage": readonly})
    async with LocalArtifactRegistry("artifacts", binding(server.url)) as registry:
        assert (await registry.ensure_repository(name)).origin is Origin.ADOPTED
        with pytest.raises(RegistryReadOnly, match="405") as raised:
            await registry.ensure_repository(f"{name}-2")
        assert raised.value.status == 405


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
async def test_behind_another_name(start: Starter, kind: RegistryKind, name: str) -> None:
    """With ``http.host``, upload locations are elsewhere: they are rejected, and that address is not contacted."""

    async def nothing(_: str, __: Writer) -> None:
        """Never called."""

    async with raw_server(nothing) as elsewhere:
        server = start(kind, config={"http": {"host": elsewhere.url}})
        async with LocalArtifactRegistry("artifacts", binding(server.url)) as registry:
            with pytest.raises(ProtocolViolation, match=f"points to {elsewhere.url}") as raised:
                await registry.ensure_repository(name)
            assert "http.host" in str(raised.value.advice)
        assert elsewhere.writers == []
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as other:
        assert await images.fetch(other, f"artifacts/{name}", "latest") is None


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
async def test_relative_locations(start: Starter, kind: RegistryKind, name: str) -> None:
    """With ``http.relativeurls`` everything works."""
    server = start(kind, config={"http": {"relativeurls": True}})
    async with LocalArtifactRegistry("artifacts", binding(server.url)) as registry:
        for number in range(2):
            assert (await registry.ensure_repository(f"{name}-{number}")).created


async def test_stopped_and_started(start: Starter, name: str) -> None:
    """A stopped registry is unavailable; when it is back, the same client works again."""
    server = start(RegistryKind.DISTRIBUTION_3)
    async with LocalArtifactRegistry("artifacts", binding(server.url)) as registry:
        await registry.ensure_repository(name)
        await asyncio.to_thread(server.process.stop)
        for call in (registry.ping(), registry.ensure_repository(name), registry.get_repository(name)):
            with pytest.raises(RegistryUnavailable):
                await call
        await asyncio.to_thread(server.process.restart)
        await registry.ping()
        assert not (await registry.ensure_repository(name)).created


async def ping_until_it_fails(registry: LocalArtifactRegistry) -> None:
    """Ping a registry that was just frozen: the signal takes effect a moment later."""
    async with asyncio.timeout(30):
        while True:
            await registry.ping()


async def test_frozen(start: Starter, name: str) -> None:
    """A registry that accepts connections but never responds is unavailable within the timeouts."""
    server = start(RegistryKind.DISTRIBUTION_3)
    async with LocalArtifactRegistry("artifacts", binding(server.url), timeouts=SHORT) as registry:
        await registry.ensure_repository(name)
        server.process.suspend()
        try:
            with pytest.raises(RegistryUnavailable, match=r"no data for 2 s"):
                await ping_until_it_fails(registry)
        finally:
            server.process.resume()
        assert not (await registry.ensure_repository(name)).created
