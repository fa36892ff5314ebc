"""Circuit breaker: rejects calls of a registry that does not respond, and tries a single one before it closes again.

A state machine without tasks; each registry has its own, so that an outage of one does not affect another::

    CLOSED ──(consecutive failures)──► OPEN ──(probe succeeded)──► HALF_OPEN ──(trial succeeded)──► CLOSED
                                        ▲                            │
                                        └───────(trial failed)───────┘

The trial is needed because a registry may respond to ``GET /v2/`` and still fail every push (full disk). While only
pushes fail, calls that only verify are let through; their success does not close the breaker.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final

from controller.errors import LoginRefused, OperatorError, PushFailed, RegistryError, RegistryUnavailable
from controller.reconcile.interfaces import Clock
from controller.registry.protocol import Ensured

FAILURES_TO_OPEN: Final = 3
"""Consecutive failures that open the breaker: a single one may be chance."""


Outage = RegistryUnavailable | LoginRefused
"""Failures that concern the registry as a whole; every other RegistryError concerns one repository."""


class BreakerState(StrEnum):
    """State of a circuit breaker."""

    CLOSED = "closed"
    """Calls are let through."""

    OPEN = "open"
    """Calls are rejected; a prober pings the registry."""

    HALF_OPEN = "half-open"
    """A probe succeeded; one call at a time is let through."""


class CircuitOpen(OperatorError):
    """The breaker rejected a call without contacting the registry.

    Args:
        failure: The last failure of a call or a probe.
        since: Time of the first failure of the outage, in seconds.
    """

    def __init__(self, failure: Outage, *, since: float) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.since = since


class CircuitBreaker:
    """Circuit breaker of one registry.

    Args:
        probe_interval: Mean time between two probes while open, in seconds.
        clock: The time.
        rng: Source of jitter.
    """

    def __init__(self, *, probe_interval: float, clock: Clock, rng: random.Random) -> None:
        self._probe_interval = probe_interval
        self._clock = clock
        self._rng = rng
        self._failures = 0
        self._trial_running = False
        self._only_pushes_fail = False
        self._retry_at = 0.0
        """When a probe is allowed by the last Retry-After."""
        self.state = BreakerState.CLOSED
        self.failing_since: float | None = None
        """Time of the first failure since the last success, in seconds."""
        self.last_failure: Outage | None = None
        self.next_probe: float | None = None
        """When to probe next; None unless open."""

    async def call(self, operation: Callable[[], Awaitable[Ensured]], *, may_push: bool) -> Ensured:
        """Run an operation on the registry and record its result.

        Args:
            operation: Ensures one repository.
            may_push: Whether it is expected to push; one that pushes unexpectedly counts as a push, too.

        Raises:
            CircuitOpen: The operation was not run.
            Exception: What the operation raised. Only an Outage counts as a failure of the registry; any other
                RegistryError is a response, and concerns one repository.
        """
        is_trial = self._enter(may_push=may_push)
        try:
            ensured = await operation()
        except (RegistryUnavailable, LoginRefused) as error:
            self.record_failure(error)
            raise
        except RegistryError:
            self._record_success(pushed=may_push)
            raise
        else:
            self._record_success(pushed=ensured.created)
            return ensured
        finally:
            if is_trial:  # also after an exception that says nothing about the registry
                self._trial_running = False

    def _enter(self, *, may_push: bool) -> bool:
        """Let a call through; return whether it is the trial.

        Raises:
            CircuitOpen: It is not let through.
        """
        if self.last_failure is None or self.failing_since is None or self.state is BreakerState.CLOSED:
            return False
        if self._only_pushes_fail and not may_push:
            return False
        if self.state is BreakerState.HALF_OPEN and not self._trial_running:
            self._trial_running = True
            return True
        raise CircuitOpen(self.last_failure, since=self.failing_since)

    def _record_success(self, *, pushed: bool) -> None:
        if self._only_pushes_fail and not pushed:
            return
        self.state = BreakerState.CLOSED
        self._failures, self._only_pushes_fail = 0, False
        self.failing_since = self.last_failure = self.next_probe = None

    def record_failure(self, error: Outage) -> None:
        """Record that the registry did not respond, or responded that it cannot serve any request."""
        now = self._clock.monotonic()
        pushing = isinstance(error, PushFailed)
        self.last_failure = error
        self._failures += 1
        if self._only_pushes_fail and not pushing:
            self._failures, self.failing_since = 1, None  # a different outage, which begins now
        self._only_pushes_fail = pushing and (self._only_pushes_fail or self.failing_since is None)
        if self.failing_since is None:
            self.failing_since = now
        # A refused login states no time: the next trial notices a changed credential file.
        retry_after = (isinstance(error, RegistryUnavailable) and error.retry_after) or 0.0  # bounded by the client
        self._retry_at = max(self._retry_at, now + retry_after)
        if self.state is BreakerState.OPEN:
            # A call that was in progress when the breaker opened; its Retry-After still counts.
            self.next_probe = max(self.next_probe or 0.0, self._retry_at)
        elif self.state is BreakerState.HALF_OPEN or self._failures >= FAILURES_TO_OPEN or retry_after:
            self.state = BreakerState.OPEN
            self.next_probe = max(now + self._jittered_interval(), self._retry_at)

    def probe_succeeded(self) -> None:
        """Record that the registry responded to the probe: let one call through."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN
            self.next_probe = None

    def probe_failed(self, error: RegistryUnavailable) -> None:
        """Record that the registry did not respond to the probe."""
        if self.state is BreakerState.OPEN:
            self.last_failure = error
            self._only_pushes_fail = False
            now = self._clock.monotonic()
            self._retry_at = max(self._retry_at, now + (error.retry_after or 0.0))
            self.next_probe = max(now + self._jittered_interval(), self._retry_at)

    def set_probe_interval(self, interval: float) -> None:
        """Change the mean time between two probes; a shorter one applies to the next probe.

        Args:
            interval: The new mean time, in seconds.
        """
        self._probe_interval = interval
        if self.next_probe is not None:
            earliest = self._clock.monotonic() + self._jittered_interval()
            self.next_probe = max(min(self.next_probe, earliest), self._retry_at)

    def close(self) -> None:
        """Close a half-open breaker for which no trial call is left: the successful probe has to suffice."""
        if self.state is BreakerState.HALF_OPEN:
            self._record_success(pushed=True)

    def _jittered_interval(self) -> float:
        return self._probe_interval * self._rng.uniform(0.5, 1.5)
