"""One node for all tests of this folder; on a machine that cannot run one, all are skipped for the same reason."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.node.node import Node
from devcluster.node.support import unsupported
from tests.cluster.harness import Api, Objects
from tests.node.release import Release


@pytest.fixture(scope="session")
def able() -> None:
    """Skip what needs a node on a machine that cannot run one."""
    if (reason := unsupported()) is not None:
        pytest.skip(f"no node can run on this machine: {reason}")


@pytest.fixture(scope="session")
def node(able: None) -> Iterator[Node]:  # noqa: ARG001 - it comes first
    """Run a node, and a laptop beside it."""
    with Node() as node:
        yield node
        cgroups = node.cgroups
    left = [path for path in (node.folder, *cgroups) if Path(path).exists()]
    assert left == [], "the node has left something behind"


@pytest.fixture(scope="session")
def api(node: Node) -> Iterator[Api]:
    """Return the node's API server, as an administrator sees it."""
    api = Api(node)
    yield api
    api.close()


@pytest.fixture(scope="session")
def only_release(node: Node, api: Api) -> Release:
    """Return the release that the tests share, installed or not."""
    return Release(node, api)


@pytest.fixture
def release(only_release: Release) -> Release:
    """Return the operator, installed by Helm with one replica."""
    only_release.ensure()
    return only_release


@pytest.fixture
def objects(node: Node, api: Api) -> Iterator[Objects]:
    """Make a namespace for one test; its Pods end with the test."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    api.must("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    node.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
    yield Objects(api, name)
    node.kubectl("delete", "namespace", name, "--wait=false")
