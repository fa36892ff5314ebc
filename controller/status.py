"""What ``status`` says next: the state machine of docs/status.md as one pure function.

Written for three readers: people (``kubectl get``), kstatus (Flux, Helm) and Argo CD. Their rules shape it: Reconciling
and Stalled are present only while True and never together; a passing outage is InProgress, not Failed; a time moves
only when the condition's status moves; and equal facts give an equal status, so that nothing is written in the steady
state, however often an object is verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from controller.config import Timings, format_duration
from controller.references import RegistryAddresses
from controller.registry.protocol import Origin
from controller.resource import ArtifactRepository, ConditionType, Reason
from controller.target import Target

TERMINAL_REASONS: Final = frozenset({Reason.POLICY_VIOLATION, Reason.INVALID_NAME})
"""What only a change of the object can mend: Stalled at once, and not retried."""

_OUTAGE_REASONS: Final = frozenset({Reason.REGISTRY_UNAVAILABLE, Reason.TLS_VERIFICATION_FAILED})
"""What may pass in a moment: a Ready object is not touched before it has lasted."""

_OWNED: Final = frozenset(ConditionType)
_SUSPENDED: Final = "Suspended by spec.suspend: the registry is not asked. Set spec.suspend to false to go on."
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Verified:
    """The repository exists.

    Args:
        target: What was verified.
        addresses: How its registry is called.
        origin: Whose it was when it was first seen.
    """

    target: Target
    addresses: RegistryAddresses
    origin: Origin


@dataclass(frozen=True, slots=True)
class Failed:
    """The repository could not be verified.

    Args:
        reason: Why.
        subject: What is wrong, in words that are the same each time; the message starts with it.
        detail: The rest of the message: what was seen, what to check. May differ from try to try.
        registry: Binding name that the object means.
        repository_name: The name it means; None where none can be formed.
        failing_for: How long this object has not been verified because of failures.
    """

    reason: Reason
    subject: str
    detail: str
    registry: str
    repository_name: str | None
    failing_for: timedelta = timedelta(0)

    @property
    def message(self) -> str:
        """The whole message."""
        return f"{self.subject}{self.detail}"


@dataclass(frozen=True, slots=True)
class Suspended:
    """The object is not to be worked on.

    Args:
        registry: Binding name that the object means.
        repository_name: The name it means; None where none can be formed.
    """

    registry: str
    repository_name: str | None


Outcome = Verified | Failed | Suspended


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with an object's status.

    Args:
        status: All of it, fields and conditions of other owners included; equal to what was read if nothing changes.
        recheck_after: When the passing of time alone will change it, if nothing else does first.
    """

    status: Mapping[str, Any]
    recheck_after: timedelta | None = None


def decide(repository: ArtifactRepository, outcome: Outcome, *, now: datetime, timings: Timings) -> Decision:
    """Return what an object's status has to say after a try.

    Args:
        repository: The object as it was when the try began.
        outcome: What came of it.
        now: The time, with zone.
        timings: How patient to be.
    """
    match outcome:
        case Verified():
            return Decision(_verified(repository, outcome, now))
        case Suspended():
            return Decision(_suspended(repository, outcome, now))
        case Failed():
            return _failed(repository, outcome, now, timings)


