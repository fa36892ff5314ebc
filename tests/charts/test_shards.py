"""Two releases that share the objects between them by a label, each with a Lease and permissions of its own."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from controller.api.v1alpha1 import REQUESTED_AT_ANNOTATION
from devcluster.cluster import DevCluster
from devcluster.manifests import CHART
from tests.charts.pod import OperatorPod
from tests.charts.rendering import NAMESPACE, helm, render
from tests.cluster.eventually import eventually
from tests.cluster.harness import Api, Objects, is_ready

pytestmark = pytest.mark.cluster

Shards = dict[str, OperatorPod]


@pytest.fixture
def shards(cluster: DevCluster, tmp_path: Path) -> Iterator[Shards]:
    """Install a release for each shard, the first with what both need, and run their operators."""
    further = ("--set", "crds.enabled=false,rbac.aggregate=false")
    with ExitStack() as stack:
        running = {}
        for shard, more in {"a": (), "b": further}.items():
            name = f"shard-{shard}"
            values = (*more, "--set", f"config.registries.artifacts.registryUrl={cluster.registry_url}")
            values = (*values, "--set", f"watch.labelSelector=shard={shard}")
            helm("install", name, CHART, "-n", NAMESPACE, *values, kubeconfig=cluster.kubeconfig)
            stack.callback(helm, "uninstall", name, "-n", NAMESPACE, kubeconfig=cluster.kubeconfig)
            cluster.wait_established()
            pod = OperatorPod(render(*values, release=name), cluster, tmp_path / name)
            running[shard] = stack.enter_context(pod)
        yield running
    cluster.kubectl("delete", "crd", "artifactrepositories.artifacts.alien.dev")


def leads(pod: OperatorPod) -> bool:
    """Tell whether an operator holds its Lease."""
    return pod.metric("artifact_repository_leader") == 1


def writes(pod: OperatorPod) -> float:
    """Return how many times an operator has written a status."""
    return pod.metric("artifact_repository_status_writes_total")


def test_two_operators_share_the_objects(api: Api, shards: Shards) -> None:
    """Both lead at the same time; each serves its own objects, and one that moves is served by its new operator."""
    objects = Objects(api, "team-a")
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
