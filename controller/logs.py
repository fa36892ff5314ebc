"""Logging setup: plain text or JSON, one line per entry whatever a message contains; times are RFC 3339 in UTC."""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Any, Final

from pythonjsonlogger.core import LogData
from pythonjsonlogger.json import JsonFormatter

from controller.redaction import redact

LEVELS: Final = ("debug", "info", "warning", "error")

_FIELDS: Final = "fields"
"""Attribute of a log record with its structured fields."""

logger = logging.getLogger(__name__)
_MAX_CAUSES: Final = 256
"""Causes that a throttled log remembers."""

_KOPF_INTERVAL: Final = 60.0
"""Minimum time between two entries of the same place in kopf, in seconds."""


class LogFormat(StrEnum):
    """Format of log entries."""

    TEXT = "text"
    JSON = "json"


def with_fields(**fields: str | None) -> Mapping[str, Mapping[str, str]]:
    """Return the ``extra`` argument of a log call with structured fields.

    They are fields of the entry in JSON, and follow the message as ``name=value`` in text.

    Args:
        fields: The fields; those that are None are left out.
    """
    return {_FIELDS: {name: value for name, value in fields.items() if value is not None}}


class _TextFormatter(logging.Formatter):
    """Escapes non-printable characters and indents traces, so that text from outside cannot forge an entry."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - see below
        del datefmt
        return _time(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        fields = "".join(f" {name}={value}" for name, value in getattr(record, _FIELDS, {}).items())
        record.message = _escaped(f"{record.message}{fields}")
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class's name
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {_escaped(line)}" for line in lines)


class _JsonFormatter(JsonFormatter):
    """Adds structured fields."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - the base class's name
        del datefmt
        return _time(record)

    def process_log_record(self, log_data: LogData) -> LogData:
        """Replace the attribute of the record by the fields themselves."""
        log_data.update(log_data.pop(_FIELDS, {}))
        redacted = {name: redact(value) if isinstance(value, str) else value for name, value in log_data.items()}
        return super().process_log_record(redacted)


def _time(record: logging.LogRecord) -> str:
    """Return the time of a record in RFC 3339, in UTC."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Throttled:
    """Log of recurring problems: one entry per cause and interval; the next one has the number of those left out.

    Args:
        logger: Where entries go.
        interval: Minimum time between two entries of the same cause, in seconds.
        clock: Returns a time in seconds that never decreases.
    """

    def __init__(
        self, logger: logging.Logger, *, interval: float = 600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._known: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        """By cause: when it was last logged, and how often it recurred since."""

    def log(self, level: int, cause: Hashable, message: str, *args: object, exc_info: bool = False) -> None:
        """Log a message, unless its cause was logged a short time ago.

        Args:
            level: Level of the entry.
            cause: Identifies the cause: without names of objects, of which there may be thousands.
            message: The message.
            args: Its arguments.
            exc_info: Whether to log the trace of the current exception.
        """
        left_out = self.due(cause)
        if left_out is None:
            return
        if left_out:
            message, args = f"{message} (and %d more since the last such entry)", (*args, left_out)
        self._logger.log(level, message, *args, exc_info=exc_info)

    def due(self, cause: Hashable) -> int | None:
        """Return how many entries of a cause were left out since the last one; None if none is due, which is counted.

        Args:
            cause: The cause.
        """
        now = self._clock()
        known = self._known.pop(cause, None)
        if known is not None and now - known[0] < self._interval:
            self._known[cause] = (known[0], known[1] + 1)
            return None
        self._known[cause] = (now, 0)
        if len(self._known) > _MAX_CAUSES:
            self._known.popitem(last=False)
        return 0 if known is None else known[1]


class _KopfFilter(logging.Filter):
    """Lets through one entry per minute of each place in kopf that logs; kopf logs each attempt of a request.

    The state of the watch is reported by :mod:`controller.watchmonitor`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._places = Throttled(logging.getLogger("kopf"), interval=_KOPF_INTERVAL)

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("kopf"):
            return True
        return self._places.due((record.pathname, record.lineno)) is not None


def _escaped(text: str) -> str:
    """Return a text with escapes for control characters and characters that change the text direction."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def configure_logging(level: str, format_: LogFormat) -> None:
    """Send the log to standard error, with warnings and uncaught exceptions.

    Args:
        level: Minimum level, one of :data:`LEVELS`.
        format_: Format of entries.
    """
    handler = logging.StreamHandler(sys.stderr)
    if format_ is LogFormat.JSON:
        handler.setFormatter(
            _JsonFormatter(
                "%(asctime)s %(levelname)s %(name)s %(message)s",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    handler.addFilter(_KopfFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Libraries are too verbose at these levels.
    for name in ("kopf", "httpx", "httpcore", "aiohttp.access", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = _log_unraisable


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log an exception that ends the process."""
    logger.critical("Ended by an unexpected error: %s", error, exc_info=(kind, error, trace))


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Log an exception in a finalizer, which nothing can catch."""
    error = unraisable.exc_value
    info = None if error is None else (type(error), error, unraisable.exc_traceback)
    logger.error("Ignored an exception in %r", unraisable.object, exc_info=info)
