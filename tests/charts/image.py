"""Container engines: what builds the operator's image and runs it as its Deployment does, where a machine has it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness import ROOT
from tests.environment import outside_make

BASE = "localhost/artifact-repository-controller-base:bookworm"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


class NoEngine(Exception):
    """This machine can neither build nor run images; the message says what it lacks."""


@dataclass(frozen=True)
class Engine:
    """What builds images and what runs them.

    Args:
        build: The program that `make image` calls.
        run: The command that runs one, up to and with its general options.
        base: Base image to build on; empty: the Dockerfile's own.
    """

    build: str
    run: Sequence[str]
    base: str

    @property
    def program(self) -> str:
        """The program that runs images."""
        return self.run[0]


def find_engine() -> Engine:
    """Return Docker where it answers, else buildah and podman with a base of Debian's packages.

    Raises:
        NoEngine: There is neither.
    """
    if shutil.which("docker") and _succeeds("docker", "info"):
        return Engine("docker", ("docker", "run"), base="")
    lacking = [name for name in ("buildah", "podman", "runc", "debootstrap") if shutil.which(name) is None]
    if lacking or os.geteuid() != 0:
        install = f"; install {', '.join(lacking)}" if lacking else ""
        raise NoEngine(f"no Docker daemon answers; start one, or run the tests as root with podman{install}")
    if not _succeeds("buildah", "inspect", "--type", "image", BASE):
        _make_base()
    # Without systemd's cgroups, with limits that also a container of a container may set, and without the entry in
    # /etc/passwd that podman makes for the image's user and a kubelet does not.
    run = ("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "--passwd=false")
    return Engine("buildah", (*run, "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=10000:10000"), base=BASE)


def must(*command: str | Path, timeout: float = 60.0, **environment: str) -> str:
    """Run a command that has to succeed; return what it printed."""
    answer = subprocess.run(
        command,
        cwd=ROOT,
        env={**outside_make(), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert answer.returncode == 0, f"{command}: {answer.stdout[-3000:]}{answer.stderr[-3000:]}"
    return answer.stdout.strip()


def _make_base() -> None:
    """Make a base with Python from Debian's packages, once; no registry of base images is needed."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        must("debootstrap", "--variant=minbase", "--include=python3,python3-venv", "bookworm", root, timeout=400)
        # The machine's own authorities: what it installs from may stand behind a proxy.
        authorities = root / _AUTHORITIES.relative_to("/")
        authorities.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_AUTHORITIES, authorities)
        container = must("buildah", "from", "scratch")
        must("buildah", "add", container, root, "/", timeout=120)
        must("buildah", "config", "--env", f"PIP_CERT={_AUTHORITIES}", container)
        must("buildah", "commit", "--rm", container, BASE, timeout=120)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
