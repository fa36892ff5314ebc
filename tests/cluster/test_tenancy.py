"""docs/tenancy.md on the real API server: the admission policy, for a user with the role edit in one namespace."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from devcluster.cluster import DevCluster
from tests.cluster.eventually import eventually
from tests.cluster.harness import Objects
from tests.cluster.pages import Page

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("policy")]

JANE = "--as=jane"


@pytest.fixture
def policy(cluster: DevCluster, objects: Objects) -> Iterator[None]:
    """Install the policy of the page, and let Jane edit the test's namespace."""
    text = yaml.safe_dump_all(Page("docs/tenancy.md").examples(below="Admission policy"))
    cluster.kubectl("apply", "-f", "-", stdin=text)
    cluster.kubectl("create", "rolebinding", "jane", "--clusterrole=edit", "--user=jane", "-n", objects.namespace)
    eventually(lambda: "must start with" in create(cluster, objects, {"repositoryName": "other/web"}))
    yield
    cluster.kubectl("delete", "-f", "-", stdin=text)


def create(cluster: DevCluster, objects: Objects, spec: dict[str, Any], **metadata: Any) -> str:
    """Have Jane create an object, without keeping it; return what she is told."""
    text = json.dumps(objects.manifest("web", spec, **metadata))
    return cluster.kubectl("create", "--dry-run=server", "-f", "-", JANE, stdin=text, check=False)


def test_the_policy_of_the_page(cluster: DevCluster, objects: Objects) -> None:
    """A namespace gets its own names, its own registry and metadata of an ordinary size, and no others."""
    own = objects.namespace
    big = {"x": "y" * 4096}
    refused: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
        "must start with": [({"repositoryName": name}, {}) for name in ("web", f"{own}x/web", f"x/{own}/web")],
        "may not use this registry": [({"registry": "other"}, {})],
        "at most 4096 characters": [({}, {"annotations": big})],
        "8 finalizers": [({}, {"finalizers": [f"example.com/{number}" for number in range(9)]})],
    }
    for said, attempts in refused.items():
        for spec, metadata in attempts:
            assert said in create(cluster, objects, spec, **metadata), (spec, metadata)
    allowed: list[dict[str, Any]] = [{}, {"repositoryName": f"{own}/web"}, {"repositoryName": f"{own}.web"}]
    for spec in allowed:
        assert "created" in create(cluster, objects, spec, labels={"a": "b"}, annotations={"x": "y" * 4000})
    cluster.kubectl("label", "namespace", own, "artifact-registry=other")
    eventually(lambda: "created" in create(cluster, objects, {"registry": "other"}))
    assert "may not use this registry" in create(cluster, objects, {"registry": "third"})


def test_an_editor_may_not_write_status(cluster: DevCluster, objects: Objects) -> None:
    """The role edit includes the objects and not their status; the policy does not get in the operator's way."""
    objects.create("web")
    ask = ("auth", "can-i", "patch", "artifactrepositories", JANE, "-n", objects.namespace)
    assert cluster.kubectl(*ask, check=False) == "yes\n"
    assert cluster.kubectl(*ask, "--subresource=status", check=False).endswith("no\n")
    assert objects.patch("web", {"status": {"observedGeneration": 1}}, subresource="/status")
