"""OCI registry in memory, as an httpx transport in place of the network.

It behaves like Distribution 3, and passes the contract suite of the real registries.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_ROUTE = re.compile(
    rf"/v2/(?P<name>{_COMPONENT}(?:/{_COMPONENT})*)/"
    r"(?:(?P<kind>manifests|blobs)/(?P<reference>[^/]+)|blobs/uploads/(?P<session>[^/]*)|tags/(?P<tags>list))"
)
_MAX_NAME = 255

_NOT_FOUND = {"manifests": "MANIFEST_UNKNOWN", "blobs": "BLOB_UNKNOWN"}


@dataclass(frozen=True)
class StoredManifest:
    """A pushed manifest."""

    content: bytes
    media_type: str


@dataclass
class FakeRepository:
    """One repository's content."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, StoredManifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class FakeRegistry(httpx.AsyncBaseTransport):
    """Fake registry.

    Attributes:
        repositories: Its content by path.
        requests: Every request received, in order.
        override: Called first, to inject faults: its result is the response, unless it is None.
        read_only: Whether writes are rejected, as in Distribution's maintenance mode.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, FakeRepository] = {}
        self.requests: list[httpx.Request] = []
        self.override: Callable[[httpx.Request], Awaitable[httpx.Response | None]] | None = None
        self.read_only = False
        self._sessions: dict[str, bytes] = {}
        self._ids: Iterator[int] = itertools.count(1)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Respond to a request as a server sees it: with the target as the URL's path and query."""
        if "target" in request.extensions:
            request.url = request.url.copy_with(raw_path=request.extensions["target"])
        return await self.respond(request)

    async def respond(self, request: httpx.Request) -> httpx.Response:
        """Respond to a request; subclasses extend it."""
        await request.aread()
        self.requests.append(request)
        if self.override is not None:
            response = await self.override(request)
            if response is not None:
                return response
        return self._route(request)

    def _route(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v2/":
            return httpx.Response(200, json={})
        match = _ROUTE.fullmatch(request.url.path)
        if match is None:
            return httpx.Response(404, text="404 page not found\n")
        if len(match["name"]) > _MAX_NAME:
            return _error(400, "NAME_INVALID")
        if self.read_only and request.method not in ("GET", "HEAD"):
            return httpx.Response(405, text="Method not allowed\n")
        return self._dispatch(match["name"], match, request)

    def _dispatch(self, name: str, match: re.Match[str], request: httpx.Request) -> httpx.Response:
        if match["tags"]:
            return self._list_tags(name, request)
        if match["session"] is not None:
            return self._upload(name, match["session"], request)
        if request.method == "PUT":
            return self._put_manifest(name, match["reference"], request)
        return self._fetch(name, match["kind"], match["reference"], request)

    def _list_tags(self, name: str, request: httpx.Request) -> httpx.Response:
        repository = self.repositories.get(name)
        if repository is None or not repository.manifests:
            return _error(404, "NAME_UNKNOWN")
        query = request.url.params
        tags = sorted(tag for tag in repository.tags if tag > query.get("last", ""))
        page = tags[: int(query.get("n", len(tags)))]
        more = {"link": f'</v2/{name}/tags/list?last={page[-1]}&n={query["n"]}>; rel="next"'} if page != tags else {}
        return httpx.Response(200, json={"name": name, "tags": page or None}, headers=more)

    def _fetch(self, name: str, kind: str, reference: str, request: httpx.Request) -> httpx.Response:
        found = self._find(self.repositories.get(name, FakeRepository()), kind, reference)
        accepted = request.headers.get("accept", "")
        if found is None or (kind == "manifests" and found.media_type not in accepted):
            # A real server omits the body of a HEAD response.
            return _error(404, _NOT_FOUND[kind]) if request.method == "GET" else httpx.Response(404)
        headers = {
            "content-type": found.media_type,
            "content-length": str(len(found.content)),
            "docker-content-digest": _digest(found.content),
        }
        return httpx.Response(200, headers=headers, content=found.content if request.method == "GET" else b"")

    @staticmethod
    def _find(repository: FakeRepository, kind: str, reference: str) -> StoredManifest | None:
        if kind == "manifests":
            return repository.manifests.get(repository.tags.get(reference, reference))
        blob = repository.blobs.get(reference)
        return None if blob is None else StoredManifest(blob, "application/octet-stream")

    def _put_manifest(self, name: str, reference: str, request: httpx.Request) -> httpx.Response:
        content = request.content
        try:
            manifest = json.loads(content)
        except ValueError:
            return _error(400, "MANIFEST_INVALID")
        repository = self.repositories.setdefault(name, FakeRepository())
        if any(digest not in repository.blobs for digest in _needed(manifest, ("config", "layers"))):
            return _error(400, "MANIFEST_BLOB_UNKNOWN")
        if any(digest not in repository.manifests for digest in _needed(manifest, ("manifests",))):
            return _error(400, "MANIFEST_UNKNOWN")
        digest = _digest(content)
        if ":" in reference and reference != digest:
            return _error(400, "DIGEST_INVALID")
        repository.manifests[digest] = StoredManifest(content, request.headers["content-type"])
        if ":" not in reference:
            repository.tags[reference] = digest
        return httpx.Response(
            201, headers={"location": f"/v2/{name}/manifests/{digest}", "docker-content-digest": digest}
        )

    def _upload(self, name: str, session: str, request: httpx.Request) -> httpx.Response:
        query = request.url.params
        if request.method == "POST":
            source = self.repositories.get(query.get("from", ""), FakeRepository())
            if query.get("mount") in source.blobs:
                return self._store_blob(name, source.blobs[query["mount"]])
            session = str(next(self._ids))
            return self._session(name, session, b"", request)
        if session not in self._sessions or query.get("_state") != f"state of {session}":
            return _error(404, "BLOB_UPLOAD_UNKNOWN")
        content = self._sessions[session] + request.content
        if request.method == "PATCH":
            return self._session(name, session, content, request)
        if _digest(content) != query.get("digest"):
            return _error(400, "DIGEST_INVALID")
        del self._sessions[session]
        return self._store_blob(name, content)

    def _session(self, name: str, session: str, content: bytes, request: httpx.Request) -> httpx.Response:
        self._sessions[session] = content
        url = request.url.copy_with(path=f"/v2/{name}/blobs/uploads/{session}", query=None)
        location = f"{url}?_state=state%20of%20{session}"
        return httpx.Response(202, headers={"location": location, "range": f"0-{max(len(content) - 1, 0)}"})

    def _store_blob(self, name: str, content: bytes) -> httpx.Response:
        digest = _digest(content)
        self.repositories.setdefault(name, FakeRepository()).blobs[digest] = content
        return httpx.Response(201, headers={"location": f"/v2/{name}/blobs/{digest}", "docker-content-digest": digest})


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _needed(manifest: dict[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    """Yield the digests that a manifest refers to under the given keys."""
    for key in keys:
        descriptors = manifest.get(key, [])
        for descriptor in descriptors if isinstance(descriptors, list) else [descriptors]:
            yield descriptor["digest"]


def _error(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"errors": [{"code": code, "message": code.lower().replace("_", " ")}]})
