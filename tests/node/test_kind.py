"""docs/kind.md, line by line, on the node's laptop.

There, `docker` and `kind` are stand-ins for the few commands that the page and registry.sh use: images are built by the
machine's engine and loaded by ctr, and what runs on the node runs as `docker exec` would run it. What only a container
engine can do is left out: see `NOT_HERE`.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.engine import OUTSIDE_MAKE, find_engine
from devcluster.manifests import ROOT
from devcluster.node.images import OPERATOR
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
    node.kubectl("delete", "-k", "manifests/", "--timeout=60s")


def run(node: Node, *lines: str) -> str:
    """Run lines of a shell on the laptop, and return what the last one prints."""
    base = [argument for argument in find_engine().make_arguments() if argument.startswith("BASE_IMAGE=")]
    told = node.laptop(*OUTSIDE_MAKE, *base, "bash", "-c", "\n".join(["set -euo pipefail", *lines]))
    return told.splitlines()[-1]


def test_page(laptop: Node) -> None:
    """Every line runs as it is written, and in the end a Pod runs the image that was pushed to `references.host`."""
    lines = commands()
    assert [line for line in lines if line in NOT_HERE] == list(NOT_HERE)
    assert run(laptop, *(line for line in lines if line not in NOT_HERE)) == "this image came from status.uri"
    for host in ("localhost:5001", "kind-registry:5000"):
        file = Path("/etc/containerd/certs.d", host, "hosts.toml")
        assert laptop.run("cat", file) == '[host."http://kind-registry:5000"]\n'


_PODMAN = """\
#!/bin/sh
# What podman does with images is real; its containers, and kind's, are those of the other stand-in.
case $1 in
build | save | push) BUILDAH_ISOLATION=chroot BUILDAH_FORMAT=docker exec {podman} "$@" ;;
*) exec docker "$@" ;;
esac
"""


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with podman; what it has built is removed in the end."""
    real = shutil.which("podman")
    if real is None:
        pytest.skip("there is no podman")
    program = tmp_path / "podman"
    program.write_text(_PODMAN.format(podman=real))
    program.chmod(0o755)
    yield tmp_path
    built = (f"docker.io/library/{OPERATOR}", "localhost:5001/artifacts/default/web:v1")
    subprocess.run([real, "rmi", "--ignore", "--force", *built], check=True, capture_output=True)


def test_page_with_podman(laptop: Node, podman: Path) -> None:
    """With what the page says of Podman, its lines build, save, load and push by podman."""
    text = _PAGE.read_text().partition("\n## With Podman\n")[2].partition("\n## ")[0]
    exported = re.search(r"`(export CONTAINER_ENGINE=podman [^`]+)`", text)
    pushed = re.search(r"`(podman push [^`]+)`", text)
    assert exported
    assert pushed
    laptop.run("crictl", "rmi", f"docker.io/library/{OPERATOR}")  # it has to come from podman
    lines = [line for line in commands() if line not in NOT_HERE]
    changed = [pushed[1] if line.startswith("docker push ") else re.sub("^docker ", "podman ", line) for line in lines]
    assert sum(a != b for a, b in zip(lines, changed, strict=True)) == 2
    assert run(laptop, f"export PATH={podman}:$PATH", exported[1], *changed) == "this image came from status.uri"
