"""The list at start: objects that wait to be handled come before the others."""

from collections.abc import AsyncIterator, Sequence

from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.errors import KubernetesUnavailable
from controller.reconcile.resync import enqueue_existing
from controller.reconcile.workqueue import Priority
from tests.unit.reconcile.world import MemoryStore


class Target:
    """Records what is enqueued."""

    def __init__(self) -> None:
        self.enqueued: list[tuple[str, Priority]] = []

    def enqueue(self, repository: ArtifactRepository, priority: Priority) -> None:
        """Record it."""
        self.enqueued.append((repository.key.name, priority))


class FailingStore(MemoryStore):
    """A store that lists one page, and then fails."""

    async def list_pages(self, namespace: str) -> AsyncIterator[Sequence[ArtifactRepository]]:
        """Return the first page."""
        async for page in super().list_pages(namespace):
            yield page
            raise KubernetesUnavailable("shutting down", status=503)


async def test_objects_that_wait_have_priority() -> None:
    """At start, an object that is not handled is urgent and the others are not; each is listed with its version."""
    store, target = MemoryStore(), Target()
    handled = store.put("handled")
    handled = store.touch(handled.key, {"observedGeneration": 1})
    new = store.put("new")
    listed = await enqueue_existing(target, store=store)
    assert target.enqueued == [("handled", Priority.LOW), ("new", Priority.HIGH)]
    assert listed == {each.uid: each.resource_version for each in (handled, new)}


async def test_a_list_that_fails_at_start_is_left_to_the_watch() -> None:
    """Where the list fails at start, what it returned is enqueued and the operator goes on."""
    store, target = FailingStore(), Target()
    for name in ("a", "b", "c"):
        store.put(name)
    listed = await enqueue_existing(target, store=store)
    assert [name for name, _ in target.enqueued] == ["a", "b"]
    assert listed.keys() == {store.read(Key("team", name)).uid for name in ("a", "b")}
