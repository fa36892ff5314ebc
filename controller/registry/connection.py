"""Connection: sends requests to one registry and returns complete responses.

Every response is bounded in size and time, redirects are followed only on the registry itself, and library errors are
wrapped (:mod:`controller.registry.diagnosis`). What a response means is decided in
:mod:`controller.registry.responses`; which requests are sent, in :mod:`controller.registry.client`.

It uses httpx's transport interface (``httpx.AsyncBaseTransport``, implemented with aiohttp) and not
``httpx.AsyncClient``: the client's cookies, redirects, proxies and authentication would all have to be disabled, and
they cost a third of a request's CPU (docs/architecture.md has the figures).
"""

from __future__ import annotations

import asyncio
import ssl
import time
import zlib
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus
from typing import Final, cast

import aiohttp
import httpx

from controller import USER_AGENT
from controller.binding import RegistryBinding
from controller.errors import ProtocolViolation
from controller.names import RepositoryPath
from controller.registry.auth import Authenticator, Scopes
from controller.registry.compression import GZIP, decompress
from controller.registry.diagnosis import LIBRARY_ERRORS, diagnose, refused_by_proxy
from controller.registry.endpoint import Endpoint
from controller.registry.responses import Response, error_for, resolve
from controller.registry.tls import Trust
from controller.registry.transport import NetworkTransport, OneShotStream, Timeouts, Transport

MAX_BODY: Final = 64 << 10
"""Maximum bytes of a body, unless the request allows more; an error's body is cut there."""

MAX_LARGE_BODIES: Final = 2
"""Bodies beyond MAX_BODY that are read concurrently from one registry: memory must not grow with the workers."""

MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_OF_WRITES: Final = frozenset({307, 308})
"""Redirects that keep method and body."""

_READS: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request that was sent, for metrics.

    Args:
        method: HTTP method.
        code: The response's status; ``error`` where there was no complete response.
        seconds: Time from the request to the end of the response.
    """

    method: str
    code: str
    seconds: float


RequestObserver = Callable[[RequestRecord], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to a registry.

    Args:
        method: HTTP method.
        url: URL on the registry or its token service.
        operation: What is attempted, to follow "cannot" in an error.
        resource: Id of the requested resource, for a definite not-found.
        scopes: Scopes of the bearer token.
        expected: Statuses that mean success; all others are raised as errors.
        accept: Accepted media types.
        content: The body; None for none.
        content_type: The body's media type.
        max_body: Maximum bytes of a successful response.
        cut: Cut a longer body, instead of rejecting the response.
        once: Send it at most once, even where the connection breaks before the server can have read it.
    """

    method: str
    url: str
    operation: str
    resource: str
    scopes: Scopes
    expected: tuple[int, ...] = (HTTPStatus.OK,)
    accept: str = "application/json"
    content: bytes | None = None
    content_type: str | None = None
    max_body: int = MAX_BODY
    cut: bool = False
    once: bool = False


