"""Pauses between tries of what concerns the operator as a whole; objects have the backoff of their queue."""

from __future__ import annotations

import random
from typing import Final

_FIRST: Final = 1.0
_LONGEST: Final = 30.0


class Pauses:
    """Growing, jittered pauses.

    Args:
        rng: Source of jitter.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._bound = _FIRST

    def next(self) -> float:
        """Return how long to wait before the next try, in seconds."""
        pause = self._bound * self._rng.uniform(0.5, 1.0)
        self._bound = min(2 * self._bound, _LONGEST)
        return pause

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._bound = _FIRST
