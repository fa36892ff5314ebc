"""Logging setup: plain text or JSON, one line per entry whatever a message contains."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import Any, Final

from pythonjsonlogger.json import JsonFormatter

LEVELS: Final = ("debug", "info", "warning", "error")


class LogFormat(StrEnum):
    """Format of log entries."""

    TEXT = "text"
    JSON = "json"


class _TextFormatter(logging.Formatter):
    """Escapes non-printable characters and indents traces, so that text from outside cannot forge an entry."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        record.message = _escaped(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class's name
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {_escaped(line)}" for line in lines)


def _escaped(text: str) -> str:
    """Return a text with escapes for control characters and characters that change the text direction."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def configure_logging(level: str, format_: LogFormat) -> None:
    """Send the log to standard error.

    Args:
        level: Minimum level, one of :data:`LEVELS`.
        format_: Format of entries.
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
    # Libraries are too verbose at these levels.
    for name in ("kopf", "httpx", "httpcore", "aiohttp.access", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
