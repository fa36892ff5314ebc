"""What the controller remembers of each object."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import inf
from typing import Final

from controller.api.conditions import ConditionStatus, ConditionType
from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.errors import Conflict, KubernetesError
from controller.reconcile.creations import Permit
from controller.reconcile.ratelimit import Reservation

_MAX_MESSAGES: Final = 4
"""Messages that are remembered of one object, while the API server does not answer."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What an object holds of rate limits while it waits.

    Args:
        write: Reservation of its failure write; None for none.
        creation: Permit to create its repository; None for none.
    """

    write: Reservation | None = None
    creation: Permit | None = None

    def release(self) -> None:
        """Give back what was not used."""
        for claim in (self.write, self.creation):
            if claim is not None:
                claim.release()


NO_CLAIMS: Final = Claims()
"""Shared by all objects that hold none, which are nearly all."""


@dataclass(slots=True)
class Record:
    """What the controller knows of one object, whether it is queued or not.

    Failures of the registry and of the API server are counted separately: the backoff for one must not grow with the
    other, and only those of the registry say how long a repository could not be verified.

    Args:
        last_seen: When it was last reported or reconciled, on the monotonic clock.
        version: The newest known version of it, or of an object of the same name before it.
        ready: Status of its Ready condition; Unknown until it is reconciled.
        waiting_for: The registry whose recovery it waits for; None for none.
        claims: What it holds of rate limits.
        failures: Consecutive attempts that are retried.
        failing_since: When its repository could first not be verified, on the monotonic clock; None if it was verified.
        api_failures: Consecutive failures of requests to the API server.
        messages: The messages of failures that may be on the object: the last, and those whose write was not answered.
        left_version: Its version at the end of the last reconcile; None before the first one.
        left_status: Fingerprint of its status then.
        corrected: When a status that somebody else wrote was or will be corrected, on the monotonic clock.
    """

    last_seen: float
    version: int
    ready: str = ConditionStatus.UNKNOWN
    waiting_for: str | None = None
    claims: Claims = NO_CLAIMS
    failures: int = 0
    failing_since: float | None = None
    api_failures: int = 0
    messages: tuple[str, ...] = ()
    left_version: int | None = None
    left_status: int = 0
    corrected: float = -inf

    def note_attempt(self, now: float, *, failed: bool) -> None:
        """Record whether an attempt could verify the repository.

        Args:
            now: The time, on the monotonic clock.
            failed: Whether it could not.
        """
        if not failed:
            self.failures, self.failing_since = 0, None
        elif self.failing_since is None:
            self.failing_since = now

    def note_message(self, message: str | None, error: KubernetesError | None) -> None:
        """Record the message of Ready that an attempt decided on.

        Args:
            message: The message; None unless the attempt failed.
            error: Why it could not be written; None where it is on the object. Only a conflict is certain not to have
                written it.
        """
        if error is None:
            self.messages = () if message is None else (message,)
        elif message is not None and not isinstance(error, Conflict) and message not in self.messages:
            self.messages = (*self.messages, message)[-_MAX_MESSAGES:]


class Records:
    """The record of each object that is known."""

    def __init__(self) -> None:
        self._records: dict[Key, Record] = {}

    def get(self, key: Key) -> Record | None:
        """Return the record of an object; None where it is not known."""
        return self._records.get(key)

    def pop(self, key: Key) -> Record | None:
        """Remove the record of an object and return it; None where it is not known."""
        return self._records.pop(key, None)

    def see(self, repository: ArtifactRepository, now: float) -> None:
        """Note that an object was reported or reconciled.

        Args:
            repository: A state of it.
            now: The time, on the monotonic clock.
        """
        record = self._records.get(repository.key)
        if record is None:
            ready = ready_status(repository) if repository.is_handled else ConditionStatus.UNKNOWN
            self._records[repository.key] = Record(now, repository.version, ready)
        else:
            record.last_seen, record.version = now, max(record.version, repository.version)

    def has_newer(self, repository: ArtifactRepository) -> bool:
        """Return whether a newer version of an object, or a newer object of its name, is known."""
        record = self._records.get(repository.key)
        return record is not None and record.version > repository.version

    def unseen_since(self, time: float, *, namespace: str) -> list[Key]:
        """Return the objects that were neither reported nor reconciled since a time.

        Args:
            time: The time, on the monotonic clock.
            namespace: The namespace to consider; empty for all.
        """
        return [
            key for key, record in self._records.items() if record.last_seen < time and namespace in ("", key.namespace)
        ]

    def ready_statuses(self) -> list[str]:
        """Return the status of every object's Ready condition, for metrics."""
        return [record.ready for record in self._records.values()]


def ready_status(repository: ArtifactRepository) -> str:
    """Return the status of an object's Ready condition; Unknown without one."""
    status = repository.condition(ConditionType.READY).get("status", ConditionStatus.UNKNOWN)
    return sys.intern(str(status))  # one string, whatever the number of objects
