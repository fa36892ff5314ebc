"""The picture: time, CPU and memory over the number of objects, as SVG without a library."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from xml.sax.saxutils import escape

from hack.benchmarks import CONTENDERS, Results

_WIDTH, _HEIGHT = 280, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 40, 46
_COLOURS = {"operator": "#1f6feb", "peer": "#8b949e", "floor": "#2da44e"}


@dataclass(frozen=True)
class Chart:
    """One of the charts beside each other.

    Args:
        title: What the vertical axis shows.
        figure: The figure, with ``{}`` in place of the size.
        scale: What its values are multiplied by.
    """

    title: str
    figure: str
    scale: float


CHARTS = (
    Chart("time for each object, ms", "burst/{}/seconds-object", 1000),
    Chart("CPU for each object, ms", "burst/{}/cpu-object", 1000),
    Chart("memory, peak, MB", "burst/{}/memory", 1),
)


def draw(results: Results, path: Path) -> None:
    """Write the picture.

    Args:
        results: What it shows.
        path: The file.
    """
    sizes = [size for size in results.sizes if size > 1]
    names = [name for name in CONTENDERS if any(run.contender == name for run in results.runs)]
    size = f'width="{_WIDTH * len(CHARTS)}" height="{_HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, chart in enumerate(CHARTS):
        parts.append(f'<g transform="translate({number * _WIDTH} 0)">')
        parts.extend(_chart(chart, results, sizes, names))
        parts.append("</g>")
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _chart(chart: Chart, results: Results, sizes: Sequence[int], names: Sequence[str]) -> Iterator[str]:
    lines = {name: dict(_medians(results, name, chart, sizes)) for name in names}
    top = _ceiling(max((value for values in lines.values() for value in values.values()), default=1.0))
    yield _text(_LEFT, 16, chart.title, weight="bold")
    for step in range(5):
        y = _y(top * step / 4, top)
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="#d0d7de"/>'
        yield _text(_LEFT - 5, y + 4, f"{top * step / 4:g}", anchor="end")
    for size in sizes:
        yield _text(_x(size, sizes), _HEIGHT - _BOTTOM + 15, f"{size:,}", anchor="middle")
    for number, (name, values) in enumerate(lines.items()):
        points = [(_x(size, sizes), _y(value, top)) for size, value in values.items()]
        path = " ".join(f"{x},{y}" for x, y in points)
        colour = _COLOURS[name]
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, y in points:
            yield f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
        yield _text(_LEFT + 75 * number, _HEIGHT - 10, f"● {name}", fill=colour)


def _medians(results: Results, name: str, chart: Chart, sizes: Sequence[int]) -> Iterator[tuple[int, float]]:
    """Yield the sizes at which something was measured, and its median there."""
    for size in sizes:
        if values := results.values(name, chart.figure.format(size)).values():
            yield size, statistics.median(values) * chart.scale


def _ceiling(value: float) -> float:
    """Return the next larger number that is nice to have at the top of an axis."""
    unit = 10.0 ** int(log10(value) // 1) if value > 0 else 1.0
    return next(nice * unit for nice in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if nice * unit >= value)


def _x(size: int, sizes: Sequence[int]) -> float:
    """Return where a number of objects lies; the axis is logarithmic."""
    first, last = log10(sizes[0]), log10(sizes[-1])
    share = (log10(size) - first) / (last - first) if last > first else 0.5
    inset = 18
    return round(_LEFT + inset + share * (_WIDTH - _LEFT - _RIGHT - 2 * inset), 1)


def _y(value: float, top: float) -> float:
    return round(_HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM), 1)


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", fill: str = "#1f2328"
) -> str:
    attributes = f'x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" fill="{fill}"'
    return f"<text {attributes}>{escape(text)}</text>"
