"""Rate limit of new repositories, one token bucket per namespace.

A quota limits how many objects a namespace has at a time, not how many repositories it leaves behind by creating and
deleting objects. Only creations take a token: an object whose repository exists gives it back.
"""

from __future__ import annotations

from typing import Final

from controller.config import Creations
from controller.reconcile.interfaces import Clock

_MIN_BUCKETS: Final = 64
"""Number of buckets from which on full ones are dropped."""


class Permit:
    """The right to create one repository, from a moment on.

    Args:
        bucket: The bucket of its token.
        moment: The moment, on the monotonic clock.
    """

    def __init__(self, bucket: _Bucket, moment: float) -> None:
        self.bucket = bucket
        self.moment = moment
        self._is_held = True

    def spend(self) -> None:
        """Note that the repository was created."""
        self._is_held = False

    def release(self) -> None:
        """Give the token back unless it was spent; a second call has no effect."""
        if self._is_held:
            self._is_held = False
            self.bucket.full_at -= self.bucket.interval


class _Bucket:
    """Tokens of one namespace, counted by the time when the bucket is full (the generic cell rate algorithm)."""

    def __init__(self, limits: Creations) -> None:
        self.interval = 1 / limits.per_second
        self._span = limits.burst * self.interval
        self.full_at = 0.0

    def reserve(self, now: float) -> Permit:
        self.full_at = max(now, self.full_at) + self.interval
        return Permit(self, self.full_at - self._span)


class CreationLimiter:
    """Limits the rate of new repositories in each namespace.

    Args:
        clock: The time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._limits: Creations | None = None
        self._buckets: dict[str, _Bucket] = {}
        self._max_buckets = _MIN_BUCKETS

    def __len__(self) -> int:
        return len(self._buckets)

    def reserve(self, namespace: str, limits: Creations, held: Permit | None) -> Permit:
        """Return the permit for a new repository, whose moment may be in the future.

        Args:
            namespace: The namespace.
            limits: The limits as configured now; another value than before starts with full buckets.
            held: The permit that the object has waited with; it is returned if it is still valid.
        """
        if limits != self._limits:
            self._limits = limits
            self._buckets.clear()
        bucket = self._buckets.get(namespace)
        if bucket is None:
            self._drop_full()
            bucket = self._buckets[namespace] = _Bucket(limits)
        return held if held is not None and held.bucket is bucket else bucket.reserve(self._clock.monotonic())

    def _drop_full(self) -> None:
        """Forget namespaces that have created nothing lately, whenever the number of buckets has doubled."""
        if len(self._buckets) < self._max_buckets:
            return
        now = self._clock.monotonic()
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if bucket.full_at > now}
        self._max_buckets = max(_MIN_BUCKETS, 2 * len(self._buckets))
