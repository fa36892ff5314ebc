"""Unit tests are fast, or they are no unit tests."""

from pathlib import Path

import pytest
from hypothesis import settings

_HERE = Path(__file__).parent

# How long one example takes says more about the machine than about the code.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stop a unit test that hangs; on an idle machine none takes two seconds, but this one may be busy."""
    for item in items:
        if _HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(60))