def merge_patch(current: Mapping[str, Any], desired: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON merge patch (RFC 7386) that turns one status into another; None where they are equal.

    Args:
        current: Status as read.
        desired: Status as it shall be; a field that it lacks is removed.
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
    target, addresses = outcome.target, outcome.addresses
    references = addresses.references(target.path)
    status = _handled(repository)
    status["registry"] = target.registry
    status["repositoryName"] = target.repository_name
    status["uri"] = f"{addresses.uri}/{target.path}"
    status.pop("references", None)
    if references:
        status["references"] = references
    status["origin"] = str(outcome.origin)
    ready = ("True", Reason.REPOSITORY_READY, _how_to_use(references, status["uri"]))
    status["conditions"] = _conditions(repository, now, {ConditionType.READY: ready})
    return status


def _how_to_use(references: Mapping[str, str], uri: str) -> str:
    """Return how to push and pull, by the addresses that are known.

    An address that only Pods are known to reach is not offered for ``image:``: the kubelet pulls from the node, where
    a Service's name usually does not resolve.
    """
    lines = []
    if "host" in references:
        lines.append(f"Push: docker push {references['host']}:TAG")
    elif "clusterNetwork" in references:
        lines.append(f"Push from a Pod to {references['clusterNetwork']}:TAG")
    if "containerRuntime" in references:
        lines.append(f"Pod: image: {references['containerRuntime']}:TAG")
    elif "clusterNetwork" in references:
        lines.append("for images of Pods, set references.containerRuntime in the operator's configuration")
    return " | ".join(lines) or f"Push to {uri}:TAG"


def _suspended(repository: ArtifactRepository, outcome: Suspended, now: datetime) -> dict[str, Any]:
    status = _handled(repository)
    ready = repository.condition(ConditionType.READY)
    if not ready:
        said = ("False", Reason.SUSPENDED, _SUSPENDED)
    elif _means_the_same(repository, outcome.registry, outcome.repository_name):
        said = (ready.get("status", "Unknown"), ready.get("reason", Reason.SUSPENDED), _SUSPENDED)
    else:
        said = ("Unknown" if status.get("uri") else "False", Reason.SUSPENDED, _SUSPENDED)
    status["conditions"] = _conditions(repository, now, {ConditionType.READY: said})
    return status


def _failed(repository: ArtifactRepository, outcome: Failed, now: datetime, timings: Timings) -> Decision:
    same = _means_the_same(repository, outcome.registry, outcome.repository_name)
    was_ready = same and bool(repository.status.get("uri"))
    ready = repository.condition(ConditionType.READY)
    if outcome.reason in _OUTAGE_REASONS and was_ready and ready.get("status") == "True":
        patience = timings.unavailable_after - outcome.failing_for
        if patience > timedelta(0):
            return Decision(repository.status, recheck_after=patience)

    status = _handled(repository)
    if not same:
        for name in ("uri", "references", "origin", "repositoryName"):
            status.pop(name, None)
    status["registry"] = outcome.registry
    if outcome.repository_name is not None:
        status["repositoryName"] = outcome.repository_name

    terminal = outcome.reason in TERMINAL_REASONS
    ready_status = "Unknown" if was_ready and not terminal else "False"
    message = _stable_message(ready, ready_status, outcome)
    conditions = {ConditionType.READY: (ready_status, outcome.reason, message)}
    recheck_after = None
    if terminal:
        conditions[ConditionType.STALLED] = ("True", outcome.reason, message)
    elif (left := _time_left(repository, now, timings)) > timedelta(0):
        conditions[ConditionType.RECONCILING] = ("True", outcome.reason, "Retrying; see Ready for what is wrong.")
        recheck_after = left
    else:
        deadline = format_duration(timings.progress_deadline)
        told = f"Not ready for more than {deadline}; retries go on. See Ready for what is wrong."
        conditions[ConditionType.STALLED] = ("True", Reason.PROGRESS_DEADLINE_EXCEEDED, told)
    status["conditions"] = _conditions(repository, now, conditions)
    return Decision(status, recheck_after)


def _stable_message(ready: Mapping[str, Any], ready_status: str, outcome: Failed) -> str:
    """Keep the first message of a row: that a refused connection now times out is not worth a write an object."""
    kept = ready.get("message", "")
    unchanged = (ready.get("status"), ready.get("reason")) == (ready_status, outcome.reason)
    return kept if unchanged and kept.startswith(outcome.subject) else outcome.message


def _time_left(repository: ArtifactRepository, now: datetime, timings: Timings) -> timedelta:
    """Return how long the object may still be Reconciling; zero or less once it is to be Stalled."""
    stalled = repository.condition(ConditionType.STALLED)
    if stalled.get("status") == "True" and stalled.get("reason") == Reason.PROGRESS_DEADLINE_EXCEEDED:
        return timedelta(0)
    reconciling = repository.condition(ConditionType.RECONCILING)
    if reconciling.get("status") != "True":
        return timings.progress_deadline
    return timings.progress_deadline - (now - _parse_time(reconciling.get("lastTransitionTime")))


def _handled(repository: ArtifactRepository) -> dict[str, Any]:
    """Return a copy of the status that answers this generation and, unless suspended, this requestedAt.

    ``lastHandledReconcileAt`` outlives the annotation (as in Flux): a script that waits for the echo must not miss it
    because a GitOps controller has removed the annotation in between.
    """
    status = dict(repository.status)
    status["observedGeneration"] = repository.generation
    if repository.requested_at is not None and not repository.suspend:
        status["lastHandledReconcileAt"] = repository.requested_at
    return status


def _means_the_same(repository: ArtifactRepository, registry: str, repository_name: str | None) -> bool:
    """Tell whether status speaks of the repository that the object means now."""
    status = repository.status
    return status.get("registry") == registry and repository_name in (None, status.get("repositoryName"))


def _conditions(
    repository: ArtifactRepository, now: datetime, said: Mapping[ConditionType, tuple[str, str, str]]
) -> list[Mapping[str, Any]]:
    """Return all conditions, in the order in which they are: those of other owners untouched, ours as said."""
    ours: dict[str, Mapping[str, Any]] = {}
    for type_, (status, reason, message) in said.items():
        before = repository.condition(type_)
        moved = before.get("status") != status or not before.get("lastTransitionTime")
        ours[type_] = {
            "type": str(type_),
            "status": status,
            "reason": str(reason),
            "message": message,
            "observedGeneration": repository.generation,
            "lastTransitionTime": _format_time(now) if moved else before["lastTransitionTime"],
        }
    # An owner that appends its condition to the list must not make us write it once more for the order's sake.
    known = [
        c for c in repository.status.get("conditions") or () if c.get("type") in ours or c.get("type") not in _OWNED
    ]
    return [*(ours.pop(c.get("type"), c) for c in known), *ours.values()]


def _format_time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_time(text: Any) -> datetime:
    """Return the time that a condition carries; the distant past where somebody wrote something else there."""
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return _EPOCH
    return time if time.tzinfo else time.replace(tzinfo=UTC)
