"""Number of objects per page of a list, by bytes: one object may be as large as a thousand others."""

from __future__ import annotations

from typing import Final

MAX_PAGE: Final = 2 << 20
"""Maximum size of a page of more than one object, in bytes; parsed, it takes several times as much memory."""

_FIRST_LIMIT: Final = 50
_MAX_LIMIT: Final = 500
"""Maximum number of objects per page, as in kubectl."""


class PageTooLarge(Exception):
    """A page is larger than :data:`MAX_PAGE`."""


class Paging:
    """Chooses the number of objects per page during one list.

    Args:
        heaviest: The figure of the same name at the end of the previous list; 0 if there was none.
    """

    def __init__(self, heaviest: int = 0) -> None:
        self.limit = min(_FIRST_LIMIT, _fitting(heaviest))
        """Number of objects to request next."""
        self.heaviest = 0
        """Bytes per object, in the page where that was most."""

    @property
    def max_bytes(self) -> int | None:
        """Maximum size of the next page; None if it has one object, which must be read whatever its size."""
        return MAX_PAGE if self.limit > 1 else None

    def received(self, objects: int, size: int) -> None:
        """Choose the next limit after a page.

        Args:
            objects: Number of objects in the page.
            size: Its size, in bytes.
        """
        mean = size // max(1, objects)
        self.heaviest = max(self.heaviest, mean)
        self.limit = min(2 * self.limit, _fitting(mean))

    def rejected(self) -> None:
        """Choose a smaller limit after a page that was too large."""
        self.limit = max(1, self.limit // 4)


def _fitting(size: int) -> int:
    return min(_MAX_LIMIT, max(1, MAX_PAGE // max(1, size)))
