"""When an object is reconciled again after an attempt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from controller.backoff import Backoff

QUICK: Final = Backoff(first=0.5, cap=60.0)
"""For failures that may pass in a moment."""

SLOW: Final = Backoff(first=10.0, cap=300.0)
"""For failures that a person has to fix."""


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do until the object changes or is resynced."""


@dataclass(frozen=True, slots=True)
class RequeueAfter:
    """Reconcile again after a delay; this is not a failure.

    Args:
        delay: Seconds.
    """

    delay: float


@dataclass(frozen=True, slots=True)
class Retry:
    """Reconcile again after a backoff that grows with each consecutive failure.

    Args:
        backoff: The backoff.
        latest: The longest delay, in seconds, where the passing of time changes the status then; None for no limit.
        earliest: The shortest delay, in seconds, as the registry asked.
    """

    backoff: Backoff
    latest: float | None = None
    earliest: float = 0.0


@dataclass(frozen=True, slots=True)
class WhenAvailable:
    """Reconcile again when the registry's breaker lets calls through.

    Args:
        registry: The registry's name.
        latest: The longest delay, in seconds, where the passing of time changes the status then; None for no limit.
    """

    registry: str
    latest: float | None = None


Requeue = Done | RequeueAfter | Retry | WhenAvailable
"""When an object is reconciled again."""


def no_later_than(requeue: Requeue, delay: float) -> Requeue:
    """Return when to reconcile again, no later than after a delay, such as that of a reserved write."""
    match requeue:
        case WhenAvailable():
            return replace(requeue, latest=delay)
        case RequeueAfter(sooner) if sooner < delay:
            return requeue
        case _:
            return RequeueAfter(delay)
