"""What the edge makes of an event, and that kopf still has what the edge is built on."""

import inspect

import pytest
from kopf._cogs.clients.watching import infinite_watch

from controller.engine.queue import Priority
from controller.kube import edge
from controller.resource import ArtifactRepository, Key


class Told:
    """Notes what the engine would be told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def enqueue(self, repository: ArtifactRepository, priority: Priority) -> None:
        """Note it."""
        self.notes.append(f"{repository.key} {priority.name}")

    def gone(self, repository: ArtifactRepository) -> None:
        """Note it."""
        self.notes.append(f"{repository.key} gone")


@pytest.mark.parametrize(
    ("type_", "observed", "deleting", "expected"),
    [
        ("ADDED", -1, False, ["ns/web HIGH"]),
        ("MODIFIED", 1, False, ["ns/web HIGH"]),
        ("MODIFIED", 2, False, []),  # our own write comes back
        ("MODIFIED", 2, True, ["ns/web HIGH"]),
        ("DELETED", 2, False, ["ns/web gone"]),
        (None, 2, False, ["ns/web LOW"]),
        (None, -1, False, ["ns/web HIGH"]),  # created while no operator ran: it overtakes those that are well
    ],
)
def test_events(type_: str | None, observed: int, deleting: bool, expected: list[str]) -> None:
    """Each kind of event, for an object of generation 2: told once, not at all, or as gone."""
    told = Told()
    repository = ArtifactRepository(
        key=Key("ns", "web"),
        uid="uid",
        resource_version="5",
        generation=2,
        deleting=deleting,
        status={"observedGeneration": observed},
    )
    edge._tell(told, type_, repository)
    assert told.notes == expected


def test_kopf_has_the_stream_of_events() -> None:
    """It is not public; whoever moves kopf's version sees here what to look at first."""
    assert {"settings", "resource", "namespace"} <= inspect.signature(infinite_watch).parameters.keys()
    assert inspect.isasyncgenfunction(infinite_watch)
