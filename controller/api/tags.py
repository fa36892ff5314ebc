"""``status.tags``: how many tags a repository has besides the marker, and the names of some."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_NUMBER: Final = re.compile(r"([0-9]+)")


def summarise(tags: Sequence[str], *, names: int) -> dict[str, Any]:
    """Return the value of ``status.tags``.

    Registries do not tell when a tag was pushed, so the names are the highest in version order: 1.10 is above 1.9.

    Args:
        tags: The tags, without the marker.
        names: How many names to report.
    """
    return {"count": len(tags), "names": sorted(tags, key=_version_order, reverse=True)[:names]}


def is_populated(status: Mapping[str, Any]) -> bool | None:
    """Return whether a repository has a tag besides the marker; None where its tags are not reported.

    Args:
        status: The status of the object.
    """
    tags = status.get("tags")
    return bool(tags.get("count")) if isinstance(tags, Mapping) else None


def _version_order(tag: str) -> tuple[tuple[int, int | str], ...]:
    """Return a key by which numbers within tags are compared as numbers."""
    return tuple((1, int(part)) if part.isdecimal() else (0, part) for part in _NUMBER.split(tag) if part)
