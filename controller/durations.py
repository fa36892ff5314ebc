"""Durations as Kubernetes writes them: ``10m``, ``1h30m``, ``500ms``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

_DURATION = re.compile(r"^(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?$")


def _parse_duration(value: object) -> object:
    """Parse a duration as Kubernetes writes it (``10m``, ``1h30m``, ``500ms``)."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.match(value) if isinstance(value, str) and value else None
    if match is None:
        raise ValueError("not a duration: write for example 90s, 10m or 1h30m")
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)


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


def _check_duration(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than zero")
    return value


Duration = Annotated[timedelta, BeforeValidator(_parse_duration), AfterValidator(_check_duration)]
