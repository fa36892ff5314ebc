"""What the controller remembers of each object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controller.api.conditions import ConditionStatus
from controller.reconcile.creations import Permit
from controller.reconcile.ratelimit import Reservation


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
        message: The message of Ready that was last decided on; None before the first attempt.
    """

    last_seen: float
    version: int
    ready: str = ConditionStatus.UNKNOWN
    waiting_for: str | None = None
    claims: Claims = NO_CLAIMS
    failures: int = 0
    failing_since: float | None = None
    api_failures: int = 0
    message: str | None = None

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
