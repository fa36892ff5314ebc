"""Computes the next ``status`` of an object: the state machine of docs/status.md as one pure function.

Its readers are people (``kubectl get``), kstatus (Flux, Helm) and Argo CD. By their rules, Reconciling and Stalled are
present only while True and never together, a temporary outage is InProgress rather than Failed, and
``lastTransitionTime`` changes only with the status of a condition. Equal facts give an equal status, so that nothing is
written in the steady state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from controller.addresses import Location, RegistryAddresses
from controller.api.conditions import ConditionStatus, ConditionType
from controller.api.reasons import Reason
from controller.api.target import Target, recorded_names
from controller.api.v1alpha1 import ArtifactRepository
from controller.config import Timings
from controller.durations import format_duration
from controller.registry.protocol import Origin

TERMINAL_REASONS: Final = frozenset({Reason.REGISTRY_NOT_ALLOWED, Reason.POLICY_VIOLATION, Reason.INVALID_NAME})
"""Reasons that only a change of the object or of the configuration can resolve: Stalled at once, and not retried."""

_OWNED: Final = frozenset(ConditionType)
_SUSPENDED: Final = "Suspended by spec.suspend; set it to false to resume. The registry is not contacted."
_LATE: Final = Reason.PROGRESS_DEADLINE_EXCEEDED
_RETRYING: Final = "Retrying; Ready has the cause."
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Verified:
    """The repository exists.

    Args:
        target: The repository.
        addresses: The addresses of its registry.
        origin: Whether the operator created or adopted it.
    """

    target: Target
    addresses: RegistryAddresses
    origin: Origin


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


class _Condition(NamedTuple):
    """Status, reason and message of a condition."""

    status: str
    reason: str
    message: str


Outcome = Verified | Failed | Suspended


@dataclass(frozen=True, slots=True)
class Decision:
    """The next status of an object.

    Args:
        status: The complete status, with fields and conditions of other owners; equal to the current one if nothing
            changes.
        recheck_after: Time after which the status changes even if the outcome stays the same.
    """

    status: Mapping[str, Any]
    recheck_after: timedelta | None = None


def decide(
    repository: ArtifactRepository,
    outcome: Outcome,
    *,
    now: datetime,
    timings: Timings,
    recorded: Location | None = None,
    last_message: str | None = None,
) -> Decision:
    """Return the status of an object after an attempt.

    Args:
        repository: The object at the start of the attempt.
        outcome: The outcome of the attempt.
        now: The time, with zone.
        timings: Intervals and deadlines.
        recorded: Where the repository in its status is; None where that is unknown, and what status says is kept.
        last_message: The message of Ready that this process last decided on; a message of others is replaced.
    """
    match outcome:
        case Verified():
            return Decision(_verified(repository, outcome, now))
        case Suspended():
            return Decision(_suspended(repository, outcome, recorded, now))
        case Failed():
            return _failed(repository, outcome, recorded, last_message, now, timings)


def merge_patch(current: Mapping[str, Any], desired: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON merge patch (RFC 7386) from one status to another; None if they are equal.

    Args:
        current: The current status.
        desired: The desired status; fields that it lacks are removed.
    """
    patch: dict[str, Any] = {}
    for name in current.keys() | desired.keys():
        old, new = current.get(name), desired.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            patch[name] = merge_patch(old, new)
        else:
            patch[name] = new
    return patch or None


def fingerprint(status: Mapping[str, Any]) -> int:
    """Return a number that differs where two statuses differ in what the operator writes.

    Args:
        status: A status; the conditions of others in it do not count.
    """
    own = [condition for condition in status.get("conditions") or () if condition.get("type") in _OWNED]
    return hash(json.dumps({**status, "conditions": own}, sort_keys=True))


def _verified(repository: ArtifactRepository, outcome: Verified, now: datetime) -> dict[str, Any]:
    target = outcome.target
    location = outcome.addresses.locate(target.path)
    status = _handled(repository)
    status["registry"] = target.registry
    status["repositoryName"] = target.repository_name
    status["origin"] = str(outcome.origin)
    _set_location(status, location)
    ready = _Condition(ConditionStatus.TRUE, Reason.REPOSITORY_READY, _how_to_use(location))
    status["conditions"] = _conditions(repository, now, {ConditionType.READY: ready})
    return status


def _set_location(status: dict[str, Any], location: Location) -> None:
    status["uri"] = location.uri
    status.pop("references", None)
    if location.references:
        status["references"] = location.references


def _how_to_use(location: Location) -> str:
    """Return how to push and pull, by the addresses that are known; ``URI`` stands for ``status.uri``.

    An address that only Pods are known to reach is not offered for ``image:``: the kubelet pulls from the node, where
    a Service's name usually does not resolve.
    """
    host, runtime, pod = (
        "URI" if address == location.uri else address
        for address in map(location.references.get, ("host", "containerRuntime", "clusterNetwork"))
    )
    if host == runtime == "URI":
        return "Push and pull URI:TAG"
    parts = []
    if host:
        parts.append(f"Push to {host}:TAG")
    elif pod:
        parts.append(f"Push from Pods to {pod}:TAG")
    if runtime:
        parts.append(f"Pods pull {runtime}:TAG")
    elif pod:
        parts.append("to use images in Pods, set references.containerRuntime")
    return "; ".join(parts) or "Push to URI:TAG"


