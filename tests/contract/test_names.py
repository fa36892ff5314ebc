"""Every name that the grammar accepts works on both versions of Distribution.

That no other text reaches a wire is shown in tests/unit/registry (test_client, test_local).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from controller.binding import MAX_PATH_PREFIX
from controller.names import MAX_REGISTRY_PATH, MAX_REPOSITORY_NAME, REPOSITORY_NAME_PATTERN
from controller.registry.local import LocalArtifactRegistry
from devcluster.registries import Registry, RegistryKind
from tests.contract.conftest import binding

pytestmark = pytest.mark.timeout(900)

NAMES = st.from_regex(REPOSITORY_NAME_PATTERN, fullmatch=True).filter(lambda name: len(name) <= MAX_REPOSITORY_NAME)
LONG_PREFIX = "p" * MAX_PATH_PREFIX


async def create(url: str, prefix: str, name: str) -> None:
    """Create a repository and get it."""
    async with LocalArtifactRegistry("artifacts", binding(url, pathPrefix=prefix)) as registry:
        ensured = await registry.ensure_repository(name)
        assert ensured.path == f"{prefix}/{name}"
        assert (await registry.get_repository(name)).uri == ensured.uri


@pytest.mark.parametrize("kind", [RegistryKind.DISTRIBUTION_2, RegistryKind.DISTRIBUTION_3])
@given(name=NAMES)
@example(name="a" * MAX_REPOSITORY_NAME)
@example(name="/".join(["a"] * (MAX_REPOSITORY_NAME // 2)))
@example(name="a" + "-" * (MAX_REPOSITORY_NAME - 2) + "b")
@example(name="0.1_2__3---4/5")
@settings(max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_accepted_names_work(kind: RegistryKind, running: Callable[[RegistryKind], Registry], name: str) -> None:
    """Names work with a short prefix and with the longest one, where paths have Distribution 2.8's maximum length."""
    assert len(f"{LONG_PREFIX}/{'a' * MAX_REPOSITORY_NAME}") == MAX_REGISTRY_PATH
    url = running(kind).url
    for prefix in ("names", LONG_PREFIX):
        await create(url, prefix, name)
