"""Recorded results of the benchmark (docs/benchmarks.json)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

Figures = dict[str, float]
"""Measured values by their names."""

CONTENDERS = ("operator", "peer", "floor")


@dataclass(frozen=True)
class Run:
    """Figures of one contender in one alternation.

    Args:
        contender: Its name.
        alternation: The number of the alternation.
        figures: By ``SCENARIO/SIZE/NAME``.
    """

    contender: str
    alternation: int
    figures: Figures


@dataclass(frozen=True)
class Results:
    """Results of a benchmark.

    Args:
        machine: The machine and the versions that were measured.
        sizes: The numbers of objects.
        runs: The measurements.
    """

    machine: Mapping[str, str]
    sizes: Sequence[int]
    runs: Sequence[Run]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read saved results."""
        content = json.loads(path.read_text())
        return cls(content["machine"], content["sizes"], [Run(**run) for run in content["runs"]])

    def save(self, path: Path) -> None:
        """Save the results as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    def values(self, contender: str, figure: str) -> dict[int, float]:
        """Return a figure of a contender by alternation."""
        return {
            run.alternation: run.figures[figure]
            for run in self.runs
            if run.contender == contender and figure in run.figures
        }

    def measured(self, scenario: str) -> list[int]:
        """Return the numbers of objects that a scenario was measured with."""
        names = {figure for run in self.runs for figure in run.figures if figure.startswith(f"{scenario}/")}
        return sorted({int(name.split("/")[1]) for name in names})

    def added_to(self, recorded: Self) -> Self:
        """Return these results together with recorded ones of other scenarios, which were not measured again."""
        scenarios = {figure.split("/")[0] for run in self.runs for figure in run.figures}
        kept = [run for run in recorded.runs if scenarios.isdisjoint(figure.split("/")[0] for figure in run.figures)]
        return replace(self, sizes=self.sizes or recorded.sizes, runs=[*self.runs, *kept])

    def ratios(self, figure: str) -> list[float]:
        """Return the ratio of the operator's figure to the peer's, for each alternation."""
        ours, theirs = self.values("operator", figure), self.values("peer", figure)
        return [ours[number] / theirs[number] for number in ours.keys() & theirs.keys() if theirs[number]]
