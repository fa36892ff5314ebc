"""Writes of status: whether they succeed, for metrics, log, event and readiness, and when they may be attempted."""

from __future__ import annotations

import logging
from http import HTTPStatus
from math import inf
from typing import Final

from controller.api.v1alpha1 import Key
from controller.errors import KubernetesError
from controller.logs import Throttled
from controller.metrics import Metrics
from controller.reconcile.interfaces import Clock, EventRecorder, EventType

logger = logging.getLogger(__name__)

_NOT_ALLOWED: Final = "cannot patch resource"
"""Part of the API server's message for a missing permission, not of that of a webhook that rejects one object."""

_CAUTION: Final = 30.0
"""Maximum time after a ``Retry-After`` in which each registry has only one worker, in seconds."""


class StatusWrites:
    """Results of the writes of status.

    After a response with ``Retry-After`` no reconcile is started before that time: each would end in a write, and the
    API server throttles by client, not by object. Then each registry has one worker until a write succeeds.

    Args:
        events: Records that the permission is missing.
        metrics: Metrics sink.
        clock: The time.
    """

    def __init__(self, *, events: EventRecorder, metrics: Metrics, clock: Clock) -> None:
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._log = Throttled(logger, clock=clock.monotonic)
        self._cautious_until = -inf
        self.held_until = -inf
        """No write may be attempted before this time, on the monotonic clock."""
        self.problem: str | None = None
        """Why no status can be written at all; None if it can, as far as is known."""

    @property
    def is_cautious(self) -> bool:
        """Whether the API server has just asked to wait, and no write has succeeded since."""
        return self._clock.monotonic() < self._cautious_until

    def succeeded(self) -> None:
        """Note that a status was written."""
        self._metrics.status_writes.inc()
        self._cautious_until = -inf
        if self.problem is not None:
            logger.info("The status of objects can be written again")
        self.problem = None

    def failed(self, key: Key, error: KubernetesError) -> None:
        """Note that a status could not be written.

        Args:
            key: The object.
            error: The failure.
        """
        self._metrics.status_write_failures.labels("error" if error.status is None else str(error.status)).inc()
        if error.retry_after:
            self.held_until = max(self.held_until, self._clock.monotonic() + error.retry_after)
            self._cautious_until = self.held_until + _CAUTION
        if error.status == HTTPStatus.FORBIDDEN and _NOT_ALLOWED in str(error):
            self._not_allowed(error)
        else:
            message = "Failed to write the status of %s, retrying: %s"
            self._log.log(logging.WARNING, (type(error), error.status), message, key, error)

    def _not_allowed(self, error: KubernetesError) -> None:
        before = self.problem
        self.problem = f"not allowed to write status: {error}. Grant the permissions in manifests/rbac.yaml"
        self._log.log(logging.ERROR, _NOT_ALLOWED, "Retrying: %s", self.problem)
        if before is None:
            self._events.event(None, EventType.WARNING, "StatusNotWritable", self.problem)
