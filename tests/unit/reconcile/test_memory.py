"""Memory per object: a hundred thousand of them have to fit into one process."""

import gc
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from controller.api.v1alpha1 import ArtifactRepository
from controller.reconcile.overwrites import Overwrites
from controller.reconcile.records import Records
from controller.reconcile.workqueue import Priority
from tests.unit.reconcile.world import World

pytestmark = pytest.mark.looptime

COUNT = 2000
IDLE = 520
NEW = 900
WAITING = 1700
"""Bytes per object; a fifth more than measured."""


def body(number: int, *, ready: bool) -> str:
    """Return an object as the API server sends it."""
    name = f"repo-{number:05}"
    place = f"localhost:5000/team/{name}"
    status = {
        "observedGeneration": 1,
        "registry": "local",
        "repositoryName": f"team/{name}",
        "uri": place,
        "origin": "Created",
        "references": {"cluster": f"registry.registry.svc:5000/team/{name}", "host": place},
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "RepositoryReady",
                "message": f"The repository is ready: {place}",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    metadata = {
        "namespace": "team",
        "name": name,
        "uid": f"{number:08x}-c01f-4b2c-9c2e-{number:012x}",
        "resourceVersion": str(1_000_000 + number),
        "generation": 1,
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
    }
    return json.dumps({"metadata": metadata, "spec": {}, "status": status if ready else {"observedGeneration": -1}})


def listed(*, ready: bool) -> Iterator[ArtifactRepository]:
    """Return objects one after the other, as from pages that are dropped."""
    return (ArtifactRepository.from_body(json.loads(body(number, ready=ready))) for number in range(COUNT))


@contextmanager
def bytes_per_object(limit: int) -> Iterator[None]:
    """Check what the objects take that are kept when the block ends."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] // COUNT
    finally:
        tracemalloc.stop()
    assert taken <= limit


def test_an_idle_object_takes_little_memory() -> None:
    """What is remembered of an object that is Ready is no more than its key and a few numbers."""
    records = Records()
    overwrites = Overwrites(records)
    with bytes_per_object(IDLE):
        for repository in listed(ready=True):
            records.see(repository, 1.0)
            overwrites.begin(repository.key)
            overwrites.end(repository)


@pytest.mark.parametrize("ready", [True, False])
async def test_an_object_that_waits_takes_little_memory(*, ready: bool) -> None:
    """An object that waits for its resync, or in the burst in which it was created, is kept in a compact form."""
    world = World()
    await world.controller.stop(grace=0)
    with bytes_per_object(WAITING if ready else NEW):
        for repository in listed(ready=ready):
            if ready:
                world.controller.enqueue_later(repository, 600.0)
            else:
                world.controller.enqueue(repository, Priority.HIGH)
