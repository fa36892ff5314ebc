"""Registries that answer what none should: bounded memory and time, the right error, and no word to anybody else.

Every case runs over real sockets, with timeouts shortened through the constructor. "Bounded" is measured at the server:
how much it could send before the connection was closed on it.
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

from controller.config import BasicAuth, Credentials, RegistryBinding
from controller.errors import (
    AuthenticationFailed,
    ProtocolViolation,
    RegistryError,
    RegistryReadOnly,
    RegistryUnavailable,
)
from controller.registry import marker
from controller.registry.auth import Login
from controller.registry.client import RegistryClient
from controller.registry.connection import RequestRecord, Timeouts
from tests.fakes.raw_server import HeadAndWriter, Writer, raw_server

FAST: Final = Timeouts(connect=1.0, read=0.4, pool=1.0, total=1.6)
SLACK: Final = 20.0
"""Seconds that a busy machine may add to a timeout; without one, the answers that never end would take for ever."""

MANIFEST_TYPE: Final = marker.MANIFEST_MEDIA_TYPE
MIB: Final = 1 << 20

# What may wait in buffers of the kernel and of asyncio besides what was read.
BUFFERS: Final = 12 * MIB

Call = Callable[[RegistryClient], Awaitable[object]]


async def get(client: RegistryClient) -> object:
    """Ask for a manifest."""
    return await client.get_manifest("a/b", "latest")


async def head(client: RegistryClient) -> object:
    """Ask whether a manifest is there."""
    return await client.head_manifest("a/b", "latest")


async def tags(client: RegistryClient) -> object:
    """Ask for tags."""
    return await client.list_tags("a/b", at_most=2)


async def put(client: RegistryClient) -> None:
    """Push a manifest."""
    await client.put_manifest("a/b", "latest", marker.MANIFEST, MANIFEST_TYPE)


async def upload(client: RegistryClient) -> object:
    """Push a blob."""
    return await client.put_blob("a/b", marker.CONFIG, marker.CONFIG_DIGEST, mount_from=None)


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


def says(*parts: bytes, end: str = "keep") -> HeadAndWriter:
    """Answer with these bytes; then keep the connection, close it or reset it."""

    async def answer(_: str, writer: Writer) -> None:
        for part in parts:
            await writer.send(part)
        if end == "close":
            writer.close()
        elif end == "reset":
            writer.reset()

    return answer


def answers(status: str, body: bytes = b"", **headers: str) -> HeadAndWriter:
    """Answer well-formed."""

    async def answer(_: str, writer: Writer) -> None:
        await writer.answer(status, body, **headers)

    return answer


def endless(start: bytes, chunk: bytes, *, pause: float = 0.0) -> HeadAndWriter:
    """Answer without end."""

    async def answer(_: str, writer: Writer) -> None:
        await writer.send(start)
        while True:
            await writer.send(chunk)
            await asyncio.sleep(pause)

    return answer


def told(**headers: str) -> bytes:
    """Return the head of a good answer about a manifest."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST_TYPE}\r\n{lines}\r\n".encode()


def chunk(content: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(content), content)


CHUNK = chunk(b"x" * 65536)
CHUNKED = told(Transfer_Encoding="chunked")

