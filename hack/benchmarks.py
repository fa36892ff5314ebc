"""Recorded results of the benchmark (docs/benchmarks.json), and their table in docs/benchmarks.md.

The table has medians with their spread; a ratio to the peer compares runs of the same alternation.
"""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Self

Figures = dict[str, float]
"""Measured values by their names."""

CONTENDERS = ("operator", "peer", "floor")
_LARGE = 1000
"""Number of objects from which a burst has a target: below it, the time to start dominates."""


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


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        title: Title of the row.
        figure: Name of the figure.
        show: Formats a value.
        target: Target, where there is one.
    """

    title: str
    figure: str
    show: Callable[[float], str]
    target: str = ""


def summary(results: Results) -> str:
    """Return the table, and the machine that it was measured on.

    Args:
        results: The results.
    """
    return f"{table(results)}\n\n{', '.join(f'{name} {value}' for name, value in results.machine.items())}"


def table(results: Results) -> str:
    """Return a Markdown table of all figures that were measured.

    Args:
        results: The results.
    """
    present = [name for name in CONTENDERS if any(run.contender == name for run in results.runs)]
    lines = [["", *present, *(["ratio to the peer"] if "peer" in present else []), "target"]]
    lines.append(["---"] * len(lines[0]))
    rows = chain(
        _rows(results.sizes),
        *map(_shard_rows, results.measured("shards")),
        *map(_large_rows, results.measured("large")),
    )
    for row in rows:
        cells = [_spread(list(results.values(name, row.figure).values()), row.show) for name in present]
        if not any(cells):
            continue
        if "peer" in present:
            cells.append(_spread(results.ratios(row.figure), lambda ratio: f"{ratio:.2f}"))
        lines.append([row.title, *cells, row.target])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _spread(values: list[float], show: Callable[[float], str]) -> str:
    """Return the median, and the smallest and largest value where they differ."""
    if not values:
        return ""
    middle, least, most = show(statistics.median(values)), show(min(values)), show(max(values))
    return middle if least == most else f"**{middle}** ({least} to {most})"


def _seconds(value: float) -> str:
    return f"{value:.1f} s"


def _hundredths(value: float) -> str:
    return f"{value:.2f} s"


def _milliseconds(value: float) -> str:
    return f"{value * 1000:.3g} ms"


def _megabytes(value: float) -> str:
    return f"{value:.0f} MB"


def _kilobytes(value: float) -> str:
    return f"{value:.1f} kB"


def _count(value: float) -> str:
    return f"{value:.3g}" if value < _LARGE else f"{value:,.0f}"


def _per_second(value: float) -> str:
    return f"{value:.2g} /s"


def _rate(value: float) -> str:
    return f"{value:.0f} /s"


def _rows(sizes: Sequence[int]) -> Iterator[Row]:
    yield Row("start-up: one object waits, until it is Ready", "burst/1/seconds", _seconds)
    yield Row("start-up: CPU", "burst/1/cpu", _seconds)
    yield Row("start-up: memory, peak", "burst/1/memory", _megabytes)
    for size in sizes:
        target = "ratio ≤ 1.0" if size >= _LARGE else ""
        yield Row(f"burst of {size:,}: until all are Ready", f"burst/{size}/seconds", _seconds, target)
    for size in sizes:
        yield Row(f"burst of {size:,}: time for each object", f"burst/{size}/seconds-object", _milliseconds, "flat")
    for size in sizes:
        yield Row(
            f"burst of {size:,}: CPU for each object, without start-up",
            f"burst/{size}/cpu-object",
            _milliseconds,
            "ratio ≤ 1.8",
        )
    for size in sizes:
        yield Row(f"burst of {size:,}: memory, peak", f"burst/{size}/memory", _megabytes, "≤ 130 MB, ratio ≤ 2")
    for size in sizes:
        yield Row(f"burst of {size:,}: memory for each object", f"burst/{size}/memory-object", _kilobytes, "flat")
    yield Row("one object, apply to Ready: p50", "idle/1/p50", _milliseconds, "ratio ≤ 1.0")
    yield Row("one object, apply to Ready: p99", "idle/1/p99", _milliseconds)
    yield Row("one object: CPU", "idle/1/cpu", _milliseconds)
    yield Row("one object: writes to the API server", "idle/1/writes", _count, "1")
    yield Row("one object: requests to the registry", "idle/1/requests", _count, "≤ 3")
    for size in sizes:
        at = f"restart with {size:,} Ready"
        yield Row(f"{at}: a waiting object is served after", f"restart/{size}/waiting", _seconds, "ratio ≤ 1.0")
        yield Row(f"{at}: then another one", f"restart/{size}/fresh", _milliseconds, "ratio ≤ 1.0")
        yield Row(f"{at}: writes to the others", f"restart/{size}/writes", _count, "0")
    for size in sizes:
        at = f"verify {size:,}"
        yield Row(f"{at}: objects a second", f"verify/{size}/rate", _rate)
        yield Row(f"{at}: the bare loop", f"verify/{size}/floor", _rate)
        yield Row(f"{at}: share of the bare loop", f"verify/{size}/share", _count, "≥ 0.5")
        yield Row(f"{at}: writes", f"verify/{size}/writes", _count, "0")
        at = f"outage with {size:,}"
        yield Row(f"{at}: writes for each object", f"outage/{size}/writes", _count, "≤ 2")
        yield Row(f"{at}: events for each object", f"outage/{size}/events", _count, "≤ 2")
        yield Row(f"{at}: from the registry's return until all are Ready", f"outage/{size}/recovery", _seconds)
        yield Row(f"{at}: the same in bursts", f"outage/{size}/recovery-bursts", _count, "≤ 1.2")
        at = f"another namespace during a burst of {size:,}"
        yield Row(f"{at}: apply to Ready, p50", f"crowd/{size}/p50", _hundredths)
        yield Row(f"{at}: apply to Ready, p99", f"crowd/{size}/p99", _hundredths, "≤ 3 times one object, p99")
        at = f"an hour with {size:,} Ready and nothing to do"
        yield Row(f"{at}: CPU", f"rest/{size}/cpu", _seconds)
        yield Row(f"{at}: writes", f"rest/{size}/writes", _count, "0")
        yield Row(f"{at}: requests to the API server", f"rest/{size}/api", _count)
        yield Row(f"{at}: requests to the registry", f"rest/{size}/registry", _count)
        at = f"the same hour of a second replica, which waits for the Lease, with {size:,} Ready"
        yield Row(f"{at}: CPU", f"standby/{size}/cpu", _seconds)
        yield Row(f"{at}: memory, peak", f"standby/{size}/memory", _megabytes)
        yield Row(f"{at}: requests to the API server, of both replicas", f"standby/{size}/api", _count)


def _shard_rows(size: int) -> Iterator[Row]:
    yield Row("one operator, slow registry: CPU of the servers, share of all cores", f"shards/{size}/1/servers", _count)
    for number in (2, 4):
        for scope in ("namespace", "label"):
            at = f"{number} operators that share {size:,} objects by {scope}"
            figure = f"shards/{size}/{number}/{scope}"
            yield Row(f"{at}: speed, share of {number} times that of one", f"{figure}/speed", _count, "≥ 0.9")
            yield Row(f"{at}: CPU for each object, ratio to one", f"{figure}/cpu", _count)
            yield Row(f"{at}: CPU of the servers, share of all cores", f"{figure}/servers", _count)


def _large_rows(size: int) -> Iterator[Row]:
    figures = f"large/{size}"
    for which in ("first", "last"):
        at = f"growth to {size:,}, {which} batch"
        yield Row(f"{at}: time for each object", f"{figures}/{which}/seconds-object", _milliseconds, "flat")
        yield Row(f"{at}: CPU for each object", f"{figures}/{which}/cpu-object", _milliseconds, "flat")
    yield Row(f"growth to {size:,}: memory, peak", f"{figures}/memory", _megabytes, "≤ 250 MB")
    at, figure = f"restart with {size:,} Ready", f"{figures}/restart"
    yield Row(f"{at}: an object created once the watch is established", f"{figure}/fresh", _milliseconds, "≤ 2 s")
    yield Row(f"{at}: a waiting object is served after", f"{figure}/waiting", _seconds)
    yield Row(f"{at}: until all are verified", f"{figure}/verified", _seconds)
    yield Row(f"{at}: CPU until then", f"{figure}/cpu", _seconds)
    yield Row(f"{at}: writes to the others", f"{figure}/writes", _count, "0")
    at, figure = f"resync of {size:,} within five minutes", f"{figures}/resync"
    yield Row(f"{at}: objects a second", f"{figure}/rate", _rate)
    yield Row(f"{at}: the highest rate within five seconds, ratio to the mean", f"{figure}/peak", _count)
    yield Row(f"{at}: lists of the API server", f"{figure}/lists", _per_second)
    yield Row(f"{at}: writes", f"{figure}/writes", _count, "0")
    for process in ("operator", "kube-apiserver", "etcd", "registry"):
        yield Row(f"{at}: CPU of {process}, share of a core", f"{figure}/{process}", _count)
    yield Row(f"{at}: memory, peak", f"{figure}/memory", _megabytes, "≤ 250 MB")
