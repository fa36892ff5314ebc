"""examples/: the API server accepts them as they are written."""

from pathlib import Path

import pytest
import yaml

from devcluster.cluster import DevCluster
from tests.cluster.harness import ROOT

pytestmark = pytest.mark.cluster

OBJECTS = sorted((ROOT / "examples").glob("objects/*.yaml"))
OF_GITOPS = sorted((ROOT / "examples").glob("gitops/*.yaml"))

STRICT = ("apply", "--dry-run=server", "--validate=strict", "-f")


def dry_run(cluster: DevCluster, path: Path) -> None:
    """Fail unless the API server would accept each object of a file without a warning."""
    documents = list(yaml.safe_load_all(path.read_text()))
    for namespace in sorted({document["metadata"]["namespace"] for document in documents}):
        cluster.kubectl("create", "namespace", namespace, check=False)
    told = cluster.kubectl(*STRICT, path)
    assert told.count("(server dry run)") == len(documents)
    assert "Warning" not in told


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.stem)
def test_objects(cluster: DevCluster, path: Path) -> None:
    """Each object is valid, strictly, and so is whatever stands beside it."""
    dry_run(cluster, path)


@pytest.mark.usefixtures("gitops_apis")
@pytest.mark.parametrize("path", OF_GITOPS, ids=lambda path: path.stem)
def test_objects_of_gitops_tools(cluster: DevCluster, path: Path) -> None:
    """Each object of Flux and Argo CD is valid by the CustomResourceDefinition of that tool."""
    dry_run(cluster, path)
