"""Hostile registries: bounded memory and time, the right error, and no request to any other host.

Every case runs over real sockets, with short timeouts. Memory is measured at the server:
how much it could send before the client closed the connection.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from controller.binding import BasicAuth, Credentials, RegistryBinding
from controller.errors import (
    AuthenticationFailed,
    ProtocolViolation,
    RegistryError,
    RegistryReadOnly,
    RegistryUnavailable,
)
from controller.names import RepositoryPath
from controller.registry import marker
from controller.registry.client import RegistryClient
from controller.registry.connection import RequestRecord
from controller.registry.credentials import Login
from controller.registry.transport import Timeouts
from tests.fakes.raw_server import Responder, Writer, raw_server

FAST: Final = Timeouts(connect=1.0, read=0.4, pool=1.0, total=1.6)
SLACK: Final = 20.0
"""Seconds that a busy machine may add to a timeout; without one, the answers that never end would take for ever."""

MANIFEST_TYPE: Final = marker.MANIFEST_MEDIA_TYPE
MIB: Final = 1 << 20

# Bytes that buffers of the kernel and of asyncio may hold beside what was read.
BUFFERS: Final = 12 * MIB

Call = Callable[[RegistryClient], Awaitable[object]]


async def get(client: RegistryClient) -> object:
    """Get a manifest."""
    return await client.get_manifest(RepositoryPath("a/b"), "latest")


async def head(client: RegistryClient) -> object:
    """Look up a manifest."""
    return await client.head_manifest(RepositoryPath("a/b"), "latest")


async def tags(client: RegistryClient) -> object:
    """List tags."""
    return await client.list_tags(RepositoryPath("a/b"), at_most=2)


async def put(client: RegistryClient) -> None:
    """Push a manifest."""
    await client.put_manifest(RepositoryPath("a/b"), "latest", marker.MANIFEST, MANIFEST_TYPE)


async def upload(client: RegistryClient) -> object:
    """Push a blob."""
    return await client.put_blob(RepositoryPath("a/b"), marker.CONFIG, marker.CONFIG_DIGEST, mount_from=None)


@asynccontextmanager
async def client_of(
    url: str, *, credentials: Credentials | None = None, records: list[RequestRecord] | None = None
) -> AsyncIterator[RegistryClient]:
    """Open a client with short timeouts."""
    binding = RegistryBinding(registry_url=url, credentials=credentials)
    client = RegistryClient("test", binding, timeouts=FAST, on_request=records.append if records is not None else None)
    try:
        yield client
    finally:
        await client.close()


def sends(*parts: bytes, end: str = "keep") -> Responder:
    """Respond with these bytes; then keep, close or reset the connection."""

    async def respond(_: str, writer: Writer) -> None:
        for part in parts:
            await writer.send(part)
        if end == "close":
            writer.close()
        elif end == "reset":
            writer.reset()

    return respond


def responds(status: str, body: bytes = b"", **headers: str) -> Responder:
    """Respond with a well-formed response."""

    async def respond(_: str, writer: Writer) -> None:
        await writer.respond(status, body, **headers)

    return respond


def endless(start: bytes, chunk: bytes, *, pause: float = 0.0) -> Responder:
    """Respond endlessly."""

    async def respond(_: str, writer: Writer) -> None:
        await writer.send(start)
        while True:
            await writer.send(chunk)
            await asyncio.sleep(pause)

    return respond


def ok_head(**headers: str) -> bytes:
    """Return the head of a valid response with a manifest."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST_TYPE}\r\n{lines}\r\n".encode()


def chunk(content: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(content), content)


FLOOD_PAUSE: Final = 0.002
"""Between 500 responses, in seconds: what a flood sends in time must not depend on the speed of the machine."""

CHUNK = chunk(b"x" * 65536)
CHUNKED = ok_head(Transfer_Encoding="chunked")

