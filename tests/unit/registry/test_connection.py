"""Connection without a network: library errors are wrapped, requests are counted, a 401 leads to authentication."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import httpx
import pytest
from aiohttp.client_reqrep import ConnectionKey

from controller.binding import BasicAuth, Credentials, RegistryBinding
from controller.errors import AccessDenied, AuthenticationFailed, ProtocolViolation, RegistryError, RegistryUnavailable
from controller.names import RepositoryPath
from controller.registry.auth import Scopes, merge_scopes
from controller.registry.client import RegistryClient
from controller.registry.connection import RequestRecord
from controller.registry.credentials import Login
from controller.registry.marker import MANIFEST_MEDIA_TYPE
from controller.registry.transport import Timeouts
from tests.fakes.registry import FakeRegistry

URL = "http://registry:5000"
KEY = ConnectionKey("registry", 5000, False, True, None, None, None)


class Failing(httpx.AsyncBaseTransport):
    """A transport that always fails with the same error."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
        """Fail."""
        raise self._error


def client_over(transport: httpx.AsyncBaseTransport, **options: object) -> RegistryClient:
    """Return a client over a transport."""
    binding = RegistryBinding.model_validate({"registryUrl": URL, **options})
    return RegistryClient("test", binding, transport=transport)


@pytest.mark.parametrize(
    ("error", "expected", "why"),
    [
        (
            aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "Name or service not known")),
            RegistryUnavailable,
            "host name not found",
        ),
        (aiohttp.ClientConnectorError(KEY, OSError(111, "x")), RegistryUnavailable, "connection refused"),
        (aiohttp.ClientConnectorError(KEY, OSError(113, "x")), RegistryUnavailable, "no route to host"),
        (aiohttp.ConnectionTimeoutError(), RegistryUnavailable, "connection timed out"),
        (aiohttp.SocketTimeoutError(), RegistryUnavailable, "no data for 15 s"),
        (TimeoutError(), RegistryUnavailable, "timed out after 30 s"),
        (aiohttp.ServerDisconnectedError(), RegistryUnavailable, "connection closed early"),
        (aiohttp.ClientPayloadError(), RegistryUnavailable, "connection closed early"),
        (aiohttp.ClientOSError(104, "reset"), RegistryUnavailable, "connection closed early"),
        (ConnectionResetError(), RegistryUnavailable, "connection closed early"),
        (OSError(24, "x"), RegistryUnavailable, "too many open files"),
        (ssl.SSLError(1, "without a reason"), RegistryUnavailable, "connection closed early"),
        (httpx.ReadError("x"), RegistryUnavailable, "connection closed early"),
        (httpx.PoolTimeout("x"), RegistryUnavailable, "connection closed early"),
        (httpx.RemoteProtocolError("x"), RegistryUnavailable, "connection closed early"),
        (httpx.InvalidURL("x"), RegistryUnavailable, "connection closed early"),
        (httpx.StreamClosed(), RegistryUnavailable, "connection closed early"),
        (ValueError("x"), RegistryUnavailable, "connection closed early"),
    ],
)
async def test_library_errors_are_wrapped(error: Exception, expected: type[RegistryError], why: str) -> None:
    """Each error of httpx, aiohttp, asyncio and the system becomes a registry error that is chained to it."""
    with pytest.raises(expected, match=why) as raised:
        await client_over(Failing(error)).ping()
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), RuntimeError("a bug")])
async def test_cancellation_and_bugs_propagate(error: BaseException) -> None:
    """Cancellation and bugs are not mistaken for an outage."""
    with pytest.raises(type(error)):
        await client_over(Failing(error)).ping()


async def test_requests_are_counted() -> None:
    """The observer is notified of each request once, with its status or "error"."""
    fake = FakeRegistry()
    records: list[RequestRecord] = []
    binding = RegistryBinding(registry_url=URL)
    client = RegistryClient("test", binding, transport=fake, on_request=records.append)
    await client.ping()
    with pytest.raises(RegistryError):
        await client.get_manifest(RepositoryPath("a/b"), "latest")
    failing = RegistryClient("test", binding, transport=Failing(OSError()), on_request=records.append)
    with pytest.raises(RegistryUnavailable):
        await failing.ping()
    assert [(record.method, record.code) for record in records] == [("GET", "200"), ("GET", "404"), ("GET", "error")]
    assert all(record.seconds >= 0 for record in records)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, None), (401, None), (404, RegistryError), (403, AccessDenied), (500, RegistryUnavailable)],
)
async def test_ping_succeeds_on_200_and_401(status: int, expected: type[RegistryError] | None) -> None:
    """A registry that requires credentials is available; one that fails is not."""
    fake = FakeRegistry()

    async def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status)

    fake.override = respond
    if expected is None:
        await client_over(fake).ping()
    else:
        with pytest.raises(expected):
            await client_over(fake).ping()


