"""TCP proxy in front of a registry that records every request line."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

_REQUEST_LINE = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.1\r\n")


class WireTap:
    """A proxy's recorded requests.

    Attributes:
        url: The proxy's address, to be used instead of the registry's.
        requests: ``METHOD target`` of each request, in the order in which they were sent.
    """

    def __init__(self, target: str) -> None:
        self.url = ""
        self.requests: list[str] = []
        self._target = urlsplit(target)
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Accept a connection."""
        task = asyncio.create_task(self._pass_on(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _closed_at_end(writer):
            server_reader, server_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
            async with _closed_at_end(server_writer), asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, server_writer, record=True))
                both.create_task(self._copy(server_reader, writer, record=False))

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, record: bool) -> None:
        unread = b""
        with contextlib.suppress(OSError):
            while chunk := await source.read(1 << 16):
                if record:
                    unread = self._record(unread + chunk)
                sink.write(chunk)
                await sink.drain()
        with contextlib.suppress(OSError):
            sink.write_eof()

    def _record(self, sent: bytes) -> bytes:
        """Record the request lines in the data, and return the rest."""
        end = 0
        for match in _REQUEST_LINE.finditer(sent):
            self.requests.append(f"{match[1].decode()} {match[2].decode()}")
            end = match.end()
        return sent[end:]


@asynccontextmanager
async def _closed_at_end(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def tap(target: str) -> AsyncIterator[WireTap]:
    """Listen on a free loopback port and forward everything to ``target``."""
    tapped = WireTap(target)
    server = await asyncio.start_server(tapped.serve, "127.0.0.1", 0)
    tapped.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield tapped
    finally:
        server.close()
        await tapped.close()
        await server.wait_closed()
