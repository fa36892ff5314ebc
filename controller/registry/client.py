"""A small OCI distribution client: what ``LocalArtifactRegistry`` needs of the specification, and no more.

Registries differ. What one of them can do is learned from its answers and remembered for this client's life, never
guessed from a product's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass, replace
from enum import Enum, auto
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from controller.config import RegistryBinding
from controller.errors import (
    AccessDenied,
    AuthenticationFailed,
    NameRefused,
    ProtocolViolation,
    RegistryError,
    RegistryUnavailable,
    ResourceNotFound,
)
from controller.names import MAX_REGISTRY_PATH, validate_digest, validate_reference, validate_repository_name
from controller.registry.answers import Answer, next_page, parse_object, resolve, with_query
from controller.registry.auth import Scopes
from controller.registry.connection import Connection, Request, RequestObserver, Timeouts, Transport
from controller.registry.marker import MANIFEST_MEDIA_TYPE

MANIFEST_MEDIA_TYPES: Final = (
    MANIFEST_MEDIA_TYPE,
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
"""Asked for by name: Distribution answers 404 to ``*/*``."""

_ACCEPTED_MEDIA_TYPES: Final = frozenset(MANIFEST_MEDIA_TYPES) | {
    # Docker's registry 2.8 sends these where it has nothing newer; such a repository exists, too.
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    # A draft of the image specification had it, and old clients pushed it.
    "application/vnd.oci.artifact.manifest.v1+json",
}

MAX_MANIFEST: Final = 4 << 20
"""Bytes of a manifest; the bound that registries set themselves."""

MAX_TAGS: Final = 1 << 20
"""Bytes of a page of tags: some registries send all that there are."""

MAX_PAGES: Final = 16

_ACCEPT_MANIFESTS: Final = ", ".join(MANIFEST_MEDIA_TYPES)
_OCTETS: Final = "application/octet-stream"
_HASHES: Final = frozenset({"sha256", "sha512"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as fetched.

    Args:
        content: The very bytes; their digest is checked.
        media_type: What the registry says it is; an OCI image manifest where it says nothing.
        digest: Digest of ``content``.
    """

    content: bytes
    media_type: str
    digest: str


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """What a registry tells about a manifest without sending it.

    Args:
        media_type: Media type; None where the registry does not say.
        digest: Digest; None where the registry does not say.
    """

    media_type: str | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class _Blob:
    content: bytes
    digest: str


class _Reuse(Enum):
    """How a blob that the registry has already gets into another repository."""

    MOUNT = auto()
    """By a cross-repository mount; where that is not carried out, the answer opens an upload session."""

    LOOK = auto()
    """A mount was not carried out: perhaps there is one store for all repositories, and the blob is there already."""

    NEVER = auto()
    """Neither helped: upload."""


class RegistryClient:
    """One registry's client.

    Paths are full paths in the registry. Like references and digests they are validated before a URL is built. Every
    method raises an error below :class:`~controller.errors.RegistryError` where the registry does not do what it is
    asked.

    Args:
        binding_name: The binding's name, for errors.
        binding: The binding.
        timeouts: How long one request may take.
        on_request: Called after each request that was sent, also to a token service.
        transport: Instead of the network.

    Raises:
        BindingConfigInvalid: The CA bundle cannot be used.
    """

    def __init__(
        self,
        binding_name: str,
        binding: RegistryBinding,
        *,
        timeouts: Timeouts | None = None,
        on_request: RequestObserver | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._connection = Connection(
            binding_name, binding, timeouts=timeouts or Timeouts(), on_request=on_request, transport=transport
        )
        self._base = f"{self._connection.endpoint}/v2/"
        self._reuse = _Reuse.MOUNT
        self._wants_patch = False

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def ping(self) -> None:
        """Return if the registry answers: with 200, or with 401 since it wants credentials for more."""
        await self._connection.ask_anonymously(
            Request(
                method="GET",
                url=self._base,
                doing="reach the registry",
                resource=self._base,
                scopes=(),
                expected=(HTTPStatus.OK, HTTPStatus.UNAUTHORIZED),
            )
        )

    async def list_tags(self, path: str, *, at_most: int) -> tuple[str, ...]:
        """Return up to ``at_most`` of a repository's tags.

        Raises:
            ResourceNotFound: The registry does not know the repository, or does not list tags at all; only its
                ``codes`` tell the one from the other.
        """
        request = Request(
            method="GET",
            url=self._url(path, f"tags/list?n={at_most}"),
            doing=f"list tags of {path}",
            resource=path,
            scopes=_scopes(path),
            max_body=MAX_TAGS,
        )
        tags: list[str] = []
        for _ in range(MAX_PAGES):
            answer = await self._connection.ask(request)
            tags += self._tags(request, answer)
            following = next_page(answer.headers.get("link"))
            if len(tags) >= at_most or following is None:
                return tuple(tags[:at_most])
            url = resolve(following, answer=answer, doing=request.doing, endpoint=self._connection.endpoint)
            request = replace(request, url=url)
        raise self._violation(request, f"its tags are spread over more than {MAX_PAGES} pages")

    def _tags(self, request: Request, answer: Answer) -> list[str]:
        value = parse_object(answer.body)
        tags = None if value is None else value.get("tags") or []  # Distribution writes null for an empty list
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise self._violation(request, "its answer is no list of tags")
        return tags

    async def head_manifest(self, path: str, reference: str) -> ManifestHead:
        """Return what the registry tells about a manifest without sending it.

        Raises:
            ResourceNotFound: 404. The answer to HEAD has no body, so this is less sure than :meth:`get_manifest`'s.
        """
        request = self._manifest_request("HEAD", path, reference)
        answer = await self._connection.ask(request)
        media_type = self._media_type(request, answer)
        return ManifestHead(media_type or None, answer.headers.get("docker-content-digest") or None)

    async def get_manifest(self, path: str, reference: str) -> Manifest:
        """Return a manifest.

        Raises:
            ResourceNotFound: The registry says clearly that there is none.
            ProtocolViolation: What came is no manifest, or not the one whose digest was asked for or told.
        """
        request = self._manifest_request("GET", path, reference)
        answer = await self._connection.ask(request)
        media_type = self._media_type(request, answer)
        if not media_type and parse_object(answer.body) is None:
            raise self._violation(request, "its answer is no manifest")
        self._check_digest(request, answer.body, reference)
        self._check_digest(request, answer.body, answer.headers.get("docker-content-digest", ""))
        digest = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
        return Manifest(answer.body, media_type or MANIFEST_MEDIA_TYPE, digest)

    def _manifest_request(self, method: str, path: str, reference: str) -> Request:
        return Request(
            method=method,
            url=self._url(path, f"manifests/{validate_reference(reference)}"),
            doing=f"look up {reference} of {path}",
            resource=f"{path}:{reference}",
            scopes=_scopes(path),
            accept=_ACCEPT_MANIFESTS,
            max_body=MAX_MANIFEST,
        )

    def _media_type(self, request: Request, answer: Answer) -> str:
        """Return the answer's media type, empty if it has none; a page in HTML must not pass for a manifest."""
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type and media_type not in _ACCEPTED_MEDIA_TYPES:
            raise self._violation(request, f"it answered {answer.status}, but with no manifest (by its Content-Type)")
        return media_type

    def _check_digest(self, request: Request, content: bytes, claimed: str) -> None:
        """Check content against a digest; what is none that we can compute (a tag, an absent header) claims nothing."""
        algorithm, _, expected = claimed.partition(":")
        if algorithm in _HASHES and hashlib.new(algorithm, content).hexdigest() != expected:
            raise self._violation(request, "the content does not have the digest that was asked for or told")

    async def put_manifest(self, path: str, reference: str, content: bytes, media_type: str) -> None:
        """Store a manifest.

        It is sent once, and never again by itself: between an answer that got lost and a second try, somebody may
        have pushed what the second try would overwrite.
        """
        request = Request(
            method="PUT",
            url=self._url(path, f"manifests/{validate_reference(reference)}"),
            doing=f"push {reference} to {path}",
            resource=path,
            scopes=_scopes(path),
            expected=(HTTPStatus.CREATED,),
            content=content,
            content_type=media_type,
            once=True,
        )
        answer = await self._connection.ask(request)
        self._check_digest(request, content, answer.headers.get("docker-content-digest", ""))

    async def head_blob(self, path: str, digest: str) -> int:
        """Return a blob's size in bytes; 0 where the registry does not say.

        Raises:
            ResourceNotFound: There is none.
        """
        answer = await self._connection.ask(
            Request(
                method="HEAD",
                url=self._url(path, f"blobs/{validate_digest(digest)}"),
                doing=f"look up blob {digest} of {path}",
                resource=f"{path}@{digest}",
                scopes=_scopes(path),
                accept=_OCTETS,
            )
        )
        length = answer.headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdigit() else 0

    async def put_blob(self, path: str, content: bytes, digest: str, *, mount_from: str | None) -> int:
        """Make a blob part of a repository, in the cheapest way that this registry was seen to offer.

        Args:
            path: The repository.
            content: The blob.
            digest: Its digest.
            mount_from: A repository that most likely has it already; None if none is known.

        Returns:
            How many requests it took, without those for credentials.
        """
        blob = _Blob(content, validate_digest(digest))
        if mount_from is None or self._reuse is _Reuse.NEVER:
            return await self._upload(path, blob)
        looked = self._reuse is _Reuse.LOOK
        if looked:
            with contextlib.suppress(ResourceNotFound):
                await self.head_blob(path, digest)
                return 1
        return looked + await self._mount_or_upload(path, blob, mount_from, looked=looked)

    async def _mount_or_upload(self, path: str, blob: _Blob, source: str, *, looked: bool) -> int:
        try:
            answer = await self._connection.ask(self._mount_request(path, blob, source))
        except (AuthenticationFailed, AccessDenied) as refused:
            # The other repository may not be read. An upload needs no such right, and asking again costs a request.
            _log.debug("mounts are not tried again: %s", refused)
            self._reuse = _Reuse.NEVER
            return 1 + await self._upload(path, blob)
        except NameRefused as refused:
            if not refused.codes:
                raise
            # An unknown name: the source's, which may be gone, or the target's. The upload tells which.
            return 1 + await self._upload(path, blob)
        if answer.status == HTTPStatus.CREATED:
            self._reuse = _Reuse.MOUNT
            return 1
        trips = await self._finish_upload(path, blob, answer)
        return trips + await self._learn_from_ignored_mount(source, blob, looked=looked)

    async def _learn_from_ignored_mount(self, source: str, blob: _Blob, *, looked: bool) -> int:
        """Draw the conclusion from a mount that was not carried out, unless the source itself lacks the blob."""
        with contextlib.suppress(RegistryError):
            await self.head_blob(source, blob.digest)
            self._reuse = _Reuse.NEVER if looked else _Reuse.LOOK
        return 1

    def _mount_request(self, path: str, blob: _Blob, source: str) -> Request:
        validate_repository_name(source, max_length=MAX_REGISTRY_PATH)
        query = urlencode({"mount": blob.digest, "from": source}, safe=":/")
        return Request(
            method="POST",
            url=self._url(path, f"blobs/uploads/?{query}"),
            doing=f"mount a blob into {path}",
            resource=path,
            scopes=(*_scopes(path), f"repository:{source}:pull"),
            expected=(HTTPStatus.CREATED, HTTPStatus.ACCEPTED),
        )

    async def _upload(self, path: str, blob: _Blob) -> int:
        return await self._finish_upload(path, blob, await self._open_session(path))

    async def _open_session(self, path: str) -> Answer:
        return await self._connection.ask(
            Request(
                method="POST",
                url=self._url(path, "blobs/uploads/"),
                doing=f"push a blob to {path}",
                resource=path,
                scopes=_scopes(path),
                expected=(HTTPStatus.ACCEPTED,),
            )
        )

    async def _finish_upload(self, path: str, blob: _Blob, session: Answer) -> int:
        """Send a blob into a session that was just opened; return the requests it took, the opening one included."""
        if self._wants_patch:
            return await self._upload_by_patch(path, blob, session)
        try:
            await self._commit(path, blob, session, content=blob.content)
        except RegistryUnavailable as error:
            if error.status != HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            # How the crate container-registry says that it wants the blob in a PATCH. A real failure fails here, too.
            trips = 2 + await self._upload_by_patch(path, blob, await self._open_session(path))
            self._wants_patch = True
            return trips
        return 2

    async def _upload_by_patch(self, path: str, blob: _Blob, session: Answer) -> int:
        patch = self._session_request("PATCH", path, session, blob.content, expected=HTTPStatus.ACCEPTED)
        await self._commit(path, blob, await self._connection.ask(patch), content=b"")
        return 3

    async def _commit(self, path: str, blob: _Blob, session: Answer, *, content: bytes) -> None:
        query = f"digest={blob.digest}"
        await self._connection.ask(
            self._session_request("PUT", path, session, content, query=query, expected=HTTPStatus.CREATED)
        )

    def _session_request(
        self, method: str, path: str, session: Answer, content: bytes, *, expected: int, query: str = ""
    ) -> Request:
        doing = f"push a blob to {path}"
        location = session.headers.get("location")
        url = resolve(location, answer=session, doing=doing, endpoint=self._connection.endpoint)
        return Request(
            method=method,
            # By hand: httpx's params= would drop the query of the Location, where Distribution keeps its state.
            url=with_query(url, query) if query else url,
            doing=doing,
            resource=path,
            scopes=_scopes(path),
            expected=(expected,),
            content=content,
            content_type=_OCTETS,
        )

    def _url(self, path: str, target: str) -> str:
        validate_repository_name(path, max_length=MAX_REGISTRY_PATH)
        return f"{self._base}{path}/{target}"

    def _violation(self, request: Request, reason: str) -> ProtocolViolation:
        return ProtocolViolation(f"cannot {request.doing}: {self._connection.endpoint}: {reason}")


def _scopes(path: str) -> Scopes:
    return (f"repository:{path}:pull,push",)
