"""Carries TCP connections from listening sockets that it inherits to addresses in its own network namespace.

The sockets are bound to loopback outside of that namespace, so whoever is outside reaches what is inside::

    nsenter --net=… python relay.py FILE_DESCRIPTOR=HOST:PORT …
"""

import asyncio
import socket
import sys
from collections.abc import Sequence

_CHUNK = 64 * 1024


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


async def _serve(listener: socket.socket, host: str, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()  # as if nobody listened here either
            return
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
        for end in (writer, there_writer):
            end.close()

    server = await asyncio.start_server(connected, sock=listener)
    await server.serve_forever()


async def _main(arguments: Sequence[str]) -> None:
    servers = []
    for argument in arguments:
        descriptor, _, address = argument.partition("=")
        host, _, port = address.rpartition(":")
        servers.append(_serve(socket.socket(fileno=int(descriptor)), host, int(port)))
    await asyncio.gather(*servers)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
