"""Overwrites: status that somebody else wrote over the operator's, for example when a backup is restored.

The watch reports every write of status, and nearly all of them are the operator's own, sometimes before it gets the
response. An own write must not lead to another reconcile; a foreign one should not have to wait for the resync.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from controller.api.conditions import OWNED
from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.reconcile.records import Records

INTERVAL: Final = 60.0
"""Minimum time between two corrections of one object, in seconds: another operator may write as stubbornly."""


class Overwrites:
    """Finds out whether a reported status is the one that the operator left.

    Args:
        records: The objects' records, which keep what it left.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._in_flight: dict[Key, ArtifactRepository | None] = {}
        """The newest reported state of each object that is being reconciled: only its result says whose it is."""

    def begin(self, key: Key) -> None:
        """Note that an object is being reconciled."""
        self._in_flight[key] = None

    def end(self, repository: ArtifactRepository) -> ArtifactRepository | None:
        """Note the state in which a reconcile left an object; return a foreign one that was reported meanwhile."""
        reported = self._in_flight.pop(repository.key, None)
        record = self._records.get(repository.key)
        if record is None:
            return None  # forgotten meanwhile
        record.left_version, record.left_status = repository.version, _fingerprint(repository.status)
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
        record = self._records.get(key)
        if record is None or record.left_version is None or repository.version <= record.left_version:
            return False
        return _fingerprint(repository.status) != record.left_status

    def delay(self, key: Key, now: float) -> float:
        """Return how long to wait before a foreign status is corrected, in seconds.

        Args:
            key: The object; its status is foreign.
            now: The time, on the monotonic clock.
        """
        record = self._records.get(key)
        if record is None:
            return 0.0  # forgotten meanwhile
        if record.corrected <= now:  # otherwise, it is due then
            record.corrected = max(now, record.corrected + INTERVAL)
        return record.corrected - now


def _fingerprint(status: Mapping[str, Any]) -> int:
    """Return a number that differs where two statuses differ in what the operator writes.

    Args:
        status: A status; the conditions of others in it do not count.
    """
    own = [condition for condition in status.get("conditions") or () if condition.get("type") in OWNED]
    return hash(json.dumps({**status, "conditions": own}, sort_keys=True))
