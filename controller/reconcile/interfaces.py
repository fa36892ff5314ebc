"""Interfaces of the controller's dependencies: API server, registries, event recorder and clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic
from typing import Any, NamedTuple, Protocol

from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.names import RepositoryPath
from controller.registry.protocol import Ensured, Origin


class RepositoryRegistry(Protocol):
    """Client of one registry."""

    async def ensure(self, path: RepositoryPath, *, known_origin: Origin | None = None) -> Ensured:
        """Create the repository unless it exists.

        Raises:
            RegistryError: The repository is not known to exist.
        """
        ...

    async def user_tags(self, path: RepositoryPath) -> tuple[str, ...]:
        """Return the tags of a repository besides the marker.

        Raises:
            RegistryError: They cannot be read.
        """
        ...

    async def ping(self) -> None:
        """Return if the registry responds.

        Raises:
            RegistryError: It does not.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class Page(NamedTuple):
    """A page of a list.

    Args:
        objects: Its objects.
        is_last: Whether the list ends with it.
    """

    objects: Sequence[ArtifactRepository]
    is_last: bool


class ObjectStore(Protocol):
    """The ``ArtifactRepository`` objects in the API server."""

    async def get(self, key: Key) -> ArtifactRepository:
        """Return the newest state of an object.

        Raises:
            ObjectGone: It does not exist.
            KubernetesError: It cannot be read.
        """
        ...

    async def patch_status(self, repository: ArtifactRepository, patch: Mapping[str, Any]) -> ArtifactRepository:
        """Merge ``patch`` into the status of the version that was read; return the new version.

        Raises:
            ObjectGone: The object no longer exists.
            Conflict: There is a newer version.
            KubernetesError: It cannot be written.
        """
        ...

    @property
    def namespaces(self) -> Sequence[str]:
        """The namespaces whose objects this operator reconciles; one empty name for all."""
        ...

    def list_pages(self, namespace: str) -> AsyncIterator[Page]:
        """Return the objects of a namespace that this operator reconciles, page by page.

        The next page is read when it is asked for, which may be much later. An object that exists all the time is in
        the list; one that is created or deleted in the meantime may be or not.

        Args:
            namespace: One of :attr:`namespaces`.

        Raises:
            KubernetesError: They cannot be read.
        """
        ...


class EventType(StrEnum):
    """Kubernetes' two types of events."""

    NORMAL = "Normal"
    WARNING = "Warning"


class EventRecorder(Protocol):
    """Event recorder; recording never blocks and never fails."""

    def event(self, regarding: ArtifactRepository | None, type_: EventType, reason: str, message: str) -> None:
        """Record an event.

        Args:
            regarding: The object; None for the operator's own Pod.
            type_: Normal or Warning.
            reason: The reason, in CamelCase.
            message: What happened, as a sentence.
        """
        ...


class Clock(Protocol):
    """Wall clock and monotonic clock."""

    def now(self) -> datetime:
        """Return the wall-clock time, with zone."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment; never decreases."""
        ...


class SystemClock:
    """The system's clocks."""

    def now(self) -> datetime:
        """Return the wall-clock time, with zone."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment; never decreases."""
        return monotonic()
