"""What the engine needs from outside, as protocols: tests put fakes behind them, app.py the real things."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic
from typing import Any, Protocol

from controller.registry.protocol import EnsuredRepository, Origin
from controller.resource import ArtifactRepository, Key


class RepositoryRegistry(Protocol):
    """One registry (``LocalArtifactRegistry``)."""

    async def ensure_repository(self, name: str, *, known_origin: Origin | None = None) -> EnsuredRepository:
        """Create the repository unless it exists.

        Raises:
            RegistryError: It is not known to exist.
        """
        ...

    async def ping(self) -> None:
        """Ask whether the registry answers at all.

        Raises:
            RegistryError: It does not.
        """
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


class ObjectStore(Protocol):
    """The ``ArtifactRepository`` objects in the API server."""

    async def get(self, key: Key) -> ArtifactRepository:
        """Return the newest state of an object.

        Raises:
            ObjectGone: There is none.
            KubernetesError: It cannot be read.
        """
        ...

    async def patch_status(self, repository: ArtifactRepository, patch: Mapping[str, Any]) -> ArtifactRepository:
        """Merge ``patch`` into the status of exactly the version that was read; return the new version.

        Raises:
            ObjectGone: The object is not there any more.
            Conflict: There is a newer version.
            KubernetesError: It cannot be written.
        """
        ...

    def list_pages(self) -> AsyncIterator[Sequence[ArtifactRepository]]:
        """Return all objects that this operator watches, page by page.

        Raises:
            KubernetesError: They cannot be read.
        """
        ...


class EventType(StrEnum):
    """Kubernetes' two types of events."""

    NORMAL = "Normal"
    WARNING = "Warning"


class EventRecorder(Protocol):
    """Kubernetes events; recording never blocks and never fails."""

    def about_object(self, repository: ArtifactRepository, type_: EventType, reason: str, message: str) -> None:
        """Record what happened to an object."""
        ...

    def about_operator(self, type_: EventType, reason: str, message: str) -> None:
        """Record what happened to the operator as a whole, on its own Pod."""
        ...


class Clock(Protocol):
    """The time, twice: for people and for durations."""

    def now(self) -> datetime:
        """Return the wall-clock time, with zone."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some moment; never goes back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the wall-clock time, with zone."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since some moment; never goes back."""
        return monotonic()
