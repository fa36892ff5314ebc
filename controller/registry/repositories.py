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
from typing import Final

from controller.errors import PushFailed, RegistryUnavailable, ResourceNotFound
from controller.names import RepositoryPath
from controller.registry import marker
from controller.registry.client import Manifest, RegistryClient
from controller.registry.protocol import Ensured, Origin
from controller.registry.responses import NAME_UNKNOWN

LATEST: Final = "latest"

_MAX_REQUESTS: Final = 2
"""Maximum requests between the last read and the push of the marker."""

_MAX_SECONDS: Final = 1.0
"""Maximum time between the two, in seconds: a process that was frozen in between reads again."""

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
                    seen, created = await self._create(path)
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
        """Return the origin of an existing repository; None if it definitely does not exist."""
        try:
            tags = await self._client.list_tags(path, at_most=2)
        except ResourceNotFound as error:
            if NAME_UNKNOWN in error.codes:
                return None
            tags = ()  # a registry that does not list tags responds 404 without a code for any repository
        if any(tag != LATEST for tag in tags):
            return Origin.ADOPTED
        # A listed tag may lack its manifest, and an empty list may come from a registry that lists nothing.
        latest = await self._find_latest(path)
        if latest is None:
            return None
        return Origin.CREATED if marker.is_marker(latest.content) else Origin.ADOPTED

    async def _find_latest(self, path: RepositoryPath) -> Manifest | None:
        try:
            return await self._client.get_manifest(path, LATEST)
        except ResourceNotFound:
            return None

    async def _create(self, path: RepositoryPath) -> tuple[Origin, bool]:
        """Push the marker to a repository that was just found missing; return its origin and whether it was pushed."""
        started = time.monotonic()
        with _pushing():
            requests = await self._client.put_blob(
                path, marker.CONFIG, marker.CONFIG_DIGEST, mount_from=self._mount_source
            )
        if requests > _MAX_REQUESTS or time.monotonic() - started > _MAX_SECONDS:
            seen = await self.inspect(path)
            if seen is not None:
                return seen, False
        with _pushing():
            await self._client.put_manifest(path, LATEST, marker.MANIFEST, marker.MANIFEST_MEDIA_TYPE)
        self._mount_source = path
        _log.debug("Pushed the marker to %s", path)
        return Origin.CREATED, True

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
