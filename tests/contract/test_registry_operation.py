"""Mistakes in the operation of Distribution: collected while it runs, replicas without a common secret."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from controller.errors import RegistryError
from controller.registry import marker
from controller.registry.local import LocalArtifactRegistry
from controller.registry.protocol import Origin
from devcluster.registries import Registry, RegistryKind
from devcluster.tools import Tool, provide
from tests.contract import images
from tests.contract.conftest import Starter, binding
from tests.fakes.raw_server import Writer, raw_server

pytestmark = pytest.mark.timeout(900)

CACHED = {"storage": {"cache": {"blobdescriptor": "inmemory"}}}


async def collect_garbage(directory: Path) -> None:
    """Run Distribution 2's garbage collection beside the running server."""
    command = (provide(Tool.DOCKER_REGISTRY), "garbage-collect", "-m", directory / "config.yml")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


async def test_collected_while_it_runs(start: Starter, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Distribution 2 then accepts the marker without serving it; another marker is served, without a re-creation."""
    server = start(RegistryKind.DISTRIBUTION_2, config=CACHED)
    async with (
        LocalArtifactRegistry("artifacts", binding(server.url)) as registry,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as other,
    ):
        for repository in (name, f"{name}-1"):
            await registry.ensure_repository(repository)
            await registry.ensure_repository(repository, known_origin=Origin.CREATED)
            await images.fetch(other, f"artifacts/{repository}", "latest")
            await images.push_image(other, f"artifacts/{repository}", "latest")
        await collect_garbage(server.storage.parent)
        await registry.ensure_repository(f"{name}-2")
        assert await images.fetch(other, f"artifacts/{name}-2", "latest") is None
        again = await registry.ensure_repository(f"{name}-2", known_origin=Origin.CREATED)
        assert (again.origin, again.created) == (Origin.CREATED, False)
        fetched = await images.fetch(other, f"artifacts/{name}-2", "latest")
        assert fetched is not None
        assert fetched[0] == marker.LAYERED.manifest
        assert caplog.text.count("restart it after a garbage collection") == 1
        assert not (await registry.ensure_repository(f"{name}-2", known_origin=Origin.CREATED)).created


@asynccontextmanager
async def load_balancer(*servers: Registry) -> AsyncIterator[str]:
    """Send each request to the next of several registries; yield the URL."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, trust_env=False))
            for server in servers
        ]
        turn = itertools.cycle(clients)

        async def respond(head: str, writer: Writer) -> None:
            first, *lines = head.rstrip("\r\n").split("\r\n")
            method, target, _ = first.split(" ")
            headers = dict(line.split(": ", 1) for line in lines)
            response = await next(turn).request(method, target, headers=headers, content=balancer.bodies[-1])
            kept = {key: value for key, value in response.headers.items() if key in ("location", "content-type")}
            await writer.respond(f"{response.status_code} {response.reason_phrase}", response.content, **kept)

        balancer = await stack.enter_async_context(raw_server(respond))
        yield balancer.url


async def test_replicas_without_a_common_secret(start: Starter, name: str, tmp_path: Path) -> None:
    """An upload session that the next replica does not know is opened once more; then the advice names http.secret."""
    storage = {"storage": {"filesystem": {"rootdirectory": str(tmp_path)}}}
    servers = [
        start(RegistryKind.DISTRIBUTION_3, config={**storage, "http": {"secret": secret}}) for secret in ("one", "two")
    ]
    async with (
        load_balancer(*servers) as url,
        LocalArtifactRegistry("artifacts", binding(url)) as registry,
    ):
        with pytest.raises(RegistryError, match="BLOB_UPLOAD_INVALID") as raised:
            await registry.ensure_repository(name)
        assert "http.secret" in str(raised.value.advice)
