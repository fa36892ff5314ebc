"""A proxy of ours between the operator and a server, which a test makes misbehave.

It understands just enough of HTTP/1.1 to see where a request begins and ends; what the server answers passes through
untouched. It runs in a thread of its own, and ``https`` is terminated with a certificate that the client trusts::

    with FaultProxy(cluster.registry_url) as proxy:
        operator = start_operator(operator_config(proxy.url))
        with proxy.rule("PUT", "/manifests/", Response(503)) as rule:
            ...  # rule.seen says how many requests it has answered for the server
        proxy.cut()  # every connection, by RST
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self, cast
from urllib.parse import urlsplit

from devcluster.certificates import Certificate

_REMEMBERED: Final = 50_000
_CHUNK: Final = 1 << 16
_MAX_HEAD: Final = 1 << 18
_CLOSE_TIMEOUT: Final = 5.0
_FAREWELL: Final = 0.02
"""For the loop to close the sockets of connections that were broken off, in seconds."""


@dataclass(frozen=True)
class Response:
    """Response for the server, which never sees the request.

    Args:
        status: The HTTP status.
        body: The body.
        headers: Further headers.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Delay:
    """Pass the request on after a time.

    Args:
        seconds: How long.
    """

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Pass the request on when the rule ends, or :meth:`Rule.release` is called."""


@dataclass(frozen=True)
class Cut:
    """Break the connection by RST instead of passing the request on."""


@dataclass(frozen=True)
class Lose:
    """Pass the request on, and break the connection instead of passing the answer back."""


@dataclass(frozen=True)
class Late:
    """Pass the request on, and the answer back when the rule ends, or :meth:`Rule.release` is called."""


@dataclass(frozen=True)
class Swallow:
    """Take the request and never say anything again on this connection."""


Action = Response | Delay | Hold | Cut | Lose | Late | Swallow


@dataclass(frozen=True)
class Seen:
    """One request.

    Args:
        at: When, on time.monotonic().
        method: Its method.
        target: Its path and query.
        authorization: Its credentials.
        body: Its body.
    """

    at: float
    method: str
    target: str
    authorization: str = field(repr=False)
    body: bytes = field(repr=False)


class Rule:
    """What is done with the requests that match.

    Args:
        method: Their method.
        target: Is searched for in path and query.
        action: What is done.
        times: How many requests it concerns; None: all.
        only: Further condition.
    """

    def __init__(
        self, method: str, target: str, action: Action, *, times: int | None, only: Callable[[Seen], bool] | None
    ) -> None:
        self.method = method
        self.action = action
        self.seen = 0
        self._target = re.compile(target)
        self._left = times
        self._only = only
        self._released = threading.Event()

    def claims(self, request: Seen) -> bool:
        """Tell whether this rule concerns a request, and count it."""
        if self._left == 0 or request.method != self.method or not self._target.search(request.target):
            return False
        if self._only is not None and not self._only(request):
            return False
        if self._left is not None:
            self._left -= 1
        self.seen += 1
        return True

    def release(self) -> None:
        """Let pass what is held."""
        self._released.set()

    @property
    def released(self) -> bool:
        """Whether what is held may pass."""
        return self._released.is_set()


class _Connection:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.flows = asyncio.Event()
        self.flows.set()
        self.lost = False
        self.late: Rule | None = None
        # TCP's, also where TLS comes on top of it.
        self._transport = writer.transport
        self._socket: socket.socket = writer.get_extra_info("socket")

    async def secure(self, context: ssl.SSLContext) -> None:
        """Shake hands as a TLS server."""
        try:
            await self.writer.start_tls(context)
        except AttributeError:
            # Who goes in the middle of it leaves behind a writer without a transport.
            self.writer._transport = self._transport  # type: ignore[attr-defined]
            raise ConnectionResetError from None

    def reset(self) -> None:
        """Break it by RST."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


