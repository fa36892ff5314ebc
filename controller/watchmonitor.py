"""Watch monitor: state of the watch, for readiness and log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

FAILURES_TO_REPORT: Final = 3
"""Consecutive failures that make a failure persistent; one or two are common when an API server restarts."""


class WatchMonitor:
    """Reports the state of the watch.

    A watch may fail permanently, for example because of a missing permission. The operator must then not be ready, and
    the failure must be reported as an error once, not at each attempt.

    Args:
        scope: What is watched, for the log.
        set_not_ready: Called with the problem; with None once the watch is established.
        on_persistent_failure: Called with the problem once a failure is persistent.
    """

    def __init__(
        self,
        scope: str,
        *,
        set_not_ready: Callable[[str | None], None],
        on_persistent_failure: Callable[[str], None],
    ) -> None:
        self._scope = scope
        self._set_not_ready = set_not_ready
        self._on_persistent_failure = on_persistent_failure
        self._is_established = False
        self._failures = 0
        self._reported = ""

    def established(self) -> None:
        """Note that the API server has accepted a watch."""
        if not self._is_established:
            logger.info("Watching ArtifactRepository objects in %s", self._scope)
        self._is_established = True
        self._failures, self._reported = 0, ""
        self._set_not_ready(None)

    def failed(self, problem: str) -> None:
        """Note that the watch was rejected, could not be requested, or ended with an error.

        Args:
            problem: The problem, to follow a colon.
        """
        self._is_established = False
        self._failures += 1
        self._set_not_ready(f"the watch is not established: {problem}")
        if self._failures < FAILURES_TO_REPORT:
            logger.warning("The watch was interrupted, retrying: %s", problem)
        elif problem != self._reported:
            logger.error(
                "The watch has failed %d times in a row; changes are noticed only by the resync: %s",
                self._failures,
                problem,
            )
            if not self._reported:
                self._on_persistent_failure(problem)
            self._reported = problem
