"""Overwrites: status that somebody else wrote over the operator's, for example when a backup is restored.

The watch reports every write of status, and nearly all of them are the operator's own, sometimes before it gets the
response. An own write must not lead to another reconcile; a foreign one should not have to wait for the resync.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from controller.api.conditions import OWNED
from controller.api.v1alpha1 import ArtifactRepository, Key

INTERVAL: Final = 60.0
"""Minimum time between two corrections of one object, in seconds: another operator may write as stubbornly."""


@dataclass(slots=True)
class _Known:
    """The status of an object at the end of its last reconcile."""

    version: int = 0
    fingerprint: int = 0
    corrected: float = -inf
    """When it was or will be corrected, on the monotonic clock."""


class Overwrites:
    """Finds out whether a reported status is the one that the operator left."""

    def __init__(self) -> None:
        self._known: dict[Key, _Known] = {}
        self._in_flight: dict[Key, ArtifactRepository | None] = {}
        """The newest reported state of each object that is being reconciled: only its result says whose it is."""

    def begin(self, key: Key) -> None:
        """Note that an object is being reconciled."""
        self._in_flight[key] = None
        self._known.setdefault(key, _Known())

    def end(self, repository: ArtifactRepository) -> ArtifactRepository | None:
        """Note the state in which a reconcile left an object; return a foreign one that was reported meanwhile."""
        reported = self._in_flight.pop(repository.key, None)
        known = self._known.get(repository.key)
        if known is None:
            return None  # forgotten meanwhile
        known.version, known.fingerprint = repository.version, _fingerprint(repository.status)
        return reported if reported is not None and self.is_foreign(reported) else None

    def is_foreign(self, repository: ArtifactRepository) -> bool:
        """Return whether a reported status is not the operator's; False as long as that cannot be known.

        Args:
            repository: The object as the watch reports it.
        """
        key = repository.key
        if key in self._in_flight:
            self._in_flight[key] = repository
            return False
        known = self._known.get(key)
        if known is None or repository.version <= known.version:
            return False
        return _fingerprint(repository.status) != known.fingerprint

    def delay(self, key: Key, now: float) -> float:
        """Return how long to wait before a foreign status is corrected, in seconds.

        Args:
            key: The object; its status is foreign.
            now: The time, on the monotonic clock.
        """
        known = self._known[key]
        if known.corrected <= now:  # otherwise, it is due then
            known.corrected = max(now, known.corrected + INTERVAL)
        return known.corrected - now

    def forget(self, key: Key) -> None:
        """Drop everything known about an object."""
        self._known.pop(key, None)


def _fingerprint(status: Mapping[str, Any]) -> int:
    """Return a number that differs where two statuses differ in what the operator writes.

    Args:
        status: A status; the conditions of others in it do not count.
    """
    own = [condition for condition in status.get("conditions") or () if condition.get("type") in OWNED]
    return hash(json.dumps({**status, "conditions": own}, sort_keys=True))