class FaultProxy:
    """See the module's text.

    Args:
        upstream: The server: ``http://host:port`` or ``https://host:port``.
        certificate: What clients get to see, where the server is an https one.
        ca_file: The CA of the server.
    """

    def __init__(self, upstream: str, *, certificate: Certificate | None = None, ca_file: Path | None = None) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 0)
        self._serving = self._asking = None
        if certificate is not None:
            self._serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._serving.load_cert_chain(certificate.certificate, certificate.key)
            self._asking = ssl.create_default_context(cafile=ca_file)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._rules: list[Rule] = []
        self._frozen = False
        self._port = 0
        self.requests: deque[Seen] = deque(maxlen=_REMEMBERED)
        """The requests that came, answered or not."""

    @property
    def url(self) -> str:
        """Where clients reach it; stays the same when it listens again."""
        return f"{'https' if self._serving else 'http'}://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        for rule in self._rules:
            rule.release()
        self._do(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_TIMEOUT)
        self._loop.close()

    @contextlib.contextmanager
    def rule(
        self,
        method: str,
        target: str,
        action: Action,
        *,
        times: int | None = None,
        only: Callable[[Seen], bool] | None = None,
    ) -> Iterator[Rule]:
        """Do something to requests in the ``with`` block; the first rule that fits counts.

        Args:
            method: Their method.
            target: A regular expression that is searched for in path and query.
            action: What is done.
            times: How many requests it concerns; None: all.
            only: Further condition.
        """
        rule = Rule(method, target, action, times=times, only=only)
        self._rules.append(rule)
        try:
            yield rule
        finally:
            self._rules.remove(rule)
            rule.release()

    def count(self, method: str, target: str, *, since: float = 0.0) -> int:
        """Return how many requests came.

        Args:
            method: Their method.
            target: A regular expression that is searched for in path and query.
            since: Count from this time.monotonic() on.
        """
        return sum(
            r.method == method and bool(re.search(target, r.target)) for r in list(self.requests) if r.at >= since
        )

    def cut(self) -> None:
        """Break all connections there are by RST; new ones are welcome."""
        self._do(self._cut)

    def refuse(self) -> None:
        """Break all connections, and listen no more."""

        async def refuse() -> None:
            self._stop_listening()
            await self._cut()

        self._do(refuse)

    def listen(self) -> None:
        """Listen again on the same port."""
        self._do(self._listen)

    def freeze(self, *, new: bool = True) -> None:
        """Deliver nothing any more, in neither direction, and keep all connections open: no FIN, no RST.

        Args:
            new: Whether connections that are made from now on are concerned, too.
        """

        async def freeze() -> None:
            self._frozen = new
            for connection in self._connections:
                connection.flows.clear()

        self._do(freeze)

    def thaw(self) -> None:
        """Deliver again, also what came meanwhile."""

        async def thaw() -> None:
            self._frozen = False
            for connection in self._connections:
                connection.flows.set()

        self._do(thaw)

    def _do(self, what: Callable[[], object]) -> None:
        """Do something in the proxy's own thread, and wait for its end."""

        async def do() -> None:
            result = what()
            if asyncio.iscoroutine(result):
                await result

        asyncio.run_coroutine_threadsafe(do(), self._loop).result(_CLOSE_TIMEOUT)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, limit=_MAX_HEAD)
        self._port = self._server.sockets[0].getsockname()[1]

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _cut(self) -> None:
        for connection in list(self._connections):
            connection.reset()

    async def _close(self) -> None:
        self._stop_listening()
        tasks = list(self._connections.values())
        await self._cut()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(_FAREWELL)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer)
        if self._serving is not None:
            # What the client says first belongs to the handshake, which a frozen connection does not get.
            cast(asyncio.ReadTransport, writer.transport).pause_reading()
        if self._frozen:
            connection.flows.clear()
        task = self._loop.create_task(self._serve(connection))
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._connections.pop(connection, None))

    async def _serve(self, client: _Connection) -> None:
        """Serve one client until either side is done."""
        upstream: asyncio.StreamWriter | None = None
        answering: asyncio.Task[None] | None = None
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
                await client.flows.wait()
                if self._serving is not None:
                    await client.secure(self._serving)
                while True:
                    head = await client.reader.readuntil(b"\r\n\r\n")
                    body = await client.reader.readexactly(_content_length(head))
                    await client.flows.wait()
                    if not await self._act(client, _seen(head, body)):
                        continue
                    if upstream is None:
                        answers, upstream = await asyncio.open_connection(*self._upstream, ssl=self._asking)
                        answering = self._loop.create_task(self._pass_back(answers, client))
                    upstream.write(head + body)
                    await upstream.drain()
        finally:
            if answering is not None:
                answering.cancel()
            if upstream is not None:
                upstream.transport.abort()
            client.writer.close()

    async def _act(self, client: _Connection, request: Seen) -> bool:
        """Do what the rules say; return whether the request goes on to the server."""
        self.requests.append(request)
        rule = next((rule for rule in list(self._rules) if rule.claims(request)), None)
        match rule.action if rule is not None else None:
            case Response() as answer:
                await _answer(client.writer, answer)
                return False
            case Delay(seconds):
                await asyncio.sleep(seconds)
            case Hold():
                await _release_of(rule)
            case Cut():
                client.reset()
                raise ConnectionResetError
            case Lose():
                client.lost = True
            case Late():
                client.late = rule
            case Swallow():
                await asyncio.Event().wait()
        await client.flows.wait()
        return True

    async def _pass_back(self, answers: asyncio.StreamReader, client: _Connection) -> None:
        """Pass on what the server says, as it comes."""
        with contextlib.suppress(OSError):
            while chunk := await answers.read(_CHUNK):
                await client.flows.wait()
                await _release_of(client.late)
                if client.lost:
                    break
                client.writer.write(chunk)
                await client.writer.drain()
        # A frozen connection does not tell that the server has gone, either.
        await client.flows.wait()
        if client.lost:
            client.reset()
        client.writer.close()


async def _release_of(rule: Rule | None) -> None:
    while rule is not None and not rule.released:  # noqa: ASYNC110 - set from another thread
        await asyncio.sleep(0.01)


async def _answer(writer: asyncio.StreamWriter, answer: Response) -> None:
    headers = {"Content-Type": "application/json", **answer.headers, "Content-Length": str(len(answer.body))}
    lines = [f"HTTP/1.1 {answer.status} Of the proxy", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + answer.body)
    await writer.drain()


def _seen(head: bytes, body: bytes) -> Seen:
    method, target, _ = head.partition(b"\r\n")[0].decode("latin-1").split(" ", 2)
    return Seen(time.monotonic(), method, target, _header(head, b"authorization").decode("latin-1"), body)


def _content_length(head: bytes) -> int:
    return int(_header(head, b"content-length") or 0)


def _header(head: bytes, name: bytes) -> bytes:
    found = re.search(rb"\r\n" + re.escape(name) + rb":[ \t]*([^\r]*)", head, re.IGNORECASE)
    return found[1] if found else b""
