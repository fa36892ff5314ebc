"""``status.tags``: the number of tags, and the highest names in version order."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api.conditions import ConditionType
from controller.api.outcome import Failed, Suspended, Verified
from controller.api.reasons import Reason
from controller.api.status import decide
from controller.api.tags import is_populated, summarise
from controller.api.v1alpha1 import ArtifactRepository
from controller.config import Timings
from controller.registry.protocol import Origin
from tests.unit.api.test_status import ADDRESSES, TARGET
from tests.unit.objects import NOW, make_object


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        ((), []),
        (("v1.9", "v1.10", "v1.2"), ["v1.10", "v1.9"]),
        (("latest", "2", "10"), ["10", "2"]),
        (("a", "a1", "1a", "1"), ["1a", "1"]),
        (("20261125.2", "20261125.10", "20261124.99"), ["20261125.10", "20261125.2"]),
    ],
)
def test_names_are_in_version_order(tags: tuple[str, ...], names: list[str]) -> None:
    """Numbers are compared as numbers, and any tags can be compared."""
    assert summarise(tags, names=2) == {"count": len(tags), "names": names}


@pytest.mark.parametrize("tags", [None, [], "three", 3])
def test_a_status_without_tags(tags: object) -> None:
    """Where tags are not reported, nothing is said about them."""
    assert is_populated({} if tags is None else {"tags": tags}) is None


def status_with(tags: Any) -> dict[str, Any]:
    """Return the status of an object whose tags were reported."""
    verified = Verified(TARGET, ADDRESSES, Origin.CREATED, tags)
    return dict(decide(make_object(), verified, now=NOW, timings=Timings()).status)


def populated(repository: ArtifactRepository) -> tuple[Any, Any]:
    """Return status and reason of the condition Populated."""
    condition = repository.condition(ConditionType.POPULATED)
    return condition.get("status"), condition.get("reason")


def test_populated_follows_the_tags() -> None:
    """True with a tag, False with none, absent where tags are not reported."""
    assert populated(make_object(status=status_with({"count": 1, "names": ["v1"]}))) == ("True", "ImagePushed")
    assert populated(make_object(status=status_with({"count": 0, "names": []}))) == ("False", "NoImage")
    assert populated(make_object(status=status_with(None))) == (None, None)


def test_tags_are_kept_while_nothing_is_known() -> None:
    """An outage and a suspension keep tags and Populated; a move and a change of the configuration remove them."""
    before = make_object(status=status_with({"count": 1, "names": ["v1"]}))
    names = {"registry": TARGET.registry, "repository_name": TARGET.repository_name}
    for outcome in (
        Suspended(**names),
        Failed(Reason.ACCESS_DENIED, "", "", **names, failing_for=Timings().unavailable_after),
    ):
        after = make_object(status=decide(before, outcome, now=NOW, timings=Timings()).status)
        assert after.status["tags"]["count"] == 1
        assert populated(after) == ("True", "ImagePushed")
    moved = Failed(Reason.UNKNOWN_REGISTRY, "", "", "other", None)
    after = make_object(status=decide(before, moved, now=NOW, timings=Timings()).status)
    assert "tags" not in after.status
    assert populated(after) == (None, None)
    off = decide(before, Verified(TARGET, ADDRESSES, Origin.CREATED), now=NOW, timings=Timings()).status
    assert "tags" not in off
    assert populated(make_object(status=off)) == (None, None)
