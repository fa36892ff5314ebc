"""The registry gate: while a registry does not answer, one prober asks it, and everybody else waits.

A state machine without tasks and clocks of its own; the engine asks it and obeys it. One gate per registry, so that a
dead one does not slow another one down::

    OPEN ──(failures in a row)──► CLOSED ──(probe answered)──► TRIAL ──(one real request went well)──► OPEN
                                    ▲                            │
                                    └───────(it failed)──────────┘

The trial is there because a registry may answer ``GET /v2/`` and still fail every push (full disk). As long as nothing
but pushes has failed, requests that only verify are admitted all the same, and tell nothing about pushes.
"""

from __future__ import annotations

import random
from enum import StrEnum
from typing import Final

from controller.errors import RegistryUnavailable

FAILURES_TO_CLOSE: Final = 3
"""Failures in a row that close the gate: one may be chance, and after a few each more is only load."""


class GateState(StrEnum):
    """See the module's picture."""

    OPEN = "open"
    CLOSED = "closed"
    TRIAL = "trial"


class RegistryGate:
    """See the module's text.

    Args:
        probe_interval: Mean time between two probes of a closed gate, in seconds.
        rng: Source of the jitter.
    """

    def __init__(self, *, probe_interval: float, rng: random.Random) -> None:
        self.probe_interval = probe_interval
        self._rng = rng
        self._failures = 0
        self._trial_running = False
        self._only_pushes_fail = False
        self.state = GateState.OPEN
        self.failing_since: float | None = None
        """Time of the first failure since the last success, in seconds."""
        self.last_failure: RegistryUnavailable | None = None
        self.next_probe: float | None = None
        """When to probe next; None unless closed."""

    def admits(self, *, verifying: bool) -> bool:
        """Tell whether a request may be made now; a True while in trial takes the one place there is.

        Args:
            verifying: Whether it is expected to push nothing.
        """
        if verifying and self._only_pushes_fail:
            return True
        if self.state is GateState.TRIAL and not self._trial_running:
            self._trial_running = True
            return True
        return self.state is GateState.OPEN

    def succeeded(self, *, verifying: bool) -> bool:
        """Note that the registry did what it was asked.

        Args:
            verifying: Whether nothing was pushed.

        Returns:
            Whether this opened the gate.
        """
        if verifying and self._only_pushes_fail:
            return False
        opened = self.state is not GateState.OPEN
        self.state = GateState.OPEN
        self._failures, self._trial_running, self._only_pushes_fail = 0, False, False
        self.failing_since = self.last_failure = self.next_probe = None
        return opened

    def failed(self, error: RegistryUnavailable, *, now: float) -> bool:
        """Note that the registry did not answer, or said that it cannot.

        Args:
            error: What happened.
            now: The time, in seconds.

        Returns:
            Whether this closed the gate.
        """
        self.last_failure = error
        self._failures += 1
        if self._only_pushes_fail and not error.pushing:
            self._failures, self.failing_since = 1, None  # another trouble, which begins now
        self._only_pushes_fail = error.pushing and (self._only_pushes_fail or self.failing_since is None)
        if self.failing_since is None:
            self.failing_since = now
        asked_to_wait = error.retry_after or 0.0  # which the client has bounded
        if self.state is GateState.CLOSED:
            # A request that was under way when the gate closed; it may still ask for more patience.
            self.next_probe = max(self.next_probe or 0.0, now + asked_to_wait)
            return False
        if self.state is GateState.OPEN and self._failures < FAILURES_TO_CLOSE and not asked_to_wait:
            return False
        self.state = GateState.CLOSED
        self._trial_running = False
        self.next_probe = now + max(self._jittered_interval(), asked_to_wait)
        return True

    def released(self) -> None:
        """Give the trial's place back: the request that had it told nothing about the registry."""
        self._trial_running = False

    def probe_answered(self) -> None:
        """Note that the registry answered the probe: let one real request try."""
        if self.state is GateState.CLOSED:
            self.state = GateState.TRIAL
            self.next_probe = None

    def probe_failed(self, error: RegistryUnavailable, *, now: float) -> None:
        """Note that the registry did not answer the probe.

        Args:
            error: What happened.
            now: The time, in seconds.
        """
        if self.state is GateState.CLOSED:
            self.last_failure = error
            self._only_pushes_fail = False
            self.next_probe = now + max(self._jittered_interval(), error.retry_after or 0.0)

    def _jittered_interval(self) -> float:
        return self.probe_interval * self._rng.uniform(0.5, 1.5)
