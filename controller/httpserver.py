"""HTTP server that clients cannot exhaust: a deadline for each request, and a maximum number of connections.

aiohttp's server has a timeout between requests, but none for a request whose headers never end. The limits are those of
the servers in controller-runtime, except for the number of connections, which Go does not limit.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from controller import NAME
from controller.errors import ConfigError
from controller.names import is_host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REQUEST_TIMEOUT: Final = 32.0
"""Maximum time for a client to send a request and to receive the response, in seconds."""

_IDLE_TIMEOUT: Final = 90.0
"""Maximum time between two requests of a connection, in seconds."""

_HANDSHAKE_TIMEOUT: Final = 10.0
"""Maximum time for a TLS handshake, in seconds."""

_SHUTDOWN_TIMEOUT: Final = 1.0
"""Maximum time for responses in progress when the process stops, in seconds."""

MAX_CONNECTIONS: Final = 128
"""Maximum number of connections of one server; one more closes the oldest, so that a probe always gets through."""


@asynccontextmanager
async def serve(
    application: web.Application, address: str, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Serve an application for as long as the context lasts.

    Args:
        application: The application.
        address: ``host:port`` or ``:port`` (all addresses).
        tls: Certificate and key; None for plain HTTP.

    Raises:
        ConfigError: The server cannot listen on the address.
    """
    application.on_response_prepare.append(_hide_versions)
    runner = web.AppRunner(application, shutdown_timeout=_SHUTDOWN_TIMEOUT)
    await runner.setup()
    try:
        server = await _listen(runner, address, tls)
        try:
            yield
        finally:
            server.close()
    finally:
        await runner.cleanup()


def parse_address(address: str) -> tuple[str | None, int]:
    """Return host and port; the host is None for all addresses.

    Args:
        address: ``host:port`` or ``:port``.

    Raises:
        ValueError: It is something else; the message says what to write.
    """
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdecimal()) or not is_host(f"{host or 'localhost'}:{port}"):
        raise ValueError(f"'{address}' is not an address: write HOST:PORT or :PORT, with a port from 1 to 65535")
    return host.strip("[]") or None, int(port)


async def _listen(runner: web.AppRunner, address: str, tls: ssl.SSLContext | None) -> asyncio.Server:
    connections: OrderedDict[_Connection, None] = OrderedDict()
    try:
        host, port = parse_address(address)
        return await asyncio.get_running_loop().create_server(
            lambda: _Connection(cast(web.Server, runner.server), connections),
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=_HANDSHAKE_TIMEOUT if tls else None,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot listen on '{address}': {error}") from error


async def _hide_versions(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = NAME  # in place of the versions of Python and aiohttp


class _Connection(web.RequestHandler):
    """One connection.

    Args:
        server: aiohttp's server.
        connections: All connections of it, oldest first.
    """

    def __init__(self, server: web.Server, connections: OrderedDict[_Connection, None]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_IDLE_TIMEOUT,
            access_log=None,  # type: ignore[arg-type]
        )
        self._connections = connections
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections[self] = None
        if len(self._connections) > MAX_CONNECTIONS:
            oldest, _ = self._connections.popitem(last=False)
            oldest.abort()
        self._expect_request()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_waiting()
        self._connections.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None:
            self._expect_request()
        super().data_received(data)

    async def finish_response(self, *args: Any, **kwargs: Any) -> tuple[web.StreamResponse, bool]:
        result = await super().finish_response(*args, **kwargs)
        self._stop_waiting()
        return result

    def handle_error(self, *args: Any, **kwargs: Any) -> web.StreamResponse:
        response = super().handle_error(*args, **kwargs)
        response.headers["Server"] = NAME  # in place of the versions of Python and aiohttp
        return response

    def abort(self) -> None:
        """Close the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def _expect_request(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(REQUEST_TIMEOUT, self.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
