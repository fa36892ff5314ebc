"""The kopf handlers: the effect of each kind of watch event."""

from typing import Any

import kopf
import pytest

from controller.api.v1alpha1 import ArtifactRepository
from controller.handlers import is_relevant, register_handlers
from controller.reconcile.workqueue import Priority


class Target:
    """Records what the controller would be called with."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def enqueue(self, repository: ArtifactRepository, priority: Priority) -> None:
        """Record it."""
        self.calls.append(f"{repository.key} {priority.name}")

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
    handlers: list[Any] = []

    class Registry(kopf.OperatorRegistry):
        """Keeps the handler function that is registered."""

    registry = Registry()
    register_handlers(registry, target)
    handlers = [handler.fn for handler in registry._watching.get_all_handlers()]
    event: Any = {"type": type_, "object": body(observed, deleting=deleting)}
    for handler in handlers:
        if is_relevant(event=event):
            await handler(event=event)
    assert target.calls == expected
