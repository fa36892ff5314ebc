"""``python -m tests.benchmark``, or ``make bench``."""

import sys
from pathlib import Path

import click

from hack.benchmark_tables import tables
from hack.benchmarks import Results
from tests.benchmark.drawing import draw
from tests.benchmark.installation import interpreter
from tests.benchmark.rounds import Lengths, at_scale, compare
from tests.cluster.harness import ROOT

_PICTURE = ROOT / "docs" / "benchmarks.svg"
_RECORD = ROOT / "docs" / "benchmarks.json"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--peer", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Program of another operator."
)
@click.option(
    "--python",
    "base",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=sys.executable,
    help="Interpreter of the operator and the floor, of the same kind as users': optimised. Default: this one.",
)
@click.option("--sizes", default="100,1000,10000", show_default=True, help="Numbers of objects.")
@click.option("--alternations", type=click.IntRange(1), default=5, show_default=True, help="How often each one runs.")
@click.option("--singles", type=click.IntRange(2), default=200, show_default=True, help="Objects one after the other.")
@click.option(
    "--large",
    type=click.IntRange(1),
    help="Measure other things instead: growth to so many objects, resyncs, and shards; 100000 take half an hour.",
)
@click.option("--short", is_flag=True, help="Fifty objects, once; a registry's outage of a second.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "build" / "benchmark",
    help="Folder for results.json, results.md and growth.svg; default: build/benchmark.",
)
@click.option("--record", is_flag=True, help="Keep the results for the documentation, too; then: make docs.")
def main(
    peer: Path | None,
    base: Path,
    sizes: str,
    alternations: int,
    singles: int,
    large: int | None,
    *,
    short: bool,
    output: Path,
    record: bool,
) -> None:
    """Measure the operator against the bare requests and, where one is named, a peer.

    The full form takes half an hour, and the machine should do nothing else meanwhile.
    """
    counts = sorted(int(size) for size in sizes.split(","))
    timings: dict[str, str] = {}
    lengths = Lengths()
    rest = 120.0
    if short:
        counts, alternations, singles = [50], 1, 5
        timings = {"unavailableAfter": "1s", "probeInterval": "500ms"}
        lengths = Lengths(batch=50, interval="4s", resync=10.0, sharded=40, latency=0.02)
        rest = 3.0
    output.mkdir(parents=True, exist_ok=True)
    python = Path(sys.executable) if short else interpreter(output / "venv", base)

    def keep(results: Results) -> None:
        results.save(output / "results.json")
        (output / "results.md").write_text(tables(results) + "\n")
        if not large:
            draw(results, output / "growth.svg")

    def say(line: str) -> None:
        click.echo(line, err=True)

    if large:
        results = at_scale(large, lengths, python, say)
        keep(results)
    else:
        results = compare(
            sizes=counts,
            alternations=alternations,
            singles=singles,
            peer=peer,
            timings=timings,
            rest=rest,
            python=python,
            say=say,
            keep=keep,
        )
    click.echo(tables(results))
    if record:
        results = results.added_to(Results.load(_RECORD))
        results.save(_RECORD)
        draw(results, _PICTURE)


if __name__ == "__main__":
    main()