HOSTILE: list[tuple[str, Call, Responder, type[RegistryError], str]] = [
    # Time
    ("silent", get, endless(b"", b"", pause=0.05), RegistryUnavailable, "no data for 0.4 s"),
    (
        "drip of a head",
        get,
        endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", pause=0.05),
        RegistryUnavailable,
        "timed out after 1.6 s",
    ),
    ("drip of a body", get, endless(CHUNKED, chunk(b"x"), pause=0.05), RegistryUnavailable, "timed out after 1.6 s"),
    (
        "drip of headers",
        get,
        endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", pause=0.05),
        RegistryUnavailable,
        "timed out after 1.6 s",
    ),
    (
        "drip of 1xx",
        get,
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.05),
        RegistryUnavailable,
        "timed out after 1.6 s",
    ),
    (
        "flood of 1xx",
        get,
        endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 500, pause=FLOOD_PAUSE),
        RegistryUnavailable,
        "timed out after 1.6 s",
    ),
    (
        "flood of 102",
        put,
        endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 500, pause=FLOOD_PAUSE),
        RegistryUnavailable,
        "timed out after 1.6 s",
    ),
    (
        "drip at a write",
        put,
        endless(b"HTTP/1.1 201 Created\r\nX: ", b"x", pause=0.05),
        RegistryUnavailable,
        "timed out after 1.6 s",
    ),
    # Size
    ("endless manifest", get, endless(CHUNKED, CHUNK), ProtocolViolation, "exceeds 4194304 bytes"),
    ("1 GB manifest", get, endless(ok_head(Content_Length="1000000000"), b"x" * 65536), ProtocolViolation, "exceeds"),
    ("endless tags", tags, endless(CHUNKED, CHUNK), ProtocolViolation, "exceeds"),
    (
        "endless error",
        get,
        endless(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNK),
        RegistryUnavailable,
        "500",
    ),
    (
        "endless response to a write",
        put,
        endless(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNK),
        ProtocolViolation,
        "exceeds 65536 bytes",
    ),
    ("1 MB header", get, sends(ok_head(X="x" * MIB)), ProtocolViolation, "not HTTP"),
    ("endless header", get, endless(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536), ProtocolViolation, "not HTTP"),
    ("10,000 headers", get, sends(ok_head(**{f"X{n}": "y" for n in range(10_000)})), ProtocolViolation, "not HTTP"),
    ("1 MB reason", get, sends(b"HTTP/1.1 200 " + b"x" * MIB + b"\r\n\r\n"), ProtocolViolation, "not HTTP"),
    (
        "gzip bomb",
        get,
        responds("200 OK", gzip.compress(bytes(64 * MIB)), Content_Encoding="gzip", Content_Type=MANIFEST_TYPE),
        ProtocolViolation,
        "exceeds",
    ),
    (
        "gzip bomb as transfer encoding",
        get,
        sends(ok_head(Transfer_Encoding="gzip, chunked"), chunk(gzip.compress(bytes(64 * MIB)))),
        RegistryError,
        "cannot look up",
    ),
    (
        "bomb in an error",
        get,
        responds("500 Oops", gzip.compress(bytes(64 * MIB)), Content_Encoding="gzip"),
        RegistryUnavailable,
        "500",
    ),
    ("unknown encoding", get, responds("200 OK", b"x", Content_Encoding="br"), ProtocolViolation, "compressed"),
    ("half of a JSON", tags, responds("200 OK", b'{"tags": ["latest"'), ProtocolViolation, "not a list of tags"),
    (
        "much JSON",
        tags,
        responds("200 OK", b'{"tags": [' + b"[]," * 700_000 + b"[]]}"),
        ProtocolViolation,
        "exceeds",
    ),
    (
        "much JSON for a manifest",
        get,
        responds("200 OK", b'{"a": [' + b"[]," * 700_000 + b"[]]}"),
        ProtocolViolation,
        "no",
    ),
    ("deep JSON", tags, responds("200 OK", b"[" * 500_000), ProtocolViolation, "not a list of tags"),
    ("deep JSON error", get, responds("404 Gone", b"[" * 60_000), RegistryError, "was not found"),
    # Broken connections
    (
        "truncated",
        get,
        sends(ok_head(Content_Length="1000"), b"{", end="close"),
        RegistryUnavailable,
        "connection closed early",
    ),
    ("truncated chunks", get, sends(CHUNKED, CHUNK, end="close"), RegistryUnavailable, "connection closed early"),
    (
        "truncated head",
        get,
        sends(b"HTTP/1.1 200 OK\r\nContent-", end="close"),
        RegistryUnavailable,
        "connection closed early",
    ),
    (
        "reset in the body",
        get,
        sends(ok_head(Content_Length="1000"), b"{", end="reset"),
        RegistryUnavailable,
        "connection closed early",
    ),
    ("reset at once", put, sends(end="reset"), RegistryUnavailable, "connection closed early"),
    ("closed at once", put, sends(end="close"), RegistryUnavailable, "connection closed early"),
    # Not HTTP, or invalid
    ("garbage", get, sends(b"SSH-2.0-OpenSSH_9.2\r\n", end="close"), ProtocolViolation, "not HTTP"),
    ("TLS alert", get, sends(b"\x15\x03\x01\x00\x02\x02\x16", end="close"), ProtocolViolation, "not HTTP"),
    (
        "more than announced",
        get,
        sends(ok_head(Content_Length="2") + b"{}garbage\r\n\r\n"),
        ProtocolViolation,
        "not HTTP",
    ),
    ("less than announced", get, sends(ok_head(Content_Length="9"), b"{}"), RegistryUnavailable, "no data for 0.4 s"),
    ("bad chunk", get, sends(CHUNKED, b"zzz\r\n", end="close"), RegistryError, "cannot look up"),
    ("bad length", get, sends(ok_head(Content_Length="-5")), ProtocolViolation, "not HTTP"),
    (
        "two lengths",
        get,
        sends(ok_head(Content_Length="5", Transfer_Encoding="chunked")),
        ProtocolViolation,
        "not HTTP",
    ),
    ("bad status", get, sends(b"HTTP/1.1 abc OK\r\n\r\n"), ProtocolViolation, "not HTTP"),
    ("status 999", get, responds("999 What"), RegistryUnavailable, "999"),
    ("101", get, sends(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), ProtocolViolation, "101"),
    # False success
    ("204", get, sends(b"HTTP/1.1 204 No Content\r\n\r\n"), ProtocolViolation, "204"),
    ("204 to HEAD", head, sends(b"HTTP/1.1 204 No Content\r\n\r\n"), ProtocolViolation, "204"),
    ("304", get, sends(b"HTTP/1.1 304 Not Modified\r\n\r\n"), ProtocolViolation, "304"),
    ("304 to HEAD", head, sends(b"HTTP/1.1 304 Not Modified\r\n\r\n"), ProtocolViolation, "304"),
    ("300", get, responds("300 Multiple Choices", Location="/v2/x"), ProtocolViolation, "300"),
    ("205 to PUT", put, responds("205 Reset Content"), ProtocolViolation, "205"),
    ("206", get, responds("206 Partial", b"{}"), ProtocolViolation, "206"),
    ("HTML", get, responds("200 OK", b"<html>", Content_Type="text/html"), ProtocolViolation, "not a manifest"),
    (
        "HTML to HEAD",
        head,
        sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"),
        ProtocolViolation,
        "not a manifest",
    ),
    ("HTML for tags", tags, responds("200 OK", b"<html>", Content_Type="text/html"), ProtocolViolation, "not a list"),
    ("untold HTML", get, responds("200 OK", b"<html>"), ProtocolViolation, "not a manifest"),
    ("200 to POST", upload, responds("200 OK"), ProtocolViolation, "200"),
    ("200 to PUT", put, responds("200 OK", b"<html>"), ProtocolViolation, "200"),
    ("tags of numbers", tags, responds("200 OK", b'{"tags": [1, 2]}'), ProtocolViolation, "not a list of tags"),
    ("tags by name", tags, responds("200 OK", b'{"tags": {"latest": 1}}'), ProtocolViolation, "not a list of tags"),
    ("tags in a list", tags, responds("200 OK", b'["latest"]'), ProtocolViolation, "not a list of tags"),
    (
        "wrong digest",
        get,
        responds("200 OK", b"{}", Content_Type=MANIFEST_TYPE, Docker_Content_Digest=f"sha256:{'0' * 64}"),
        ProtocolViolation,
        "digest",
    ),
    (
        "wrong digest of a push",
        put,
        responds("201 Created", Docker_Content_Digest=f"sha256:{'0' * 64}"),
        ProtocolViolation,
        "digest",
    ),
    # Upload sessions, redirects and pages
    ("no Location", upload, responds("202 Accepted"), ProtocolViolation, "without a Location"),
    ("redirected write", put, responds("302 Found", Location="/v2/x"), ProtocolViolation, "302"),
    ("redirected write loop", put, responds("307 Moved", Location="/v2/x"), ProtocolViolation, "more than 3 redirects"),
    ("redirected to https", put, responds("308 Moved", Location="https://127.0.0.1/v2/x"), ProtocolViolation, "https:"),
    (
        "redirect loop",
        get,
        responds("302 Found", Location="/v2/a/b/manifests/latest"),
        ProtocolViolation,
        "more than 3 redirects",
    ),
    ("redirect without", get, responds("302 Found"), ProtocolViolation, "without a Location"),
    ("page loop", tags, responds("200 OK", b'{"tags": []}', Link='</v2/x>; rel="next"'), ProtocolViolation, "16 pages"),
    ("read-only", put, responds("405 Nope", b"Method not allowed", Content_Type="text/plain"), RegistryReadOnly, "405"),
]


