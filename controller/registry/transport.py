"""Network transport: aiohttp behind httpx's transport interface (``httpx.AsyncBaseTransport``)."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
import httpx

from controller.urls import Proxy

Transport = httpx.AsyncBaseTransport
"""The interface between the client and the network; the fake registry of the tests implements it."""

MAX_CONNECTIONS: Final = 300
"""Maximum connections to one registry: somewhat more than the maximum number of concurrent reconciles."""

KEEP_ALIVE: Final = 15.0
"""Seconds that an idle connection is kept; short enough that the registry rarely closes it first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Timeouts of one request, in seconds.

    There is none for writing: bodies are smaller than a packet, and ``total`` applies.

    Args:
        connect: Until TCP is connected.
        read: Between two parts of a response.
        pool: Until a connection can be used: waiting for a free one, name resolution, TCP and TLS.
        total: For the whole request, however much data arrives.
    """

    connect: float = 5.0
    read: float = 15.0
    pool: float = 10.0
    total: float = 30.0


class NetworkTransport(httpx.AsyncBaseTransport):
    """Transport for real registries.

    ``httpx-aiohttp`` does the same for any client and any request. Its generality (timeouts per request, translated
    errors, headers decoded and encoded again) costs as much CPU as aiohttp itself and is not needed here: all requests
    have the same timeouts, and errors are diagnosed where they are caught.

    Args:
        trust: Returns the context of TLS connections to a server, given its origin.
        timeouts: Timeouts of each request.
        proxy: The proxy for all requests; None for none.
    """

    def __init__(
        self, trust: Callable[[str], ssl.SSLContext], timeouts: Timeouts, *, proxy: Proxy | None = None
    ) -> None:
        self._trust = trust
        self._proxy = proxy
        login = proxy.authorization if proxy else None
        # Headers and not aiohttp's proxy_auth, which is part of the repr of its errors.
        self._proxy_headers = {} if login is None else {"Proxy-Authorization": login}
        self._timeout = aiohttp.ClientTimeout(
            connect=timeouts.pool, sock_connect=timeouts.connect, sock_read=timeouts.read
        )
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request with a ``target`` extension and a stream; return once the response's headers are complete."""
        if self._session is None:
            self._session = self._open_session()
        headers, is_https = _decoded(request.headers), request.url.scheme == "https"
        if not is_https:
            headers.update(self._proxy_headers)
        origin = f"{request.url.scheme}://{request.url.netloc.decode()}"
        stream, target = request.stream, request.extensions["target"].decode()
        response = await self._session.request(
            request.method,
            f"{origin}{target}",
            headers=headers,
            proxy=self._proxy.url if self._proxy else None,
            proxy_headers=self._proxy_headers if is_https else None,
            data=(b"".join(stream) or None) if isinstance(stream, httpx.ByteStream) else stream,
            allow_redirects=False,
            timeout=self._timeout,
            ssl=self._trust(origin) if is_https else True,
        )
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Incoming(response))

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        """Return a session without cookies and without settings from the environment; requires a running event loop.

        By default aiohttp rejects header lines of more than 8 KiB and more than 128 headers.
        """
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_SynchronisedRequest,
            auto_decompress=False,
            trust_env=False,
        )


class _Incoming(httpx.AsyncByteStream):
    """Body of a response, as it arrives."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._response.content.iter_any())

    async def aclose(self) -> None:
        """Return the connection to the pool, or close it where the response was not read to its end."""
        self._response.release()


def _decoded(headers: httpx.Headers) -> dict[str, str]:
    """Return headers of which none occurs twice, and which are ASCII; without guessing an encoding, as httpx would."""
    return {name.decode(): value.decode() for name, value in headers.raw}


class _SynchronisedRequest(aiohttp.ClientRequest):
    """Refuses a pooled connection with unread data (response desynchronisation).

    Unsolicited data would be taken for the response to the next request, which may be about another repository.
    """

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Send the request, or have aiohttp use a new connection where the request may be repeated."""
        if conn.protocol is not None and conn.protocol.should_close:
            raise aiohttp.ServerDisconnectedError
        return await super().send(conn)


class OneShotStream(httpx.AsyncByteStream):
    """A body that can be read only once, so that aiohttp cannot repeat the request on a new connection."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content
