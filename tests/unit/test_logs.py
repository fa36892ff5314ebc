"""Logging: one line per entry, whatever it contains."""

import json
import logging
from collections.abc import Iterator

import pytest

from controller.logs import LogFormat, configure_logging

FORGED = "a\n2026-01-01 ERROR forged\r\x1b[31m\u2028\u202ex"


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Restore the logging of the test run."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before[0], before[1]


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
    assert "time" in entries[0]


def test_libraries_log_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    """At the info level kopf would log each handler."""
    configure_logging("info", LogFormat.TEXT)
    logging.getLogger("kopf.objects").info("Handler 'x' succeeded.")
    assert capsys.readouterr().err == ""
