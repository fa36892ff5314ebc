"""Status: the state machine of docs/status.md, row by row.

outcome                      | before            | Ready                      | other conditions
verified                     | any               | True/RepositoryReady       | -
registry down                | never ready       | False/RegistryUnavailable  | Reconciling
any of these, short          | Ready             | unchanged                  | -
registry down, long          | Ready             | Unknown/RegistryUnavailable| Reconciling
rejected (401 ...), long     | Ready             | Unknown/its reason         | Reconciling
any of these past deadline   | Reconciling       | unchanged                  | Stalled
only spec can fix it         | any               | False/its reason           | Stalled at once
suspended                    | never reconciled  | False/Suspended            | -
suspended                    | anything else     | unchanged, message says so | -
"""

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.addresses import RegistryAddresses
from controller.api.conditions import ConditionType
from controller.api.outcome import Failed, Outcome, Suspended, Verified
from controller.api.reasons import TERMINAL_REASONS, Reason
from controller.api.status import Decision, decide, merge_patch
from controller.api.target import Target
from controller.api.v1alpha1 import REQUESTED_AT_ANNOTATION, ArtifactRepository
from controller.config import Timings
from controller.names import RepositoryPath
from controller.registry.protocol import Origin
from tests.unit.objects import NOW, make_object

TIMINGS = Timings()
ADDRESSES = RegistryAddresses("localhost:5001", "localhost:5001", "localhost:5001", "kind-registry:5000")
TARGET = Target("artifacts", "team/web", RepositoryPath("artifacts/team/web"))
VERIFIED = Verified(TARGET, ADDRESSES, Origin.CREATED)
SUSPENDED = Suspended("artifacts", "team/web")
FOREIGN = {
    "type": "example.com/Scanned",
    "status": "True",
    "reason": "Clean",
    "message": "",
    "lastTransitionTime": "2025-01-01T00:00:00Z",
}


def failed(
    reason: Reason = Reason.REGISTRY_UNAVAILABLE,
    *,
    detail: str = "connection refused",
    failing_for: float = 0,
    registry: str = "artifacts",
    name: str | None = "team/web",
) -> Failed:
    """Return a failure as the reconciler reports it."""
    return Failed(reason, f"http://{registry}: ", detail, registry, name, timedelta(seconds=failing_for))


def step(
    repository: ArtifactRepository, outcome: Outcome, *, at: datetime = NOW, changed: bool = False
) -> tuple[ArtifactRepository, Decision]:
    """Apply one outcome, to a new generation if spec has changed; return the resulting object."""
    repository = dataclasses.replace(repository, generation=repository.generation + changed)
    own = repository.condition(ConditionType.READY).get("message", "")
    decision = decide(repository, outcome, now=at, timings=TIMINGS, own_messages=(own,))
    after = make_object(
        spec={},
        status=decision.status,
        generation=repository.generation,
        annotations={REQUESTED_AT_ANNOTATION: repository.requested_at} if repository.requested_at else None,
    )
    return after, decision


def after(*outcomes: Outcome, start: ArtifactRepository | None = None) -> ArtifactRepository:
    """Return an object after these outcomes, all at the same time."""
    repository = start or make_object()
    for outcome in outcomes:
        repository, _ = step(repository, outcome)
    return repository


