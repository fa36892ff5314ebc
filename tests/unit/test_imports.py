"""Imports of the product use only public interfaces of dependencies."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PRODUCT = Path(__file__).parents[2] / "controller"


def private_imports(source: str) -> Iterator[str]:
    """Yield each import of a private module or name, and each use of a private attribute of a module."""
    tree = ast.parse(source)
    modules: set[str] = set()  # but for the standard library, which documents names such as os._exit
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            modules |= {
                (alias.asname or alias.name).partition(".")[0] for alias in node.names
            } - sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in names if any(is_private(part) for part in name.split(".")))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=attribute, value=ast.Name(id=module)) if module in modules and is_private(
                attribute
            ):
                yield f"{module}.{attribute}"


def is_private(name: str) -> bool:
    """Return whether a name is private by convention; ``__future__`` and the like are not."""
    return name.startswith("_") and not name.endswith("__")


@pytest.mark.parametrize("path", sorted(PRODUCT.rglob("*.py")), ids=lambda path: str(path.relative_to(PRODUCT)))
def test_only_public_interfaces_are_imported(path: Path) -> None:
    """A private module of a dependency may change in any release."""
    assert list(private_imports(path.read_text())) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from kopf._cogs.clients.watching import infinite_watch", ["kopf._cogs.clients.watching.infinite_watch"]),
        ("import kopf._cogs", ["kopf._cogs"]),
        ("from kopf import _core", ["kopf._core"]),
        ("import kopf\nkopf._cogs.clients", ["kopf._cogs"]),
        ("import os\nos._exit(1)", []),
        ("from __future__ import annotations\nimport kopf\nkopf.on.event", []),
    ],
)
def test_the_rule_finds_private_imports(source: str, found: list[str]) -> None:
    """Each way to reach a private name is found, and nothing else."""
    assert list(private_imports(source)) == found
