"""Compressed bodies, which some reverse proxies send unrequested."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Final

GZIP: Final = frozenset({"gzip", "x-gzip"})
"""Values of ``Content-Encoding`` for the only compression that is supported."""

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


async def decompress(stream: AsyncIterable[bytes], *, piece: int) -> AsyncGenerator[bytes, None]:
    """Yield the content of a gzip body in pieces, so that a small body is never a large one in memory.

    Args:
        stream: The body; empty for a response to HEAD.
        piece: Maximum bytes of a piece.

    Raises:
        zlib.error: The body is not gzip, or not complete.
    """
    inflater = zlib.decompressobj(wbits=_GZIP_WINDOW)
    started = False
    async for compressed in stream:
        rest = compressed
        while rest:
            started = True
            yield inflater.decompress(rest, piece)
            rest = inflater.unconsumed_tail
    if started and not inflater.eof:
        raise zlib.error("incomplete")
