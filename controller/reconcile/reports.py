"""Reports: the log entries and Kubernetes events in the life of an object; none in the steady state.

==========================  ============  =======  ========================
what happened               log           event    when
==========================  ============  =======  ========================
first Ready                 INFO                   after the status write
Ready again after a failure               Normal   after the status write
spec was changed            INFO                   after the status write
repository was recreated    INFO          Warning  at once
a failure for a new reason  WARNING       Warning  after the status write
==========================  ============  =======  ========================

Status writes of failures are rate-limited, and so are their reports.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from controller.api.conditions import ConditionStatus, ConditionType
from controller.api.outcome import Failed, Outcome, Verified
from controller.api.reasons import Reason
from controller.api.v1alpha1 import ArtifactRepository
from controller.logs import with_fields
from controller.reconcile.interfaces import EventRecorder, EventType

logger = logging.getLogger(__name__)

RECREATED: Final = "RepositoryRecreated"
"""Reason of the event about a repository that was missing."""


def report_write(
    before: ArtifactRepository, after: ArtifactRepository, outcome: Outcome, events: EventRecorder
) -> None:
    """Report what a status write means, if anything.

    Args:
        before: The object before the write.
        after: The object after it.
        outcome: The outcome of the attempt.
        events: The event recorder.
    """
    old, new = before.condition(ConditionType.READY), after.condition(ConditionType.READY)
    fields = _fields(after, after.status.get("registry"), new.get("reason"))
    if isinstance(outcome, Failed) and old.get("reason") != new.get("reason"):
        logger.warning("%s", outcome.message, extra=fields)
        events.event(after, EventType.WARNING, outcome.reason, outcome.message)
        return
    is_verified, message = isinstance(outcome, Verified), f"The repository is ready: {after.status.get('uri')}"
    if is_verified and _has_failed(old):
        events.event(after, EventType.NORMAL, Reason.REPOSITORY_READY, message)
    if is_verified and not before.status.get("uri"):
        logger.info("%s", message, extra=fields)
    elif -1 != before.status.get("observedGeneration") != after.generation:
        logger.info("Reconciled a change of spec", extra=fields)


def report_recreation(repository: ArtifactRepository, registry: str, events: EventRecorder) -> None:
    """Report that a missing repository was created again.

    Args:
        repository: The object.
        registry: Binding name of its registry.
        events: The event recorder.
    """
    message = f"The repository was missing from registry '{registry}' and was recreated empty; push its images again."
    events.event(repository, EventType.WARNING, RECREATED, message)
    logger.info("The repository was missing and was recreated", extra=_fields(repository, registry, RECREATED))


def _has_failed(ready: Mapping[str, object]) -> bool:
    """Return whether a Ready condition reports a failure."""
    return ready.get("status") in {ConditionStatus.FALSE, ConditionStatus.UNKNOWN} and (
        ready.get("reason") != Reason.SUSPENDED
    )


def _fields(repository: ArtifactRepository, registry: str | None, reason: str | None) -> Mapping[str, object]:
    key = repository.key
    return with_fields(namespace=key.namespace, name=key.name, registry=registry, reason=reason)
