"""The oldest Kubernetes that README.md promises: tests of other modules, run on it, and some of its own.

All of tests/cluster on it: ``make test ARGS=--kubernetes=oldest``.
"""

import json

import pytest

from devcluster.cluster import DevCluster, Kubernetes
from devcluster.manifests import PERMISSIONS
from devcluster.tools import version
from tests.cluster.harness import MANIFESTS, Objects, OperatorProcess
from tests.cluster.test_apply import test_two_managers_give_up_all_their_fields
from tests.cluster.test_kubectl import test_the_columns_answer_the_question
from tests.cluster.test_lifecycle import (
    test_a_create_costs_one_patch_and_no_event,
    test_a_restart_costs_not_one_write,
    test_apply_gives_a_repository,
    test_delete_needs_no_operator_and_leaves_the_repository,
    test_suspend,
)
from tests.cluster.test_names import (
    test_a_new_object_is_never_mistaken_for_a_finished_one,
    test_a_repository_name_can_be_corrected_before_there_is_a_uri,
    test_a_repository_name_stays_once_there_is_a_uri,
    test_bad_objects_are_refused_with_a_sentence,
    test_spec_defaults_to_an_empty_one,
    test_the_api_server_agrees_on_the_known_cases,
)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.parametrize("cluster", [Kubernetes.OLDEST], indirect=True, scope="session"),
]

__all__ = [
    "test_a_create_costs_one_patch_and_no_event",
    "test_a_new_object_is_never_mistaken_for_a_finished_one",
    "test_a_repository_name_can_be_corrected_before_there_is_a_uri",
    "test_a_repository_name_stays_once_there_is_a_uri",
    "test_a_restart_costs_not_one_write",
    "test_apply_gives_a_repository",
    "test_bad_objects_are_refused_with_a_sentence",
    "test_delete_needs_no_operator_and_leaves_the_repository",
    "test_spec_defaults_to_an_empty_one",
    "test_suspend",
    "test_the_api_server_agrees_on_the_known_cases",
    "test_the_columns_answer_the_question",
    "test_two_managers_give_up_all_their_fields",
]


def test_it_is_the_oldest(cluster: DevCluster) -> None:
    """The API server is the one that is pinned for it."""
    told = json.loads(cluster.kubectl("version", "-o", "json"))["serverVersion"]
    assert told["gitVersion"] == version(Kubernetes.OLDEST.apiserver)
    assert f"v{told['major']}.{told['minor']}." in told["gitVersion"]


@pytest.mark.parametrize("manifest", ["crd.yaml", "namespace.yaml", *PERMISSIONS])
def test_manifests_are_taken_without_a_warning(cluster: DevCluster, manifest: str) -> None:
    """It knows every field: strictly validated, nothing is dropped, deprecated or warned of."""
    arguments = ("replace", "--dry-run=server", "--validate=strict", "-f", MANIFESTS / manifest)
    told = cluster.kubectl(*arguments, check=False).splitlines()
    assert told
    assert [line for line in told if not line.endswith(" replaced (server dry run)")] == []


def test_the_crd_is_kept_whole(cluster: DevCluster) -> None:
    """No validation, default or list type of the CRD got lost on the way."""
    asked = json.loads(cluster.kubectl("create", "--dry-run=client", "-o", "json", "-f", MANIFESTS / "crd.yaml"))
    kept = json.loads(cluster.kubectl("get", "crd", asked["metadata"]["name"], "-o", "json"))
    assert kept["spec"]["versions"] == asked["spec"]["versions"]
    assert [c for c in kept["status"]["conditions"] if c["type"] == "NonStructuralSchema"] == []


def test_a_namespace_goes_with_its_objects(cluster: DevCluster, objects: Objects, operator: OperatorProcess) -> None:
    """Nothing of ours holds it back."""
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    cluster.kubectl("delete", "namespace", objects.namespace, "--timeout=30s")
