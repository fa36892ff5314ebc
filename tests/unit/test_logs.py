"""Logging: one line per entry, whatever it contains."""

import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest

from controller.logs import LogFormat, Throttled, configure_logging, with_fields
from controller.redaction import remember

FORGED = "a\n2026-01-01 ERROR forged\r\x1b[31m\u2028\u202ex"


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Restore the logging of the test run."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    hooks = sys.excepthook, sys.unraisablehook
    yield
    root.handlers[:], root.level = before[0], before[1]
    sys.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(capture=False)


def log(capsys: pytest.CaptureFixture[str], format_: LogFormat) -> str:
    """Log a message and an exception that contain forged lines; return the output."""
    configure_logging("info", format_)
    logger = logging.getLogger("controller.test")
    logger.info("name %s", FORGED)
    logger.debug("not written")
    try:
        int(FORGED)
    except ValueError:
        logger.exception("failed")
    return capsys.readouterr().err


def test_text_cannot_be_forged(capsys: pytest.CaptureFixture[str]) -> None:
    """Non-printable characters are escaped and traces indented, so that no line of them looks like an entry."""
    written = log(capsys, LogFormat.TEXT)
    entries = [line for line in written.splitlines() if not line.startswith("    ")]
    assert len(entries) == 2
    assert "\\x0a2026-01-01 ERROR forged\\x0d\\x1b[31m" in entries[0]
    assert not set("\r\x1b\u2028\u202e") & set(written)


def test_json_is_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is a JSON object with the fields that log collectors expect."""
    entries = [json.loads(line) for line in log(capsys, LogFormat.JSON).split("\n") if line]
    assert [entry["level"] for entry in entries] == ["INFO", "ERROR"]
    assert entries[0]["message"] == f"name {FORGED}"
    assert entries[0]["logger"] == "controller.test"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entries[0]["time"])


def test_structured_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """Fields are fields in JSON, even one named like an attribute of log records, and name=value in text."""
    for format_ in LogFormat:
        configure_logging("info", format_)
        fields = with_fields(namespace="team", name="web", registry=None, reason=FORGED)
        logging.getLogger("controller.test").info("Ready", extra=fields)
    text, entry = capsys.readouterr().err.splitlines()
    assert "Z INFO    controller.test: Ready namespace=team name=web reason=a\\x0a2026" in text
    assert {name: json.loads(entry)[name] for name in ("message", "namespace", "name", "reason", "logger")} == {
        "message": "Ready",
        "namespace": "team",
        "name": "web",
        "reason": FORGED,
        "logger": "controller.test",
    }


def test_warnings_are_entries(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning of a library is a line of the log like any other."""
    configure_logging("info", LogFormat.JSON)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn(FORGED, stacklevel=1)
    assert FORGED in json.loads(capsys.readouterr().err)["message"]


_UNCAUGHT = """
import asyncio, gc
from controller.logs import LogFormat, configure_logging
from controller.redaction import remember

class Broken:
    def __del__(self):
        raise ValueError("in a finalizer")

async def main():
    asyncio.get_running_loop().create_future().set_exception(ValueError("in a task"))
    gc.collect()
    del Broken.instance
    raise ValueError("at the\\nend")

configure_logging("info", LogFormat.JSON)
Broken.instance = Broken()
asyncio.run(main())
"""


def test_uncaught_exceptions_are_entries() -> None:
    """Exceptions that nothing catches, wherever they are raised, are one JSON object each."""
    done = subprocess.run([sys.executable, "-c", _UNCAUGHT], check=False, capture_output=True, text=True, timeout=60)
    entries = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert [entry["exc_info"].splitlines()[-1] for entry in entries] == [
        "ValueError: in a task",
        "ValueError: in a finalizer",
        "end",
    ]
    assert {entry["level"] for entry in entries} == {"ERROR", "CRITICAL"}


def test_libraries_log_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    """At the info level kopf would log each handler."""
    configure_logging("info", LogFormat.TEXT)
    logging.getLogger("kopf.objects").info("Handler 'x' succeeded.")
    assert capsys.readouterr().err == ""


def test_a_recurring_problem_is_logged_once_per_cause(caplog: pytest.LogCaptureFixture) -> None:
    """Another cause is logged at once; after the interval the entry has the number of those left out."""
    now = 0.0
    log = Throttled(logging.getLogger("controller.test"), interval=60, clock=lambda: now)
    for _ in range(5):
        log.log(logging.WARNING, "a", "failed: %s", "a")
    log.log(logging.WARNING, "b", "failed: %s", "b")
    now = 60.0
    log.log(logging.WARNING, "a", "failed: %s", "a")
    log.log(logging.WARNING, "b", "failed: %s", "b")
    assert caplog.messages == [
        "failed: a",
        "failed: b",
        "failed: a (and 4 more since the last such entry)",
        "failed: b",
    ]


def test_the_causes_of_a_throttled_log_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand causes are all logged, and do not take memory for ever."""
    log = Throttled(logging.getLogger("controller.test"))
    for number in range(1000):
        log.log(logging.WARNING, number, "failed")
    assert len(caplog.messages) == 1000
    assert len(log._known) <= 256


def test_kopf_does_not_flood_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Kopf logs each attempt of a request: one entry a minute is left, and other loggers are not concerned."""
    configure_logging("info", LogFormat.TEXT)
    for attempt in range(100):
        logging.getLogger("kopf._cogs.clients").error("Request attempt #%d failed", attempt)
        logging.getLogger("controller.test").info("entry %d", attempt)
    written = capsys.readouterr().err
    assert written.count("Request attempt") == 1
    assert written.count("entry") == 100


@pytest.mark.parametrize("format_", list(LogFormat))
def test_secrets_are_not_logged(format_: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    """A known secret is redacted in messages and traces of both formats, whoever logs it."""
    remember("s3cret-token")
    configure_logging("info", format_)
    error = ValueError("bad header 's3cret-token'")
    logging.getLogger("library").error("sent %s", "s3cret-token", exc_info=error)
    told = capsys.readouterr().err
    assert "s3cret-token" not in told
    assert told.count("[redacted]") >= 2
