"""Watch monitor: state of the watches, for readiness, metrics and log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from controller.logs import Throttled

logger = logging.getLogger(__name__)

_WATCHING: Final = "Watching ArtifactRepository objects in %s"

FAILURES_TO_REPORT: Final = 3
"""Consecutive failures that make a failure persistent; one or two are common when an API server restarts."""


class WatchStates:
    """The state of each watch. The operator is ready while at least one watch is established.

    One namespace that was deleted or is forbidden must not make the operator unready for the others. It is reported by
    the log, an event and a metric.

    Args:
        scopes: What is watched: namespaces, or one empty name for all.
        set_not_ready: Called with the problem of all watches; with None while one of them is established.
    """

    def __init__(self, scopes: Iterable[str], *, set_not_ready: Callable[[str | None], None]) -> None:
        self._problems: dict[str, str | None] = dict.fromkeys(scopes, "not established yet")
        self._set_not_ready = set_not_ready

    def set(self, scope: str, problem: str | None) -> None:
        """Note the state of a watch.

        Args:
            scope: Which.
            problem: Why it is not established; None if it is.
        """
        self._problems[scope] = problem
        problems = [f"{scope}: {why}" if scope else why for scope, why in self._problems.items() if why is not None]
        self._set_not_ready("; ".join(problems) if len(problems) == len(self._problems) else None)

    def established(self) -> dict[str, bool]:
        """Return for each scope whether its watch is established."""
        return {scope: problem is None for scope, problem in self._problems.items()}


class WatchMonitor:
    """Reports the state of one watch.

    A watch may fail permanently, for example because of a missing permission. The failure must be reported as an error
    once, not at each attempt.

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
        self._log = Throttled(logger)
        self.requested = False
        """Whether anything was requested since this was last reset."""

    def established(self) -> None:
        """Note that the API server has accepted a watch."""
        if self._reported:
            logger.info(_WATCHING, self._scope)
        elif not self._is_established:  # also after a short interruption, which may recur
            self._log.log(logging.INFO, _WATCHING, _WATCHING, self._scope)
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
            message = "The watch was interrupted, retrying: %s: %s"
            self._log.log(logging.WARNING, problem, message, self._scope, problem)
        elif problem != self._reported:
            logger.error(
                "The watch has failed %d times in a row; changes are noticed only by the resync: %s: %s",
                self._failures,
                self._scope,
                problem,
            )
            if not self._reported:
                self._on_persistent_failure(problem)
            self._reported = problem
