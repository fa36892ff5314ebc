"""Circuit breaker: rejects calls of a registry that does not respond, and tries a single one before it closes again.

A state machine without tasks; each registry has its own, so that an outage of one does not affect another::

    CLOSED ──(consecutive failures)──► OPEN ──(probe succeeded)──► HALF_OPEN ──(trial succeeded)──► CLOSED
                                        ▲                            │
                                        └───────(trials failed)──────┘

A repository may fail alone, for example because its files are damaged, and its namespace may have many of the kind. So
failures open the breaker if they concern several objects, of several namespaces where there are others; else ``GET
/v2/`` decides. For the same reason, a second namespace has a trial before the breaker opens again.

The trial is needed because a registry may respond to ``GET /v2/`` and still fail every push (full disk). While only
pushes fail, calls that only verify are let through; their success does not close the breaker.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from typing import Final

from controller.api.v1alpha1 import Key
from controller.errors import LoginRefused, OperatorError, PushFailed, RegistryError, RegistryUnavailable
from controller.reconcile.interfaces import Clock
from controller.registry.protocol import Ensured

FAILURES_TO_OPEN: Final = 3
"""Consecutive failures that may open the breaker: a single one may be chance."""


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
        ping: Returns if the registry responds, or raises a RegistryError.
        clock: The time.
        rng: Source of jitter.
    """

    def __init__(
        self, *, probe_interval: float, ping: Callable[[], Awaitable[None]], clock: Clock, rng: random.Random
    ) -> None:
        self._probe_interval = probe_interval
        self._ping = ping
        self._clock = clock
        self._rng = rng
        self._failed: list[Key] = []
        """The objects of the last consecutive failures."""
        self._users: set[Key] = set()
        """Objects that have used this registry: a few, and at least one of each namespace."""
        self._next_check = 0.0
        """When the registry may be pinged because of another failure, in seconds."""
        self._only_pushes_fail = False
        self._retry_at = 0.0
        """When a probe is allowed by the last Retry-After."""
        self.is_trying = False
        """Whether a trial is running."""
        self.state = BreakerState.CLOSED
        self.failing_since: float | None = None
        """Time of the first failure since the last success, in seconds."""
        self.last_failure: Outage | None = None
        """The last failure of a call or a probe, as it is shown to all users of the registry."""
        self.next_probe: float | None = None
        """When to probe next; None unless open."""

    async def call(self, key: Key, operation: Callable[[], Awaitable[Ensured]], *, may_push: bool) -> Ensured:
        """Run an operation on the registry and record its result.

        Args:
            key: The object that it is for.
            operation: Ensures one repository.
            may_push: Whether it is expected to push; one that pushes unexpectedly counts as a push, too.

        Raises:
            CircuitOpen: The operation was not run.
            Exception: What the operation raised. Only an Outage counts as a failure of the registry; any other
                RegistryError is a response, and concerns one repository.
        """
        is_trial = self._enter(may_push=may_push)
        self._note_user(key)
        try:
            ensured = await operation()
        except (RegistryUnavailable, LoginRefused) as error:
            self.record_failure(key, error)
            await self._check(error)
            raise
        except RegistryError:
            self._record_success(pushed=may_push)
            raise
        else:
            self._record_success(pushed=ensured.created)
            return ensured
        finally:
            if is_trial:  # also after an exception that says nothing about the registry
                self.is_trying = False

    def _note_user(self, key: Key) -> None:
        if len(self._users) < FAILURES_TO_OPEN or key.namespace not in _namespaces(self._users):
            self._users.add(key)

    def _enter(self, *, may_push: bool) -> bool:
        """Let a call through; return whether it is the trial.

        Raises:
            CircuitOpen: It is not let through.
        """
        if self.last_failure is None or self.failing_since is None or self.state is BreakerState.CLOSED:
            return False
        if self._only_pushes_fail and not may_push:
            return False
        if self.state is BreakerState.HALF_OPEN and not self.is_trying:
            self.is_trying = True
            return True
        raise CircuitOpen(self.last_failure, since=self.failing_since)

    def _record_success(self, *, pushed: bool) -> None:
        if self._only_pushes_fail and not pushed:
            return
        self.state = BreakerState.CLOSED
        self._only_pushes_fail = False
        self._failed.clear()
        self.failing_since = self.last_failure = self.next_probe = None

    def record_failure(self, key: Key, error: Outage) -> None:
        """Record that the registry did not respond, or responded that it cannot serve the request.

        Args:
            key: The object whose request it was.
            error: The failure.
        """
        now = self._clock.monotonic()
        pushing = isinstance(error, PushFailed)
        self.last_failure = error.shared()
        if self._only_pushes_fail and not pushing:
            self._failed.clear()  # a different outage, which begins now
            self.failing_since = None
        self._only_pushes_fail = pushing and (self._only_pushes_fail or self.failing_since is None)
        self._failed = [*self._failed[1 - FAILURES_TO_OPEN :], key]
        if self.failing_since is None:
            self.failing_since = now
        if self.state is BreakerState.OPEN:
            # A call that was in progress when the breaker opened; its Retry-After still counts.
            self._retry_at = max(self._retry_at, now + retry_after(error))
            self.next_probe = max(self.next_probe or 0.0, self._retry_at)
        elif self._is_widespread(error):
            self._open(error)

    def _is_widespread(self, error: Outage) -> bool:
        """Return whether the last failures concern the registry and not one repository or one namespace."""
        is_complete = len(self._failed) == FAILURES_TO_OPEN
        objects, namespaces = len(set(self._failed)), len(_namespaces(self._failed))
        if isinstance(error, LoginRefused):
            return is_complete or self.state is BreakerState.HALF_OPEN
        if self.state is BreakerState.HALF_OPEN:
            return is_complete or namespaces > 1 or objects >= len(self._users)
        # While only pushes fail, an open breaker is no obstacle for objects that need none. Without a response, it is
        # hardly the repository.
        is_general = self._only_pushes_fail or error.status is None
        enough = min(FAILURES_TO_OPEN, len(self._users)) if is_general else FAILURES_TO_OPEN
        is_certain = (is_complete and objects >= enough) or bool(retry_after(error))
        return is_certain and namespaces >= min(2, len(_namespaces(self._users)))

    async def _check(self, error: Outage) -> None:
        """Ping the registry where failures of one object or namespace leave open whether it is the registry that fails.

        Raises:
            Exception: What the ping raises other than a RegistryError.
        """
        now = self._clock.monotonic()
        is_doubtful = len(self._failed) == FAILURES_TO_OPEN or retry_after(error)
        if self.state is not BreakerState.CLOSED or not is_doubtful or now < self._next_check:
            return
        self._next_check = now + self._probe_interval
        try:
            await self._ping()
        except RegistryUnavailable as failure:
            self._conclude(failure)
        except RegistryError:
            self._conclude(None)  # an unexpected response is still a response
        else:
            self._conclude(None)

    def _conclude(self, failure: RegistryUnavailable | None) -> None:
        """Act on the result of a check, unless other calls have decided while it was running."""
        if self.state is not BreakerState.CLOSED or not self._failed:
            return
        if failure is None:
            self._record_success(pushed=True)
        else:
            self.last_failure = failure.shared()
            self._open(failure)

    def _open(self, error: Outage) -> None:
        now = self._clock.monotonic()
        self.state = BreakerState.OPEN
        self._retry_at = max(self._retry_at, now + retry_after(error))
        self.next_probe = max(now + self._jittered_interval(), self._retry_at)

    def probe_succeeded(self) -> None:
        """Record that the registry responded to the probe: let one call through."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN
            self.next_probe = None
            self._failed.clear()

    def probe_failed(self, error: RegistryUnavailable) -> None:
        """Record that the registry did not respond to the probe."""
        if self.state is BreakerState.OPEN:
            self.last_failure = error.shared()
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


def retry_after(error: Outage) -> float:
    """Return the seconds that the registry asked to wait, bounded by the client.

    A refused login states no time: the next trial notices a changed credential file.
    """
    return (isinstance(error, RegistryUnavailable) and error.retry_after) or 0.0


def _namespaces(keys: Iterable[Key]) -> set[str]:
    return {key.namespace for key in keys}
