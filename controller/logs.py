"""Logging: text for people, JSON for machines; one line an entry in both, whatever a registry answered."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import Any, Final

from pythonjsonlogger.json import JsonFormatter

LEVELS: Final = ("debug", "info", "warning", "error")


class LogFormat(StrEnum):
    """How log entries are written."""

    TEXT = "text"
    JSON = "json"


class _TextFormatter(logging.Formatter):
    """Escapes what does not print in messages, and indents traces, so that nobody can forge or turn around an entry."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        record.message = _escaped(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class's name
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {_escaped(line)}" for line in lines)


def _escaped(text: str) -> str:
    """Return a text with control characters, and those that change a line's direction, as their numbers."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def configure_logging(level: str, format_: LogFormat) -> None:
    """Send the log to standard error.

    Args:
        level: The least level that is written, one of :data:`LEVELS`.
        format_: How entries are written.
    """
    handler = logging.StreamHandler(sys.stderr)
    if format_ is LogFormat.JSON:
        handler.setFormatter(
            JsonFormatter(
                "%(asctime)s %(levelname)s %(name)s %(message)s",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Libraries tell more than their share at our levels.
    for name in ("kopf", "httpx", "httpcore", "aiohttp.access", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
