"""The wire to one registry: the only module of the project that imports httpx.

It trusts nobody: whatever comes back is bounded in size and time, a redirect is followed only on the registry itself,
and no library error leaves unwrapped. What the answers mean is decided in :mod:`controller.registry.answers`, what is
asked in :mod:`controller.registry.client`.

It sits on httpx's transport seam (``httpx.AsyncBaseTransport``, filled with aiohttp) and not on
``httpx.AsyncClient``: the client's cookies, redirects, proxies and authentication would all have to be switched off
here, and they cost a third of a request's CPU (docs/architecture.md has the figures).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from http import HTTPStatus
from typing import Final, cast

import aiohttp
import httpx

from controller import __version__
from controller.config import TLS, RegistryBinding
from controller.errors import (
    BindingConfigInvalid,
    ProtocolViolation,
    RegistryError,
    RegistryUnavailable,
    TLSVerificationFailed,
)
from controller.registry.answers import Answer, Endpoint, error_for, resolve
from controller.registry.auth import Authenticator, FileStamp, Scopes, file_stamp

Transport = httpx.AsyncBaseTransport
"""The seam between this module and the network; the tests' registry implements it."""

MAX_BODY: Final = 64 << 10
"""Bytes of a body unless a request says otherwise. Of an error's body, this is how much is read."""

MAX_LARGE_BODIES: Final = 2
"""Bodies beyond MAX_BODY that are read from one registry at the same time: memory must not grow with the workers."""

MAX_REDIRECTS: Final = 3
MAX_CONNECTIONS: Final = 300
"""To one registry: somewhat more than the most objects that may be worked on at the same time."""

KEEP_ALIVE: Final = 15.0
"""Seconds that an idle connection is kept; short enough that the other side rarely closes it first."""

_USER_AGENT: Final = f"artifact-repository-controller/{__version__}"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_READS: Final = frozenset({"GET", "HEAD"})

_LIBRARY_ERRORS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    aiohttp.ClientError,
    OSError,  # TimeoutError and ssl.SSLError, too
    ValueError,
)
"""What httpx, aiohttp and asyncio are seen to raise."""

_REASONS: Final = (
    (aiohttp.ClientConnectorDNSError, "its host name cannot be resolved"),
    (aiohttp.SocketTimeoutError, "nothing came for {0.read:g} s"),
    (aiohttp.ServerTimeoutError, "no connection could be made in time"),
    (TimeoutError, "no complete answer within {0.total:g} s"),
)
"""By the cause of a library's error, special before general."""

_CLOSED: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})

_CERTIFICATE_REASONS: Final = {
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by itself",
    19: "is signed by an unknown CA",
    20: "is signed by an unknown CA",
    21: "is signed by an unknown CA",
    62: "is for another host name",
    64: "is for another IP address",
}
"""By OpenSSL's numbers (X509_V_ERR_…)."""

_CA_MISSING: Final = frozenset({18, 19, 20, 21})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long one request may take, in seconds.

    There is none for writing: no body is larger than a packet, and ``total`` bounds it.

    Args:
        connect: Until TCP is connected.
        read: Between two parts of an answer.
        pool: Until a connection can be used: waiting for a free one, name resolution, TCP and TLS.
        total: For the whole, whatever trickles in meanwhile.
    """

    connect: float = 5.0
    read: float = 15.0
    pool: float = 10.0
    total: float = 30.0


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request that was sent, for metrics.

    Args:
        method: HTTP method.
        code: The answer's status; ``error`` where there was no complete answer.
        seconds: From the request to the end of the answer.
    """

    method: str
    code: str
    seconds: float