HOSTILE: list[tuple[str, Call, HeadAndWriter, type[RegistryError], str]] = [
    # Time
    ("silent", get, endless(b"", b"", pause=0.05), RegistryUnavailable, "nothing came for 0.4 s"),
    ("drip of a head", get, endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", pause=0.05), RegistryUnavailable, "within 1.6 s"),
    ("drip of a body", get, endless(CHUNKED, chunk(b"x"), pause=0.05), RegistryUnavailable, "within 1.6 s"),
    (
        "drip of headers",
        get,
        endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", pause=0.05),
        RegistryUnavailable,
        "within 1.6 s",
    ),
    (
        "drip of 1xx",
        get,
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.05),
        RegistryUnavailable,
        "within 1.6 s",
    ),
    ("flood of 1xx", get, endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 500), RegistryUnavailable, "within 1.6 s"),
    ("flood of 102", put, endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 500), RegistryUnavailable, "within 1.6 s"),
    (
        "drip at a write",
        put,
        endless(b"HTTP/1.1 201 Created\r\nX: ", b"x", pause=0.05),
        RegistryUnavailable,
        "within 1.6 s",
    ),
    # Size
    ("endless manifest", get, endless(CHUNKED, CHUNK), ProtocolViolation, "larger than 4194304 bytes"),
    ("1 GB manifest", get, endless(told(Content_Length="1000000000"), b"x" * 65536), ProtocolViolation, "larger than"),
    ("endless tags", tags, endless(CHUNKED, CHUNK), ProtocolViolation, "larger than"),
    (
        "endless error",
        get,
        endless(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNK),
        RegistryUnavailable,
        "answered 500",
    ),
    (
        "endless answer to a write",
        put,
        endless(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNK),
        ProtocolViolation,
        "larger than 65536 bytes",
    ),
    ("1 MB header", get, says(told(X="x" * MIB)), ProtocolViolation, "not HTTP"),
    ("endless header", get, endless(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536), ProtocolViolation, "not HTTP"),
    ("10,000 headers", get, says(told(**{f"X{n}": "y" for n in range(10_000)})), ProtocolViolation, "not HTTP"),
    ("1 MB reason", get, says(b"HTTP/1.1 200 " + b"x" * MIB + b"\r\n\r\n"), ProtocolViolation, "not HTTP"),
    (
        "gzip bomb",
        get,
        answers("200 OK", gzip.compress(bytes(64 * MIB)), Content_Encoding="gzip", Content_Type=MANIFEST_TYPE),
        ProtocolViolation,
        "compressed",
    ),
    (
        "gzip bomb as transfer encoding",
        get,
        says(told(Transfer_Encoding="gzip, chunked"), chunk(gzip.compress(bytes(64 * MIB)))),
        RegistryError,
        "cannot look up",
    ),
    (
        "bomb in an error",
        get,
        answers("500 Oops", gzip.compress(bytes(64 * MIB)), Content_Encoding="gzip"),
        ProtocolViolation,
        "compressed",
    ),
    ("unknown encoding", get, answers("200 OK", b"x", Content_Encoding="br"), ProtocolViolation, "compressed"),
    ("half of a JSON", tags, answers("200 OK", b'{"tags": ["latest"'), ProtocolViolation, "no list of tags"),
    (
        "much JSON",
        tags,
        answers("200 OK", b'{"tags": [' + b"[]," * 700_000 + b"[]]}"),
        ProtocolViolation,
        "larger than",
    ),
    (
        "much JSON for a manifest",
        get,
        answers("200 OK", b'{"a": [' + b"[]," * 700_000 + b"[]]}"),
        ProtocolViolation,
        "no",
    ),
    ("deep JSON", tags, answers("200 OK", b"[" * 500_000), ProtocolViolation, "no list of tags"),
    ("deep JSON error", get, answers("404 Gone", b"[" * 60_000), RegistryError, "was not found"),
    # Broken connections
    ("truncated", get, says(told(Content_Length="1000"), b"{", end="close"), RegistryUnavailable, "closed before"),
    ("truncated chunks", get, says(CHUNKED, CHUNK, end="close"), RegistryUnavailable, "closed before"),
    ("truncated head", get, says(b"HTTP/1.1 200 OK\r\nContent-", end="close"), RegistryUnavailable, "closed before"),
    (
        "reset in the body",
        get,
        says(told(Content_Length="1000"), b"{", end="reset"),
        RegistryUnavailable,
        "closed before",
    ),
    ("reset at once", put, says(end="reset"), RegistryUnavailable, "closed before"),
    ("closed at once", put, says(end="close"), RegistryUnavailable, "closed before"),
    # Not HTTP, or not as it should be
    ("garbage", get, says(b"SSH-2.0-OpenSSH_9.2\r\n", end="close"), ProtocolViolation, "not HTTP"),
    ("TLS alert", get, says(b"\x15\x03\x01\x00\x02\x02\x16", end="close"), ProtocolViolation, "not HTTP"),
    ("more than announced", get, says(told(Content_Length="2") + b"{}garbage\r\n\r\n"), ProtocolViolation, "not HTTP"),
    ("less than announced", get, says(told(Content_Length="9"), b"{}"), RegistryUnavailable, "nothing came for 0.4 s"),
    ("bad chunk", get, says(CHUNKED, b"zzz\r\n", end="close"), RegistryError, "cannot look up"),
    ("bad length", get, says(told(Content_Length="-5")), ProtocolViolation, "not HTTP"),
    ("two lengths", get, says(told(Content_Length="5", Transfer_Encoding="chunked")), ProtocolViolation, "not HTTP"),
    ("bad status", get, says(b"HTTP/1.1 abc OK\r\n\r\n"), ProtocolViolation, "not HTTP"),
    ("status 999", get, answers("999 What"), RegistryUnavailable, "answered 999"),
    ("101", get, says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), ProtocolViolation, "answered 101"),
    # Success that is none
    ("204", get, says(b"HTTP/1.1 204 No Content\r\n\r\n"), ProtocolViolation, "answered 204"),
    ("204 to HEAD", head, says(b"HTTP/1.1 204 No Content\r\n\r\n"), ProtocolViolation, "answered 204"),
    ("204 to PUT", put, says(b"HTTP/1.1 204 No Content\r\n\r\n"), ProtocolViolation, "answered 204"),
    ("304", get, says(b"HTTP/1.1 304 Not Modified\r\n\r\n"), ProtocolViolation, "answered 304"),
    ("304 to HEAD", head, says(b"HTTP/1.1 304 Not Modified\r\n\r\n"), ProtocolViolation, "answered 304"),
    ("300", get, answers("300 Multiple Choices", Location="/v2/x"), ProtocolViolation, "answered 300"),
    ("205 to PUT", put, answers("205 Reset Content"), ProtocolViolation, "answered 205"),
    ("206", get, answers("206 Partial", b"{}"), ProtocolViolation, "answered 206"),
    ("HTML", get, answers("200 OK", b"<html>", Content_Type="text/html"), ProtocolViolation, "no manifest"),
    (
        "HTML to HEAD",
        head,
        says(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"),
        ProtocolViolation,
        "no manifest",
    ),
    ("HTML for tags", tags, answers("200 OK", b"<html>", Content_Type="text/html"), ProtocolViolation, "no list"),
    ("untold HTML", get, answers("200 OK", b"<html>"), ProtocolViolation, "no manifest"),
    ("200 to POST", upload, answers("200 OK"), ProtocolViolation, "answered 200"),
    ("202 to PUT", put, answers("202 Accepted"), ProtocolViolation, "answered 202"),
    ("tags of numbers", tags, answers("200 OK", b'{"tags": [1, 2]}'), ProtocolViolation, "no list of tags"),
    ("tags by name", tags, answers("200 OK", b'{"tags": {"latest": 1}}'), ProtocolViolation, "no list of tags"),
    ("tags in a list", tags, answers("200 OK", b'["latest"]'), ProtocolViolation, "no list of tags"),
    (
        "wrong digest",
        get,
        answers("200 OK", b"{}", Content_Type=MANIFEST_TYPE, Docker_Content_Digest=f"sha256:{'0' * 64}"),
        ProtocolViolation,
        "digest",
    ),
    (
        "wrong digest of a push",
        put,
        answers("201 Created", Docker_Content_Digest=f"sha256:{'0' * 64}"),
        ProtocolViolation,
        "digest",
    ),
    # Sessions
    ("no Location", upload, answers("202 Accepted"), ProtocolViolation, "no Location"),
    ("redirected write", put, answers("307 Moved", Location="/v2/x"), ProtocolViolation, "answered 307"),
    ("redirect loop", get, answers("302 Found", Location="/v2/a/b/manifests/latest"), ProtocolViolation, "more than 3"),
    ("redirect without", get, answers("302 Found"), ProtocolViolation, "no Location"),
    ("page loop", tags, answers("200 OK", b'{"tags": []}', Link='</v2/x>; rel="next"'), ProtocolViolation, "16 pages"),
    ("read-only", put, answers("405 Nope", b"Method not allowed", Content_Type="text/plain"), RegistryReadOnly, "405"),
]


