"""Log entries about objects: one for each event in the life of one, none in the steady state.

=========================  =======  ======================
first Ready                INFO     after the status write
spec was changed           INFO     after the status write
repository was recreated   INFO     at once
a failure for a new reason WARNING  after the status write
=========================  =======  ======================

Status writes of failures are rate-limited, and so are their entries.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from controller.api.conditions import ConditionType
from controller.api.outcome import Failed, Outcome, Verified
from controller.api.v1alpha1 import ArtifactRepository
from controller.logs import with_fields

logger = logging.getLogger(__name__)


def log_write(before: ArtifactRepository, after: ArtifactRepository, outcome: Outcome) -> None:
    """Log what a status write means for a reader of the log, if anything.

    Args:
        before: The object before the write.
        after: The object after it.
        outcome: The outcome of the attempt.
    """
    old, new = before.condition(ConditionType.READY).get("reason"), after.condition(ConditionType.READY).get("reason")
    fields = _fields(after, after.status.get("registry"), new)
    if isinstance(outcome, Failed) and old != new:
        logger.warning("%s", outcome.message, extra=fields)
    elif isinstance(outcome, Verified) and not before.status.get("uri"):
        logger.info("The repository is ready: %s", after.status.get("uri"), extra=fields)
    elif -1 != before.status.get("observedGeneration") != after.generation:
        logger.info("Reconciled a change of spec", extra=fields)


def log_recreation(repository: ArtifactRepository, registry: str) -> None:
    """Log that a missing repository was created again.

    Args:
        repository: The object.
        registry: Binding name of its registry.
    """
    logger.info(
        "The repository was missing and was recreated", extra=_fields(repository, registry, "RepositoryRecreated")
    )


def _fields(repository: ArtifactRepository, registry: str | None, reason: str | None) -> Mapping[str, object]:
    key = repository.key
    return with_fields(namespace=key.namespace, name=key.name, registry=registry, reason=reason)
