"""The ``ArtifactRepository`` type, as far as the operator uses it.

The API server validates objects by the schema in manifests/crd.yaml. Users may edit ``status`` within that schema.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

from controller.api.conditions import ConditionType

GROUP: Final = "artifacts.alien.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "ArtifactRepository"
PLURAL: Final = "artifactrepositories"
API_VERSION: Final = f"{GROUP}/{VERSION}"

REQUESTED_AT_ANNOTATION: Final = f"{GROUP}/requestedAt"
"""A new value (usually the time) requests a verification; it is echoed in ``lastHandledReconcileAt``."""

MAX_REQUESTED_AT: Final = 256
"""Length in characters at which a requestedAt is cut off: an annotation may have 256 KiB, and status repeats it."""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

_NEW: Final[Mapping[str, Any]] = MappingProxyType({"observedGeneration": -1})
"""The status of a new object, by the schema's default; shared by all of them."""


class Key(NamedTuple):
    """Namespace and name of an object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PackedStatus(Mapping[str, Any]):
    """A status as JSON text, parsed at each access: a third of the memory.

    Args:
        status: The status.
    """

    __slots__ = ("_text",)

    def __init__(self, status: dict[str, Any]) -> None:
        self._text = json.dumps(status, separators=(",", ":"))

    def unpacked(self) -> dict[str, Any]:
        """Return the status."""
        status: dict[str, Any] = json.loads(self._text)
        return status

    def __getitem__(self, name: str) -> Any:
        return self.unpacked()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.unpacked())

    def __len__(self) -> int:
        return len(self.unpacked())


@dataclass(frozen=True, slots=True)
class ArtifactRepository:
    """One version of an object.

    Args:
        key: Namespace and name.
        uid: The uid; an object that is deleted and created again gets another one.
        resource_version: The version; a write that is based on it is rejected if there is a newer one.
        generation: Incremented by changes of ``spec``.
        deleting: Whether a deletionTimestamp is set; such an object is left alone.
        repository_name: ``spec.repositoryName``, if set.
        registry: ``spec.registry``, if set.
        suspend: ``spec.suspend``.
        requested_at: Value of the requestedAt annotation, if set; not more than its first characters.
        status: ``status`` as read, with conditions of other owners.
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
        """Parse an object from the API server.

        Args:
            body: The object as JSON. It is not changed; ``status`` keeps a reference to a part of it.

        Raises:
            KeyError: A field is missing that every object has: this is none.
            TypeError: A field has another type than in the schema.
        """
        metadata = _mapping(body["metadata"])
        spec = _mapping(body.get("spec"))
        status = _mapping(body.get("status"))
        for condition in status.get("conditions") or ():
            _mapping(condition)
        requested_at = _mapping(metadata.get("annotations")).get(REQUESTED_AT_ANNOTATION)
        return cls(
            key=Key(sys.intern(_text(metadata["namespace"])), _text(metadata["name"])),
            uid=_text(metadata["uid"]),
            resource_version=_text(metadata["resourceVersion"]),
            generation=int(metadata["generation"]),
            deleting="deletionTimestamp" in metadata,
            repository_name=spec.get("repositoryName"),
            registry=spec.get("registry"),
            suspend=bool(spec.get("suspend")),
            requested_at=None if requested_at is None else _text(requested_at)[:MAX_REQUESTED_AT],
            status=_NEW if status == _NEW else status,
        )

    def packed(self) -> ArtifactRepository:
        """Return this version with a packed status, to be kept while it waits."""
        return replace(self, status=PackedStatus(self.status)) if isinstance(self.status, dict) else self

    def unpacked(self) -> ArtifactRepository:
        """Return this version with a status that is fast to read."""
        return replace(self, status=self.status.unpacked()) if isinstance(self.status, PackedStatus) else self

    @property
    def version(self) -> int:
        """The resource version as a number; 0 if it is not one (another implementation of the API)."""
        return int(self.resource_version) if self.resource_version.isdecimal() else 0

    def is_newer_than(self, other: ArtifactRepository) -> bool:
        """Return whether this version is newer than ``other``, by the resource version.

        If these are not numbers (another implementation of the API), this one counts as newer.
        """
        try:
            return int(self.resource_version) > int(other.resource_version)
        except ValueError:
            return True

    @property
    def is_handled(self) -> bool:
        """Whether ``status`` reflects this generation and, unless suspended, this requestedAt.

        A removed annotation is not a request: Flux removes it at its next apply.
        """
        requested = self.requested_at is not None and not self.suspend
        return self.status.get("observedGeneration") == self.generation and (
            not requested or self.status.get("lastHandledReconcileAt") == self.requested_at
        )

    def condition(self, type_: ConditionType) -> Mapping[str, Any]:
        """Return the condition of a type; an empty mapping if there is none."""
        return condition_of(self.status, type_)


def condition_of(status: Mapping[str, Any], type_: ConditionType) -> Mapping[str, Any]:
    """Return the condition of a type in a status; an empty mapping if there is none."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == type_:
            found: Mapping[str, Any] = condition
            return found
    return _NOTHING


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a JSON object; an empty one if the field is absent."""
    if value is None:
        return _NOTHING
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, not {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, not {type(value).__name__}")
    return value