RequestObserver = Callable[[RequestRecord], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing to ask of a registry.

    Args:
        method: HTTP method.
        url: URL on the registry.
        doing: What it is for, to follow "cannot" in an error.
        resource: Id of what is asked for, for a clear not-found.
        scopes: What a bearer token must allow.
        expected: The statuses that are success; all others are raised as errors.
        accept: Media types to ask for.
        content: The body, if there is one.
        content_type: The body's media type.
        max_body: Bytes that a successful answer may have.
        once: Send it at most once, even where a connection breaks at a moment that allows a second try.
    """

    method: str
    url: str
    doing: str
    resource: str
    scopes: Scopes
    expected: tuple[int, ...] = (HTTPStatus.OK,)
    accept: str = "application/json"
    content: bytes | None = None
    content_type: str | None = None
    max_body: int = MAX_BODY
    once: bool = False


class Connection:
    """One registry's connection pool and credentials.

    Args:
        binding_name: The binding's name, for errors.
        binding: The binding.
        timeouts: How long one request may take.
        on_request: Called after each request that was sent, also to a token service.
        transport: Instead of the network.

    Raises:
        BindingConfigInvalid: The CA bundle cannot be used.
    """

    def __init__(
        self,
        binding_name: str,
        binding: RegistryBinding,
        *,
        timeouts: Timeouts,
        on_request: RequestObserver | None,
        transport: Transport | None,
    ) -> None:
        self.endpoint: Final = Endpoint.of(binding.registry_url)
        self._timeouts = timeouts
        self._on_request = on_request
        self._large_bodies = asyncio.Semaphore(MAX_LARGE_BODIES)
        self._trust = _Trust(binding_name, binding.tls)
        self._transport = transport or NetworkTransport(lambda: self._trust.context, timeouts)
        self._auth = Authenticator(self.endpoint, binding.credentials, self._request_token)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def ask(self, request: Request) -> Answer:
        """Return the answer to a request, if it has one of the expected statuses.

        Raises:
            RegistryError: It has not, or there was none.
        """
        answer = await self._ask_authorized(request, request.url)
        redirects = 0
        while answer.status in _REDIRECTS and request.method in _READS:
            redirects += 1
            if redirects > MAX_REDIRECTS:
                reason = f"it redirects more than {MAX_REDIRECTS} times"
                raise ProtocolViolation(self._failed(request, reason), status=answer.status)
            location = answer.headers.get("location")
            url = resolve(location, answer=answer, doing=request.doing, endpoint=self.endpoint)
            answer = await self._ask_authorized(request, url)
        return self._expected(request, answer)

    async def ask_anonymously(self, request: Request) -> Answer:
        """Like :meth:`ask`, but send no credentials and follow no redirect."""
        return self._expected(request, await self._exchange(request, request.url, None))

    def _expected(self, request: Request, answer: Answer) -> Answer:
        if answer.status in request.expected:
            return answer
        raise error_for(answer, doing=request.doing, resource=request.resource, endpoint=self.endpoint)

    async def _ask_authorized(self, request: Request, url: str) -> Answer:
        """Send a request with what is known of credentials; where that is refused, once more with better ones."""
        sent = await self._auth.authorization(request.scopes)
        answer = await self._exchange(request, url, sent)
        # Only a 401 is a challenge: some registries send WWW-Authenticate with every answer.
        if answer.status != HTTPStatus.UNAUTHORIZED:
            return answer
        self._auth.challenged(answer, doing=request.doing, rejected=sent)
        better = await self._auth.authorization(request.scopes)
        if better != sent:
            answer = await self._exchange(request, url, better)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise self._auth.refusal(answer, doing=request.doing)
        return answer

    async def _request_token(self, url: str, authorization: str | None) -> Answer:
        request = Request(method="GET", url=url, doing="get a token", resource="", scopes=())
        return await self._exchange(request, url, authorization)

    async def _exchange(self, request: Request, url: str, authorization: str | None) -> Answer:
        """Send one request and return the whole answer, within all bounds."""
        self._trust.refresh()
        code = "error"
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeouts.total):
                answer = await self._send(request, url, authorization)
            code = str(answer.status)
        except aiohttp.ClientResponseError:
            # Not chained: its repr holds the request's headers, the credentials among them.
            raise ProtocolViolation(self._failed(request, "what it answers is not HTTP")) from None
        except _LIBRARY_ERRORS as error:
            kind, reason = self._diagnose(error)
            raise kind(self._failed(request, reason)) from error
        finally:
            if self._on_request is not None:
                self._on_request(RequestRecord(request.method, code, time.perf_counter() - started))
        return answer

    async def _send(self, request: Request, url: str, authorization: str | None) -> Answer:
        outgoing = self._outgoing(request, url, authorization)
        response = await self._transport.handle_async_request(outgoing)
        # Always an asynchronous one from such a transport. It is read directly: all that httpx could add is decoding.
        stream = cast(httpx.AsyncByteStream, response.stream)
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                # Not asked for, and the way to make a small answer large.
                raise ProtocolViolation(self._failed(request, "its answer is compressed"), status=response.status_code)
            body = await self._read(request, response.status_code, stream)
        finally:
            await stream.aclose()
        if authorization is not None and authorization.partition(" ")[2].encode() in body:
            # An answer that repeats the credentials would carry them into a message.
            body = b""
        return Answer(request.method, url, response.status_code, response.headers, body)

    def _outgoing(self, request: Request, url: str, authorization: str | None) -> httpx.Request:
        headers = _headers(request.accept, request.content_type)
        if authorization is not None:
            headers = httpx.Headers([*headers.raw, (b"Authorization", authorization.encode())])
        origin, target = _split(url)
        extensions = {"target": target}
        content = request.content
        if not request.once or content is None:
            return httpx.Request(request.method, origin, headers=headers, content=content, extensions=extensions)
        headers = httpx.Headers([*headers.raw, (b"Content-Length", b"%d" % len(content))])
        stream = _OneShot(content)
        return httpx.Request(request.method, origin, headers=headers, stream=stream, extensions=extensions)

    async def _read(self, request: Request, status: int, stream: httpx.AsyncByteStream) -> bytes:
        """Return a body, which must not be too long; of an error's, the beginning is enough."""
        failed = status >= HTTPStatus.BAD_REQUEST
        limit = MAX_BODY if failed else request.max_body
        body = bytearray()
        large = False
        try:
            async for chunk in stream:
                body += chunk
                if len(body) > limit:
                    if failed:
                        return bytes(body[:limit])
                    reason = f"its answer is larger than {limit} bytes"
                    raise ProtocolViolation(self._failed(request, reason), status=status)
                if len(body) > MAX_BODY and not large:
                    large = await self._large_bodies.acquire()
        finally:
            if large:
                self._large_bodies.release()
        return bytes(body)

    def _failed(self, request: Request, reason: str) -> str:
        return f"cannot {request.doing}: {self.endpoint}: {reason}"

    def _diagnose(self, error: BaseException) -> tuple[type[RegistryError], str]:
        """Return the error of ours that a library's error stands for, and the reason in a few words."""
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError) and not isinstance(cause, aiohttp.ClientError):
                return TLSVerificationFailed, self._trust.explain(cause)
        for cause in causes:
            if reason := _reason(cause, self._timeouts):
                return RegistryUnavailable, reason
        return RegistryUnavailable, "the connection was closed before the answer was complete"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException, timeouts: Timeouts) -> str | None:
    """Name the cause that one error of a chain stands for; None if it says nothing of its own."""
    if isinstance(error, ssl.SSLError):
        # What aiohttp makes of it is one, too, but has no reason; the real one comes later in the chain.
        reason = getattr(error, "reason", None)
        if reason in _NO_TLS:
            return "it does not speak TLS on this port: write http:// into registryUrl if that is meant"
        return f"the TLS handshake failed ({reason})" if reason else None
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason.format(timeouts)
    if isinstance(error, OSError) and error.errno is not None and error.errno not in _CLOSED:
        return os.strerror(error.errno).lower()
    return None


