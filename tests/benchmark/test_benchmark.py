"""The benchmark runs, and the counts in it are right. How long things take is for people to judge, not for a test."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from hack.benchmarks import Figures, Results, Run
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
    assert {run.contender for run in results.runs} == {"operator", "floor"}
    figures: Figures = {}
    for run in results.runs:
        figures |= run.figures if run.contender == "operator" else {}
    assert figures["burst/50/writes"] == 1
    assert figures["idle/1/writes"] == 1
    assert figures["idle/1/requests"] == 3
    assert figures["restart/50/writes"] == 0
    assert figures["verify/50/writes"] == 0
    assert figures["outage/50/writes"] <= 2
    assert figures["outage/50/events"] <= 2
    assert figures["crowd/50/objects"] > 0
    assert figures["rest/50/writes"] == 0
    assert figures["standby/50/api"] > 0
    assert results.values("floor", "burst/50/writes") == {0: 1}
    tables = (tmp_path / "results.md").read_text()
    assert tables.count("\n| --- |") == 8, "one for each scenario"
    assert "| Burst of 50 objects | operator | floor | target |" in tables
    assert "| until all are Ready |" in tables
    assert (tmp_path / "growth.svg").read_text().endswith("</svg>\n")


@pytest.mark.timeout(900)
def test_the_short_form_of_scale(tmp_path: Path) -> None:
    """No write after a restart and in resyncs; several operators share the objects by namespace and by label."""
    arguments = ["--short", "--large", "100", "--output", str(tmp_path)]
    answer = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    figures = Results.load(tmp_path / "results.json").runs[0].figures
    assert figures["large/100/restart/writes"] == 0
    assert figures["large/100/resync/writes"] == 0
    assert figures["large/100/resync/rate"] > 0
    assert figures["shards/40/4/label/speed"] > 0
    tables = (tmp_path / "results.md").read_text()
    assert "| Restart with 100 Ready objects | operator | target |" in tables
    assert "| writes to the others | 0 | 0 |" in tables


def test_results_of_other_scenarios_stay_recorded() -> None:
    """What one command measures does not remove what another one has measured."""
    sizes, machine = [1000], {"cores": "2"}
    main_runs = [Run("operator", 0, {"burst/1000/seconds": 4.0}), Run("peer", 0, {"burst/1000/seconds": 5.0})]
    recorded = Results(machine, sizes, main_runs)
    at_scale = Results(machine, [], [Run("operator", 0, {"large/100000/memory": 220.0})])
    both = at_scale.added_to(recorded)
    assert (both.sizes, both.values("operator", "large/100000/memory")) == (sizes, {0: 220.0})
    assert both.ratios("burst/1000/seconds") == [0.8]
    again = Results(machine, sizes, [Run("operator", 0, {"burst/1000/seconds": 3.0})]).added_to(both)
    assert again.values("peer", "burst/1000/seconds") == {}
    assert again.values("operator", "large/100000/memory") == {0: 220.0}
