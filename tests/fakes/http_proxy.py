"""HTTP proxy: tunnels (CONNECT) and plain requests, with or without a login."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class HttpProxy:
    """A running proxy.

    Attributes:
        url: Its address.
        authorization: The required Proxy-Authorization header; None for none.
        refusal: Status line with which it refuses every request; None if it forwards them.
        heads: The head of each request that it received, in order.
    """

    url: str = ""
    authorization: str | None = None
    refusal: str | None = None
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: one tunnel, or one plain request."""
        async with _closed_at_end(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            refusal = self.refusal
            login = re.search(r"^proxy-authorization: (.*)\r$", head, re.IGNORECASE | re.MULTILINE)
            if self.authorization and (login is None or login[1] != self.authorization):
                refusal = "407 Proxy Authentication Required"
            if refusal:
                writer.write(f"HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
            else:
                await self._forward(head, reader, writer)

    async def _forward(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = head.split(" ", 2)
        server = urlsplit(f"//{target}" if method == "CONNECT" else target)
        from_server, to_server = await asyncio.open_connection(server.hostname, server.port)
        async with _closed_at_end(to_server), asyncio.TaskGroup() as both:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                to_server.write(head.replace(f"http://{server.netloc}", "", 1).encode())
            both.create_task(_copy(reader, to_server))
            both.create_task(_copy(from_server, writer))


@asynccontextmanager
async def _closed_at_end(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(1 << 16):
            sink.write(chunk)
            await sink.drain()
    with contextlib.suppress(OSError, NotImplementedError):  # TLS has no half-closed connections
        sink.write_eof()


@asynccontextmanager
async def http_proxy(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpProxy]:
    """Run a proxy on a free loopback port."""
    proxy = HttpProxy()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    proxy.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
