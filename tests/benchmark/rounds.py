"""The order of the rounds: who runs when, so that neither the machine's mood nor the order favours one of them."""

import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller import __version__
from hack.benchmarks import Figures, Results, Run
from tests.benchmark import contenders, scale, scenarios
from tests.benchmark.stage import Contender, stage

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Lengths:
    """How much the scenarios of scale measure, and how long.

    Args:
        batch: How many objects are created at a time.
        interval: The interval of their resyncs.
        resync: How long to measure resyncs, in seconds.
        sharded: The number of objects that are shared by several operators.
        latency: What each request to the registry takes longer then, in seconds.
    """

    batch: int = 10_000
    interval: str = "5m"
    resync: float = 120.0
    sharded: int = 600
    latency: float = 0.1


def compare(
    *,
    sizes: Sequence[int],
    alternations: int,
    singles: int,
    peer: Path | None,
    timings: dict[str, Any],
    rest: float,
    python: Path,
    say: Progress,
    keep: Callable[[Results], None] = lambda _: None,
) -> Results:
    """Run all scenarios.

    Args:
        sizes: The numbers of objects.
        alternations: How often each contender runs.
        singles: How many objects to create one after the other.
        peer: The peer's program; None: without it.
        timings: Timings in the operator's configuration that are not the default's, to shorten an outage.
        rest: How long to measure what is used while nothing happens, in seconds.
        python: The interpreter that runs the operator and the floor.
        say: Takes a line for people after each round.
        keep: Takes what there is after each alternation.
    """
    operator = contenders.operator(timings, python)
    rivals = [operator, *([contenders.peer(peer)] if peer else [])]
    runs: list[Run] = []
    results = Results(_environment(python), sizes, runs)
    for number in range(alternations):
        order = rivals[:: 1 if number % 2 == 0 else -1]
        figures: dict[str, Figures] = defaultdict(dict)
        for size in (1, *sizes):
            for contender in [*order, contenders.floor(python)] if number == 0 else order:
                bare = contenders.floor(python, verify=True) if contender is operator and size == max(sizes) else None
                measured = _round(contender, size, singles, bare=bare)
                say(f"alternation {number + 1}, {contender.name}: {_in_short(measured)}")
                figures[contender.name] |= measured
        runs += [Run(name, number, _with_cost_of_objects(measured, sizes)) for name, measured in figures.items()]
        keep(results)
    elected = contenders.operator(timings, python, arguments=contenders.LEADER_ELECTION)
    for contender in rivals:
        measured = _crowd_and_rest(contender, max(sizes), rest, elected=elected if contender is operator else None)
        say(f"{contender.name}: {_in_short(measured)}")
        runs.append(Run(contender.name, 0, measured))
    measured = _outage(operator, max(sizes))
    say(f"{operator.name}: {_in_short(measured)}")
    runs.append(Run(operator.name, 0, measured))
    keep(results)
    return results


def at_scale(size: int, lengths: Lengths, python: Path, say: Progress) -> Results:
    """Run the scenarios of scale once, with the operator alone.

    Args:
        size: A large number of objects.
        lengths: How much is measured.
        python: The interpreter that runs the operator.
        say: Takes a line for people after each part.
    """
    figures: Figures = {}

    def add(prefix: str, measured: Figures) -> None:
        figures.update(_named(prefix, measured))
        say(f"{prefix}: {_in_short(measured)}")

    def sharded(registry_url: str, arguments: Sequence[str]) -> Contender:
        return contenders.operator({}, python, registry_url=registry_url, arguments=["--concurrent=4", *arguments])

    with stage() as here:
        add(f"shards/{lengths.sharded}", scale.shards(sharded, here, lengths.sharded, latency=lengths.latency))
    with stage() as here:
        operator = contenders.operator({"resyncInterval": lengths.interval}, python)
        add(f"large/{size}", scale.growth(operator, here, size, batch=lengths.batch))
        add(f"large/{size}", scale.large(operator, here, size, seconds=lengths.resync))
    return Results(_environment(python), [], [Run(operator.name, 0, figures)])


def _crowd_and_rest(contender: Contender, size: int, seconds: float, *, elected: Contender | None) -> Figures:
    """Run what one contender does once with the largest number of objects: a crowd, and then nothing.

    Args:
        contender: Who.
        size: The number of objects.
        seconds: How long nothing happens.
        elected: The same as one of several replicas, where it can be that.
    """
    with stage() as here:
        figures = _named(f"crowd/{size}", scenarios.crowd(contender, here, size))
        figures |= _named(f"rest/{size}", scenarios.rest(elected or contender, here, seconds))
        if elected:
            figures |= _named(f"standby/{size}", scenarios.standby(elected, here, seconds))
    return figures


def _outage(operator: Contender, size: int) -> Figures:
    """Run an outage, and compare the recovery from it with a burst of the same objects."""
    with stage() as here:
        burst = scenarios.burst(operator, here, size)
        measured = scenarios.outage(operator, here)
    return _named(f"outage/{size}", measured | {"recovery-bursts": measured["recovery"] / burst["seconds"]})


def _named(prefix: str, figures: Figures) -> Figures:
    return {f"{prefix}/{name}": value for name, value in figures.items()}


def _round(contender: Contender, size: int, singles: int, *, bare: Contender | None) -> Figures:
    """Run what one contender does with one number of objects; also verify them, if there is a bare loop to compare."""
    figures: Figures = {}

    def add(scenario: str, measured: Figures) -> None:
        figures.update(_named(f"{scenario}/{size}", measured))

    with stage() as here:
        add("burst", scenarios.burst(contender, here, size))
        if contender.name == contenders.FLOOR_AGENT:
            return figures
        if size == 1:
            add("idle", scenarios.idle(contender, here, singles))
            return figures
        add("restart", scenarios.restart(contender, here, size))
        if bare is not None:
            ready = size + 2  # a restart creates two
            add("verify", scenarios.verify(contender, bare, here, ready))
    return figures


def _in_short(figures: Figures) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def _environment(python: Path) -> dict[str, str]:
    """Return what the results depend on: versions and hardware."""
    command: list[str | Path] = [python, "-c", "import platform; print(platform.python_version())"]
    return {
        "operator": __version__,
        "python": subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
    }


def _with_cost_of_objects(figures: Figures, sizes: Sequence[int]) -> Figures:
    """Add the cost of each object: that of a burst less that of a burst of one, which is the cost of starting."""
    added = dict(figures)
    for size in sizes:
        if size > 1 and "burst/1/cpu" in figures:
            added[f"burst/{size}/cpu-object"] = (figures[f"burst/{size}/cpu"] - figures["burst/1/cpu"]) / (size - 1)
            added[f"burst/{size}/seconds-object"] = figures[f"burst/{size}/seconds"] / size
            grown = figures[f"burst/{size}/memory"] - figures["burst/1/memory"]
            added[f"burst/{size}/memory-object"] = 1000 * grown / (size - 1)
    return added
