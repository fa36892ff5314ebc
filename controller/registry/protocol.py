"""Values that the operations on an artifact registry take and return.

The operations themselves are the methods of :class:`controller.registry.local.LocalArtifactRegistry`: those of the
seed's trait ``ArtifactRegistry``, and ``ensure_repository``, which the operator uses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Origin(StrEnum):
    """Whether a repository's content is the operator's; decided when the repository is first seen."""

    CREATED = "Created"
    """The repository did not exist, or held only the marker."""

    ADOPTED = "Adopted"
    """The repository had a tag that is not the marker."""


class ArtifactRegistryPermissions(StrEnum):
    """What credentials allow."""

    PULL = "Pull"
    PUSH_PULL = "PushPull"


@dataclass(frozen=True, slots=True)
class RepositoryResponse:
    """A repository.

    Args:
        name: Its name, without the registry and the path prefix.
        uri: ``host[:port]/prefix/name``, without scheme: an ``image:`` field without the tag.
        created_at: When it was created; always None, since registries do not state it.
    """

    name: str
    uri: str
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ensured:
    """Result of ensuring a repository by its path.

    Args:
        origin: Whether its content is the operator's: as the caller knew it, otherwise as seen.
        created: Whether this call pushed the marker.
    """

    origin: Origin
    created: bool


@dataclass(frozen=True, slots=True)
class EnsuredRepository:
    """Result of ensuring a repository by its name.

    Args:
        name: Its name, without the registry and the path prefix.
        path: Its path in the registry, with the prefix.
        uri: ``host[:port]/path``, without scheme.
        origin: Whether its content is the operator's: as the caller knew it, otherwise as seen.
        created: Whether this call pushed the marker.
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
        expires_at: When they expire; None for never.
    """

    username: str
    password: str = field(repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CrossAccountAccess:
    """Cross-account access to a repository, as cloud registries have it.

    Args:
        accounts: Ids of cloud accounts.
    """

    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CrossAccountPermissions:
    """Current cross-account access to a repository.

    Args:
        access: The accounts with access.
        last_updated: When it was last changed; None where unknown.
    """

    access: CrossAccountAccess
    last_updated: datetime | None = None
