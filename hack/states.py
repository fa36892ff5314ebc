"""Generated parts of docs/status.md: reasons, and the conditions that an object has in each situation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from controller.addresses import RegistryAddresses
from controller.api.conditions import ConditionStatus, ConditionType
from controller.api.outcome import Failed, Outcome, Suspended, Verified
from controller.api.reasons import Reason
from controller.api.status import decide
from controller.api.target import Target
from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.config import Timings
from controller.durations import format_duration
from controller.names import join_path
from controller.registry.protocol import Origin
from hack.markdown import code, table

ADVICE: Final[Mapping[Reason, str]] = {
    Reason.REPOSITORY_READY: "Nothing. Push and pull by the addresses in `status.references`.",
    Reason.IMAGE_PUSHED: "Nothing. `status.tags` has the number of tags and some of their names.",
    Reason.NO_IMAGE: "Push an image. The condition follows at the next verification.",
    Reason.SUSPENDED: "Set `spec.suspend` to false to resume.",
    Reason.REGISTRY_UNAVAILABLE: (
        "Check that the registry runs and that the operator's Pod can reach `registryUrl` (name, port, NetworkPolicy). "
        "The operator resumes by itself once the registry answers."
    ),
    Reason.TLS_VERIFICATION_FAILED: (
        "The message says what is wrong with the certificate. Renew it, or name its CA in `tls.caFile`."
    ),
    Reason.AUTHENTICATION_FAILED: (
        "Check the Secret behind `credentials`, and `tokenRealms` if the message names a token service. Changed files "
        "are read again without a restart."
    ),
    Reason.ACCESS_DENIED: "Allow the operator's user to pull from and push to this repository.",
    Reason.REGISTRY_READ_ONLY: "Disable the registry's read-only mode, or push an image there by other means.",
    Reason.NAME_NOT_SUPPORTED: (
        "Use another `repositoryTemplate` (`{namespace}.{name}` if the registry allows only two path levels), "
        "`pathPrefix` or registry."
    ),
    Reason.UNEXPECTED_ANSWER: "Check that `registryUrl` belongs to a registry, not to a proxy or another web server.",
    Reason.CREATION_RATE_LIMITED: (
        "Wait, and find out what creates so many objects in the namespace. `creations` in the operator's configuration "
        "sets the limit."
    ),
    Reason.UNKNOWN_REGISTRY: "Correct `spec.registry`, or add the registry to the operator's configuration.",
    Reason.REGISTRY_NOT_ALLOWED: (
        "Set `spec.registry` to one that the message names. Or have the namespace added to the registry's `namespaces` "
        "in the operator's configuration."
    ),
    Reason.POLICY_VIOLATION: (
        "Set `spec.repositoryName` to a name that starts with the namespace. If `status.uri` exists, create another "
        "object instead; the message says which."
    ),
    Reason.INVALID_NAME: "Set a shorter `spec.repositoryName`. If `status.uri` exists, create another object instead.",
    Reason.PROGRESS_DEADLINE_EXCEEDED: "See the reason and the message of Ready.",
}
"""What a person should do about each reason, in more detail than the message of a condition."""


def reasons() -> str:
    """Return a table of all reasons: what each means and what to do."""
    rows = [[f'<a id="{reason.lower()}"></a>`{reason}`', reason.meaning, ADVICE[reason]] for reason in Reason]
    return table(["Reason", "Meaning", "What to do"], rows)


@dataclass(frozen=True, slots=True)
class Situation:
    """One row of the table of states.

    Args:
        text: Description of the situation.
        before: The object before the attempt.
        outcome: The outcome of the attempt.
        after: Time of the attempt, counted from the first one.
    """

    text: str
    before: ArtifactRepository
    outcome: Outcome
    after: timedelta = timedelta(0)


_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_TIMINGS: Final = Timings()
_TARGET: Final = Target("artifacts", "default/web", join_path("artifacts", "default/web"))
_ADDRESSES: Final = RegistryAddresses("localhost:5001", "localhost:5001", "localhost:5001", "kind-registry:5000")
_VERIFIED: Final = Verified(_TARGET, _ADDRESSES, Origin.CREATED)
_NEW: Final = ArtifactRepository(
    Key("default", "web"), uid="1", resource_version="1", generation=1, status={"observedGeneration": -1}
)


def _failure(reason: Reason, failing_for: timedelta = timedelta(hours=1)) -> Failed:
    return Failed(reason, "", "", _TARGET.registry, _TARGET.repository_name, failing_for)


def _seen(before: ArtifactRepository, outcome: Outcome, after: timedelta = timedelta(0)) -> ArtifactRepository:
    """Return the object with the status that results from an attempt."""
    decision = decide(before, outcome, now=_START + after, timings=_TIMINGS)
    return ArtifactRepository(
        before.key, uid="1", resource_version="1", generation=before.generation, status=decision.status
    )


def _changed(before: ArtifactRepository) -> ArtifactRepository:
    """Return the object after a change of its spec."""
    return ArtifactRepository(
        before.key, uid="1", resource_version="1", generation=before.generation + 1, status=before.status
    )


def situations() -> list[tuple[str, ArtifactRepository]]:
    """Return each situation and the resulting object, computed by the operator's own code."""
    seen = [(s.text, _seen(s.before, s.outcome, s.after)) for s in _situations()]
    return [("Not yet reconciled", _NEW), *seen]


