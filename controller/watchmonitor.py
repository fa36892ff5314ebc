"""Watch monitor: whether the watch is established, for readiness and the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

FAILURES_TO_REPORT: Final = 3
"""Consecutive failures after which a failing watch is an error: one or two may be an API server that restarts."""


class WatchMonitor:
    """Turns what happens to the watch into readiness and log lines.

    A watch may fail for a reason that never passes (a missing permission, a defect), and every attempt looks like the
    one before. Such a watch must neither look ready nor go unnoticed.

    Args:
        scope: What is watched, for the log.
        set_not_ready: Called with what is wrong; with None when the watch is established.
        on_persistent_failure: Called once with what is wrong when a failure has become persistent.
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
        """Note that the watch was refused, cannot be requested, or has ended with an error.

        Args:
            problem: What is wrong, as part of a sentence.
        """
        self._is_established = False
        self._failures += 1
        self._set_not_ready(f"the watch is not established: {problem}")
        if self._failures < FAILURES_TO_REPORT:
            logger.warning("The watch is interrupted and will be retried: %s", problem)
        elif problem != self._reported:
            logger.error(
                "The watch has failed %d times in a row, so changes are noticed only by the resync: %s",
                self._failures,
                problem,
            )
            if not self._reported:
                self._on_persistent_failure(problem)
            self._reported = problem
