"""The wire without a network: that no library error gets out, that requests are counted, and what a 401 leads to."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import httpx
import pytest
from aiohttp.client_reqrep import ConnectionKey

from controller.config import BasicAuth, Credentials, RegistryBinding
from controller.errors import AccessDenied, AuthenticationFailed, ProtocolViolation, RegistryError, RegistryUnavailable
from controller.registry.auth import Login
from controller.registry.client import RegistryClient
from controller.registry.connection import RequestRecord, Timeouts
from controller.registry.marker import MANIFEST_MEDIA_TYPE
from tests.fakes.registry import FakeRegistry

URL = "http://registry:5000"
KEY = ConnectionKey("registry", 5000, False, True, None, None, None)


class Failing(httpx.AsyncBaseTransport):
    """A network that fails in a given way."""

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
            "resolved",
        ),
        (aiohttp.ClientConnectorError(KEY, OSError(111, "x")), RegistryUnavailable, "connection refused"),
        (aiohttp.ClientConnectorError(KEY, OSError(113, "x")), RegistryUnavailable, "no route to host"),
        (aiohttp.ConnectionTimeoutError(), RegistryUnavailable, "no connection could be made in time"),
        (aiohttp.SocketTimeoutError(), RegistryUnavailable, "nothing came for 15 s"),
        (TimeoutError(), RegistryUnavailable, "no complete answer within 30 s"),
        (aiohttp.ServerDisconnectedError(), RegistryUnavailable, "closed before"),
        (aiohttp.ClientPayloadError(), RegistryUnavailable, "closed before"),
        (aiohttp.ClientOSError(104, "reset"), RegistryUnavailable, "closed before"),
        (ConnectionResetError(), RegistryUnavailable, "closed before"),
        (OSError(24, "x"), RegistryUnavailable, "too many open files"),
        (ssl.SSLError(1, "without a reason"), RegistryUnavailable, "closed before"),
        (httpx.ReadError("x"), RegistryUnavailable, "closed before"),
        (httpx.PoolTimeout("x"), RegistryUnavailable, "closed before"),
        (httpx.RemoteProtocolError("x"), RegistryUnavailable, "closed before"),
        (httpx.InvalidURL("x"), RegistryUnavailable, "closed before"),
        (httpx.StreamClosed(), RegistryUnavailable, "closed before"),
        (ValueError("x"), RegistryUnavailable, "closed before"),
    ],
)
async def test_library_errors(error: Exception, expected: type[RegistryError], why: str) -> None:
    """Whatever httpx, aiohttp, asyncio and the system raise becomes one error of ours, with the cause behind it."""
    with pytest.raises(expected, match=why) as raised:
        await client_over(Failing(error)).ping()
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), RuntimeError("a bug of ours")])
async def test_what_is_no_failure_of_the_registry(error: BaseException) -> None:
    """Cancellation and bugs are not taken for an outage."""
    with pytest.raises(type(error)):
        await client_over(Failing(error)).ping()


async def test_requests_are_counted() -> None:
    """The observer hears of each request once, with its status or "error"."""
    fake = FakeRegistry()
    records: list[RequestRecord] = []
    binding = RegistryBinding(registry_url=URL)
    client = RegistryClient("test", binding, transport=fake, on_request=records.append)
    await client.ping()
    with pytest.raises(RegistryError):
        await client.get_manifest("a/b", "latest")
    failing = RegistryClient("test", binding, transport=Failing(OSError()), on_request=records.append)
    with pytest.raises(RegistryUnavailable):
        await failing.ping()
    assert [(record.method, record.code) for record in records] == [("GET", "200"), ("GET", "404"), ("GET", "error")]
    assert all(record.seconds >= 0 for record in records)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, None), (401, None), (404, RegistryError), (403, AccessDenied), (500, RegistryUnavailable)],
)
async def test_ping(status: int, expected: type[RegistryError] | None) -> None:
    """A registry that wants credentials is alive; one that fails is not."""
    fake = FakeRegistry()

    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status)

    fake.answer_instead = answer
    if expected is None:
        await client_over(fake).ping()
    else:
        with pytest.raises(expected):
            await client_over(fake).ping()


def test_timeouts_are_all_set() -> None:
    """There is no way to wait without end by leaving something out."""
    assert all(value > 0 for value in (Timeouts().connect, Timeouts().read, Timeouts().pool, Timeouts().total))


@pytest.fixture
def login(tmp_path: Path) -> dict[str, object]:
    """The credentials field of a binding, with files behind it."""
    (tmp_path / "username").write_text("robot")
    (tmp_path / "password").write_text("s3cr3t")
    credentials = Credentials(basic=BasicAuth(username_file=tmp_path / "username", password_file=tmp_path / "password"))
    return credentials.model_dump(by_alias=True)


def guard(accepts: Callable[[str | None], bool], challenge: str, fake: FakeRegistry) -> None:
    """Make the fake want credentials."""

    async def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.startswith("/token") or accepts(request.headers.get("authorization")):
            return None
        return httpx.Response(401, headers={"www-authenticate": challenge})

    fake.answer_instead = answer


async def test_basic_once_learned(login: dict[str, object]) -> None:
    """The first request learns that credentials are wanted; from then on each carries them at once."""
    fake = FakeRegistry()
    guard(lambda sent: sent == Login("robot", "s3cr3t").header, 'Basic realm="x"', fake)
    client = client_over(fake, credentials=login)
    for _ in range(2):
        with pytest.raises(RegistryError, match="not found"):
            await client.get_manifest("a/b", "latest")
    assert [("authorization" in request.headers) for request in fake.requests] == [False, True, True]


async def test_basic_refused(login: dict[str, object], tmp_path: Path) -> None:
    """Wrong credentials are tried once per request, and when the file is mended, the next request goes through."""
    fake = FakeRegistry()
    guard(lambda sent: sent == Login("robot", "new").header, 'Basic realm="x"', fake)
    client = client_over(fake, credentials=login)
    for expected in (2, 1):
        fake.requests.clear()
        with pytest.raises(AuthenticationFailed, match="check the credentials in"):
            await client.get_manifest("a/b", "latest")
        assert len(fake.requests) == expected
    (tmp_path / "password").write_text("new")
    with pytest.raises(RegistryError, match="not found"):
        await client.get_manifest("a/b", "latest")


async def test_anonymous_refused() -> None:
    """Without credentials in the configuration a 401 says that some are needed; nothing is tried twice."""
    fake = FakeRegistry()
    guard(lambda _: False, 'Basic realm="x"', fake)
    with pytest.raises(AuthenticationFailed, match="set credentials for it"):
        await client_over(fake).get_manifest("a/b", "latest")
    assert len(fake.requests) == 1


class _TokenFake(FakeRegistry):
    """A registry with a token service on the same host, whose tokens can be revoked."""

    def __init__(self, granted: str = "pull,push") -> None:
        super().__init__()
        self.valid = ""
        self.tokens = 0
        self.granted = granted
        self.answer_instead = self._guard

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


async def test_token_is_kept(login: dict[str, object]) -> None:
    """One token serves a repository's requests until it is refused; then there is a new one."""
    fake = _TokenFake()
    client = client_over(fake, credentials=login)
    for _ in range(2):
        with pytest.raises(RegistryError, match="not found"):
            await client.get_manifest("a/b", "latest")
    assert fake.lines() == ["GET /v2/a/b/manifests/latest", "GET /token", *["GET /v2/a/b/manifests/latest"] * 2]
    fake.valid = "revoked"
    with pytest.raises(RegistryError, match="not found"):
        await client.get_manifest("a/b", "latest")
    assert fake.tokens == 2
    assert fake.requests[1].headers["authorization"] == Login("robot", "s3cr3t").header
    assert dict(fake.requests[1].url.params) == {"scope": "repository:a/b:pull,push"}


