"""When to retry: exponential backoff with jitter, and what a server asks for by ``Retry-After``."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter: each delay is drawn between a minimum and a bound that doubles.

    Args:
        first: The first bound, in seconds.
        cap: The largest bound, in seconds.
        minimum: The smallest delay as a fraction of the bound; 0 is full jitter.
    """

    first: float
    cap: float
    minimum: float = 0.0

    def bound(self, failures: int) -> float:
        """Return the longest delay after this many consecutive failures (at least 1), in seconds."""
        return float(min(self.cap, self.first * 2 ** min(failures - 1, 63)))

    def delay(self, failures: int, rng: random.Random) -> float:
        """Return the delay before the next attempt, in seconds.

        Args:
            failures: Consecutive failures so far, at least 1.
            rng: Source of jitter.
        """
        bound = self.bound(failures)
        return rng.uniform(self.minimum * bound, bound)

    def delays(self, rng: random.Random) -> Iterator[float]:
        """Return an endless iterator of the delays between attempts of one operation.

        Args:
            rng: Source of jitter.
        """
        return (self.delay(failures, rng) for failures in count(1))


OPERATOR_BACKOFF = Backoff(first=1.0, cap=30.0, minimum=0.5)
"""Backoff for the operator as a whole, such as its watch. Objects have backoffs of their own."""


def parse_retry_after(value: str | None, *, now: datetime, limit: float) -> float | None:
    """Return the seconds of ``Retry-After``, bounded; None if it is absent or invalid.

    Args:
        value: The header: seconds, or an HTTP date.
        now: The time, with a time zone.
        limit: Maximum, in seconds: a server must not be able to stop its clients for days.
    """
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value):
        seconds = float(value)
    else:
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        # HTTP dates are in UTC.
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    return min(max(seconds, 0.0), limit)