def _suspended(
    repository: ArtifactRepository, outcome: Suspended, recorded: Location | None, now: datetime
) -> dict[str, Any]:
    status = _unverified(repository, recorded)
    if "uri" not in status:
        names = {"registry": outcome.registry, "repositoryName": outcome.repository_name}
        status |= {name: value for name, value in names.items() if name in status}
    ready = repository.condition(ConditionType.READY)
    if not ready:
        suspended = _Condition(ConditionStatus.FALSE, Reason.SUSPENDED, _SUSPENDED)
    elif _is_same_target(repository, outcome.registry, outcome.repository_name):
        suspended = _Condition(
            ready.get("status", ConditionStatus.UNKNOWN), ready.get("reason", Reason.SUSPENDED), _SUSPENDED
        )
    else:
        ready_status = ConditionStatus.UNKNOWN if status.get("uri") else ConditionStatus.FALSE
        suspended = _Condition(ready_status, Reason.SUSPENDED, _SUSPENDED)
    status["conditions"] = _conditions(repository, now, {ConditionType.READY: suspended})
    return status


def _failed(
    repository: ArtifactRepository,
    outcome: Failed,
    recorded: Location | None,
    last_message: str | None,
    now: datetime,
    timings: Timings,
) -> Decision:
    same = _is_same_target(repository, outcome.registry, outcome.repository_name)
    was_ready = same and bool(repository.status.get("uri"))
    ready = repository.condition(ConditionType.READY)
    terminal = outcome.reason in TERMINAL_REASONS
    if not terminal and was_ready and ready.get("status") == ConditionStatus.TRUE:
        patience = timings.unavailable_after - outcome.failing_for  # it may pass in a moment, whatever the reason is
        if patience > timedelta(0):
            return Decision(repository.status, recheck_after=patience)

    status = _unverified(repository, recorded)
    if not same:
        _remove_location(status)
        status.pop("repositoryName", None)
    status["registry"] = outcome.registry
    if outcome.repository_name is not None:
        status["repositoryName"] = outcome.repository_name

    ready_status = ConditionStatus.UNKNOWN if was_ready and not terminal else ConditionStatus.FALSE
    message = _stable_message(ready, ready_status, outcome, last_message)
    conditions = {ConditionType.READY: _Condition(ready_status, outcome.reason, message)}
    recheck_after = None
    if terminal:
        conditions[ConditionType.STALLED] = _Condition(ConditionStatus.TRUE, outcome.reason, message)
    elif (left := _time_left(repository, now, timings)) > timedelta(0):
        conditions[ConditionType.RECONCILING] = _Condition(ConditionStatus.TRUE, outcome.reason, _RETRYING)
        recheck_after = left
    else:
        deadline = format_duration(timings.progress_deadline)
        message = f"Not ready for more than {deadline}; retries continue. Ready has the cause."
        conditions[ConditionType.STALLED] = _Condition(ConditionStatus.TRUE, _LATE, message)
    status["conditions"] = _conditions(repository, now, conditions)
    return Decision(status, recheck_after)


def _stable_message(
    ready: Mapping[str, Any], ready_status: ConditionStatus, outcome: Failed, last_message: str | None
) -> str:
    """Return the current message if only its detail would change, which is not worth a write for each object.

    A message that this process did not decide on may say anything after its first words, so it is replaced.
    """
    current = (ready.get("status"), ready.get("reason"), ready.get("message"))
    is_own = current == (ready_status, outcome.reason, last_message)
    return last_message if is_own and last_message and last_message.startswith(outcome.subject) else outcome.message


def _time_left(repository: ArtifactRepository, now: datetime, timings: Timings) -> timedelta:
    """Return how long the object may remain Reconciling; zero or less if it becomes Stalled."""
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


def _handled(repository: ArtifactRepository) -> dict[str, Any]:
    """Return a copy of the status with this generation and, unless suspended, this requestedAt as handled.

    ``lastHandledReconcileAt`` outlives the annotation, as in Flux: a script that waits for it must not miss it because
    a GitOps controller has removed the annotation.
    """
    status = dict(repository.status)
    status["observedGeneration"] = repository.generation
    if repository.requested_at is not None and not repository.suspend:
        status["lastHandledReconcileAt"] = repository.requested_at
    return status


def _unverified(repository: ArtifactRepository, recorded: Location | None) -> dict[str, Any]:
    """Return a copy of the status, handled, with the addresses that the operator would write for its repository."""
    status = _handled(repository)
    if recorded_names(repository) is None:
        _remove_location(status)
    elif recorded:
        _set_location(status, recorded)
    return status


def _remove_location(status: dict[str, Any]) -> None:
    for name in ("uri", "references", "origin"):
        status.pop(name, None)


def _is_same_target(repository: ArtifactRepository, registry: str, repository_name: str | None) -> bool:
    """Return whether status describes the repository that the object means now."""
    status = repository.status
    return status.get("registry") == registry and repository_name in (None, status.get("repositoryName"))


def _conditions(
    repository: ArtifactRepository, now: datetime, desired: Mapping[ConditionType, _Condition]
) -> list[Mapping[str, Any]]:
    """Return all conditions in their current order: those of other owners unchanged, ours as given."""
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
        c for c in repository.status.get("conditions") or () if c.get("type") in ours or c.get("type") not in _OWNED
    ]
    return [*(ours.pop(c.get("type"), c) for c in known), *ours.values()]


def _format_time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_time(text: Any) -> datetime:
    """Parse the time of a condition; anything else, by an edit of status, counts as the distant past."""
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return _EPOCH
    return time if time.tzinfo else time.replace(tzinfo=UTC)
