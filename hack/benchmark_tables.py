"""Tables of the benchmark's results, for docs/benchmarks.md: one for each scenario.

They have medians with their spread; a ratio to the peer compares runs of the same alternation.
"""

import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from hack.benchmarks import CONTENDERS, Results
from hack.markdown import table

_LARGE = 1000
"""Number of objects from which a burst has a target: below it, the time to start dominates."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        title: What was measured.
        figure: Name of the figure.
        show: Formats a value.
        target: Target, where there is one.
    """

    title: str
    figure: str
    show: Callable[[float], str]
    target: str = ""


@dataclass(frozen=True)
class Section:
    """A table: the figures of one scenario.

    Args:
        title: The scenario.
        rows: Its rows.
    """

    title: str
    rows: Sequence[Row]


def summary(results: Results) -> str:
    """Return the tables, and the machine that they were measured on.

    Args:
        results: The results.
    """
    return f"{tables(results)}\n\n{', '.join(f'{name} {value}' for name, value in results.machine.items())}"


def tables(results: Results) -> str:
    """Return a Markdown table for each scenario that was measured.

    Args:
        results: The results.
    """
    return "\n\n".join(filter(None, (_table(section, results) for section in _sections(results))))


def _table(section: Section, results: Results) -> str:
    """Return the table of a scenario, with the columns and rows that have a value."""
    columns = {
        name: [_spread(results.values(name, row.figure).values(), row.show) for row in section.rows]
        for name in CONTENDERS
    }
    columns["ratio to the peer"] = [_spread(results.ratios(row.figure), "{:.2f}".format) for row in section.rows]
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    measured = zip(section.rows, *columns.values(), strict=True)
    rows = [[row.title, *cells, row.target] for row, *cells in measured if any(cells)]
    return table([section.title, *columns, "target"], rows) if rows else ""


def _spread(values: Collection[float], show: Callable[[float], str]) -> str:
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


def _sections(results: Results) -> Iterator[Section]:
    yield Section(
        "Start-up",
        [
            Row("one object waits, until it is Ready", "burst/1/seconds", _seconds),
            Row("CPU", "burst/1/cpu", _seconds),
            Row("memory, peak", "burst/1/memory", _megabytes),
        ],
    )
    for size in results.sizes:
        yield _burst(size)
    yield Section(
        "One object, from apply to Ready",
        [
            Row("p50", "idle/1/p50", _milliseconds, "ratio ≤ 1.0"),
            Row("p99", "idle/1/p99", _milliseconds),
            Row("CPU", "idle/1/cpu", _milliseconds),
            Row("writes to the API server", "idle/1/writes", _count, "1"),
            Row("requests to the registry", "idle/1/requests", _count, "≤ 3"),
        ],
    )
    for size in results.sizes:
        yield _restart(size)
    for size in results.sizes:
        yield from _others(size)
    for size in results.measured("shards"):
        yield _shards(size)
    for size in results.measured("large"):
        yield from _large(size)


def _burst(size: int) -> Section:
    return Section(
        f"Burst of {size:,} objects",
        [
            Row("until all are Ready", f"burst/{size}/seconds", _seconds, "ratio ≤ 1.0" if size >= _LARGE else ""),
            Row("time for each object", f"burst/{size}/seconds-object", _milliseconds, "flat"),
            Row("CPU for each object, without start-up", f"burst/{size}/cpu-object", _milliseconds, "ratio ≤ 1.8"),
            Row("memory, peak", f"burst/{size}/memory", _megabytes, "≤ 130 MB, ratio ≤ 2"),
            Row("memory for each object", f"burst/{size}/memory-object", _kilobytes, "flat"),
        ],
    )


def _restart(size: int) -> Section:
    return Section(
        f"Restart with {size:,} Ready objects",
        [
            Row("an object that waited is served after", f"restart/{size}/waiting", _seconds, "ratio ≤ 1.0"),
            Row("then another one", f"restart/{size}/fresh", _milliseconds, "ratio ≤ 1.0"),
            Row("writes to the others", f"restart/{size}/writes", _count, "0"),
        ],
    )