@pytest.mark.parametrize(("call", "respond", "expected", "message"), [pytest.param(*c[1:], id=c[0]) for c in HOSTILE])
async def test_hostile(call: Call, respond: Responder, expected: type[RegistryError], message: str) -> None:
    """Each hostile response leads to its error within bounded time and memory, and its request is counted."""
    records: list[RequestRecord] = []
    async with raw_server(respond) as server, client_of(server.url, records=records) as client:
        started = time.monotonic()
        with pytest.raises(expected, match=message) as raised:
            await call(client)
        assert time.monotonic() - started < FAST.total + SLACK
        assert sum(writer.sent for writer in server.writers) < 5 * MIB + BUFFERS
        assert str(raised.value).isprintable()
        assert server.url in str(raised.value) or "was not found" in message
        assert len(records) >= 1


FOREIGN: Final = (
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/",
    "//169.254.169.254/",
    "ftp://x/",
)


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    """Credentials in files."""
    (tmp_path / "username").write_text("robot")
    (tmp_path / "password").write_text("s3cr3t")
    return Credentials(basic=BasicAuth(username_file=tmp_path / "username", password_file=tmp_path / "password"))


LOGIN: Final = Login("robot", "s3cr3t").header


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("call", [get, head, tags, put, upload])
async def test_redirect_to_another_host_is_not_followed(call: Call, status: str, credentials: Credentials) -> None:
    """No redirect leads to another host: no connection to it is opened, and no credentials are sent."""
    async with raw_server(responds("200 OK", b"{}")) as other:

        async def respond(head_: str, writer: Writer) -> None:
            if "\nauthorization: " not in head_:
                await writer.respond("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
            else:
                await writer.respond(status, Location=f"{other.url}/v2/")

        async with raw_server(respond) as server, client_of(server.url, credentials=credentials) as client:
            with pytest.raises(ProtocolViolation):
                await call(client)
            assert LOGIN in server.heads[-1]
        assert other.writers == []


@pytest.mark.parametrize("target", FOREIGN)
async def test_redirect_to_the_metadata_service_is_not_followed(target: str) -> None:
    """A redirect to a cloud's metadata service is rejected before anything is sent."""
    async with raw_server(responds("302 Found", Location=target)) as server, client_of(server.url) as client:
        with pytest.raises(ProtocolViolation, match=r"points to|invalid Location"):
            await get(client)
        assert len(server.heads) == 1


async def test_redirect_on_the_same_host_is_followed(credentials: Credentials) -> None:
    """A redirect on the registry itself is followed, with the credentials."""

    async def respond(head_: str, writer: Writer) -> None:
        if "\nauthorization: " not in head_:
            await writer.respond("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
        elif "/elsewhere" not in head_:
            await writer.respond("307 Temporary", Location="/v2/elsewhere?x=1")
        else:
            await writer.respond("200 OK", b"{}", Content_Type=MANIFEST_TYPE)

    async with raw_server(respond) as server, client_of(server.url, credentials=credentials) as client:
        assert (await client.get_manifest(RepositoryPath("a/b"), "latest")).content == b"{}"
        assert server.lines[-1] == "GET /v2/elsewhere?x=1"
        assert LOGIN in server.heads[-1]


@pytest.mark.parametrize("step", ["POST", "PATCH"])
async def test_foreign_upload_location_is_rejected(step: str, credentials: Credentials) -> None:
    """An upload session on another host is rejected, and the advice names Distribution's setting."""
    async with raw_server(responds("201 Created")) as other:

        async def respond(head_: str, writer: Writer) -> None:
            if "\nauthorization: " not in head_:
                await writer.respond("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
            elif head_.startswith(step):
                await writer.respond("202 Accepted", Location=f"{other.url}/v2/a/b/blobs/uploads/1?_state=x")
            elif head_.startswith("POST"):
                await writer.respond("202 Accepted", Location="/v2/a/b/blobs/uploads/1?_state=x")
            else:
                await writer.respond("500 Oops")

        async with raw_server(respond) as server, client_of(server.url, credentials=credentials) as client:
            with pytest.raises(ProtocolViolation, match=r"points to http"):
                await upload(client)
        assert other.writers == []


async def test_foreign_next_page_is_read_from_the_registry(credentials: Credentials) -> None:
    """Of a next page on another host, as a gateway may name it, only the query is used, on the registry itself."""
    async with raw_server(responds("200 OK", b'{"tags": ["v1"]}')) as other:
        respond = responds("200 OK", b'{"tags": ["latest"]}', Link=f'<{other.url}/x?last=a b&n=1>; rel="next"')
        async with raw_server(respond) as server, client_of(server.url, credentials=credentials) as client:
            await tags(client)
        assert other.writers == []
        assert server.lines[1] == "GET /v2/a/b/tags/list?last=a%20b&n=1"


async def test_foreign_token_service_is_not_contacted(credentials: Credentials) -> None:
    """A token service on another port is not contacted."""
    async with raw_server(responds("200 OK", b'{"token": "x"}')) as other:
        respond = responds("401 Unauthorized", WWW_Authenticate=f'Bearer realm="{other.url}/token"')
        async with raw_server(respond) as server, client_of(server.url, credentials=credentials) as client:
            with pytest.raises(AuthenticationFailed, match="untrusted token service"):
                await get(client)
        assert other.writers == []


async def test_echoed_credentials_do_not_reach_a_message(credentials: Credentials) -> None:
    """Credentials that a registry echoes in its error appear neither in the message nor in its causes."""

    async def respond(head_: str, writer: Writer) -> None:
        if "\nauthorization: " not in head_:
            await writer.respond("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
        else:
            body = json.dumps({"errors": [{"code": "UNKNOWN", "message": head_}]}).encode()
            await writer.respond("400 Bad Request", body)

    async with raw_server(respond) as server, client_of(server.url, credentials=credentials) as client:
        with pytest.raises(RegistryError) as raised:
            await get(client)
    assert "400" in str(raised.value)
    assert LOGIN.split()[1] not in str(raised.value)


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_credentials_are_in_no_cause(credentials: Credentials, end: str) -> None:
    """The chained library errors contain no credentials, not even in their repr."""

    async def respond(head_: str, writer: Writer) -> None:
        if "\nauthorization: " not in head_:
            await writer.respond("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
        else:
            await sends(b"garbage\r\n\r\n" if end == "close" else b"HTTP/1.1 200 OK\r\n", end=end)(head_, writer)

    async with raw_server(respond) as server, client_of(server.url, credentials=credentials) as client:
        with pytest.raises(RegistryError) as raised:
            await get(client)
    error: BaseException | None = raised.value
    while error is not None:
        assert LOGIN.split()[1] not in f"{error!r} {error} {error.args}"
        error = error.__cause__


async def test_read_is_repeated_on_a_closed_connection() -> None:
    """A connection that the registry closes without notice causes no failure: reads are repeated."""

    async def respond(head_: str, writer: Writer) -> None:
        await writer.respond("200 OK", b"{}" if head_.startswith("GET") else b"", Content_Type=MANIFEST_TYPE)
        writer.close()

    async with raw_server(respond) as server, client_of(server.url) as client:
        for _ in range(5):
            await get(client)
            await head(client)
        assert len(server.heads) == 10


@pytest.mark.parametrize("late", [False, True])
async def test_unsolicited_response_is_not_used(late: bool) -> None:
    """Data after a response, sent at once or later, is not taken for the next response.

    Otherwise every later response would belong to the previous request.
    """

    def manifest(content: bytes) -> bytes:
        return ok_head(Content_Length=str(len(content))) + content

    async def respond(head_: str, writer: Writer) -> None:
        await writer.send(manifest(b'{"to": "%s"}' % head_.split()[1].rpartition("/")[2].encode()))
        if late:
            await asyncio.sleep(0.02)
        await writer.send(manifest(b'{"to": "nobody"}'))

    async with raw_server(respond) as server, client_of(server.url) as client:
        for number in range(4):
            got = await client.get_manifest(RepositoryPath("a/b"), f"v{number}")
            assert got.content == b'{"to": "v%d"}' % number
            await asyncio.sleep(0.25)
        assert [line.rpartition("/")[2] for line in server.lines] == [f"v{number}" for number in range(4)]


async def test_manifest_is_sent_once() -> None:
    """A push whose response was lost is not repeated: it might overwrite what somebody else has pushed."""

    async def respond(head_: str, writer: Writer) -> None:
        if head_.startswith("GET"):
            await writer.respond("200 OK", b"{}", Content_Type=MANIFEST_TYPE)
        else:
            writer.close()

    async with raw_server(respond) as server, client_of(server.url) as client:
        await get(client)
        with pytest.raises(RegistryUnavailable):
            await put(client)
        assert [line.split()[0] for line in server.lines] == ["GET", "PUT"]
        assert server.bodies[-1] == marker.MANIFEST
        assert f"\ncontent-length: {len(marker.MANIFEST)}\r" in server.heads[-1]
        assert f"\ncontent-type: {MANIFEST_TYPE}\r" in server.heads[-1]


async def test_slow_registry_does_not_affect_another() -> None:
    """While one registry is slow, another one is served as usual, and the slow requests time out."""
    slow = endless(CHUNKED, chunk(b"x"), pause=0.02)
    async with (
        raw_server(slow) as bad,
        raw_server(responds("200 OK", b"{}", Content_Type=MANIFEST_TYPE)) as good,
        client_of(bad.url) as bad_client,
        client_of(good.url) as good_client,
    ):
        stuck = [asyncio.create_task(get(bad_client)) for _ in range(20)]
        await asyncio.sleep(0.05)
        for _ in range(10):
            await get(good_client)
        assert not any(task.done() for task in stuck)
        results = await asyncio.gather(*stuck, return_exceptions=True)
        assert all(isinstance(result, RegistryUnavailable) for result in results)


async def test_waiting_for_a_free_connection_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all connections in use, another request times out."""
    monkeypatch.setattr("controller.registry.transport.MAX_CONNECTIONS", 1)
    async with raw_server(endless(CHUNKED, chunk(b"x"), pause=0.02)) as server, client_of(server.url) as client:
        results = await asyncio.gather(get(client), get(client), return_exceptions=True)
        assert all(isinstance(result, RegistryUnavailable) for result in results)
        assert "connection timed out" in str(results[1])


async def test_cancelled_request_stays_cancelled() -> None:
    """A cancelled request raises CancelledError, and the client stays usable."""

    async def respond(head_: str, writer: Writer) -> None:
        if head_.startswith("HEAD"):
            await writer.respond("200 OK", Content_Type=MANIFEST_TYPE)

    async with raw_server(respond) as server, client_of(server.url) as client:
        task = asyncio.create_task(get(client))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await head(client)


async def test_connection_refused() -> None:
    """A closed port is reported as connection refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    async with client_of(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(RegistryUnavailable, match="connection refused") as raised:
            await get(client)
    assert raised.value.status is None
    assert type(raised.value) is RegistryUnavailable


async def test_no_cookies_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry's cookies are not kept, and the environment's proxy settings are ignored."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    respond = responds("200 OK", b"{}", Content_Type=MANIFEST_TYPE, Set_Cookie="id=1; Path=/")
    async with raw_server(respond) as server, client_of(server.url) as client:
        await get(client)
        await get(client)
    assert "cookie" not in server.heads[-1].lower()


async def test_request_to_the_byte(credentials: Credentials) -> None:
    """A lookup's headers: all four manifest types, no compression, no credentials without a challenge."""
    respond = responds("200 OK", b"{}", Content_Type=MANIFEST_TYPE)
    async with raw_server(respond) as server, client_of(server.url, credentials=credentials) as client:
        await get(client)
    lines = server.heads[0].strip().split("\r\n")
    assert lines[0] == "GET /v2/a/b/manifests/latest HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert headers.pop("host") == server.url.removeprefix("http://")
    assert headers.pop("user-agent").startswith("artifact-repository-controller/")
    assert headers == {
        "accept-encoding": "identity",
        "accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
        "application/vnd.docker.distribution.manifest.v2+json, "
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
