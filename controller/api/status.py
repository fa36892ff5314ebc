"""Computes the next ``status`` of an object: the state machine of docs/status.md as one pure function.

Its readers are people (``kubectl get``), kstatus (Flux, Helm) and Argo CD. By their rules, Reconciling and Stalled are
present only while True and never together, a temporary outage is InProgress rather than Failed, and
``lastTransitionTime`` changes only with the status of a condition. Equal facts give an equal status, so that nothing is
written in the steady state.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from controller.addresses import Location
from controller.api.conditions import ConditionStatus, ConditionType
from controller.api.outcome import Failed, Outcome, Suspended, Verified
from controller.api.reasons import TERMINAL_REASONS, Reason
from controller.api.tags import is_populated
from controller.api.target import recorded_names
from controller.api.transitions import Condition, time_left, updated_conditions
from controller.api.v1alpha1 import ArtifactRepository
from controller.config import Timings
from controller.durations import format_duration

_SUSPENDED: Final = "Suspended by spec.suspend; set it to false to resume. The registry is not contacted."
_POPULATED: Final = Condition(ConditionStatus.TRUE, Reason.IMAGE_PUSHED, "status.tags has the number of tags")
_EMPTY: Final = Condition(ConditionStatus.FALSE, Reason.NO_IMAGE, "No image has been pushed yet")
_RETRYING: Final = "Retrying; Ready has the cause."


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
    own_messages: Collection[str] = (),
) -> Decision:
    """Return the status of an object after an attempt.

    Args:
        repository: The object at the start of the attempt.
        outcome: The outcome of the attempt.
        now: The time, with zone.
        timings: Intervals and deadlines.
        recorded: Where the repository in its status is; None where that is unknown, and what status says is kept.
        own_messages: The messages of Ready that this process may have written; a message of others is replaced.
    """
    match outcome:
        case Verified():
            return Decision(_verified(repository, outcome, now))
        case Suspended():
            return Decision(_suspended(repository, outcome, recorded, now))
        case Failed():
            return _failed(repository, outcome, recorded, own_messages, now, timings)


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


def _verified(repository: ArtifactRepository, outcome: Verified, now: datetime) -> dict[str, Any]:
    target = outcome.target
    location = outcome.addresses.locate(target.path)
    status = _handled(repository)
    status["registry"] = target.registry
    status["repositoryName"] = target.repository_name
    status["origin"] = str(outcome.origin)
    _set_location(status, location)
    status.pop("tags", None)
    if outcome.tags is not None:
        status["tags"] = outcome.tags
    ready = Condition(ConditionStatus.TRUE, Reason.REPOSITORY_READY, _how_to_use(location))
    _set_conditions(status, repository, now, {ConditionType.READY: ready})
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
        suspended = Condition(ConditionStatus.FALSE, Reason.SUSPENDED, _SUSPENDED)
    elif _is_same_target(repository, outcome.registry, outcome.repository_name):
        suspended = Condition(
            ready.get("status", ConditionStatus.UNKNOWN), ready.get("reason", Reason.SUSPENDED), _SUSPENDED
        )
    else:
        ready_status = ConditionStatus.UNKNOWN if status.get("uri") else ConditionStatus.FALSE
        suspended = Condition(ready_status, Reason.SUSPENDED, _SUSPENDED)
    _set_conditions(status, repository, now, {ConditionType.READY: suspended})
    return status


def _failed(
    repository: ArtifactRepository,
    outcome: Failed,
    recorded: Location | None,
    own_messages: Collection[str],
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
    message = _stable_message(ready, ready_status, outcome, own_messages)
    conditions = {ConditionType.READY: Condition(ready_status, outcome.reason, message)}
    recheck_after = None
    if terminal:
        conditions[ConditionType.STALLED] = Condition(ConditionStatus.TRUE, outcome.reason, message)
    elif (left := time_left(repository, now, timings)) > timedelta(0):
        conditions[ConditionType.RECONCILING] = Condition(ConditionStatus.TRUE, outcome.reason, _RETRYING)
        recheck_after = left
    else:
        deadline = format_duration(timings.progress_deadline)
        message = f"Not ready for more than {deadline}; retries continue. Ready has the cause."
        conditions[ConditionType.STALLED] = Condition(ConditionStatus.TRUE, Reason.PROGRESS_DEADLINE_EXCEEDED, message)
    _set_conditions(status, repository, now, conditions)
    return Decision(status, recheck_after)


def _stable_message(
    ready: Mapping[str, Any], ready_status: ConditionStatus, outcome: Failed, own_messages: Collection[str]
) -> str:
    """Return the current message if only its detail would change, which is not worth a write for each object.

    A message that this process did not decide on may say anything after its first words, so it is replaced.
    """
    current: str = ready.get("message", "")
    same = (ready.get("status"), ready.get("reason")) == (ready_status, outcome.reason)
    return current if same and current in own_messages and current.startswith(outcome.subject) else outcome.message


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
    for name in ("uri", "references", "origin", "tags"):
        status.pop(name, None)


def _set_conditions(
    status: dict[str, Any],
    repository: ArtifactRepository,
    now: datetime,
    desired: Mapping[ConditionType, Condition],
) -> None:
    """Set the conditions of a status: Populated by its tags, the others as desired."""
    populated = is_populated(status)
    if populated is not None:
        condition = _POPULATED if populated else _EMPTY
        desired = {**desired, ConditionType.POPULATED: condition}
    status["conditions"] = updated_conditions(repository, now, desired)


def _is_same_target(repository: ArtifactRepository, registry: str, repository_name: str | None) -> bool:
    """Return whether status describes the repository that the object means now."""
    status = repository.status
    return status.get("registry") == registry and repository_name in (None, status.get("repositoryName"))