def _situations() -> list[Situation]:
    ready = _seen(_NEW, _VERIFIED)
    down = _failure(Reason.REGISTRY_UNAVAILABLE)
    blip = _failure(Reason.REGISTRY_UNAVAILABLE, _TIMINGS.unavailable_after / 2)
    denied = _failure(Reason.ACCESS_DENIED)
    deadline = format_duration(_TIMINGS.progress_deadline)
    patience = format_duration(_TIMINGS.unavailable_after)
    elsewhere = Suspended("another", None)
    suspended = Suspended(_TARGET.registry, _TARGET.repository_name)
    return [
        Situation("Created or verified", _NEW, _VERIFIED),
        Situation("Registry unavailable, never Ready", _NEW, down),
        Situation(f"Any failure that is retried, for less than {patience}, was Ready", ready, blip),
        Situation("Registry unavailable for longer, was Ready", ready, down),
        Situation("Credentials, configuration or registry have to be fixed, never Ready", _NEW, denied),
        Situation("The same for longer, was Ready", ready, denied),
        Situation(
            f"Any of these failures for longer than {deadline}", _seen(ready, down), down, _TIMINGS.progress_deadline
        ),
        Situation("Only a change of the object can fix it", _NEW, _failure(Reason.POLICY_VIOLATION)),
        Situation("Suspended, never Ready", _changed(_NEW), suspended),
        Situation("Suspended while Ready", _changed(ready), suspended),
        Situation("Suspended while failing", _changed(_seen(ready, down)), suspended),
        Situation("Suspended, and `spec` now means another repository", _changed(ready), elsewhere),
    ]


_EXAMPLES: Final = frozenset({Reason.ACCESS_DENIED, Reason.POLICY_VIOLATION})


def states() -> str:
    """Return the table of states: the conditions in each situation, and what kstatus computes."""
    rows = []
    for text, seen in situations():
        row = [text, _shown(seen, ConditionType.READY)]
        row.append(", ".join(_shown(seen, t) for t in list(ConditionType)[1:] if seen.condition(t)) or "-")
        row += ["set" if seen.status.get("uri") else "-", kstatus(seen.generation, seen.status)]
        rows.append(row)
    return table(["Situation", "Ready", "Other conditions", "`uri`", "kstatus"], rows)


def _shown(repository: ArtifactRepository, type_: ConditionType) -> str:
    condition = repository.condition(type_)
    if not condition:
        return "-"
    reason = "specific reason" if condition["reason"] in _EXAMPLES else code(condition["reason"])
    return f"{'' if type_ is ConditionType.READY else f'{type_}='}{condition['status']}, {reason}"


def kstatus(generation: int, status: Mapping[str, Any]) -> str:
    """Return the result that kstatus, used by Flux and Helm, computes from a status.

    Args:
        generation: The object's generation.
        status: Its status.
    """
    if status.get("observedGeneration", generation) != generation:
        return "InProgress"
    found = {condition["type"]: condition["status"] for condition in status.get("conditions", ())}
    if found.get("Reconciling") == ConditionStatus.TRUE:
        return "InProgress"
    if found.get("Stalled") == ConditionStatus.TRUE:
        return "Failed"
    return "Current" if found.get("Ready", ConditionStatus.TRUE) == ConditionStatus.TRUE else "InProgress"