def _others(size: int) -> Iterator[Section]:
    """Yield what is measured with the largest number of objects only."""
    yield Section(
        f"Another namespace during a burst of {size:,} objects, from apply to Ready",
        [
            Row("p50", f"crowd/{size}/p50", _hundredths),
            Row("p99", f"crowd/{size}/p99", _hundredths, "≤ 3 times one object, p99"),
        ],
    )
    yield Section(
        f"Verification of {size:,} objects at once",
        [
            Row("objects a second", f"verify/{size}/rate", _rate),
            Row("the bare loop", f"verify/{size}/floor", _rate),
            Row("share of the bare loop", f"verify/{size}/share", _count, "≥ 0.5"),
            Row("writes", f"verify/{size}/writes", _count, "0"),
        ],
    )
    yield Section(
        f"Outage of the registry with {size:,} objects",
        [
            Row("writes for each object", f"outage/{size}/writes", _count, "≤ 2"),
            Row("events for each object", f"outage/{size}/events", _count, "≤ 2"),
            Row("from the registry's return until all are Ready", f"outage/{size}/recovery", _seconds),
            Row("the same in bursts", f"outage/{size}/recovery-bursts", _count, "≤ 1.2"),
        ],
    )
    yield Section(
        f"An hour with {size:,} Ready objects and nothing to do",
        [
            Row("CPU", f"rest/{size}/cpu", _seconds),
            Row("writes", f"rest/{size}/writes", _count, "0"),
            Row("requests to the API server", f"rest/{size}/api", _count),
            Row("requests to the registry", f"rest/{size}/registry", _count),
            Row("a second replica, which waits for the Lease: CPU", f"standby/{size}/cpu", _seconds),
            Row("a second replica: memory, peak", f"standby/{size}/memory", _megabytes),
            Row("both replicas: requests to the API server", f"standby/{size}/api", _count),
        ],
    )


def _shards(size: int) -> Section:
    servers = "CPU of the servers, share of all cores"
    rows = [Row(f"one operator: {servers}", f"shards/{size}/1/servers", _count)]
    for number in (2, 4):
        for scope in ("namespace", "label"):
            at, figure = f"{number} operators, by {scope}", f"shards/{size}/{number}/{scope}"
            rows.append(Row(f"{at}: speed, share of {number} times that of one", f"{figure}/speed", _count, "≥ 0.9"))
            rows.append(Row(f"{at}: CPU for each object, ratio to one", f"{figure}/cpu", _count))
            rows.append(Row(f"{at}: {servers}", f"{figure}/servers", _count))
    return Section(f"Shards: operators that share {size:,} objects of a slow registry", rows)


def _large(size: int) -> Iterator[Section]:
    figures = f"large/{size}"
    yield Section(
        f"Growth to {size:,} objects",
        [
            Row("time for each object, first batch", f"{figures}/first/seconds-object", _milliseconds, "flat"),
            Row("time for each object, last batch", f"{figures}/last/seconds-object", _milliseconds, "flat"),
            Row("CPU for each object, first batch", f"{figures}/first/cpu-object", _milliseconds, "flat"),
            Row("CPU for each object, last batch", f"{figures}/last/cpu-object", _milliseconds, "flat"),
            Row("memory, peak", f"{figures}/memory", _megabytes, "≤ 250 MB"),
        ],
    )
    figure = f"{figures}/restart"
    yield Section(
        f"Restart with {size:,} Ready objects",
        [
            Row("an object created once the watch is established", f"{figure}/fresh", _milliseconds, "≤ 2 s"),
            Row("an object that waited is served after", f"{figure}/waiting", _seconds),
            Row("until all are verified", f"{figure}/verified", _seconds),
            Row("CPU until then", f"{figure}/cpu", _seconds),
            Row("writes to the others", f"{figure}/writes", _count, "0"),
        ],
    )
    figure = f"{figures}/resync"
    yield Section(
        f"Resync of {size:,} objects within five minutes",
        [
            Row("objects a second", f"{figure}/rate", _rate),
            Row("the highest rate within five seconds, ratio to the mean", f"{figure}/peak", _count),
            Row("lists of the API server", f"{figure}/lists", _per_second),
            Row("writes", f"{figure}/writes", _count, "0"),
            *(
                Row(f"CPU of {process}, share of a core", f"{figure}/{process}", _count)
                for process in ("operator", "kube-apiserver", "etcd", "registry")
            ),
            Row("memory, peak", f"{figure}/memory", _megabytes, "≤ 250 MB"),
        ],
    )
