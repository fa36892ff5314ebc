"""Logging: text for people, JSON for machines; one line an entry in both, whatever a registry answered."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import Any, Final

from pythonjsonlogger.json import JsonFormatter

LEVELS: Final = ("debug", "info", "warning", "error")

_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029)}


class LogFormat(StrEnum):
    """How log entries are written."""

    TEXT = "text"
    JSON = "json"


class _TextFormatter(logging.Formatter):
    """Escapes control characters in messages and indents traces, so that nobody can forge an entry."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        record.message = record.message.translate(_CONTROL)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class's name
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {line.translate(_CONTROL)}" for line in lines)


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
