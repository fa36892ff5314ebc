"""Condition reasons."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self


class Reason(StrEnum):
    """Reason of a condition, with the description of it in docs/status.md."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        """Create a member with its description."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    REPOSITORY_READY = "RepositoryReady", "The repository exists and can be used."
    IMAGE_PUSHED = "ImagePushed", "Of Populated: the repository has a tag."
    NO_IMAGE = "NoImage", "Of Populated: no image has been pushed yet."
    SUSPENDED = "Suspended", "spec.suspend is true; the registry is not contacted."
    REGISTRY_UNAVAILABLE = "RegistryUnavailable", "The registry does not respond, or responds with errors; retried."
    TLS_VERIFICATION_FAILED = "TLSVerificationFailed", "The registry's certificate was rejected; retried."
    AUTHENTICATION_FAILED = "AuthenticationFailed", "The registry does not accept the operator's credentials; retried."
    ACCESS_DENIED = "AccessDenied", "The operator's credentials do not allow pulling or pushing; retried."
    REGISTRY_READ_ONLY = "RegistryReadOnly", "The registry is read-only; retried."
    NAME_NOT_SUPPORTED = "NameNotSupported", "The registry does not accept names of this form; retried."
    UNEXPECTED_ANSWER = "UnexpectedAnswer", "The registry's response violates the OCI specification; retried."
    CREATION_RATE_LIMITED = (
        "CreationRateLimited",
        "The namespace creates repositories faster than the operator's configuration allows; created in turn.",
    )
    UNKNOWN_REGISTRY = "UnknownRegistry", "The operator's configuration has no registry of this name; retried."
    REGISTRY_NOT_ALLOWED = "RegistryNotAllowed", "The object's namespace may not use the registry; not retried."
    POLICY_VIOLATION = "PolicyViolation", "The registry's repositoryPolicy forbids the name; not retried."
    INVALID_NAME = "InvalidName", "The repository name is invalid or too long; not retried."
    PROGRESS_DEADLINE_EXCEEDED = (
        "ProgressDeadlineExceeded",
        "Not Ready for longer than the deadline; still retried.",
    )


TERMINAL_REASONS: Final = frozenset({Reason.REGISTRY_NOT_ALLOWED, Reason.POLICY_VIOLATION, Reason.INVALID_NAME})
"""Reasons that only a change of the object or of the configuration can resolve: Stalled at once, and not retried."""
