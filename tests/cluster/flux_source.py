"""A Git repository as Flux sees it, without Git and without source-controller."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import yaml

from tests.cluster.harness import Api, Object

_SOURCES = "/apis/source.toolkit.fluxcd.io/v1"


class ArtifactServer:
    """Serves archives on loopback, as source-controller does, in a ``with`` block."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        files = self._files

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *arguments: object) -> None:  # http.server's, which would print
                del arguments

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="artifacts", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def publish(self, content: bytes) -> str:
        """Serve some content from now on; return its URL."""
        path = f"/{hashlib.sha256(content).hexdigest()}.tar.gz"
        self._files[path] = content
        return f"http://127.0.0.1:{self._server.server_port}{path}"


class GitRepository:
    """A GitRepository whose artifacts come from a test: it is suspended, so no source-controller is needed.

    Args:
        api: The API server.
        server: Serves the artifacts.
        namespace: Its namespace.
        name: Its name.
    """

    def __init__(self, api: Api, server: ArtifactServer, namespace: str, name: str = "source") -> None:
        self._api = api
        self._server = server
        self._path = f"{_SOURCES}/namespaces/{namespace}/gitrepositories"
        self.name = name
        self._revisions = 0
        spec = {"url": "https://git.example.com/team/manifests", "interval": "1h", "suspend": True}
        self._metadata = api.must(
            "POST",
            self._path,
            {
                "apiVersion": "source.toolkit.fluxcd.io/v1",
                "kind": "GitRepository",
                "metadata": {"name": name, "namespace": namespace},
                "spec": spec,
            },
        )["metadata"]

    def push(self, files: Mapping[str, Sequence[Object] | str]) -> str:
        """Make a new revision; return its name.

        Args:
            files: All that is in it: objects, or text, by the files' paths.
        """
        self._revisions += 1
        content = _archive(files)
        commit = hashlib.sha1(f"{self._revisions}".encode() + content, usedforsecurity=False).hexdigest()
        revision, now = f"main@sha1:{commit}", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        url = self._server.publish(content)
        artifact = {
            "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
            "lastUpdateTime": now,
            "path": url.partition("//")[2].partition("/")[2],
            "revision": revision,
            "size": len(content),
            "url": url,
        }
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Succeeded",
            "message": f"stored artifact for revision '{revision}'",
            "lastTransitionTime": now,
            "observedGeneration": self._metadata["generation"],
        }
        status = {"artifact": artifact, "conditions": [ready], "observedGeneration": self._metadata["generation"]}
        self._api.must(
            "PATCH",
            f"{self._path}/{self.name}/status",
            {"status": status},
            content_type="application/merge-patch+json",
        )
        return revision


def _archive(files: Mapping[str, Sequence[Object] | str]) -> bytes:
    """Return files as a tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, content in files.items():
            data = (content if isinstance(content, str) else yaml.safe_dump_all(content)).encode()
            member = tarfile.TarInfo(path)
            member.size = len(data)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
