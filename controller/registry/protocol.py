"""What an artifact registry is to its callers: the operations, and the values they take and return.

The operations are those of the seed's trait ``ArtifactRegistry``, plus :meth:`ArtifactRegistry.ensure_repository`,
which the operator works with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Origin(StrEnum):
    """Whether a repository's content is ours or was there before; decided at first sight."""

    CREATED = "Created"
    """Nothing was there, or the marker alone."""

    ADOPTED = "Adopted"
    """There was a tag that is not the marker."""


class ArtifactRegistryPermissions(StrEnum):
    """What credentials shall allow."""

    PULL = "Pull"
    PUSH_PULL = "PushPull"


@dataclass(frozen=True, slots=True)
class RepositoryResponse:
    """A repository.

    Args:
        name: Its name, without the registry and the path prefix.
        uri: ``host[:port]/prefix/name``, without scheme; what stands in an ``image:`` field, less the tag.
        created_at: When it was created; None, since registries do not tell.
    """

    name: str
    uri: str
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EnsuredRepository:
    """A repository that exists now.

    Args:
        name: Its name, without the registry and the path prefix.
        path: Its path in the registry, with the prefix.
        uri: ``host[:port]/path``, without scheme.
        origin: Whether its content is ours; what the caller knew already, else what was seen.
        created: Whether this very call pushed the marker.
    """

    name: str
    path: str
    uri: str
    origin: Origin
    created: bool


@dataclass(frozen=True, slots=True)
class ArtifactRegistryCredentials:
    """Credentials for people and programs that push and pull.

    Args:
        username: The user; empty for anonymous access.
        password: The password; empty for anonymous access.
        expires_at: When they expire; None: never.
    """

    username: str
    password: str = field(repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CrossAccountAccess:
    """Who else shall reach a repository, in a cloud registry's terms.

    Args:
        accounts: Ids of cloud accounts.
    """

    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CrossAccountPermissions:
    """Who else reaches a repository.

    Args:
        access: Who.
        last_updated: Since when.
    """

    access: CrossAccountAccess
    last_updated: datetime | None = None


class ArtifactRegistry(Protocol):
    """A place for repositories."""

    @property
    def registry_endpoint(self) -> str:
        """The registry's base URL, with scheme."""
        ...

    @property
    def upstream_repository_prefix(self) -> str:
        """The prefix under which the seed's proxy forwards pushes."""
        ...

    async def ensure_repository(self, name: str, *, known_origin: Origin | None = None) -> EnsuredRepository:
        """Make sure that a repository exists."""
        ...

    async def create_repository(self, name: str) -> RepositoryResponse:
        """Make sure that a repository exists."""
        ...

    async def get_repository(self, name: str) -> RepositoryResponse:
        """Return a repository that exists."""
        ...

    async def delete_repository(self, name: str) -> None:
        """Accept that a repository is not wanted any more."""
        ...

    async def add_cross_account_access(self, name: str, access: CrossAccountAccess) -> None:
        """Let others reach a repository."""
        ...

    async def remove_cross_account_access(self, name: str, access: CrossAccountAccess) -> None:
        """Let others no longer reach a repository."""
        ...

    async def get_cross_account_access(self, name: str) -> CrossAccountPermissions:
        """Return who else reaches a repository."""
        ...

    async def generate_credentials(
        self, name: str, permissions: ArtifactRegistryPermissions, *, ttl_seconds: int | None = None
    ) -> ArtifactRegistryCredentials:
        """Return credentials for a repository."""
        ...

    async def get_manifest(self, path: str, reference: str) -> tuple[bytes, str]:
        """Return a manifest's bytes and media type."""
        ...

    async def head_manifest(self, path: str, reference: str) -> tuple[str, str] | None:
        """Return a manifest's media type and digest, or None."""
        ...

    async def head_blob(self, path: str, digest: str) -> int | None:
        """Return a blob's size, or None."""
        ...

    async def ping(self) -> None:
        """Return if the registry answers."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...