class Connection:
    """One registry's connection pool and credentials.

    Args:
        binding_name: The binding's name, for errors.
        binding: The binding.
        timeouts: How long one request may take.
        before_request: Called before each request, also to a token service; its exceptions propagate.
        on_request: Called after each request that was sent, also to a token service.
        transport: Replaces the network; None for the network.

    Raises:
        BindingConfigInvalid: The CA bundle is invalid.
    """

    def __init__(
        self,
        binding_name: str,
        binding: RegistryBinding,
        *,
        timeouts: Timeouts,
        before_request: Callable[[], None],
        on_request: RequestObserver | None,
        transport: Transport | None,
    ) -> None:
        self.endpoint: Final = Endpoint.of(binding.registry_url)
        self._base = f"{self.endpoint}/v2"
        self._timeouts = timeouts
        self._before_request = before_request
        self._on_request = on_request
        self._large_bodies = asyncio.Semaphore(MAX_LARGE_BODIES)
        self._proxy = binding.http_proxy
        self._trust = Trust(binding_name, binding.tls)
        self._transport = transport or NetworkTransport(self._context, timeouts, proxy=self._proxy)
        self._auth = Authenticator(
            self.endpoint, binding.credentials, self._request_token, prefix=binding.prefix(binding_name)
        )

    def url(self, path: RepositoryPath, target: str) -> str:
        """Return the URL of a resource in a repository.

        Args:
            path: The repository.
            target: Path and query below the repository, already quoted.
        """
        return f"{self._base}/{path}/{target}"

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    def _context(self, origin: str) -> ssl.SSLContext:
        """Return the context of TLS connections to a server: ``insecureSkipVerify`` is for the registry alone."""
        return self._trust.context if Endpoint.of(origin) == self.endpoint else self._trust.verifying_context

    async def send(self, request: Request) -> Response:
        """Send a request, authenticated where the registry requires it; return its response.

        Raises:
            RegistryError: There was no response, or its status is not one of the expected ones.
        """
        response = await self._send_authorized(request)
        redirects = 0
        while response.status in _REDIRECTS:
            redirects += 1
            if redirects > MAX_REDIRECTS:
                raise self._violation(request, f"more than {MAX_REDIRECTS} redirects", status=response.status)
            location = response.headers.get("location")
            url = resolve(location, response=response, operation=request.operation, endpoint=self.endpoint)
            if request.method not in _READS and response.status not in _REDIRECTS_OF_WRITES:
                break
            response = await self._send_authorized(replace(request, url=url))
        return self._expected(request, response)

    async def send_anonymously(self, request: Request) -> Response:
        """Like :meth:`send`, but without credentials and without following redirects."""
        return self._expected(request, await self._exchange(request, None))

    def _expected(self, request: Request, response: Response) -> Response:
        if response.status in request.expected:
            return response
        raise error_for(response, operation=request.operation, resource=request.resource, endpoint=self.endpoint)

    async def _send_authorized(self, request: Request) -> Response:
        """Send a request with the known authorization; after a 401, once more with a better one, if there is any."""

        def send(authorization: str | None) -> Awaitable[Response]:
            return self._exchange(request, authorization)

        response, sent = await self._auth.exchange(send, request.scopes)
        # Only a 401 is a challenge: some registries send WWW-Authenticate with every response.
        if response.status != HTTPStatus.UNAUTHORIZED:
            return response
        self._auth.handle_challenge(response, scopes=request.scopes, operation=request.operation, rejected=sent)
        if await self._auth.authorization(request.scopes) != sent:
            response, _ = await self._auth.exchange(send, request.scopes)
        if response.status == HTTPStatus.UNAUTHORIZED:
            raise self._auth.rejection(response, operation=request.operation)
        return response

    async def _request_token(self, url: str, authorization: str | None) -> Response:
        request = Request(method="GET", url=url, operation="get a token", resource="", scopes=())
        return await self._exchange(request, authorization)

    async def _exchange(self, request: Request, authorization: str | None) -> Response:
        """Send one request and return the complete response, within all bounds."""
        self._before_request()
        self._trust.refresh()
        code = "error"
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeouts.total):
                response = await self._receive(request, authorization)
            code = str(response.status)
        except aiohttp.ClientResponseError as error:
            # Not chained: its repr contains the request's headers, including the credentials.
            if self._proxy is not None and isinstance(error, aiohttp.ClientHttpProxyError):
                raise refused_by_proxy(self._proxy, error.status, request.operation, request.url) from None
            raise self._violation(request, "response is not HTTP") from None
        except LIBRARY_ERRORS as error:
            found = diagnose(error, trust=self._trust, timeouts=self._timeouts, proxy=self._proxy)
            endpoint = str(Endpoint.of(request.url))
            raise found.error(request.operation, endpoint, found.cause, advice=found.advice) from error
        finally:
            if self._on_request is not None:
                self._on_request(RequestRecord(request.method, code, time.perf_counter() - started))
        if response.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED and self._proxy is not None:
            raise refused_by_proxy(self._proxy, response.status, request.operation, request.url)
        return response

    async def _receive(self, request: Request, authorization: str | None) -> Response:
        outgoing = self._outgoing(request, authorization)
        response = await self._transport.handle_async_request(outgoing)
        # A transport returns asynchronous streams. Read directly: httpx would only add decoding.
        stream = cast(httpx.AsyncByteStream, response.stream)
        try:
            body = await self._read_decoded(request, response, stream)
        finally:
            await stream.aclose()
        return Response(request.method, request.url, response.status_code, response.headers, body)

    def _outgoing(self, request: Request, authorization: str | None) -> httpx.Request:
        content = request.content or b""
        headers = _headers(request.accept, request.content_type, len(content))
        if authorization is not None:
            headers = httpx.Headers([*headers.raw, (b"Authorization", authorization.encode())])
        origin, target = _split(request.url)
        # A stream, because httpx would parse the headers to complete them for content.
        stream = OneShotStream(content) if request.once else httpx.ByteStream(content)
        return httpx.Request(request.method, origin, headers=headers, stream=stream, extensions={"target": target})

    async def _read_decoded(self, request: Request, response: httpx.Response, stream: httpx.AsyncByteStream) -> bytes:
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding == "identity":
            return await self._read(request, response.status_code, stream)
        if encoding not in GZIP:
            raise self._violation(request, "response is compressed", status=response.status_code)
        try:
            async with aclosing(decompress(stream, piece=MAX_BODY)) as content:
                return await self._read(request, response.status_code, content)
        except zlib.error as error:
            raise self._violation(request, "response is not gzip", status=response.status_code) from error

    async def _read(self, request: Request, status: int, stream: AsyncIterable[bytes]) -> bytes:
        """Return the body, bounded in size; an error's body is cut."""
        failed = status >= HTTPStatus.BAD_REQUEST
        limit = MAX_BODY if failed else request.max_body
        body = bytearray()
        large = False
        try:
            async for chunk in stream:
                body += chunk
                if len(body) > limit:
                    if failed or request.cut:
                        return bytes(body[:limit])
                    raise self._violation(request, f"response exceeds {limit} bytes", status=status)
                if len(body) > MAX_BODY and not large:
                    large = await self._large_bodies.acquire()
        finally:
            if large:
                self._large_bodies.release()
        return bytes(body)

    def _violation(self, request: Request, cause: str, *, status: int | None = None) -> ProtocolViolation:
        return ProtocolViolation(request.operation, str(Endpoint.of(request.url)), cause, status=status)


def pull(path: RepositoryPath) -> Scopes:
    """Return the scopes of a bearer token for reading a repository."""
    return (f"repository:{path}:pull",)


def push(path: RepositoryPath) -> Scopes:
    """Return the scopes of a bearer token for writing to a repository."""
    return (f"repository:{path}:pull,push",)


def _split(url: str) -> tuple[httpx.URL, bytes]:
    """Return the parsed origin of an absolute URL, and its path and query as they are sent.

    Parsing a URL with httpx takes five times as long as the rest of a request. Our URLs are normalised already, so
    httpx gets the (cached) origin, and its extension ``target`` replaces path and query.
    """
    end = url.index("/", len("https://"))
    return _origin(url[:end]), url[end:].encode()


@lru_cache(maxsize=16)
def _origin(url: str) -> httpx.URL:
    return httpx.URL(url)


@lru_cache(maxsize=16)
def _headers(accept: str, content_type: str | None, length: int) -> httpx.Headers:
    # identity: responses are small, so compression is not worth its time.
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Accept": accept}
    if content_type is not None:
        headers |= {"Content-Type": content_type, "Content-Length": str(length)}
    return httpx.Headers(headers)
