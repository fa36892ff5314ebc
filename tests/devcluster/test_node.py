"""The node beside the dev cluster: whether a machine can run one, the demo on it, and that it leaves nothing behind."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from devcluster.node import support
from devcluster.node.cgroups import Hierarchy, hierarchies, lacking
from devcluster.node.images import docker_name

_ROOT = Path(__file__).parents[2]
_RELAY = _ROOT / "devcluster" / "node" / "relay.py"


@pytest.fixture
def undecided() -> Iterator[None]:
    """Have the machine looked at anew."""
    support.unsupported.cache_clear()
    yield
    support.unsupported.cache_clear()


@pytest.mark.usefixtures("undecided")
class TestSupport:
    """Whoever cannot run a node is told why, in one sentence."""

    def test_ordinary_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It takes root."""
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        assert support.unsupported() == "it takes root"
        with pytest.raises(support.NodeUnavailable, match="no node can run on this machine: it takes root"):
            support.require()

    def test_other_distribution(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """It takes Debian's package manager, among other programs."""
        monkeypatch.setattr("os.geteuid", lambda: 0)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "apt-get" in (support.unsupported() or "")

    def test_no_hierarchies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It takes cgroup v1."""
        monkeypatch.setattr("os.geteuid", lambda: 0)
        monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(support, "hierarchies", list)
        assert "cgroup v2 alone is not supported" in (support.unsupported() or "")


def test_what_a_node_cannot_do_without() -> None:
    """A controller that no hierarchy has is named."""
    own = Path("/sys/fs/cgroup/x")
    mounted = [Hierarchy(options, own, own) for options in ("cpu,cpuacct", "memory", "pids", "devices", "name=systemd")]
    assert lacking(mounted) == ["cpuset", "freezer"]


@pytest.mark.skipif(not hierarchies(), reason="this machine has no hierarchy of cgroup v1")
def test_hierarchies() -> None:
    """Each hierarchy is where this process is in it."""
    for hierarchy in hierarchies():
        assert str(os.getpid()) in (hierarchy.own / "cgroup.procs").read_text().split()


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("busybox", "docker.io/library/busybox"),
        ("controller:0.1.0", "docker.io/library/controller:0.1.0"),
        ("localhost:5001/a/b:v1", "localhost:5001/a/b:v1"),
        ("localhost/a", "localhost/a"),
        ("ghcr.io/a/b", "ghcr.io/a/b"),
    ],
)
def test_docker_names(image: str, name: str) -> None:
    """An image without a registry is Docker Hub's."""
    assert docker_name(image) == name


def test_relay() -> None:
    """It carries bytes in both directions until either side is done, and refuses what it cannot connect."""
    with socket.create_server(("127.0.0.1", 0)) as there, socket.create_server(("127.0.0.1", 0)) as here:
        arguments = f"{here.fileno()}=127.0.0.1:{there.getsockname()[1]}"
        with subprocess.Popen([sys.executable, _RELAY, arguments], pass_fds=[here.fileno()]) as relay:
            there.settimeout(10)
            with closing(socket.create_connection(here.getsockname(), timeout=10)) as client:
                client.sendall(b"question")
                client.shutdown(socket.SHUT_WR)
                served, _ = there.accept()
                with served:
                    served.settimeout(10)
                    assert served.makefile("rb").read() == b"question"
                    served.sendall(b"answer")
                assert client.makefile("rb").read() == b"answer"
            there.close()
            with closing(socket.create_connection(here.getsockname(), timeout=10)) as client:
                assert client.recv(1) == b""
            relay.terminate()
