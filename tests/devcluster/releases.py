"""A server on loopback that serves an archive well, badly, or not at all."""

import hashlib
import io
import os
import ssl
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from devcluster.certificates import Certificate
from devcluster.download import Archive


def archive_of(*members: str) -> bytes:
    """Return an archive as they are published, with programs that say their names."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in members:
            # Random bytes keep it from being compressed to nothing, so that it can be cut off.
            content = f"#!/bin/sh\necho {Path(name).name}\nexit\n".encode() + os.urandom(100_000)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def silent(_: str) -> None:
    """Take a line of progress."""


@dataclass
class Releases:
    """A server of one archive.

    Args:
        content: The archive.
        status: What it answers with.
        cuts: How many of its answers it cuts off half way.
        ranges: Whether it can resume.
        pause: Seconds that it waits before it answers.
        elsewhere: The URL that it redirects to, if to any.
        tls: Serves https with this certificate.
    """

    content: bytes
    status: int = 200
    cuts: int = 0
    ranges: bool = True
    pause: float = 0.0
    elsewhere: str | None = None
    tls: Certificate | None = None
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def archive(self, digest: str | None = None, *, algorithm: str = "sha512") -> Archive:
        """Return what to download, with the right digest unless another one is given."""
        return Archive(
            f"{self.url}/programs.tar.gz", digest or f"{algorithm}:{hashlib.new(algorithm, self.content).hexdigest()}"
        )


@contextmanager
def serving(releases: Releases) -> Iterator[Releases]:
    """Serve an archive on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            time.sleep(releases.pause)
            self._begin(releases.status)
            self.end_headers()

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "all")
            releases.asked.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if releases.ranges and asked != "all" else 0
            content = releases.content[start:]
            self._begin(206 if start and releases.status == 200 else releases.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if releases.cuts > 0:
                releases.cuts -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)

        def _begin(self, status: int) -> None:
            self.send_response(302 if releases.elsewhere else status)
            if releases.elsewhere:
                self.send_header("Location", releases.elsewhere)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if releases.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(releases.tls.certificate, releases.tls.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    releases.url = f"{'https' if releases.tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    try:
        yield releases
    finally:
        server.shutdown()
        server.server_close()
