"""Writes generated files and the generated blocks of pages: ``python -m hack.generate`` (``make docs``).

Pages are written by hand; a generated block stands between two comments::

    <!-- begin reasons: written by make docs -->
    <!-- end reasons -->

A test fails when a block or a file is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

from devcluster.manifests import CHART, ROOT
from hack import argocd, benchmark_tables, benchmarks, blocks, chart, configuration, crd, operations, states

DOCS: Final = ROOT / "docs"

BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "alerts": operations.alerts,
    "benchmarks": lambda: benchmark_tables.summary(benchmarks.Results.load(DOCS / "benchmarks.json")),
    "columns": crd.columns,
    "configuration": configuration.fields,
    "fields": crd.fields,
    "metrics": operations.metrics,
    "options": configuration.options,
    "permissions": operations.permissions,
    "reasons": states.reasons,
    "refusals": crd.validation_rules,
    "states": states.states,
    "values": chart.values_table,
}
"""The generator of each block, by the block's name."""


def fill(page: str) -> str:
    """Return a page with the current content in each of its generated blocks.

    Args:
        page: The page in Markdown.
    """
    return blocks.fill(page, BLOCKS, command="make docs")


def main() -> None:
    """Write everything that is generated, and print the names of the files that changed."""
    pages = sorted([*DOCS.glob("*.md"), CHART / "README.md"])
    texts = {path: fill(path.read_text(encoding="utf-8")) for path in pages}
    texts |= {argocd.CONFIG_MAP: argocd.config_map(), CHART / "values.schema.json": chart.schema()}
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(ROOT)} has changed\n")


if __name__ == "__main__":
    main()
