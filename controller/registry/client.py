"""OCI distribution client: the part of the specification that ``LocalArtifactRegistry`` needs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from controller.binding import RegistryBinding
from controller.errors import ProtocolViolation, RegistryError, ResourceNotFound
from controller.names import RepositoryPath, validate_reference
from controller.registry.connection import Connection, Request, RequestObserver, pull, push
from controller.registry.marker import MANIFEST_MEDIA_TYPE
from controller.registry.responses import Response, next_page, parse_object, printable
from controller.registry.transport import Timeouts, Transport
from controller.registry.uploads import Uploads

MANIFEST_MEDIA_TYPES: Final = (
    MANIFEST_MEDIA_TYPE,
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
"""Listed explicitly: Distribution responds 404 to ``*/*``."""

_ACCEPTED_MEDIA_TYPES: Final = frozenset(MANIFEST_MEDIA_TYPES) | {
    # Distribution 2.8 sends these for old images; such a repository exists, too.
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    # From a draft of the image specification; old clients pushed it.
    "application/vnd.oci.artifact.manifest.v1+json",
}

MAX_MANIFEST: Final = 4 << 20
"""Maximum bytes of a manifest; the limit of registries themselves."""

MAX_TAGS: Final = 1 << 20
"""Maximum bytes of a page of tags: some registries return all tags at once, and the first ones suffice."""

MAX_PAGES: Final = 16

_ACCEPT_MANIFESTS: Final = ", ".join(MANIFEST_MEDIA_TYPES)
_GENERIC_MEDIA_TYPES: Final = frozenset({"application/json", "application/octet-stream", "text/plain"})
"""Media types with which some registries serve manifests; the content then shows whether it is one."""

_HEAD_REFUSED: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.NOT_ACCEPTABLE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.NOT_IMPLEMENTED,
        HTTPStatus.INTERNAL_SERVER_ERROR,
    }
)
"""Statuses with which registries and their proxies refuse HEAD, although GET works; or whose cause a GET states."""
_MANIFEST_STORED: Final = (HTTPStatus.CREATED, HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT)
_CUT_TAGS = re.compile(r'"tags"\s*:\s*\[((?:\s*"[^"\\]*"\s*,)*)')
_TAG_IN_LIST = re.compile(r'"([^"]*)"')
_HASHES: Final = frozenset({"sha256", "sha512"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as fetched.

    Args:
        content: Its bytes; their digest has been verified.
        media_type: Media type by the registry; an OCI image manifest where it states none.
        digest: Digest of ``content``.
    """

    content: bytes
    media_type: str
    digest: str


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """A manifest's headers.

    Args:
        media_type: Media type; None where the registry states none.
        digest: Digest; None where the registry states none.
    """

    media_type: str | None
    digest: str | None


class RegistryClient:
    """Client of one registry.

    Paths are full paths in the registry, and valid by their type; references and digests are validated here. Every
    method raises a subclass of :class:`~controller.errors.RegistryError` where the operation fails, and whatever
    ``before_request`` raises.

    Args:
        binding_name: The binding's name, for errors.
        binding: The binding.
        timeouts: How long one request may take.
        before_request: Called before each request, also to a token service.
        on_request: Called after each request that was sent, also to a token service.
        transport: Replaces the network; None for the network.

    Raises:
        BindingConfigInvalid: The CA bundle is invalid.
    """

    def __init__(
        self,
        binding_name: str,
        binding: RegistryBinding,
        *,
        timeouts: Timeouts | None = None,
        before_request: Callable[[], None] = lambda: None,
        on_request: RequestObserver | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._connection = Connection(
            binding_name,
            binding,
            timeouts=timeouts or Timeouts(),
            before_request=before_request,
            on_request=on_request,
            transport=transport,
        )
        self._uploads = Uploads(self._connection)

    @property
    def endpoint(self) -> str:
        """The registry's URL."""
        return str(self._connection.endpoint)

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def ping(self) -> None:
        """Return if the registry responds with 200, or with 401 because it requires credentials."""
        request = self._base_request("ping the registry", HTTPStatus.OK, HTTPStatus.UNAUTHORIZED)
        await self._connection.send_anonymously(request)

    async def log_in(self) -> None:
        """Return if the registry accepts the operator's credentials, or requires none for its base URL."""
        await self._connection.send(self._base_request("log in", HTTPStatus.OK))

    def _base_request(self, operation: str, *expected: int) -> Request:
        return Request(
            method="GET",
            url=f"{self._connection.endpoint}/v2/",
            operation=operation,
            resource="/v2/",
            scopes=(),
            expected=expected,
        )

    async def list_tags(self, path: RepositoryPath, *, at_most: int) -> tuple[str, ...]:
        """Return up to ``at_most`` of a repository's tags; fewer where they fill more than MAX_PAGES pages.

        Raises:
            ResourceNotFound: The registry does not have the repository, or does not list tags at all; only the error's
                ``codes`` distinguish the two.
        """
        request = Request(
            method="GET",
            url=self._connection.url(path, f"tags/list?n={at_most}"),
            operation=f"list tags of {path}",
            resource=path,
            scopes=pull(path),
            max_body=MAX_TAGS,
            cut=True,
        )
        tags: list[str] = []
        for _ in range(MAX_PAGES):
            response = await self._connection.send(request)
            tags += self._tags(request, response)
            following = next_page(response.headers.get("link"))
            if len(tags) >= at_most or following is None:
                return tuple(tags[:at_most])
            # Only the query: behind a gateway, the link may name another host, or a path without the gateway's part.
            query = quote(following.partition("?")[2].partition("#")[0], safe="%=&+/:")
            url = self._connection.url(path, f"tags/list?{query}")
            request = replace(request, url=url)
        if tags:
            return tuple(tags)
        raise self._violation(request, f"{MAX_PAGES} pages without a tag")

    def _tags(self, request: Request, response: Response) -> list[str]:
        if len(response.body) >= MAX_TAGS:
            return self._first_tags(request, response.body)
        value = parse_object(response.body)
        tags = None if value is None else value.get("tags") or []  # Distribution writes null for an empty list
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise self._violation(request, "response is not a list of tags")
        return tags

    def _first_tags(self, request: Request, body: bytes) -> list[str]:
        """Return the tags in the beginning of a list that is too long to be read."""
        found = _CUT_TAGS.search(body.decode(errors="replace"))
        tags = _TAG_IN_LIST.findall(found[1]) if found else []
        if not tags:
            raise self._violation(request, f"response exceeds {MAX_TAGS} bytes")
        return tags

    async def head_manifest(self, path: RepositoryPath, reference: str) -> ManifestHead:
        """Return a manifest's headers; from a GET, where the registry refuses HEAD.

        Raises:
            ResourceNotFound: 404. A HEAD response has no body, so this is less certain than from :meth:`get_manifest`.
        """
        request = self._manifest_request("HEAD", path, reference)
        try:
            response = await self._connection.send(request)
        except RegistryError as error:
            if error.status not in _HEAD_REFUSED:
                raise
            try:
                manifest = await self.get_manifest(path, reference)
            except ResourceNotFound:
                if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise error from None  # a registry that fails says nothing for certain
                raise
            return ManifestHead(manifest.media_type, manifest.digest)
        media_type = self._media_type(request, response)
        return ManifestHead(media_type or None, response.headers.get("docker-content-digest") or None)

    async def get_manifest(self, path: RepositoryPath, reference: str) -> Manifest:
        """Return a manifest.

        Raises:
            ResourceNotFound: The registry stated clearly that there is none.
            ProtocolViolation: The response is not a manifest, or does not match the requested or the stated digest.
        """
        request = self._manifest_request("GET", path, reference)
        response = await self._connection.send(request)
        media_type = self._media_type(request, response)
        if not media_type:
            media_type = self._type_of(request, response)
        self._check_digest(request, response.body, reference)
        self._check_digest(request, response.body, response.headers.get("docker-content-digest", ""))
        digest = f"sha256:{hashlib.sha256(response.body).hexdigest()}"
        return Manifest(response.body, media_type, digest)

    def _manifest_request(self, method: str, path: RepositoryPath, reference: str) -> Request:
        return Request(
            method=method,
            url=self._connection.url(path, f"manifests/{validate_reference(reference)}"),
            operation=f"look up {reference} of {path}",
            resource=f"{path}:{reference}",
            scopes=pull(path),
            accept=_ACCEPT_MANIFESTS,
            max_body=MAX_MANIFEST,
        )

    def _media_type(self, request: Request, response: Response) -> str:
        """Return a manifest's media type, empty where the registry states none; rejects for example HTML."""
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type in _GENERIC_MEDIA_TYPES:
            return ""
        if media_type and media_type not in _ACCEPTED_MEDIA_TYPES:
            raise self._violation(request, f"{response.status} with {printable(media_type)}, not a manifest")
        return media_type

    def _type_of(self, request: Request, response: Response) -> str:
        """Return the media type that a manifest itself states; an image manifest needs to state none."""
        manifest = parse_object(response.body)
        if manifest is None or not _is_manifest(manifest):
            raise self._violation(request, "response is not a manifest")
        media_type = manifest.get("mediaType")
        return media_type if media_type in _ACCEPTED_MEDIA_TYPES else MANIFEST_MEDIA_TYPE

    def _check_digest(self, request: Request, content: bytes, claimed: str) -> None:
        """Verify content against a digest; a tag, an empty string or an unknown algorithm is ignored."""
        algorithm, _, expected = claimed.partition(":")
        if algorithm in _HASHES and hashlib.new(algorithm, content).hexdigest() != expected:
            raise self._violation(request, "content does not match its digest")

    async def put_manifest(self, path: RepositoryPath, reference: str, content: bytes, media_type: str) -> None:
        """Store a manifest.

        It is sent at most once: after a lost response, a second request could overwrite what somebody else has pushed
        in between.
        """
        request = Request(
            method="PUT",
            url=self._connection.url(path, f"manifests/{validate_reference(reference)}"),
            operation=f"push {reference} to {path}",
            resource=path,
            scopes=push(path),
            expected=_MANIFEST_STORED,
            content=content,
            content_type=media_type,
            once=True,
        )
        response = await self._connection.send(request)
        if response.status == HTTPStatus.OK and not {"location", "docker-content-digest"} & set(response.headers):
            # As from any web server.
            raise self._violation(request, "unexpected status 200 OK", status=response.status)
        self._check_digest(request, content, response.headers.get("docker-content-digest", ""))

    async def head_blob(self, path: RepositoryPath, digest: str) -> int:
        """Return a blob's size in bytes; 0 where the registry states none.

        Raises:
            ResourceNotFound: The blob does not exist.
        """
        return await self._uploads.head(path, digest)

    async def put_blob(
        self, path: RepositoryPath, content: bytes, digest: str, *, mount_from: RepositoryPath | None
    ) -> int:
        """Add a blob to a repository (see :meth:`controller.registry.uploads.Uploads.put`)."""
        return await self._uploads.put(path, content, digest, mount_from=mount_from)

    async def try_push(self, path: RepositoryPath) -> None:
        """Start a push and cancel it (see :meth:`controller.registry.uploads.Uploads.start_and_cancel`)."""
        await self._uploads.start_and_cancel(path)

    def stop_mounting(self) -> None:
        """Upload every blob from now on, since the registry did not have one that it had mounted."""
        self._uploads.stop_mounting()

    def _violation(self, request: Request, cause: str, *, status: int | None = None) -> ProtocolViolation:
        return ProtocolViolation(request.operation, str(self._connection.endpoint), cause, status=status)


def _is_manifest(value: dict[str, Any]) -> bool:
    """Return whether a JSON object has a part that only manifests have; a web server's own JSON has not."""
    return "schemaVersion" in value or value.get("mediaType") in _ACCEPTED_MEDIA_TYPES
