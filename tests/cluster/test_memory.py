"""Memory by bytes: labels are not validated by a schema, and one object may have more than a megabyte of them."""

import os
import sys
from pathlib import Path

import pytest

from controller.reconcile.concurrency import MINIMUM
from tests.benchmark.installation import interpreter
from tests.cluster.campaign import Record
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import Audit, Objects, is_ready
from tests.settings import FULL

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

LARGE = int(os.environ.get("LARGE_OBJECTS", "200" if FULL else "40"))
LABELS = {f"{'.'.join(['p' * 63] * 3)}.{'p' * 50}/label-{number:04}": "x" * 63 for number in range(2000)}
"""0.7 MB as JSON; the API server adds as much again as managedFields."""

LIMIT = 160 << 20
"""In bytes: MiB, as memory limits of Pods are written."""

RESYNCS = 2

ORDINARY = int(os.environ.get("ORDINARY_OBJECTS", "10000" if FULL else "500"))
ORDINARY_LIMIT = 110 << 20
"""For 10,000 objects, verified every 25 seconds; Python without profile-guided optimisation takes 5 MiB more."""

WARM_UP = 5
"""Resyncs before the first measurement: buffers and the heap take their size in them."""

ORDINARY_RESYNCS = 10
GROWTH = 2 << 20
"""What the heap may still take: the objects of each resync meet gaps of other sizes."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an interpreter with the packages of the image: development tools take memory, too."""
    return interpreter(tmp_path_factory.mktemp("image") / "venv", Path(sys.executable))


def test_large_objects_are_listed_within_the_memory_limit(
    objects: Objects, start_operator: StartOperator, python: Path, audit: Audit, record_property: Record
) -> None:
    """The operator lists, watches, writes and resyncs objects with a megabyte of labels, among ordinary ones."""
    objects.create_many(f"a-small-{number}" for number in range(60))
    for number in range(LARGE):
        objects.create(f"large-{number}", labels=LABELS)
    mark = audit.mark()
    operator = start_operator(None, "--concurrent", "2", timings={"resyncInterval": "20s"}, python=python)
    objects.wait_ready(f"large-{LARGE - 1}", within=120, tell=operator.log)

    def complete_lists() -> int:
        first = [e for e in audit.since(mark) if e["verb"] == "list" and "continue=" not in e["requestURI"]]
        return sum(f"/namespaces/{objects.namespace}/" in event["requestURI"] for event in first)

    started = operator.peak_bytes()
    eventually(lambda: complete_lists() >= 2 + RESYNCS, within=120, tell=operator.log)
    record_property("memory: large objects", LARGE)
    record_property("memory: … peak after the start, MiB", started >> 20)
    record_property("memory: … peak after resyncs, MiB", operator.peak_bytes() >> 20)
    assert operator.peak_bytes() <= LIMIT
    assert all(is_ready(objects.get(f"large-{number}")) for number in (0, LARGE // 2, LARGE - 1))
    for number in range(LARGE):
        objects.delete(f"large-{number}")  # whoever next deletes the CustomResourceDefinition would wait for it


def test_memory_is_flat_over_resyncs(
    objects: Objects, start_operator: StartOperator, python: Path, record_property: Record
) -> None:
    """Verifying ordinary objects again and again takes no more memory than doing it a few times."""
    objects.create_many(f"repo-{number:05}" for number in range(ORDINARY))
    interval = max(5, ORDINARY // 400)
    # No more reconciles at once later than at first: each takes connections with their buffers.
    concurrent, timings = f"--concurrent={MINIMUM}", {"resyncInterval": f"{interval}s"}
    operator = start_operator(None, concurrent, wait=False, timings=timings, python=python)
    objects.wait_ready(f"repo-{ORDINARY - 1:05}", within=600, tell=operator.log)

    def verified() -> float:
        return operator.metrics()['artifact_repository_reconciles_total{result="verified"}'] / ORDINARY

    eventually(lambda: verified() >= 1 + WARM_UP, within=60 + 3 * WARM_UP * interval, tell=operator.log)
    before = operator.resident_bytes()
    done, within = 1 + WARM_UP + ORDINARY_RESYNCS, 60 + 3 * ORDINARY_RESYNCS * interval
    eventually(lambda: verified() >= done, within=within, tell=operator.log)
    record_property("memory: ordinary objects", ORDINARY)
    record_property(f"memory: … after {WARM_UP} resyncs, MiB", before >> 20)
    record_property(f"memory: … after {ORDINARY_RESYNCS} more, MiB", operator.resident_bytes() >> 20)
    record_property("memory: … peak, MiB", operator.peak_bytes() >> 20)
    assert operator.resident_bytes() <= before + GROWTH
    assert operator.peak_bytes() <= ORDINARY_LIMIT
