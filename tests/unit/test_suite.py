"""The test suite: no test depends on the speed of a machine, and skipped tests are reported by cause."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.untested import SECTION, by_cause, skipped_where_unavailable

TESTS = Path(__file__).parents[1]
PROFILE = TESTS / "conftest.py"


def deadlines(source: str) -> Iterator[int]:
    """Yield the line of each call that sets a deadline for hypothesis."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and any(keyword.arg == "deadline" for keyword in node.keywords):
            yield node.lineno


def test_property_tests_have_no_deadline() -> None:
    """The profile disables deadlines, and no test sets one."""
    assert settings().deadline is None
    files = (path for path in TESTS.rglob("*.py") if path != PROFILE)
    assert [f"{path}:{line}" for path in files for line in deadlines(path.read_text())] == []


def test_a_deadline_would_be_found() -> None:
    """Deadlines in decorators, profiles and settings are found."""
    source = """
@settings(max_examples=3, deadline=200)
def test(): ...
settings.register_profile("slow", deadline=None)
how = settings(deadline=limit)
"""
    assert list(deadlines(source)) == [2, 4, 5]


def test_skipped_tests_are_grouped_by_cause() -> None:
    """Each cause is one line, the most frequent first; the log below a cause is left out."""
    reasons = [
        "one is missing",
        "two is missing\nlog of a",
        "one is missing",
        "two is missing\nlog of b",
        "two is missing",
    ]
    assert by_cause([*reasons, "  three\n"]) == ["3 tests: two is missing", "2 tests: one is missing", "1 test: three"]
    assert by_cause([]) == []


PLUGINS = ("-p", "tests.untested", "-p", "no:asyncio")

MISSING = """
import pytest
from devcluster.errors import ToolUnavailable

@pytest.fixture
def registry():
    raise ToolUnavailable("cargo is not on the PATH; install Rust")

@pytest.mark.parametrize("number", range(2))
def test_in_a_fixture(registry, number): ...

def test_by_itself():
    raise ToolUnavailable("cargo is not on the PATH; install Rust")

@pytest.mark.skipif(True, reason="takes long; set FAULTS=full")
def test_long(): ...

def test_here(): ...
"""


@pytest.mark.parametrize("workers", [(), ("--numprocesses=1",)])
def test_a_missing_tool_skips(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    """Tests that require it are skipped, and the end of the run says why, with xdist as without."""
    monkeypatch.delenv("CI", raising=False)
    pytester.makepyfile(MISSING)
    result = pytester.runpytest_inprocess(*PLUGINS, *workers)
    result.assert_outcomes(passed=1, skipped=4)
    result.stdout.fnmatch_lines(
        [f"*= {SECTION} =*", "3 tests: cargo is not on the PATH; install Rust", "1 test: takes long; set FAULTS=full"]
    )


def test_nothing_may_be_missing_in_ci(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI a missing tool fails the test."""
    monkeypatch.setenv("CI", "true")
    pytester.makepyfile(MISSING)
    pytester.runpytest_inprocess(*PLUGINS).assert_outcomes(passed=1, failed=1, errors=2, skipped=1)


def test_other_errors_stay_errors() -> None:
    """Only a tool that the machine lacks is a reason to skip."""
    with pytest.raises(ValueError, match="other"), skipped_where_unavailable():
        raise ValueError("other")
