"""The kopf handlers: the effect of each kind of watch event."""

from typing import Any

import kopf
import pytest

from controller.api.v1alpha1 import ArtifactRepository
from controller.handlers import register_handlers
from controller.reconcile.workqueue import Priority


class Target:
    """Records what the controller would be called with."""

    def __init__(self, *, overwritten: bool = False) -> None:
        self.calls: list[str] = []
        self._overwritten = overwritten

    def enqueue(self, repository: ArtifactRepository, priority: Priority) -> None:
        """Record it."""
        self.calls.append(f"{repository.key} {priority.name}")

    def is_overwritten(self, repository: ArtifactRepository) -> bool:
        """Return whether somebody else has written status."""
        assert repository.is_handled
        return self._overwritten

    def correct(self, repository: ArtifactRepository) -> None:
        """Record it."""
        self.calls.append(f"{repository.key} corrected")

    def deleted(self, repository: ArtifactRepository) -> None:
        """Record it."""
        self.calls.append(f"{repository.key} deleted")


def body(observed: int, *, deleting: bool) -> dict[str, Any]:
    """Return an object of generation 2."""
    metadata = {"namespace": "ns", "name": "web", "uid": "uid", "resourceVersion": "5", "generation": 2}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": metadata, "spec": {}, "status": {"observedGeneration": observed}}


@pytest.mark.parametrize(
    ("type_", "observed", "deleting", "expected"),
    [
        ("ADDED", -1, False, ["ns/web HIGH"]),
        ("ADDED", 2, False, ["ns/web LOW"]),  # its labels fit the selector again
        ("MODIFIED", 1, False, ["ns/web HIGH"]),
        ("MODIFIED", 2, False, []),  # the operator's own status write
        ("MODIFIED", 2, True, ["ns/web HIGH"]),
        ("DELETED", 2, False, ["ns/web deleted"]),
        (None, 2, False, ["ns/web LOW"]),
        (None, -1, False, ["ns/web HIGH"]),  # created while no operator was running: it overtakes healthy ones
    ],
)
async def test_events(type_: Any, observed: int, deleting: bool, expected: list[str]) -> None:
    """Create, update, resume and delete each enqueue or forget the object once; other events do nothing."""
    target = Target()
    await deliver({"type": type_, "object": body(observed, deleting=deleting)}, target)
    assert target.calls == expected


@pytest.mark.parametrize(("type_", "expected"), [("ADDED", ["ns/web LOW"]), ("MODIFIED", ["ns/web corrected"])])
async def test_status_of_somebody_else(type_: str, expected: list[str]) -> None:
    """A change of status that is not the operator's leads to a correction."""
    target = Target(overwritten=True)
    await deliver({"type": type_, "object": body(2, deleting=False)}, target)
    assert target.calls == expected


async def deliver(event: Any, target: Target) -> None:
    """Call the handlers whose predicate accepts an event, as kopf does."""
    registry = kopf.OperatorRegistry()
    register_handlers(registry, target)
    for handler in registry._watching.get_all_handlers():
        if handler.when is None or handler.when(event=event):  # type: ignore[call-arg]
            await handler.fn(event=event)  # type: ignore[call-arg, misc]
