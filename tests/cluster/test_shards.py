"""Two operators that share the objects between them by a label, each with a Lease of its own."""

from collections.abc import Iterator
from functools import partial

import pytest

from controller.resource import REQUESTED_AT_ANNOTATION
from devcluster.cluster import DevCluster
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import MANIFESTS, OPERATOR_NAMESPACE, Objects, OperatorProcess, is_ready

pytestmark = pytest.mark.cluster

Shards = dict[str, OperatorProcess]


@pytest.fixture
def shards(cluster: DevCluster, start_operator: StartOperator) -> Iterator[Shards]:
    """Run an operator for the objects of each shard, with the permissions of manifests/shards.yaml and no more."""
    cluster.kubectl("apply", "-f", MANIFESTS / "shards.yaml")
    yield {
        name: start_operator(
            None,
            *("--watch-label-selector", f"shard={name}"),
            *("--leader-elect", "--lease-namespace", OPERATOR_NAMESPACE),
            *("--lease-name", f"artifact-repository-controller-{name}"),
        )
        for name in ("a", "b")
    }
    cluster.kubectl("delete", "-f", MANIFESTS / "shards.yaml")


def leads(operator: OperatorProcess) -> bool:
    """Tell whether an operator holds its Lease."""
    return operator.metrics()["artifact_repository_leader"] == 1


def writes(operator: OperatorProcess) -> float:
    """Return how many times an operator has written a status."""
    return operator.metrics()["artifact_repository_status_writes_total"]


def test_two_operators_share_the_objects(objects: Objects, shards: Shards) -> None:
    """Both lead at the same time; each serves its own objects, and one that moves is served by its new operator."""
    for shard in shards.values():
        eventually(partial(leads, shard), tell=shard.log)
    for number in range(10):
        objects.create(f"a-{number}", labels={"shard": "a"})
        objects.create(f"b-{number}", labels={"shard": "b"})
    objects.create("nobodys")
    objects.wait("a-9", lambda _: all(is_ready(one) for one in objects.list() if one["metadata"]["name"] != "nobodys"))
    assert {name: writes(shard) for name, shard in shards.items()} == {"a": 10, "b": 10}

    shards["a"].process.kill()
    annotations = {REQUESTED_AT_ANNOTATION: "now"}
    objects.patch("a-0", {"metadata": {"labels": {"shard": "b"}, "annotations": annotations}})
    objects.wait("a-0", lambda one: one["status"].get("lastHandledReconcileAt") == "now", tell=shards["b"].log)
    assert writes(shards["b"]) == 11
    assert "conditions" not in objects.get("nobodys")["status"]