class NetworkTransport(httpx.AsyncBaseTransport):
    """aiohttp behind httpx's seam: the transport for real registries.

    ``httpx-aiohttp`` does the same for any client and any request. What that takes (timeouts for each request, errors
    translated, headers decoded and encoded again) costs as much as aiohttp itself, and is not needed here: timeouts are
    the same for all requests, and errors are read where they are caught.

    Args:
        trust: Returns what TLS connections are checked by.
        timeouts: How long one request may take.
    """

    def __init__(self, trust: Callable[[], ssl.SSLContext], timeouts: Timeouts) -> None:
        self._trust = trust
        self._timeout = aiohttp.ClientTimeout(
            connect=timeouts.pool, sock_connect=timeouts.connect, sock_read=timeouts.read
        )
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, which must have a ``target``; return the answer as soon as its headers are there."""
        if self._session is None:
            self._session = self._open_session()
        response = await self._session.request(
            request.method,
            _address(request),
            headers=request.headers,
            data=request.stream if isinstance(request.stream, _OneShot) else request.content or None,
            allow_redirects=False,
            timeout=self._timeout,
            ssl=self._trust() if request.url.scheme == "https" else True,
        )
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Incoming(response))

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        """Return a session that keeps no cookies and asks the environment for nothing; made when the loop runs.

        aiohttp refuses more than 8 KiB in one header line and more than 128 headers by default.
        """
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_WaryRequest,
            auto_decompress=False,
            trust_env=False,
        )


class _Incoming(httpx.AsyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._response.content.iter_any():
            yield chunk

    async def aclose(self) -> None:
        """Give the connection back, or close it where the answer was not read to its end."""
        self._response.release()


def _split(url: str) -> tuple[httpx.URL, bytes]:
    """Return the origin of an absolute URL with a path, parsed, and the rest as it is sent.

    httpx takes five times as long to parse a URL as all the rest of a request, and our own are whole already: it is
    given the origin, and the rest as its extension ``target``, which stands instead of the URL's path and query.
    """
    end = url.index("/", len("https://"))
    return _origin(url[:end]), url[end:].encode()


@lru_cache(maxsize=16)
def _origin(url: str) -> httpx.URL:
    return httpx.URL(url)


def _address(request: httpx.Request) -> str:
    target: bytes = request.extensions["target"]
    return f"{request.url.scheme}://{request.url.netloc.decode()}{target.decode()}"


@lru_cache(maxsize=16)
def _headers(accept: str, content_type: str | None) -> httpx.Headers:
    # identity: nothing that a registry tells is worth compressing, and what is not compressed is no bomb.
    headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", "Accept": accept}
    return httpx.Headers(headers if content_type is None else {**headers, "Content-Type": content_type})


class _WaryRequest(aiohttp.ClientRequest):
    """A request that uses no connection on which something has come unasked: it would pass for the answer.

    From then on each answer would be taken for that to the next request, which may be about another repository.
    """

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Send it, or have aiohttp take a fresh connection where a request may be made again."""
        if conn.protocol is not None and conn.protocol.should_close:
            raise aiohttp.ServerDisconnectedError
        return await super().send(conn)


