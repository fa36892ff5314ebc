"""HTTP server that sends arbitrary bytes, for responses that no real server would send."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

Responder = Callable[[str, "Writer"], Awaitable[None]]
"""Responds to one request, given its head and a writer."""


class Writer:
    """The server's end of one connection."""

    def __init__(self, stream: asyncio.StreamWriter) -> None:
        self._stream = stream
        self.sent = 0
        self.closing = False

    async def send(self, content: bytes) -> None:
        """Send bytes unchanged, as fast as they are read."""
        self._stream.write(content)
        self.sent += len(content)
        await self._stream.drain()

    async def respond(self, status: str, body: bytes = b"", **headers: str) -> None:
        """Send a well-formed response."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode() + body)

    def close(self) -> None:
        """Close the connection after this response."""
        self.closing = True

    def reset(self) -> None:
        """Reset the connection at once (RST)."""
        self._stream.transport.abort()
        self.closing = True


@dataclass
class RawServer:
    """A running server.

    Attributes:
        url: Its address.
        heads: The head of each request received, in order, with lower-case header names.
        bodies: Their bodies.
        writers: One for each connection.
    """

    url: str
    heads: list[str]
    bodies: list[bytes]
    writers: list[Writer]

    @property
    def lines(self) -> list[str]:
        """``METHOD target`` of each request."""
        return [head.partition(" HTTP/1.1")[0] for head in self.heads]


@asynccontextmanager
async def raw_server(respond: Responder, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Run a server on a free loopback port."""
    state = RawServer("", [], [], [])
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, stream: asyncio.StreamWriter) -> None:
        writer = Writer(stream)
        state.writers.append(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while not writer.closing:
                    head = _lower_names((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
                    state.heads.append(head)
                    state.bodies.append(await reader.readexactly(_length(head)))
                    await respond(head, writer)
        finally:
            stream.close()
            with contextlib.suppress(OSError):
                await stream.wait_closed()

    def accept(reader: asyncio.StreamReader, stream: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, stream))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    state.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def _lower_names(head: str) -> str:
    first, *lines = head.split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return "\r\n".join([first, *(f"{name.lower()}{colon}{value}" for name, colon, value in pairs)])


def _length(head: str) -> int:
    for line in head.split("\r\n"):
        if line.startswith("content-length:"):
            return int(line.partition(":")[2])
    return 0


class ThreadedServer:
    """A server in a thread of its own in the ``with`` block, for tests that are not asynchronous.

    Subclasses implement :meth:`respond`.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=type(self).__name__, daemon=True)
        self._over = asyncio.Event()
        self._up = threading.Event()
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def respond(self, head: str, writer: Writer) -> None:
        """Respond to one request.

        Args:
            head: The request's head.
            writer: The server's end of the connection.
        """
        raise NotImplementedError

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve_until_over())

    async def _serve_until_over(self) -> None:
        async with raw_server(self.respond) as server:
            self.url = server.url
            self._up.set()
            await self._over.wait()
