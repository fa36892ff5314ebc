"""Writes what README.md shows of a tour: ``python -m hack.pictures`` (``make demo-pictures``).

It plays the tour on a dev cluster, and puts its output into marked blocks of README.md and into two pictures, for dark
and for light pages. A test compares the commands, columns and fields in them with those of today.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI, TerminalTheme
from rich.text import Text

from devcluster.cluster import Kubernetes
from devcluster.demo import tour
from devcluster.demo_tour import Played
from devcluster.manifests import MANIFESTS, ROOT
from hack.blocks import fill

REGISTRY_PORT: Final = 5001
"""That of kind's documented registry, so that the names look as people know them."""
SHOWN: Final[Mapping[str, Sequence[str]]] = {
    "tour-ready": ("get",),
    "tour-outage": ("stop", "unknown", "outage", "start", "events"),
    "tour-recreated": ("forget", "recreated"),
}
"""The steps in each block of README.md."""
PICTURED: Final = ("apply", "wait", "get", "push", "stop", "unknown", "outage", "start", "recovered")
"""The steps in the picture, whose lines are short."""
PICTURES: Final[Mapping[str, TerminalTheme]] = {"dark": MONOKAI, "light": DEFAULT_TERMINAL_THEME}
COMMAND: Final = "make demo-pictures"

_WIDTH: Final = 116
_STYLES: Final = {r"\bTrue\b": "green", r"\bUnknown\b|RegistryUnavailable": "bold red"}
_FONTS: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def blocks(played: Sequence[Played]) -> dict[str, Callable[[], str]]:
    """Return the generator of each block of README.md.

    Args:
        played: The steps of the tour.
    """

    def generator(names: Sequence[str]) -> Callable[[], str]:
        shown = [p for p in played if p.step.name in names]
        lines = "".join(f"$ {p.step.command}\n{p.output}" for p in shown)
        return lambda: f"```console\n{lines}```"

    status = next(p.output for p in played if p.step.name == "status")
    sample = "".join(line for line in _sample() if not line.startswith("#"))
    generators = {name: generator(names) for name, names in SHOWN.items()}
    return {**generators, "tour-object": lambda: f"```yaml\n{sample}{status}```"}


def _sample() -> list[str]:
    return (MANIFESTS / "samples" / "web.yaml").read_text(encoding="utf-8").splitlines(keepends=True)


def picture(played: Sequence[Played], theme: TerminalTheme) -> str:
    """Return a picture of a terminal as SVG; it loads nothing from elsewhere.

    Args:
        played: The steps of the tour.
        theme: Its colours.
    """
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    for p in played:
        if p.step.name not in PICTURED:
            continue
        console.print(Text(f"# {p.step.text}", style="dim"))
        console.print(Text("$ ", style="bold green").append(p.step.command, style="bold"))
        output = Text(p.output)
        for pattern, style in _STYLES.items():
            output.highlight_regex(pattern, style)
        console.print(output)
    svg = console.export_svg(title="make demo ARGS=--tour", theme=theme, unique_id="tour")
    return _FONTS.sub("", svg)


def main() -> None:
    """Play the tour and write its output."""
    played = tour(Kubernetes.NEWEST, registry_port=REGISTRY_PORT)
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8"), blocks(played), command=COMMAND), encoding="utf-8")
    folder = ROOT / "docs" / "images"
    folder.mkdir(exist_ok=True)
    for name, theme in PICTURES.items():
        (folder / f"tour-{name}.svg").write_text(picture(played, theme), encoding="utf-8")
    sys.stdout.write("\nREADME.md and docs/images have been written\n")


if __name__ == "__main__":
    main()
