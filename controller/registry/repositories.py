"""Repositories: ensure that a repository exists, without ever overwriting or shadowing a tag.

Registries have no operation to create a repository: it exists once it has a manifest. Creating one means to push the
marker (:mod:`controller.registry.marker`) as its tag ``latest``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Final

from controller.errors import (
    AccessDenied,
    AuthenticationFailed,
    ProtocolViolation,
    PushFailed,
    RegistryError,
    RegistryUnavailable,
    ResourceNotFound,
)
from controller.names import RepositoryPath, is_tag
from controller.registry import marker
from controller.registry.client import Manifest, RegistryClient
from controller.registry.protocol import Ensured, Origin
from controller.registry.refusals import NAME_UNKNOWN

LATEST: Final = "latest"

MAX_USER_TAGS: Final = 1000
"""Maximum number of tags that are counted."""

_MAX_REQUESTS: Final = 2
"""Maximum requests between the last read and the push of the marker."""

_MAX_SECONDS: Final = 1.0
"""Maximum time between the two, in seconds: a process that was frozen in between reads again."""

_BLOB_UNKNOWN: Final = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"})

_log = logging.getLogger(__name__)


class Repositories:
    """The repositories of one registry.

    Args:
        client: The registry's client.
    """

    def __init__(self, client: RegistryClient) -> None:
        self._client = client
        self._writers: dict[RepositoryPath, _Writers] = {}
        self._mount_source: RepositoryPath | None = None
        self._marker = marker.PLAIN

    async def ensure(self, path: RepositoryPath, *, known_origin: Origin | None = None) -> Ensured:
        """Create a repository unless it exists.

        In the steady state this is one request: a HEAD of ``latest``. If it is not found, the repository is inspected,
        and only if it definitely does not exist, the marker is pushed: three requests in total, once there is another
        marker whose config blob can be mounted.

        No registry supports a conditional PUT. Between the last read and the marker's PUT there are at most two
        requests; a ``latest`` that somebody else pushes in that moment is lost.

        Args:
            path: The repository.
            known_origin: The origin that an earlier call returned; saves looking it up.

        Raises:
            RegistryError: The repository is not known to exist.
        """
        created = False
        origin = known_origin
        if origin is None or not await self.has_latest(path):
            async with self._only_writer(path):
                seen = await self.inspect(path)
                if seen is None:
                    seen, created = await self._create(path, vanished=known_origin is not None)
            origin = origin or seen
        if origin is Origin.CREATED and self._mount_source is None:
            # Most likely it has the blob. If not, the mount becomes an upload.
            self._mount_source = path
        return Ensured(origin, created)

    async def has_latest(self, path: RepositoryPath) -> bool:
        """Return by one HEAD whether ``latest`` exists; False only means that the repository has to be inspected."""
        try:
            head = await self._client.head_manifest(path, LATEST)
        except ResourceNotFound:
            return False
        # A response without a manifest's headers may come from any web server.
        return head.media_type is not None or head.digest is not None

    async def inspect(self, path: RepositoryPath) -> Origin | None:
        """Return the origin of an existing repository; None if it definitely does not exist.

        Where the registry does not list the tags, ``latest`` may show that it exists, but not that it does not.
        """
        try:
            tags = await self._client.list_tags(path, at_most=2)
        except ResourceNotFound as error:
            if NAME_UNKNOWN in error.codes:
                return None
            tags = ()  # a registry that does not list tags responds 404 without a code for any repository
        except RegistryError as error:
            if not _is_refused(error):
                raise
            return await self._inspect_unlisted(path, error)
        if any(tag != LATEST for tag in tags):
            return Origin.ADOPTED
        # A listed tag may lack its manifest, and an empty list may come from a registry that lists nothing.
        return await self._origin_of_latest(path)

    async def user_tags(self, path: RepositoryPath) -> tuple[str, ...]:
        """Return the tags of a repository without the marker, at most MAX_USER_TAGS.

        Raises:
            RegistryError: They cannot be read, or the registry does not list tags.
        """
        tags = [tag for tag in await self._client.list_tags(path, at_most=MAX_USER_TAGS) if is_tag(tag)]
        if LATEST in tags and await self._origin_of_latest(path) is not Origin.ADOPTED:
            tags.remove(LATEST)
        return tuple(tags)

    async def _inspect_unlisted(self, path: RepositoryPath, error: RegistryError) -> Origin:
        """Return the origin of a repository whose tags cannot be listed, which is no obstacle if it has ``latest``."""
        origin = await self._origin_of_latest(path)
        if origin is not None:
            return origin
        if isinstance(error, AccessDenied):
            advice = "allow the operator to list tags"
            raise AccessDenied(
                error.operation, error.endpoint, error.cause, advice=advice, status=error.status, codes=error.codes
            ) from error
        raise error

    async def _origin_of_latest(self, path: RepositoryPath) -> Origin | None:
        latest = await self._find_latest(path)
        if latest is None:
            return None
        return Origin.CREATED if marker.is_marker(latest.content) else Origin.ADOPTED

    async def _find_latest(self, path: RepositoryPath) -> Manifest | None:
        try:
            return await self._client.get_manifest(path, LATEST)
        except ResourceNotFound:
            return None

    async def _create(self, path: RepositoryPath, *, vanished: bool) -> tuple[Origin, bool]:
        """Push the marker to a repository that was just found missing.

        Args:
            path: The repository.
            vanished: Whether it existed before. The registry may then still list blobs that are gone, so none is
                mounted, and what it accepted is read again.

        Returns:
            The repository's origin, and whether it was missing and exists now.
        """
        try:
            seen = await self._push(path, self._marker, source=None if vanished else self._mount_source)
        except RegistryError as error:
            if self._marker is marker.LAYERED or type(error) is not RegistryError:
                raise
            # For example a registry that refuses images without layers.
            _log.debug("The marker was refused, adding an empty layer: %s", error)
            seen = await self._push(path, marker.LAYERED, source=None, spent=_MAX_REQUESTS)
            self._marker = marker.LAYERED
        if seen is not None:
            return seen, False
        if vanished and not await self.has_latest(path):
            return await self._replace_unserved(path), False
        self._mount_source = path
        return Origin.CREATED, True

    async def _push(
        self, path: RepositoryPath, pushed: marker.Marker, *, source: RepositoryPath | None, spent: int = 0
    ) -> Origin | None:
        """Push a marker; return the origin instead if the repository exists by now.

        Args:
            path: The repository.
            pushed: The marker.
            source: A repository that most likely has its blobs; None for none.
            spent: Requests since the repository was found missing.
        """
        started = time.monotonic()
        requests = spent
        with _pushing():
            for digest, content in pushed.blobs.items():
                requests += await self._client.put_blob(path, content, digest, mount_from=source)
        if requests > _MAX_REQUESTS or time.monotonic() - started > _MAX_SECONDS:
            seen = await self.inspect(path)
            if seen is not None:
                return seen
        try:
            with _pushing():
                await self._client.put_manifest(path, LATEST, pushed.manifest, marker.MANIFEST_MEDIA_TYPE)
        except RegistryError as error:
            if source is None or _BLOB_UNKNOWN.isdisjoint(error.codes):
                raise
            # The registry mounted a blob that it does not have.
            self._client.stop_mounting()
            return await self._push(path, pushed, source=None, spent=_MAX_REQUESTS)
        _log.debug("Pushed the marker to %s", path)
        return None

    async def _replace_unserved(self, path: RepositoryPath) -> Origin:
        """Push another marker where the registry does not serve the one that it accepted.

        Distribution 2 does so after a garbage collection while it was running: its cache lists blobs that are gone.
        It does not list those of a marker with other bytes.

        Raises:
            ProtocolViolation: The registry does not serve that one, either.
        """
        seen = await self._push(path, marker.LAYERED, source=None, spent=_MAX_REQUESTS)
        if seen is None and not await self.has_latest(path):
            raise ProtocolViolation(
                f"push {LATEST} to {path}",
                self._client.endpoint,
                "accepted, but not served",
                advice="restart the registry: a garbage collection leaves its cache stale",
            )
        _log.warning("The registry did not serve the marker of %s: restart it after a garbage collection", path)
        return seen or Origin.CREATED

    @asynccontextmanager
    async def _only_writer(self, path: RepositoryPath) -> AsyncIterator[None]:
        """Serialise writes to a repository: some registries fail on two concurrent pushes to a new one."""
        writers = self._writers.setdefault(path, _Writers())
        writers.count += 1
        try:
            async with writers.lock:
                yield
        finally:
            writers.count -= 1
            if not writers.count:
                del self._writers[path]


def _is_refused(error: RegistryError) -> bool:
    """Return whether the registry refused a read, rather than failed or required other credentials."""
    if isinstance(error, RegistryUnavailable):
        return error.status == HTTPStatus.NOT_IMPLEMENTED
    return not isinstance(error, AuthenticationFailed)


class _Writers:
    """The lock of one path, and the number of its holders and waiters."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.count = 0


@contextmanager
def _pushing() -> Iterator[None]:
    """Turn the failure of a push into PushFailed: the read just before it succeeded.

    No response at all, or one with ``Retry-After``, applies to reads, too.
    """
    try:
        yield
    except RegistryUnavailable as error:
        if error.status is None or error.retry_after is not None:
            raise
        raise PushFailed(
            error.operation,
            error.endpoint,
            error.cause,
            advice=error.advice,
            status=error.status,
            codes=error.codes,
        ) from error
