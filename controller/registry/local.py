"""``LocalArtifactRegistry``: repositories in a container registry close to the developer.

A port of the seed's Rust client of the same name. Each method's docstring lists, under "Unlike the seed", what it does
otherwise and why; what is not listed there is the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Self
from urllib.parse import urlsplit

from controller.config import RegistryBinding, parse_binding
from controller.errors import (
    InvalidNameError,
    OperationNotSupported,
    RegistryError,
    RegistryUnavailable,
    ResourceNotFound,
)
from controller.names import join_path
from controller.registry import marker
from controller.registry.answers import NAME_UNKNOWN
from controller.registry.client import Manifest, RegistryClient
from controller.registry.connection import RequestObserver, Timeouts, Transport
from controller.registry.protocol import (
    ArtifactRegistryCredentials,
    ArtifactRegistryPermissions,
    CrossAccountAccess,
    CrossAccountPermissions,
    EnsuredRepository,
    Origin,
    RepositoryResponse,
)

LATEST: Final = "latest"

_SHORT_WINDOW: Final = 2
"""Most round trips between the last question and the push of the marker."""

_SHORT_TIME: Final = 1.0
"""Longest time between the two, in seconds: a process that was frozen in between has to ask again."""

_NO_CROSS_ACCOUNT_ACCESS: Final = "a local artifact registry knows no accounts to share a repository between"

_log = logging.getLogger(__name__)


class LocalArtifactRegistry:
    """The repositories of one registry binding.

    A registry has no call "create a repository": one comes into being with its first manifest. Creating one here means
    to push the marker (:mod:`controller.registry.marker`) as its tag ``latest``.

    Unlike the seed:

    - The constructor does no more than check the binding, so it is a plain one. The registry's URL may have a scheme
      and a trailing slash; in the seed both broke the references made from it.
    - One connection pool serves all calls, where the seed opens a connection for each; every call has timeouts.
    - The path prefix is the binding's name, as in the seed, unless the binding says otherwise (``pathPrefix``).
    - Names are checked before a URL is built, so no name leads to another path.

    Args:
        binding_name: The binding's name in the configuration.
        binding: The binding, as read or as its raw fields.
        timeouts: How long one request may take.
        on_request: Called after each request that was sent.
        transport: Instead of the network.

    Raises:
        BindingConfigInvalid: It is not the local variant, or one of its fields cannot be used.
    """

    def __init__(
        self,
        binding_name: str,
        binding: RegistryBinding | Mapping[str, Any],
        *,
        timeouts: Timeouts | None = None,
        on_request: RequestObserver | None = None,
        transport: Transport | None = None,
    ) -> None:
        checked = parse_binding(binding_name, binding)
        self._prefix = checked.prefix(binding_name)
        self._url = checked.registry_url
        # The port as written, the scheme's own one, too: without any, Docker reads `registry/x` as one on Docker Hub.
        self._host = urlsplit(self._url).netloc
        self._client = RegistryClient(
            binding_name, checked, timeouts=timeouts, on_request=on_request, transport=transport
        )
        self._writers: dict[str, _Writers] = {}
        self._mount_source: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._client.close()

    async def ping(self) -> None:
        """Return if the registry answers.

        Raises:
            RegistryError: It does not.
        """
        await self._client.ping()

    @property
    def registry_endpoint(self) -> str:
        """The registry's base URL: ``http://`` and the host, unless the binding's URL has a scheme."""
        return self._url

    @property
    def upstream_repository_prefix(self) -> str:
        """The prefix under which the seed's proxy forwards pushes."""
        return "artifacts/default"

    def path(self, name: str) -> str:
        """Return a repository's path in the registry.

        Raises:
            InvalidNameError: It is no repository name, or too long.
        """
        return join_path(self._prefix, name)

    def uri(self, name: str) -> str:
        """Return a repository's address without scheme and tag.

        Raises:
            InvalidNameError: It is no repository name, or too long.
        """
        return f"{self._host}/{self.path(name)}"

    def reference(self, name: str) -> str:
        """Return the reference of a repository's ``latest``.

        Raises:
            InvalidNameError: It is no repository name, or too long.
        """
        return f"{self.uri(name)}:{LATEST}"

    async def ensure_repository(self, name: str, *, known_origin: Origin | None = None) -> EnsuredRepository:
        """Make sure that a repository exists, without ever overwriting or shadowing a tag.

        In the steady state this is one request: a HEAD of ``latest``. What is not found so is looked at closely, and
        only if there is clearly nothing, the marker is pushed: three requests in all, once there is another marker
        whose config blob can be mounted.

        No registry honours a conditional PUT. Between the answer to the last question and the marker's PUT lie at most
        two round trips; a ``latest`` that somebody else pushes right then is lost.

        Args:
            name: The repository's name, without the path prefix.
            known_origin: What an earlier call returned as ``origin``, so that it need not be found out again.

        Raises:
            InvalidNameError: It is no repository name, or too long.
            RegistryError: The registry did not answer clearly, or did not take the marker.
        """
        path = self.path(name)
        created = False
        origin = known_origin
        if origin is None or not await self._has_latest(path):
            async with self._only_writer(path):
                seen = await self._look(path)
                if seen is None:
                    seen, created = await self._create(path)
            origin = origin or seen
        if origin is Origin.CREATED and self._mount_source is None:
            # A repository of ours holds the blob. If it was taken out since, the mount becomes an upload.
            self._mount_source = path
        return EnsuredRepository(name, path, self.uri(name), origin, created)

    async def create_repository(self, name: str) -> RepositoryResponse:
        """Make sure that a repository exists.

        Unlike the seed: a ``latest`` that is there is never overwritten, and none is added where other tags are. The
        seed pushes its marker in any case, and so takes ``latest`` away from an image.

        Raises:
            InvalidNameError: It is no repository name, or too long.
            RegistryError: The registry did not answer clearly, or did not take the marker.
        """
        ensured = await self.ensure_repository(name)
        return RepositoryResponse(ensured.name, ensured.uri)

    async def get_repository(self, name: str) -> RepositoryResponse:
        """Return a repository that exists.

        Unlike the seed: a repository with other tags, but no ``latest``, is found, too.

        Raises:
            InvalidNameError: It is no repository name, or too long.
            ResourceNotFound: The registry says clearly that there is none.
            RegistryError: The registry did not answer clearly.
        """
        path = self.path(name)
        if not await self._has_latest(path) and await self._look(path) is None:
            raise ResourceNotFound(name)
        return RepositoryResponse(name, self.uri(name))

    async def delete_repository(self, name: str) -> None:
        """Do nothing: this client keeps no state, and what is in a registry belongs to those who pushed it."""
        _log.debug("repository '%s' is left as it is", name)

    async def add_cross_account_access(self, name: str, access: CrossAccountAccess) -> None:
        """Refuse.

        Raises:
            OperationNotSupported: Always.
        """
        del name, access
        raise OperationNotSupported("add_cross_account_access", _NO_CROSS_ACCOUNT_ACCESS)

    async def remove_cross_account_access(self, name: str, access: CrossAccountAccess) -> None:
        """Refuse.

        Raises:
            OperationNotSupported: Always.
        """
        del name, access
        raise OperationNotSupported("remove_cross_account_access", _NO_CROSS_ACCOUNT_ACCESS)

    async def get_cross_account_access(self, name: str) -> CrossAccountPermissions:
        """Refuse.

        Raises:
            OperationNotSupported: Always.
        """
        del name
        raise OperationNotSupported("get_cross_account_access", _NO_CROSS_ACCOUNT_ACCESS)

    async def generate_credentials(
        self, name: str, permissions: ArtifactRegistryPermissions, *, ttl_seconds: int | None = None
    ) -> ArtifactRegistryCredentials:
        """Return empty credentials without expiry: people reach a local registry as they always do.

        The operator's own credentials are never handed out here.
        """
        del name, permissions, ttl_seconds
        return ArtifactRegistryCredentials(username="", password="")

    async def get_manifest(self, path: str, reference: str) -> tuple[bytes, str]:
        """Return a manifest's very bytes and its media type (an OCI image manifest where the registry says none).

        Unlike the seed: all four manifest types are asked for, since registries answer 404 to a request that leaves out
        the type they hold; the digest is checked; what is no manifest is an error.

        Args:
            path: Full path in the registry, with the prefix, as in the seed.
            reference: Tag or digest.

        Raises:
            InvalidNameError: Path or reference must not stand in a URL.
            RegistryError: The registry answered anything but the manifest; with its status.
        """
        manifest = await self._client.get_manifest(path, reference)
        return manifest.content, manifest.media_type

    async def head_manifest(self, path: str, reference: str) -> tuple[str, str] | None:
        """Return a manifest's media type and digest, or None if it is missing or anything fails.

        Unlike the seed: where a registry tells no digest, the manifest is fetched and hashed; the seed returns None for
        every manifest of such a registry.

        Args:
            path: Full path in the registry, with the prefix, as in the seed.
            reference: Tag or digest.
        """
        try:
            head = await self._client.head_manifest(path, reference)
            if head.media_type and head.digest:
                return head.media_type, head.digest
            manifest = await self._client.get_manifest(path, reference)
        except (RegistryError, InvalidNameError) as error:
            _log.debug("no manifest %s of %s: %s", reference, path, error)
            return None
        return manifest.media_type, manifest.digest

    async def head_blob(self, path: str, digest: str) -> int | None:
        """Return a blob's size in bytes, or None if it is missing or anything fails.

        Args:
            path: Full path in the registry, with the prefix, as in the seed.
            digest: The blob's digest.
        """
        try:
            return await self._client.head_blob(path, digest)
        except (RegistryError, InvalidNameError) as error:
            _log.debug("no blob %s of %s: %s", digest, path, error)
            return None

    async def _has_latest(self, path: str) -> bool:
        """Tell by one HEAD whether ``latest`` is there; False means no more than that it takes a closer look."""
        try:
            head = await self._client.head_manifest(path, LATEST)
        except ResourceNotFound:
            return False
        # An answer that says nothing about a manifest may come from anything that speaks HTTP.
        return head.media_type is not None or head.digest is not None

    async def _look(self, path: str) -> Origin | None:
        """Return what a repository holds: a tag that is not the marker, the marker alone, or clearly nothing (None)."""
        try:
            tags = await self._client.list_tags(path, at_most=2)
        except ResourceNotFound as error:
            if NAME_UNKNOWN in error.codes:
                return None
            tags = ()  # a registry that lists no tags answers a bare 404 for a repository that exists, too
        if any(tag != LATEST for tag in tags):
            return Origin.ADOPTED
        # A tag may be listed whose manifest is gone, and an empty list may come from a registry that lists nothing.
        latest = await self._find_latest(path)
        if latest is None:
            return None
        return Origin.CREATED if marker.is_marker(latest.content) else Origin.ADOPTED

    async def _find_latest(self, path: str) -> Manifest | None:
        try:
            return await self._client.get_manifest(path, LATEST)
        except ResourceNotFound:
            return None

    async def _create(self, path: str) -> tuple[Origin, bool]:
        """Push the marker to where nothing was a moment ago; return what is there then, and whether it was pushed."""
        asked = time.monotonic()
        with _pushing():
            trips = await self._client.put_blob(
                path, marker.CONFIG, marker.CONFIG_DIGEST, mount_from=self._mount_source
            )
        if trips > _SHORT_WINDOW or time.monotonic() - asked > _SHORT_TIME:
            seen = await self._look(path)
            if seen is not None:
                return seen, False
        with _pushing():
            await self._client.put_manifest(path, LATEST, marker.MANIFEST, marker.MANIFEST_MEDIA_TYPE)
        self._mount_source = path
        _log.debug("pushed the marker to %s", path)
        return Origin.CREATED, True

    @asynccontextmanager
    async def _only_writer(self, path: str) -> AsyncIterator[None]:
        """Keep others from writing to a repository: some registries fail where two pushes to a new one meet."""
        writers = self._writers.setdefault(path, _Writers())
        writers.count += 1
        try:
            async with writers.lock:
                yield
        finally:
            writers.count -= 1
            if not writers.count:
                del self._writers[path]


class _Writers:
    """The lock of one path, and how many hold it or wait for it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.count = 0


@contextmanager
def _pushing() -> Iterator[None]:
    """Mark an error as a push's: the question before it was answered, so questions still are."""
    try:
        yield
    except RegistryUnavailable as error:
        error.pushing = error.status is not None and error.retry_after is None
        raise