@pytest.mark.parametrize(("call", "answer", "expected", "message"), [pytest.param(*c[1:], id=c[0]) for c in HOSTILE])
async def test_hostile(call: Call, answer: HeadAndWriter, expected: type[RegistryError], message: str) -> None:
    """Each hostile answer gives its error in bounded time, takes bounded memory, and is counted once it was sent."""
    records: list[RequestRecord] = []
    async with raw_server(answer) as server, client_of(server.url, records=records) as client:
        begun = time.monotonic()
        with pytest.raises(expected, match=message) as raised:
            await call(client)
        assert time.monotonic() - begun < FAST.total + SLACK
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
async def test_redirect_to_another_host(call: Call, status: str, credentials: Credentials) -> None:
    """No redirect leads to another host, and no credential either: the other server is not even connected to."""
    async with raw_server(answers("200 OK", b"{}")) as other:

        async def answer(head_: str, writer: Writer) -> None:
            if "\nauthorization: " not in head_:
                await writer.answer("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
            else:
                await writer.answer(status, Location=f"{other.url}/v2/")

        async with raw_server(answer) as server, client_of(server.url, credentials=credentials) as client:
            with pytest.raises(ProtocolViolation):
                await call(client)
            assert LOGIN in server.heads[-1]
        assert other.writers == []


@pytest.mark.parametrize("target", FOREIGN)
async def test_redirect_to_the_metadata_service(target: str) -> None:
    """A redirect to a cloud's metadata service is refused before anything is sent."""
    async with raw_server(answers("302 Found", Location=target)) as server, client_of(server.url) as client:
        with pytest.raises(ProtocolViolation, match="points to"):
            await get(client)
        assert len(server.heads) == 1


async def test_redirect_on_the_same_host(credentials: Credentials) -> None:
    """A redirect on the registry itself is followed, with the credentials."""

    async def answer(head_: str, writer: Writer) -> None:
        if "\nauthorization: " not in head_:
            await writer.answer("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
        elif "/elsewhere" not in head_:
            await writer.answer("307 Temporary", Location="/v2/elsewhere?x=1")
        else:
            await writer.answer("200 OK", b"{}", Content_Type=MANIFEST_TYPE)

    async with raw_server(answer) as server, client_of(server.url, credentials=credentials) as client:
        assert (await client.get_manifest("a/b", "latest")).content == b"{}"
        assert server.lines[-1] == "GET /v2/elsewhere?x=1"
        assert LOGIN in server.heads[-1]


@pytest.mark.parametrize("step", ["POST", "PATCH"])
async def test_foreign_upload_location(step: str, credentials: Credentials) -> None:
    """An upload session on another host is refused, and the message says which setting of Distribution does that."""
    async with raw_server(answers("201 Created")) as other:

        async def answer(head_: str, writer: Writer) -> None:
            if "\nauthorization: " not in head_:
                await writer.answer("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
            elif head_.startswith(step):
                await writer.answer("202 Accepted", Location=f"{other.url}/v2/a/b/blobs/uploads/1?_state=x")
            elif head_.startswith("POST"):
                await writer.answer("202 Accepted", Location="/v2/a/b/blobs/uploads/1?_state=x")
            else:
                await writer.answer("500 Oops")

        async with raw_server(answer) as server, client_of(server.url, credentials=credentials) as client:
            with pytest.raises(ProtocolViolation, match=r"points to another address .*http\.host"):
                await upload(client)
        assert other.writers == []


async def test_foreign_next_page(credentials: Credentials) -> None:
    """A next page of tags on another host is refused."""
    async with raw_server(answers("200 OK", b'{"tags": ["v1"]}')) as other:
        answer = answers("200 OK", b'{"tags": ["latest"]}', Link=f'<{other.url}/v2/>; rel="next"')
        async with raw_server(answer) as server, client_of(server.url, credentials=credentials) as client:
            with pytest.raises(ProtocolViolation, match="points to another address"):
                await tags(client)
        assert other.writers == []


async def test_foreign_token_service(credentials: Credentials) -> None:
    """A token service on another port is not asked."""
    async with raw_server(answers("200 OK", b'{"token": "x"}')) as other:
        answer = answers("401 Unauthorized", WWW_Authenticate=f'Bearer realm="{other.url}/token"')
        async with raw_server(answer) as server, client_of(server.url, credentials=credentials) as client:
            with pytest.raises(AuthenticationFailed, match="tokenRealms"):
                await get(client)
        assert other.writers == []


async def test_credentials_are_not_repeated(credentials: Credentials) -> None:
    """A registry that sends the credentials back in its error does not get them into our message or its causes."""

    async def answer(head_: str, writer: Writer) -> None:
        if "\nauthorization: " not in head_:
            await writer.answer("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
        else:
            body = json.dumps({"errors": [{"code": "UNKNOWN", "message": head_}]}).encode()
            await writer.answer("400 Bad Request", body)

    async with raw_server(answer) as server, client_of(server.url, credentials=credentials) as client:
        with pytest.raises(RegistryError) as raised:
            await get(client)
    assert "answered 400" in str(raised.value)
    assert LOGIN.split()[1] not in str(raised.value)


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_credentials_are_in_no_cause(credentials: Credentials, end: str) -> None:
    """The library errors behind ours hold no credentials, not even in their repr."""

    async def answer(head_: str, writer: Writer) -> None:
        if "\nauthorization: " not in head_:
            await writer.answer("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
        else:
            await says(b"garbage\r\n\r\n" if end == "close" else b"HTTP/1.1 200 OK\r\n", end=end)(head_, writer)

    async with raw_server(answer) as server, client_of(server.url, credentials=credentials) as client:
        with pytest.raises(RegistryError) as raised:
            await get(client)
    error: BaseException | None = raised.value
    while error is not None:
        assert LOGIN.split()[1] not in f"{error!r} {error} {error.args}"
        error = error.__cause__


async def test_keep_alive_lie_at_a_read() -> None:
    """A connection that the registry closes without saying so costs no failure: reads are sent again."""

    async def answer(head_: str, writer: Writer) -> None:
        await writer.answer("200 OK", b"{}" if head_.startswith("GET") else b"", Content_Type=MANIFEST_TYPE)
        writer.close()

    async with raw_server(answer) as server, client_of(server.url) as client:
        for _ in range(5):
            await get(client)
            await head(client)
        assert len(server.heads) == 10


@pytest.mark.parametrize("late", [False, True])
async def test_answers_that_nobody_asked_for(late: bool) -> None:
    """What comes after an answer, at once or later, is not taken for the answer to the next request.

    Otherwise each answer from then on would be about what was asked before.
    """

    def manifest(content: bytes) -> bytes:
        return told(Content_Length=str(len(content))) + content

    async def answer(head_: str, writer: Writer) -> None:
        await writer.send(manifest(b'{"to": "%s"}' % head_.split()[1].rpartition("/")[2].encode()))
        if late:
            await asyncio.sleep(0.02)
        await writer.send(manifest(b'{"to": "nobody"}'))

    async with raw_server(answer) as server, client_of(server.url) as client:
        for number in range(4):
            got = await client.get_manifest("a/b", f"v{number}")
            assert got.content == b'{"to": "v%d"}' % number
            await asyncio.sleep(0.25)
        assert [line.rpartition("/")[2] for line in server.lines] == [f"v{number}" for number in range(4)]


async def test_manifest_is_sent_once() -> None:
    """A push whose answer got lost is not sent again: by then it might overwrite what somebody else has pushed."""

    async def answer(head_: str, writer: Writer) -> None:
        if head_.startswith("GET"):
            await writer.answer("200 OK", b"{}", Content_Type=MANIFEST_TYPE)
        else:
            writer.close()

    async with raw_server(answer) as server, client_of(server.url) as client:
        await get(client)
        with pytest.raises(RegistryUnavailable):
            await put(client)
        assert [line.split()[0] for line in server.lines] == ["GET", "PUT"]
        assert server.bodies[-1] == marker.MANIFEST
        assert f"\ncontent-length: {len(marker.MANIFEST)}\r" in server.heads[-1]
        assert f"\ncontent-type: {MANIFEST_TYPE}\r" in server.heads[-1]


async def test_others_are_unaffected() -> None:
    """While one registry drips, another one is asked as ever, and the first one's connections are let go in time."""
    slow = endless(CHUNKED, chunk(b"x"), pause=0.02)
    async with (
        raw_server(slow) as bad,
        raw_server(answers("200 OK", b"{}", Content_Type=MANIFEST_TYPE)) as good,
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
    """With all connections stuck, a further request fails in time and says so."""
    monkeypatch.setattr("controller.registry.connection.MAX_CONNECTIONS", 1)
    async with raw_server(endless(CHUNKED, chunk(b"x"), pause=0.02)) as server, client_of(server.url) as client:
        results = await asyncio.gather(get(client), get(client), return_exceptions=True)
        assert all(isinstance(result, RegistryUnavailable) for result in results)
        assert "no connection could be made in time" in str(results[1])


async def test_cancelled_request_stays_cancelled() -> None:
    """Cancelling a request passes through as it is, and leaves the client usable."""

    async def answer(head_: str, writer: Writer) -> None:
        if head_.startswith("HEAD"):
            await writer.answer("200 OK", Content_Type=MANIFEST_TYPE)

    async with raw_server(answer) as server, client_of(server.url) as client:
        task = asyncio.create_task(get(client))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await head(client)


async def test_refused() -> None:
    """Nobody listens: said in two words."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    async with client_of(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(RegistryUnavailable, match="connection refused") as raised:
            await get(client)
    assert raised.value.status is None
    assert type(raised.value) is RegistryUnavailable


async def test_no_cookies_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry's cookies are not kept, and proxy settings of the environment are not obeyed."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    answer = answers("200 OK", b"{}", Content_Type=MANIFEST_TYPE, Set_Cookie="id=1; Path=/")
    async with raw_server(answer) as server, client_of(server.url) as client:
        await get(client)
        await get(client)
    assert "cookie" not in server.heads[-1].lower()


async def test_request_as_it_stands(credentials: Credentials) -> None:
    """What a lookup sends, to the byte: all four manifest types, no compression, no credentials without a challenge."""
    answer = answers("200 OK", b"{}", Content_Type=MANIFEST_TYPE)
    async with raw_server(answer) as server, client_of(server.url, credentials=credentials) as client:
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