class _OneShot(httpx.AsyncByteStream):
    """A body that can be read once, so that aiohttp cannot send the request again on a fresh connection."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


class _Trust:
    """Whose certificates are believed.

    Args:
        binding_name: The binding's name, for errors.
        tls: What the configuration says.

    Raises:
        BindingConfigInvalid: The CA bundle cannot be used.
    """

    def __init__(self, binding_name: str, tls: TLS | None) -> None:
        self._tls = tls or TLS()
        self._ca_file = self._tls.ca_file
        self._stamp: FileStamp | None = None
        if self._ca_file is not None:
            try:
                self._stamp = file_stamp(self._ca_file)
                self.context  # noqa: B018 - read now: a bundle that cannot be used is an error of the configuration
            except OSError as error:  # ssl.SSLError is one
                reason = f"tls.caFile: {self._ca_file} cannot be used: {error.strerror or error}"
                raise BindingConfigInvalid(binding_name, reason) from error
        if self._tls.insecure_skip_verify:
            _log.warning("registry binding '%s': any TLS certificate is accepted (insecureSkipVerify)", binding_name)

    @cached_property
    def context(self) -> ssl.SSLContext:
        """What TLS connections are checked by. Made at the first use: it takes long, and http:// does without."""
        context = ssl.create_default_context(cafile=self._ca_file)
        if self._tls.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def refresh(self) -> None:
        """Trust what was added to the CA bundle since; what was taken out is trusted until a restart."""
        if self._ca_file is None:
            return
        try:
            stamp = file_stamp(self._ca_file)
            if stamp != self._stamp:
                self._stamp = stamp
                self.context.load_verify_locations(cafile=self._ca_file)
        except OSError as error:
            _log.warning("the CA bundle %s cannot be read again, the last good one is kept: %s", self._ca_file, error)

    def explain(self, error: ssl.SSLCertVerificationError) -> str:
        """Say in a few words why a certificate was refused, and what to do."""
        reason = _CERTIFICATE_REASONS.get(error.verify_code, f"was refused ({error.verify_message})")
        hint = ""
        if error.verify_code in _CA_MISSING:
            hint = f": add its CA to {self._ca_file}" if self._ca_file else ": name its CA in tls.caFile"
        return f"its certificate {reason}{hint}"
