"""Outcomes of an attempt to verify a repository, from which the next status is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from controller.addresses import RegistryAddresses
from controller.api.reasons import Reason
from controller.api.target import Target
from controller.registry.protocol import Origin


@dataclass(frozen=True, slots=True)
class Verified:
    """The repository exists.

    Args:
        target: The repository.
        addresses: The addresses of its registry.
        origin: Whether the operator created or adopted it.
        tags: The value of ``status.tags``; None where tags are not reported.
    """

    target: Target
    addresses: RegistryAddresses
    origin: Origin
    tags: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The repository could not be verified.

    Args:
        reason: Reason of the failure.
        subject: First part of the message: where the problem is; the same at each attempt.
        detail: Rest of the message: the cause, and what to do. May differ between attempts.
        registry: Binding name of the registry that the object means.
        repository_name: The name of the repository; None if none can be formed.
        failing_for: Time since the failures of this object began.
    """

    reason: Reason
    subject: str
    detail: str
    registry: str
    repository_name: str | None
    failing_for: timedelta = timedelta(0)

    @property
    def message(self) -> str:
        """The complete message."""
        return f"{self.subject}{self.detail}"


@dataclass(frozen=True, slots=True)
class Suspended:
    """Reconciliation of the object is suspended.

    Args:
        registry: Binding name of the registry that the object means.
        repository_name: The name of the repository; None if none can be formed.
    """

    registry: str
    repository_name: str | None


Outcome = Verified | Failed | Suspended
