"""docs/kind.md, line by line, on the node's laptop.

There, `docker` and `kind` are stand-ins for the few commands that the page and registry.sh use: images are built by the
machine's engine and loaded by ctr, and what runs on the node runs as `docker exec` would run it. What only a container
engine can do is left out: see `NOT_HERE`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.engine import OUTSIDE_MAKE, find_engine
from devcluster.manifests import ROOT
from devcluster.node.node import Node
from tests.node.release import Release

NOT_HERE = ("kind create cluster --config manifests/kind/cluster.yaml",)

_PAGE = ROOT / "docs" / "kind.md"


def commands() -> list[str]:
    """Return the lines of the page's shell blocks, without remarks."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


@pytest.fixture
def laptop(node: Node, only_release: Release) -> Iterator[Node]:
    """Return a node without an operator and without a registry that it knows of, as kind has just created it."""
    only_release.remove()
    node.kubectl("delete", "configmap", "local-registry-hosting", "-n", "kube-public")
    node.run("rm", "-r", "/etc/containerd/certs.d")
    yield node
    node.kubectl("delete", "pod/web", "--ignore-not-found", "--now")
    node.kubectl("delete", "-k", "manifests/", "--wait=false")


def test_page(laptop: Node) -> None:
    """Every line runs as it is written, and in the end a Pod runs the image that was pushed to `status.uri`."""
    lines = commands()
    assert [line for line in lines if line in NOT_HERE] == list(NOT_HERE)
    script = "\n".join(["set -euo pipefail", *(line for line in lines if line not in NOT_HERE)])
    base = [argument for argument in find_engine().make_arguments() if argument.startswith("BASE_IMAGE=")]
    told = laptop.laptop(*OUTSIDE_MAKE, *base, "bash", "-c", script)
    assert told.splitlines()[-1] == "this image came from status.uri"
    for host in ("localhost:5001", "kind-registry:5000"):
        file = Path("/etc/containerd/certs.d", host, "hosts.toml")
        assert laptop.run("cat", file) == '[host."http://kind-registry:5000"]\n'
