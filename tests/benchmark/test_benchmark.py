"""The benchmark runs, and the counts in it are right. How long things take is for people to judge, not for a test."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from hack.benchmarks import Results
from tests.benchmark.__main__ import main

pytestmark = pytest.mark.cluster


@pytest.mark.timeout(900)
def test_the_short_form(tmp_path: Path) -> None:
    """Its table and its picture are whole, and the operator makes as many requests as it promises.

    One write and three requests to the registry for an object; none on a restart and when all is verified again; two
    writes and two events in an outage.
    """
    answer = CliRunner().invoke(main, ["--short", "--output", str(tmp_path)], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    results = Results.load(tmp_path / "results.json")
    assert [run.contender for run in results.runs] == ["operator", "floor"]
    figures = results.runs[0].figures
    assert figures["burst/50/writes"] == 1
    assert figures["idle/1/writes"] == 1
    assert figures["idle/1/requests"] == 3
    assert figures["restart/50/writes"] == 0
    assert figures["verify/50/writes"] == 0
    assert figures["outage/50/writes"] <= 2
    assert figures["outage/50/events"] <= 2
    assert figures["crowd/50/objects"] > 0
    assert figures["rest/50/writes"] == 0
    assert results.runs[1].figures["burst/50/writes"] == 1
    assert "| burst of 50: until all are Ready |" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "growth.svg").read_text().endswith("</svg>\n")