async def test_token_that_allows_too_little(login: dict[str, object]) -> None:
    """A token service that grants less than asked ends in AccessDenied, not in a loop."""
    fake = _TokenFake(granted="pull")
    with pytest.raises(AccessDenied, match="grant the user in"):
        await client_over(fake, credentials=login).get_manifest("a/b", "latest")
    assert len(fake.requests) <= 4


class Large(httpx.AsyncByteStream):
    """A body of 3 MiB that comes in parts.

    Args:
        reading: How many such bodies have sent more than an ordinary one may have, and are not at their end.
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
    """Sixteen workers get manifests of some megabytes each: memory holds two of them, and all come through."""
    reading, fake = [0], FakeRegistry()

    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": MANIFEST_MEDIA_TYPE}, stream=Large(reading))

    fake.answer_instead = answer
    client = client_over(fake)
    manifests = await asyncio.gather(*(client.get_manifest("a/b", "latest") for _ in range(16)))
    assert {len(manifest.content) for manifest in manifests} == {3 << 20}
    assert max(reading) == 2
    assert reading[-1] == 0


async def test_compressed_answer() -> None:
    """A compressed answer is refused before it is read."""
    fake = FakeRegistry()

    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"x"))

    fake.answer_instead = answer
    with pytest.raises(ProtocolViolation, match="compressed"):
        await client_over(fake).ping()
