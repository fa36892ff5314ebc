"""docs/faults.md and the fault tests are one list."""

import re

import pytest

from tests.cluster.harness import ROOT

TABLE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = [
    line
    for line in TABLE.splitlines()
    if line.startswith("| ") and not re.match(r"\| (fault|what they do|---) \|", line)
]


def names_in(pattern: str) -> set[str]:
    """Return the names of all tests in the files that fit."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob(pattern)]
    return {name for text in texts for name in re.findall(r"^(?:async )?def (test_\w+)\(", text, re.MULTILINE)}


@pytest.mark.parametrize("row", ROWS)
def test_each_row_names_a_test_that_exists(row: str) -> None:
    """Fault, what happens, what the user sees, and the test that shows it: none empty, and the test is there."""
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 4
    assert all(cells)
    names = re.findall(r"`(test_\w+)`", cells[3])
    assert names
    assert set(names) <= names_in("cluster/test_*.py") | names_in("unit/**/test_*.py")


def test_each_fault_test_is_in_the_table() -> None:
    """What is proved is also told."""
    assert (
        names_in("cluster/test_faults_*.py")
        - names_in("cluster/test_faults_table.py")
        - set(re.findall(r"`(test_\w+)`", TABLE))
        == set()
    )
