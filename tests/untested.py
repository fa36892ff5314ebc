"""Tests that cannot run on this machine: skipped with a reason, and reported by cause at the end of a run.

A pytest plugin (see tests/conftest.py). A test never has to check for a tool itself: a `ToolUnavailable` that it or one
of its fixtures raises skips it. Where the variable CI is set it fails, because CI has to provide everything.
"""

import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from devcluster.errors import ToolUnavailable

SECTION: Final = "not tested on this machine"
_PREFIX: Final = "Skipped: "


@contextmanager
def skipped_where_unavailable() -> Iterator[None]:
    """Skip, with the reason, what needs a tool that this machine cannot provide."""
    try:
        yield
    except ToolUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """Skip a test of which a fixture needs what is not available."""
    with skipped_where_unavailable():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Skip a test that needs what is not available."""
    with skipped_where_unavailable():
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was not tested, and why."""
    skipped = [report for report in terminalreporter.getreports("skipped") if isinstance(report, pytest.TestReport)]
    lines = by_cause(map(reason, skipped))
    if lines:
        terminalreporter.section(SECTION)
    for line in lines:
        terminalreporter.write_line(line)


def reason(report: pytest.TestReport) -> str:
    """Return the reason for which a test was skipped."""
    # As pytest documents it: file, line and reason.
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix(_PREFIX)


def by_cause(reasons: Iterable[str]) -> list[str]:
    """Return a line for each cause with the number of tests, most tests first.

    Args:
        reasons: The reason of each skipped test. Its first line is the cause; further ones are the end of a log.
    """
    causes = Counter(text.strip().partition("\n")[0] for text in reasons)
    return [f"{count} {'test' if count == 1 else 'tests'}: {cause}" for cause, count in causes.most_common()]
