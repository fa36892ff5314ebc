"""The ``ArtifactRepository`` as the operator sees it: the object's fields, its condition types and their reasons.

Pure values. The schema that the API server enforces is manifests/crd.yaml; this module trusts it for types only where
the API server does, since ``status`` may be edited by anybody who has the right to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

GROUP: Final = "artifacts.alien.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "ArtifactRepository"
PLURAL: Final = "artifactrepositories"
API_VERSION: Final = f"{GROUP}/{VERSION}"

REQUESTED_AT_ANNOTATION: Final = f"{GROUP}/requestedAt"
"""Set it to a new value (usually the time) to have the object verified now; echoed in ``lastHandledReconcileAt``."""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class ConditionType(StrEnum):
    """The condition types that this operator owns; conditions of other types are left alone."""

    READY = "Ready"
    """True while the repository is known to exist and can be pushed to. Always present."""

    RECONCILING = "Reconciling"
    """True while the operator is still trying. Absent otherwise (the kstatus convention)."""

    STALLED = "Stalled"
    """True when trying has not helped for long, or cannot help. Absent otherwise (the kstatus convention)."""


class Reason(StrEnum):
    """Why a condition has its status. Each value is also a row of docs/status.md."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        """Make a member that is its value and carries its meaning."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    REPOSITORY_READY = "RepositoryReady", "The repository exists and its references can be used."
    SUSPENDED = "Suspended", "spec.suspend is true; the registry is not asked."
    REGISTRY_UNAVAILABLE = "RegistryUnavailable", "The registry does not answer or answers with errors; retried."
    TLS_VERIFICATION_FAILED = "TLSVerificationFailed", "The registry's certificate was refused; retried."
    AUTHENTICATION_FAILED = "AuthenticationFailed", "The registry does not accept the operator's credentials; retried."
    ACCESS_DENIED = "AccessDenied", "The operator's credentials do not allow reading or pushing there; retried."
    REGISTRY_READ_ONLY = "RegistryReadOnly", "The registry takes no writes; retried."
    NAME_NOT_SUPPORTED = "NameNotSupported", "The registry does not take names of this shape; retried."
    UNEXPECTED_ANSWER = "UnexpectedAnswer", "The registry answered outside the OCI distribution specification; retried."
    UNKNOWN_REGISTRY = "UnknownRegistry", "The operator's configuration has no registry of that name; retried."
    POLICY_VIOLATION = "PolicyViolation", "The registry's repositoryPolicy forbids the name; change the object."
    INVALID_NAME = "InvalidName", "The repository's name cannot be formed or is too long; change the object."
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded", "Retried for longer than the deadline; retries go on."


class Key(NamedTuple):
    """Identifies an object in queues and logs."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ArtifactRepository:
    """One version of one object, reduced to what the operator decides on.

    Args:
        key: Namespace and name.
        uid: Identity; a namesake that was deleted and created again has another one.
        resource_version: The version that was read; a write based on it is refused when there is a newer one.
        generation: Counts changes of ``spec``.
        deleting: A deletionTimestamp is set: no call and no write.
        repository_name: ``spec.repositoryName``, where given.
        registry: ``spec.registry``, where given.
        suspend: ``spec.suspend``.
        requested_at: Value of the requestedAt annotation, where given.
        status: ``status`` as it was read, conditions of other owners included.
    """

    key: Key
    uid: str
    resource_version: str
    generation: int
    deleting: bool = False
    repository_name: str | None = None
    registry: str | None = None
    suspend: bool = False
    requested_at: str | None = None
    status: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Return the object that the API server sent.

        Args:
            body: The object as JSON; not changed, and kept by reference only in ``status``.
        """
        metadata = body["metadata"]
        spec = body.get("spec") or _NOTHING
        return cls(
            key=Key(metadata["namespace"], metadata["name"]),
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            generation=metadata["generation"],
            deleting="deletionTimestamp" in metadata,
            repository_name=spec.get("repositoryName"),
            registry=spec.get("registry"),
            suspend=bool(spec.get("suspend")),
            requested_at=(metadata.get("annotations") or _NOTHING).get(REQUESTED_AT_ANNOTATION),
            status=body.get("status") or {},
        )

    @property
    def version(self) -> int:
        """The resource version as a number; 0 where it is none (an API server of another kind)."""
        return int(self.resource_version) if self.resource_version.isdecimal() else 0

    def is_newer_than(self, other: ArtifactRepository) -> bool:
        """Tell whether this was read after ``other``: resource versions of custom resources can be compared.

        Where they are no numbers (an API server of another kind), what is asked about counts as newer.
        """
        try:
            return int(self.resource_version) > int(other.resource_version)
        except ValueError:
            return True

    @property
    def is_handled(self) -> bool:
        """Whether ``status`` already answers this generation and, unless suspended, this requestedAt.

        An annotation that was removed asks for nothing: Flux drops it at its next apply.
        """
        asked = self.requested_at is not None and not self.suspend
        return self.status.get("observedGeneration") == self.generation and (
            not asked or self.status.get("lastHandledReconcileAt") == self.requested_at
        )

    def condition(self, type_: ConditionType) -> Mapping[str, Any]:
        """Return the condition of that type as it was read; an empty mapping where there is none."""
        for condition in self.status.get("conditions") or ():
            if condition.get("type") == type_:
                found: Mapping[str, Any] = condition
                return found
        return _NOTHING
