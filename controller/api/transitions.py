"""Conditions over time: when one changed its status, and how long an object may still be Reconciling."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from controller.api.conditions import OWNED, ConditionStatus, ConditionType
from controller.api.reasons import Reason
from controller.api.v1alpha1 import ArtifactRepository
from controller.config import Timings

_LATE: Final = Reason.PROGRESS_DEADLINE_EXCEEDED
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class Condition(NamedTuple):
    """Status, reason and message of a condition."""

    status: str
    reason: str
    message: str


def updated_conditions(
    repository: ArtifactRepository, now: datetime, desired: Mapping[ConditionType, Condition]
) -> list[Mapping[str, Any]]:
    """Return all conditions of an object in their current order: those of other owners unchanged, ours as given.

    Args:
        repository: The object.
        now: The time, with zone; the transition time of a condition whose status changes.
        desired: The operator's conditions; one that is missing is removed.
    """
    ours: dict[str, Mapping[str, Any]] = {}
    for type_, (status, reason, message) in desired.items():
        before = repository.condition(type_)
        changed = before.get("status") != status or not before.get("lastTransitionTime")
        if type_ is ConditionType.RECONCILING:
            changed = changed or _is_restarted(before, repository, now)
        ours[type_] = {
            "type": str(type_),
            "status": str(status),
            "reason": str(reason),
            "message": message,
            "observedGeneration": repository.generation,
            "lastTransitionTime": _format_time(now) if changed else before["lastTransitionTime"],
        }
    # Keep the order: a condition that another owner appends must not cause a write.
    known = [
        c for c in repository.status.get("conditions") or () if c.get("type") in ours or c.get("type") not in OWNED
    ]
    return [*(ours.pop(c.get("type"), c) for c in known), *ours.values()]


def time_left(repository: ArtifactRepository, now: datetime, timings: Timings) -> timedelta:
    """Return how long an object may remain Reconciling; zero or less if it becomes Stalled.

    Args:
        repository: The object at the start of the attempt.
        now: The time, with zone.
        timings: Has the progress deadline.
    """
    stalled = repository.condition(ConditionType.STALLED)
    is_late = stalled.get("status") == ConditionStatus.TRUE and stalled.get("reason") == _LATE
    if is_late and not _is_outdated(stalled, repository):
        return timedelta(0)
    reconciling = repository.condition(ConditionType.RECONCILING)
    if reconciling.get("status") != ConditionStatus.TRUE or _is_restarted(reconciling, repository, now):
        return timings.progress_deadline
    return timings.progress_deadline - (now - _parse_time(reconciling.get("lastTransitionTime")))


def _is_restarted(reconciling: Mapping[str, Any], repository: ArtifactRepository, now: datetime) -> bool:
    """Return whether the deadline starts now although the object is Reconciling already.

    It starts with each generation, and where an edit or another clock put its start into the future.
    """
    return _is_outdated(reconciling, repository) or _parse_time(reconciling.get("lastTransitionTime")) > now


def _is_outdated(condition: Mapping[str, Any], repository: ArtifactRepository) -> bool:
    """Return whether a condition is about an older generation."""
    observed: object = condition.get("observedGeneration", repository.generation)
    return observed != repository.generation


def _format_time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_time(text: Any) -> datetime:
    """Parse the time of a condition; anything else, by an edit of status, counts as the distant past."""
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return _EPOCH
    return time if time.tzinfo else time.replace(tzinfo=UTC)
