"""The server of probes and metrics: clients cannot exhaust it, and learn nothing of versions."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from controller import httpserver
from controller.errors import ConfigError
from controller.health import probes
from devcluster.process import free_port


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Provide the address of a server of probes."""
    address = f"127.0.0.1:{free_port()}"
    async with httpserver.serve(probes(lambda: None), address):
        yield address


@contextlib.asynccontextmanager
async def connect(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection for as long as the context lasts."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


async def status(address: str) -> int:
    """Return the status of /healthz."""
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        return (await client.get(f"http://{address}/healthz")).status_code


async def test_half_open_requests_do_not_keep_a_probe_out(address: str) -> None:
    """More requests whose headers never end than the server keeps connections do not stop a probe."""
    async with contextlib.AsyncExitStack() as stack:
        readers = []
        for _ in range(httpserver.MAX_CONNECTIONS + 50):
            reader, writer = await stack.enter_async_context(connect(address))
            writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
            readers.append(reader)
        assert await status(address) == 200
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(readers[0].read(), 5) == b""
        waiting = asyncio.create_task(readers[-1].read())
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
        waiting.cancel()


@pytest.mark.parametrize(
    "sent", [b"", b"GET /healthz HTTP/1.1\r\nHost", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET"]
)
async def test_a_request_has_a_deadline(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is closed where a request, the first or a later one, does not arrive in time."""
    monkeypatch.setattr(httpserver, "REQUEST_TIMEOUT", 0.2)
    address = f"127.0.0.1:{free_port()}"
    async with httpserver.serve(probes(lambda: None), address), connect(address) as (reader, writer):
        writer.write(sent.removesuffix(b"GET"))
        if sent.endswith(b"GET"):
            await reader.readuntil(b"ok\n")
            writer.write(b"GET")
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_idle_connections_are_reused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline of a request does not apply between two requests."""
    monkeypatch.setattr(httpserver, "REQUEST_TIMEOUT", 0.1)
    async with connect(address) as (reader, writer):
        for _ in range(3):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await asyncio.wait_for(reader.readuntil(b"ok\n"), 5)).startswith(b"HTTP/1.1 200")
            with pytest.raises(TimeoutError):  # no end of the connection
                await asyncio.wait_for(reader.read(1), 0.3)


@pytest.mark.parametrize(
    "request_", [b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /none HTTP/1.0\r\n\r\n", b"\x00\r\n\r\n"]
)
async def test_no_version_is_shown(address: str, request_: bytes) -> None:
    """No response, not even to a bad request, tells the versions of Python and aiohttp."""
    async with connect(address) as (reader, writer):
        writer.write(request_)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert b"Server: artifact-repository-controller\r\n" in head
    assert b"aiohttp" not in head


@pytest.mark.parametrize("address", ["127.0.0.1:70000", "127.0.0.1:", "nowhere", "127.0.0.1:http"])
async def test_an_address_that_cannot_be_listened_on(address: str) -> None:
    """A bad address is an error that contains it."""
    with pytest.raises(ConfigError, match=address):
        async with httpserver.serve(probes(lambda: None), address):
            pass


async def test_a_port_in_use() -> None:
    """A port that another process listens on is an error."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="in use"):
        async with httpserver.serve(probes(lambda: None), f"127.0.0.1:{taken.getsockname()[1]}"):
            pass