def test_timeouts_are_all_set() -> None:
    """No default timeout is infinite."""
    assert all(value > 0 for value in (Timeouts().connect, Timeouts().read, Timeouts().pool, Timeouts().total))


@pytest.fixture
def login(tmp_path: Path) -> dict[str, object]:
    """The credentials field of a binding, with its files."""
    (tmp_path / "username").write_text("robot")
    (tmp_path / "password").write_text("s3cr3t")
    credentials = Credentials(basic=BasicAuth(username_file=tmp_path / "username", password_file=tmp_path / "password"))
    return credentials.model_dump(by_alias=True)


def guard(accepts: Callable[[str | None], bool], challenge: str, fake: FakeRegistry) -> None:
    """Make the fake require credentials."""

    async def respond(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.startswith("/token") or accepts(request.headers.get("authorization")):
            return None
        return httpx.Response(401, headers={"www-authenticate": challenge})

    fake.override = respond


async def test_basic_is_sent_at_once_after_the_first_challenge(login: dict[str, object]) -> None:
    """The first request is challenged; all later ones carry the credentials at once."""
    fake = FakeRegistry()
    guard(lambda sent: sent == Login("robot", "s3cr3t").header, 'Basic realm="x"', fake)
    client = client_over(fake, credentials=login)
    for _ in range(2):
        with pytest.raises(RegistryError, match="not found"):
            await client.get_manifest(RepositoryPath("a/b"), "latest")
    assert [("authorization" in request.headers) for request in fake.requests] == [False, True, True]


async def test_wrong_basic_is_sent_once(login: dict[str, object], tmp_path: Path) -> None:
    """Wrong credentials are sent once; once the file is corrected, the next request succeeds."""
    fake = FakeRegistry()
    guard(lambda sent: sent == Login("robot", "new").header, 'Basic realm="x"', fake)
    client = client_over(fake, credentials=login)
    for expected in (2, 0):
        fake.requests.clear()
        with pytest.raises(AuthenticationFailed, match="401 Unauthorized"):
            await client.get_manifest(RepositoryPath("a/b"), "latest")
        assert len(fake.requests) == expected
    (tmp_path / "password").write_text("new")
    with pytest.raises(RegistryError, match="not found"):
        await client.get_manifest(RepositoryPath("a/b"), "latest")


async def test_anonymous_request_is_not_repeated() -> None:
    """Without configured credentials, a 401 is an error at once; the request is not repeated."""
    fake = FakeRegistry()
    guard(lambda _: False, 'Basic realm="x"', fake)
    with pytest.raises(AuthenticationFailed, match="401 Unauthorized"):
        await client_over(fake).get_manifest(RepositoryPath("a/b"), "latest")
    assert len(fake.requests) == 1


class _TokenFake(FakeRegistry):
    """A registry with a token service on the same host, whose tokens can be revoked."""

    def __init__(self, granted: str = "pull,push") -> None:
        super().__init__()
        self.valid = ""
        self.tokens = 0
        self.granted = granted
        self.override = self._guard

    async def _guard(self, request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/token":
            self.tokens += 1
            self.valid = f"token-{self.tokens}"
            return httpx.Response(200, content=json.dumps({"token": self.valid}).encode())
        if request.headers.get("authorization") == f"Bearer {self.valid}" and "push" in self.granted:
            return None
        error = ',error="insufficient_scope"' if "authorization" in request.headers else ""
        return httpx.Response(401, headers={"www-authenticate": f'Bearer realm="{URL}/token"{error}'})

    def lines(self) -> list[str]:
        """Return method and path of each request."""
        return [f"{request.method} {request.url.path}" for request in self.requests]


async def test_token_is_used_until_rejected(login: dict[str, object]) -> None:
    """A token is used for a repository's requests until it is rejected; then a new one is requested."""
    fake = _TokenFake()
    client = client_over(fake, credentials=login)
    for _ in range(2):
        with pytest.raises(RegistryError, match="not found"):
            await client.get_manifest(RepositoryPath("a/b"), "latest")
    assert fake.lines() == ["GET /v2/a/b/manifests/latest", "GET /token", *["GET /v2/a/b/manifests/latest"] * 2]
    fake.valid = "revoked"
    with pytest.raises(RegistryError, match="not found"):
        await client.get_manifest(RepositoryPath("a/b"), "latest")
    assert fake.tokens == 2
    assert fake.requests[1].headers["authorization"] == Login("robot", "s3cr3t").header
    assert dict(fake.requests[1].url.params) == {"scope": "repository:a/b:pull"}


async def test_insufficient_token_does_not_loop(login: dict[str, object]) -> None:
    """A token service that grants less than requested leads to AccessDenied, not to a loop."""
    fake = _TokenFake(granted="pull")
    with pytest.raises(AccessDenied, match="insufficient scope"):
        await client_over(fake, credentials=login).get_manifest(RepositoryPath("a/b"), "latest")
    assert len(fake.requests) <= 4


class Large(httpx.AsyncByteStream):
    """A body of 3 MiB that arrives in parts.

    Args:
        reading: History of the number of bodies that are partly read and beyond the ordinary limit.
    """

    def __init__(self, reading: list[int]) -> None:
        self._reading = reading

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in range(48):
            yield b" " * (64 << 10)
            await asyncio.sleep(0)
            if part == 1:
                self._reading.append(self._reading[-1] + 1)
        self._reading.append(self._reading[-1] - 1)


async def test_large_bodies_are_read_two_at_a_time() -> None:
    """Sixteen concurrent requests for large manifests: at most two are in memory at once, and all succeed."""
    reading, fake = [0], FakeRegistry()

    async def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": MANIFEST_MEDIA_TYPE}, stream=Large(reading))

    fake.override = respond
    client = client_over(fake)
    manifests = await asyncio.gather(*(client.get_manifest(RepositoryPath("a/b"), "latest") for _ in range(16)))
    assert {len(manifest.content) for manifest in manifests} == {3 << 20}
    assert max(reading) == 2
    assert reading[-1] == 0


async def test_basic_instead_of_an_untrusted_token_service(login: dict[str, object]) -> None:
    """A registry that offers both is sent the login itself, where its token service is not trusted."""
    fake = FakeRegistry()

    async def guard(request: httpx.Request) -> httpx.Response | None:
        if request.headers.get("authorization") == Login("robot", "s3cr3t").header:
            return None
        offered = 'Bearer realm="http://elsewhere/token",scope="a,b", Basic realm="x"'
        return httpx.Response(401, headers={"www-authenticate": offered})

    fake.override = guard
    with pytest.raises(RegistryError, match="not found"):
        await client_over(fake, credentials=login).get_manifest(RepositoryPath("a/b"), "latest")
    assert {request.url.host for request in fake.requests} == {"registry"}


@pytest.mark.parametrize(
    ("own", "challenged", "merged"),
    [
        (("repository:a/b:pull",), "", ("repository:a/b:pull",)),
        (("repository:a/b:pull,push",), "repository:a/b:pull", ("repository:a/b:pull,push",)),
        (("repository:a/b:pull",), "repository:a/b:metadata_read", ("repository:a/b:pull,metadata_read",)),
        (("repository:x/b:pull",), "repository:b:pull", ("repository:x/b:pull", "repository:b:pull")),
        (("repository:a/b:pull",), "*", ("repository:a/b:pull", "*")),
        (("repository:h:5000/b:pull",), "repository:h:5000/b:*", ("repository:h:5000/b:pull,*",)),
    ],
)
def test_merge_scopes(own: Scopes, challenged: str, merged: Scopes) -> None:
    """The challenge's scopes are added to the request's, each resource once."""
    assert merge_scopes(own, challenged) == merged


def compressed(body: bytes, *, encoding: str = "gzip") -> FakeRegistry:
    """Return a registry that responds with a compressed body."""
    fake = FakeRegistry()

    async def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": encoding}, stream=httpx.ByteStream(body))

    fake.override = respond
    return fake


async def test_gzip_is_decompressed() -> None:
    """A proxy may compress unrequested, also the absent body of a response to HEAD."""
    tags = gzip.compress(b'{"tags": ["v1", "v2"]}')
    assert await client_over(compressed(tags)).list_tags(RepositoryPath("a/b"), at_most=2) == ("v1", "v2")
    head = await client_over(compressed(b"", encoding="x-gzip")).head_manifest(RepositoryPath("a/b"), "latest")
    assert head.media_type is None


@pytest.mark.parametrize(
    ("body", "encoding", "why"),
    [
        (b"x", "br", "is compressed"),
        (b"x", "gzip", "is not gzip"),
        (gzip.compress(b'{"tags": []}')[:-9], "gzip", "is not gzip"),
    ],
    ids=["brotli", "not gzip", "cut"],
)
async def test_unusable_compression_is_rejected(body: bytes, encoding: str, why: str) -> None:
    """Another compression, and an incomplete body, are no response."""
    with pytest.raises(ProtocolViolation, match=why):
        await client_over(compressed(body, encoding=encoding)).list_tags(RepositoryPath("a/b"), at_most=2)
