"""docs/faults.md names tests: each of them exists, and no fault test is left out."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "faults.md").read_text()))


def names_in(pattern: str) -> set[str]:
    """Return the names of the tests in some of the cluster tests' files."""
    files = (ROOT / "tests" / "cluster").glob(pattern)
    return {name for file in files for name in re.findall(r"(?m)^(?:async )?def (test_\w+)", file.read_text())}


def test_each_test_that_the_page_names_exists() -> None:
    """A renamed test is renamed there, too."""
    assert names_in("test_*.py") >= NAMED


def test_most_fault_tests_are_on_the_page() -> None:
    """What is not there shows that a fault is none: the steady state, a restart without a write."""
    harmless = {
        "test_a_second_sigterm_ends_it_at_once",
        "test_a_stale_list_is_no_reason_to_write",
        "test_another_registry_needs_no_restart",
        "test_changed_references_are_rewritten",
        "test_foreign_conditions_and_fields_survive",
        "test_one_works_and_the_other_stands_by",
        "test_the_steady_state_costs_one_question_an_object",
        "test_what_is_told_to_wait_does_not_wait_for_its_deadline",
    }
    assert names_in("test_faults_*.py") - NAMED <= harmless