def conditions(status: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return status and reason of each condition."""
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


def message(status: Mapping[str, Any], type_: str = "Ready") -> str:
    """Return the message of a condition."""
    return next(str(c["message"]) for c in status["conditions"] if c["type"] == type_)


LONG = failed(failing_for=61)
DENIED = failed(Reason.ACCESS_DENIED)
DENIED_LONG = failed(Reason.ACCESS_DENIED, failing_for=61)
TLS = failed(Reason.TLS_VERIFICATION_FAILED, failing_for=61)
POLICY = failed(Reason.POLICY_VIOLATION)
READY = {"Ready": ("True", "RepositoryReady")}
NO_FAILURES = {Reason.REPOSITORY_READY, Reason.SUSPENDED, Reason.PROGRESS_DEADLINE_EXCEEDED}


@pytest.mark.parametrize(
    ("before", "outcome", "expected", "has_uri"),
    [
        ((), VERIFIED, READY, True),
        (
            (),
            failed(),
            {"Ready": ("False", "RegistryUnavailable"), "Reconciling": ("True", "RegistryUnavailable")},
            False,
        ),
        ((failed(),), VERIFIED, READY, True),
        ((VERIFIED,), failed(failing_for=59), READY, True),
        (
            (VERIFIED,),
            LONG,
            {"Ready": ("Unknown", "RegistryUnavailable"), "Reconciling": ("True", "RegistryUnavailable")},
            True,
        ),
        ((VERIFIED, LONG), VERIFIED, READY, True),
        (
            (VERIFIED, LONG),
            failed(),
            {"Ready": ("Unknown", "RegistryUnavailable"), "Reconciling": ("True", "RegistryUnavailable")},
            True,
        ),
        (
            (VERIFIED,),
            TLS,
            {"Ready": ("Unknown", "TLSVerificationFailed"), "Reconciling": ("True", "TLSVerificationFailed")},
            True,
        ),
        ((), DENIED, {"Ready": ("False", "AccessDenied"), "Reconciling": ("True", "AccessDenied")}, False),
        ((VERIFIED,), DENIED, READY, True),
        (
            (VERIFIED,),
            DENIED_LONG,
            {"Ready": ("Unknown", "AccessDenied"), "Reconciling": ("True", "AccessDenied")},
            True,
        ),
        ((), POLICY, {"Ready": ("False", "PolicyViolation"), "Stalled": ("True", "PolicyViolation")}, False),
        ((VERIFIED,), POLICY, {"Ready": ("False", "PolicyViolation"), "Stalled": ("True", "PolicyViolation")}, True),
        ((POLICY,), VERIFIED, READY, True),
        (
            (POLICY,),
            failed(),
            {"Ready": ("False", "RegistryUnavailable"), "Reconciling": ("True", "RegistryUnavailable")},
            False,
        ),
        ((), SUSPENDED, {"Ready": ("False", "Suspended")}, False),
        ((VERIFIED,), SUSPENDED, READY, True),
        ((VERIFIED, LONG), SUSPENDED, {"Ready": ("Unknown", "RegistryUnavailable")}, True),
        ((POLICY,), SUSPENDED, {"Ready": ("False", "PolicyViolation")}, False),
        ((VERIFIED,), Suspended("other", "team/web"), {"Ready": ("Unknown", "Suspended")}, True),
        ((SUSPENDED,), VERIFIED, READY, True),
        (
            (VERIFIED, SUSPENDED),
            LONG,
            {"Ready": ("Unknown", "RegistryUnavailable"), "Reconciling": ("True", "RegistryUnavailable")},
            True,
        ),
    ],
)
def test_each_row_of_the_table(
    before: tuple[Outcome, ...], outcome: Outcome, expected: dict[str, tuple[str, str]], has_uri: bool
) -> None:
    """Ready, other conditions and uri are right after each outcome in each state."""
    repository, decision = step(after(*before), outcome)
    assert conditions(decision.status) == expected
    assert ("uri" in repository.status) is has_uri
    assert repository.status["observedGeneration"] == 1


@pytest.mark.parametrize("outcome", [VERIFIED, failed(), LONG, DENIED, POLICY, SUSPENDED])
@pytest.mark.parametrize("before", [(), (VERIFIED,), (VERIFIED, LONG), (SUSPENDED,), (DENIED,)])
def test_the_same_outcome_again_changes_nothing(before: tuple[Outcome, ...], outcome: Outcome) -> None:
    """In the steady state there is nothing to write, whatever the time and the details are."""
    repository = after(*before, outcome)
    if isinstance(outcome, Failed):
        outcome = Failed(
            outcome.reason,
            outcome.subject,
            "timed out",
            outcome.registry,
            outcome.repository_name,
            outcome.failing_for,
        )
    _, decision = step(repository, outcome, at=NOW + timedelta(minutes=9))
    assert merge_patch(repository.status, decision.status) is None


def test_a_ready_object() -> None:
    """A Ready object has all fields of status."""
    status = after(VERIFIED).status
    assert status == {
        "observedGeneration": 1,
        "registry": "artifacts",
        "repositoryName": "team/web",
        "uri": "localhost:5001/artifacts/team/web",
        "references": {
            "host": "localhost:5001/artifacts/team/web",
            "containerRuntime": "localhost:5001/artifacts/team/web",
            "clusterNetwork": "kind-registry:5000/artifacts/team/web",
        },
        "origin": "Created",
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "RepositoryReady",
                "message": "Push and pull URI:TAG",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            }
        ],
    }


def test_an_address_for_pods_only_is_not_offered_for_images() -> None:
    """The kubelet cannot resolve the name of a Service; the message says what to set."""
    status = after(Verified(TARGET, RegistryAddresses("r:5000", None, None, "r:5000"), Origin.CREATED)).status
    assert message(status) == ("Push from Pods to URI:TAG; to use images in Pods, set references.containerRuntime")
    assert set(status["references"]) == {"clusterNetwork"}


def test_references_follow_the_configuration() -> None:
    """New addresses are written, and lastTransitionTime of Ready stays."""
    before = after(VERIFIED)
    moved = Verified(TARGET, RegistryAddresses("new:1", None, None, None), Origin.CREATED)
    repository, _ = step(before, moved, at=NOW + timedelta(hours=1))
    assert repository.status["uri"] == "new:1/artifacts/team/web"
    assert "references" not in repository.status
    assert repository.status["conditions"][0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"


def test_an_unreported_outage_is_rechecked() -> None:
    """While a Ready object is left unchanged, the decision says when to check again."""
    _, decision = step(after(VERIFIED), failed(failing_for=20))
    assert decision.recheck_after == timedelta(seconds=40)


def test_the_deadline_and_back() -> None:
    """Reconciling becomes Stalled after ten minutes, and is removed once the repository is verified."""
    repository, decision = step(make_object(), failed())
    assert decision.recheck_after == timedelta(minutes=10)
    repository, decision = step(repository, failed(), at=NOW + timedelta(minutes=4))
    assert decision.recheck_after == timedelta(minutes=6)
    repository, decision = step(repository, failed(), at=NOW + timedelta(minutes=10))
    assert conditions(repository.status) == {
        "Ready": ("False", "RegistryUnavailable"),
        "Stalled": ("True", "ProgressDeadlineExceeded"),
    }
    assert decision.recheck_after is None
    repository, _ = step(repository, failed(), at=NOW + timedelta(hours=1))
    assert conditions(repository.status)["Stalled"] == ("True", "ProgressDeadlineExceeded")
    repository, _ = step(repository, VERIFIED, at=NOW + timedelta(hours=2))
    assert conditions(repository.status) == READY


@pytest.mark.parametrize("reason", sorted(set(Reason) - TERMINAL_REASONS - NO_FAILURES))
def test_a_ready_object_outlasts_a_short_failure_of_any_kind(reason: Reason) -> None:
    """A second of it leaves the object Ready; a failure as long as unavailableAfter does not."""
    before = after(VERIFIED)
    repository, decision = step(before, failed(reason, failing_for=1))
    assert merge_patch(before.status, repository.status) is None
    assert decision.recheck_after == timedelta(seconds=59)
    repository, _ = step(before, failed(reason, failing_for=60))
    assert conditions(repository.status)["Ready"] == ("Unknown", reason)


@pytest.mark.parametrize("minutes", [1, 9, 11, 1000])
def test_a_new_generation_has_a_new_deadline(minutes: int) -> None:
    """A spec that is fixed late, or after the deadline, has as much time as the first one, also after a restart."""
    repository, _ = step(make_object(), failed())
    repository, _ = step(repository, failed(), at=NOW + timedelta(minutes=minutes))
    fixed = NOW + timedelta(minutes=minutes, seconds=1)
    repository, decision = step(repository, failed(), at=fixed, changed=True)
    assert conditions(repository.status)["Reconciling"] == ("True", "RegistryUnavailable")
    assert "Stalled" not in conditions(repository.status)
    assert decision.recheck_after == timedelta(minutes=10)
    repository, decision = step(repository, failed(), at=fixed + timedelta(minutes=9))
    assert decision.recheck_after == timedelta(minutes=1)
    repository, _ = step(repository, failed(), at=fixed + timedelta(minutes=10))
    assert conditions(repository.status)["Stalled"] == ("True", "ProgressDeadlineExceeded")


@pytest.mark.parametrize("ahead", [timedelta(seconds=1), timedelta(hours=1), timedelta(days=36500)])
def test_a_time_in_the_future_does_not_lengthen_the_deadline(ahead: timedelta) -> None:
    """Written by an edit or by another clock: it is corrected, and the deadline counts from now."""
    repository, _ = step(make_object(), failed(), at=NOW + ahead)
    repository, decision = step(repository, failed())
    assert decision.recheck_after == timedelta(minutes=10)
    repository, _ = step(repository, failed(), at=NOW + timedelta(minutes=10))
    assert conditions(repository.status)["Stalled"] == ("True", "ProgressDeadlineExceeded")


def test_another_reason_does_not_restart_the_deadline() -> None:
    """The deadline counts from the start of Reconciling, whatever the reasons are."""
    repository, _ = step(make_object(), failed())
    repository, _ = step(repository, DENIED, at=NOW + timedelta(minutes=9))
    repository, _ = step(repository, failed(), at=NOW + timedelta(minutes=11))
    assert conditions(repository.status)["Stalled"] == ("True", "ProgressDeadlineExceeded")


@pytest.mark.parametrize("time", ["not a time", "", None, 5])
def test_an_invalid_time_counts_as_long_ago(time: Any) -> None:
    """The object becomes Stalled instead of staying Reconciling for ever."""
    repository = after(failed())
    spoilt = [dict(c, lastTransitionTime=time) for c in repository.status["conditions"]]
    repository = make_object(status=dict(repository.status) | {"conditions": spoilt})
    repository, _ = step(repository, failed())
    assert conditions(repository.status)["Stalled"] == ("True", "ProgressDeadlineExceeded")


def test_a_change_of_detail_keeps_the_message() -> None:
    """Another detail of the same failure is not written; another subject (a new address) is."""
    before = after(failed(detail="refused"))
    own = message(before.status)
    again = decide(before, failed(detail="timed out"), now=NOW, timings=TIMINGS, own_messages=(own,))
    assert message(again.status) == "http://artifacts: refused"
    other = Failed(Reason.REGISTRY_UNAVAILABLE, "http://b: ", "x", "artifacts", "team/web")
    moved = decide(before, other, now=NOW, timings=TIMINGS, own_messages=(own,))
    assert message(moved.status) == "http://b: x"


@pytest.mark.parametrize("own_messages", [(), ("http://artifacts: refused",)])
def test_a_planted_message_is_replaced(own_messages: tuple[str, ...]) -> None:
    """A message that starts like the operator's, but that it did not decide on, is not kept."""
    before = after(failed(detail="refused"))
    planted = [dict(c, message="http://artifacts: pull evil.example") for c in before.status["conditions"]]
    before = make_object(status=dict(before.status) | {"conditions": planted})
    decision = decide(before, failed(detail="timed out"), now=NOW, timings=TIMINGS, own_messages=own_messages)
    assert message(decision.status) == "http://artifacts: timed out"


FORGED = {"uri": "evil.example/x", "references": {"host": "evil.example/x"}}


@pytest.mark.parametrize("outcome", [SUSPENDED, LONG], ids=["suspended", "failed"])
def test_forged_addresses_are_replaced(outcome: Outcome) -> None:
    """Without asking the registry, uri and references become those of the repository that status records."""
    expected = after(VERIFIED, outcome).status
    forged = make_object(status=dict(after(VERIFIED).status) | FORGED)
    decision = decide(forged, outcome, now=NOW, timings=TIMINGS, recorded=ADDRESSES.locate(TARGET.path))
    assert decision.status == expected


def test_a_suspended_object_has_no_invented_repository() -> None:
    """Addresses next to names that the operator cannot have written are removed, and the names replaced."""
    forged = make_object(status={**FORGED, "origin": "Adopted", "registry": "../x", "repositoryName": "evil/x"})
    status = after(SUSPENDED, start=forged).status
    names = {"registry": status["registry"], "repositoryName": status["repositoryName"]}
    assert names == {"registry": "artifacts", "repositoryName": "team/web"}
    assert not {"uri", "references", "origin"} & status.keys()
    assert after(SUSPENDED, SUSPENDED, start=forged).status == status


def test_a_failure_after_a_suspension_says_what_is_wrong() -> None:
    """The message of the suspension is replaced although the reason is the same."""
    status = after(failed(), SUSPENDED, failed()).status
    assert message(status) == "http://artifacts: connection refused"


def test_a_failed_move_removes_the_old_references() -> None:
    """An object that moves to another registry does not keep the references of the old one."""
    repository = after(VERIFIED, failed(registry="other", name="team/web"))
    assert conditions(repository.status)["Ready"] == ("False", "RegistryUnavailable")
    assert not {"uri", "references", "origin"} & repository.status.keys()
    assert repository.status["registry"] == "other"


def test_a_registry_that_is_no_longer_configured() -> None:
    """The object was Ready there and still means the same repository: Unknown, with its uri."""
    repository = after(VERIFIED, failed(Reason.UNKNOWN_REGISTRY, name=None, failing_for=61))
    assert conditions(repository.status)["Ready"] == ("Unknown", "UnknownRegistry")
    assert "uri" in repository.status


def test_requested_at_is_echoed_and_the_echo_outlives_the_annotation() -> None:
    """When Flux removes the annotation, nothing is written, and a script still finds the value in status."""
    asked = make_object(annotations={REQUESTED_AT_ANNOTATION: "now"})
    repository, _ = step(asked, VERIFIED)
    assert repository.status["lastHandledReconcileAt"] == "now"
    assert repository.is_handled
    removed = make_object(status=repository.status)
    assert removed.is_handled
    _, decision = step(removed, VERIFIED)
    assert merge_patch(removed.status, decision.status) is None


def test_only_the_first_characters_of_requested_at_are_echoed() -> None:
    """An annotation of any length costs 256 characters of status, and counts as handled."""
    asked = make_object(annotations={REQUESTED_AT_ANNOTATION: "x" * 200_000})
    status = decide(asked, VERIFIED, now=NOW, timings=TIMINGS).status
    assert status["lastHandledReconcileAt"] == "x" * 256
    assert make_object(status=status, annotations={REQUESTED_AT_ANNOTATION: "x" * 200_000}).is_handled


def test_a_suspended_object_does_not_echo_requested_at() -> None:
    """The echo means that the repository was verified, so a suspended object gets it only after it is resumed."""
    spec = {"suspend": True}
    suspended = make_object(spec=spec, annotations={REQUESTED_AT_ANNOTATION: "now"})
    decision = decide(suspended, SUSPENDED, now=NOW, timings=TIMINGS)
    assert "lastHandledReconcileAt" not in decision.status
    assert make_object(spec=spec, status=decision.status, annotations={REQUESTED_AT_ANNOTATION: "now"}).is_handled
    assert not make_object(status=decision.status, annotations={REQUESTED_AT_ANNOTATION: "now"}).is_handled


def test_conditions_of_other_owners_survive() -> None:
    """Conditions of another controller are neither changed nor moved."""
    repository = after(VERIFIED, LONG, VERIFIED, start=make_object(status={"conditions": [FOREIGN]}))
    assert repository.status["conditions"][0] == FOREIGN
    assert conditions(repository.status) == READY | {"example.com/Scanned": ("True", "Clean")}


def test_a_time_moves_only_with_the_status() -> None:
    """The lastTransitionTime is the time of the last change of Ready, not of the last attempt."""
    repository, _ = step(after(VERIFIED), VERIFIED, at=NOW + timedelta(hours=1))
    assert repository.status["conditions"][0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    repository, _ = step(repository, LONG, at=NOW + timedelta(hours=2))
    assert repository.status["conditions"][0]["lastTransitionTime"] == "2026-01-02T05:04:05Z"


def test_times_are_written_in_utc() -> None:
    """The zone of the clock does not matter."""
    elsewhere = NOW.astimezone(tz=None).astimezone(UTC)
    repository, _ = step(make_object(), VERIFIED, at=elsewhere)
    assert repository.status["conditions"][0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("current", "desired", "patch"),
    [
        ({}, {}, None),
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {}, {"a": None}),
        ({}, {"a": 1}, {"a": 1}),
        ({"r": {"x": 1, "y": 2}}, {"r": {"x": 1, "z": 3}}, {"r": {"y": None, "z": 3}}),
        ({"c": [1, 2]}, {"c": [1]}, {"c": [1]}),
        ({"r": {"x": 1}}, {}, {"r": None}),
    ],
)
def test_merge_patches(current: dict[str, Any], desired: dict[str, Any], patch: dict[str, Any] | None) -> None:
    """The patch has exactly the differences, and is None if there are none."""
    assert merge_patch(current, desired) == patch
