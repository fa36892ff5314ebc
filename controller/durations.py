"""Durations as Kubernetes writes them: ``10m``, ``1h30m``, ``500ms``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?(?:([0-9]+)ms)?")


def parse_duration(value: object) -> timedelta:
    """Parse a duration as Kubernetes writes it (``10m``, ``1h30m``, ``500ms``).

    Args:
        value: The text; a timedelta is returned as it is.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if match is None:
        raise ValueError("not a duration: write for example 90s, 10m or 1h30m")
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    try:
        return timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
    except OverflowError:
        return timedelta.max  # longer than any field allows


def format_duration(value: timedelta) -> str:
    """Return a duration as written in the configuration, in one unit: ``500ms``, ``60s``, ``10m``, ``2h``.

    Args:
        value: The duration.
    """
    milliseconds = round(value / timedelta(milliseconds=1))
    for unit, size, least in (("h", 3_600_000, 3_600_000), ("m", 60_000, 120_000), ("s", 1_000, 1_000)):
        if milliseconds >= least and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]


def between(least: str, most: str) -> AfterValidator:
    """Return a validator that limits a duration.

    Args:
        least: The shortest duration allowed, as written in the configuration.
        most: The longest one.
    """
    shortest, longest = parse_duration(least), parse_duration(most)

    def check(value: timedelta) -> timedelta:
        if not shortest <= value <= longest:
            raise ValueError(f"must be between {least} and {most}")
        return value

    return AfterValidator(check)
