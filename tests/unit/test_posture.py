"""Security posture: forbidden calls, pinned dependencies, and a threat model with a test for each threat."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(ROOT.glob("controller/**/*.py"))
LOCKS = sorted(ROOT.glob("requirements/*.txt"))
THREATS = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")

FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "breakpoint", "input"),
    *("yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "marshal.loads", "shelve.open"),
    *("pickle.load", "pickle.loads", "os.system", "os.popen", "subprocess.run", "subprocess.Popen"),
}
"""Also forbidden by ruff (S102, S301 to S307, S506, S602 to S607 and more), but ``noqa`` can disable a rule."""


def calls(path: Path) -> Iterator[str]:
    """Yield the qualified names of the functions that a module calls."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_executed_or_unpickled(path: Path) -> None:
    """No input is executed or unpickled; YAML is read only by safe loaders, in two places."""
    called = set(calls(path))
    assert called & FORBIDDEN == set()
    assert any(name.endswith("Loader") for name in called) is (path.name in {"configfile.py", "flatyaml.py"})


def test_the_security_rules_are_on() -> None:
    """All S rules of ruff apply to the product; only S311 (jitter) and S105 (a grammar) are silenced."""
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert lint["select"] == ["ALL"]
    assert [rule for rule in lint["ignore"] if re.fullmatch(r"S\d*", rule)] == []
    assert [place for place in lint["per-file-ignores"] if not place.startswith("tests")] == []
    silenced = {rule for path in CODE for rule in re.findall(r"noqa:.*?\b(S\d+)", path.read_text(encoding="utf-8"))}
    assert silenced <= {"S311", "S105"}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_each_dependency_is_pinned_by_hash(path: Path) -> None:
    """Each dependency has one version and hashes; no lock contains an address."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    requirements = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert requirements
    for requirement in requirements:
        assert re.match(r"[a-z0-9][a-z0-9._-]*==[^ ;]+( ; [^-]+)? +--hash=sha256:[0-9a-f]{64}( |$)", requirement)
    assert "://" not in text


@pytest.mark.parametrize("name", ["Makefile", "Dockerfile"])
def test_hashes_are_required(name: str) -> None:
    """Every installation from a lock checks the hashes."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    installs = [line for line in re.split(r"\n|&&", text) if re.search(r"\bpip\b.* install\b|install .*-r ", line)]
    locked = [line for line in installs if "-r " in line]
    assert locked
    assert [line for line in locked if "--require-hashes" not in line] == []
    assert [line for line in installs if "-r " not in line and "--no-index" not in line] == []


def test_each_threat_has_its_tests() -> None:
    """Each row of the table of threats in docs/security.md names existing tests."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("**/test_*.py")]
    there = {name for text in texts for name in re.findall(r"^ *(?:async )?def (test_\w+)\(", text, re.MULTILINE)}
    section = THREATS.partition("## Threats")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    for row in rows:
        assert len(row) == 4, row
        named = set(re.findall(r"`(test_\w+)`", row[3]))
        assert named, row
        assert named <= there, named - there
