"""The user's own kubectl: used where it fits, and only there."""

import json
import os
import stat
from pathlib import Path

import pytest

from devcluster.cluster import Kubernetes
from devcluster.demo import existing_programs
from devcluster.kubectl import kubectl_on_path
from devcluster.tools import Tool, provide, version


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that programs are looked for in first, before those without a kubectl."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", os.pathsep.join((str(folder), "/bin")))
    return folder


def program(folder: Path, text: str) -> Path:
    """Write a kubectl that is a shell script."""
    file = folder / "kubectl"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def claiming(folder: Path, version: str) -> Path:
    """Write a kubectl that claims a version."""
    answer = json.dumps({"clientVersion": {"gitVersion": version}})
    return program(folder, f"[ \"$*\" = 'version --client --output=json' ] && echo '{answer}'")


@pytest.mark.parametrize(
    ("client", "server", "fits"),
    [
        ("v1.37.0", "v1.37.2", True),
        ("v1.36.9", "v1.37.2", True),
        ("v1.38.0", "v1.37.2", True),
        ("v1.37.1-dispatcher", "v1.37.2", True),
        ("v1.37.1+k3s1", "v1.37.2-rc.0", True),
        ("v1.35.0", "v1.37.2", False),
        ("v1.39.0", "v1.37.2", False),
        ("v1.3.0", "v1.37.2", False),
        ("v2.37.0", "v1.37.2", False),
        ("unknown", "v1.37.2", False),
    ],
)
def test_versions_that_fit(path: Path, client: str, server: str, *, fits: bool) -> None:
    """Client and server may be one minor version apart, as Kubernetes supports it."""
    file = claiming(path, client)
    assert kubectl_on_path(server) == (file if fits else None)


@pytest.mark.parametrize(
    "text", ["exit 1", "echo no JSON", "echo '{}'", "echo '[]'", """echo '{"clientVersion": {"gitVersion": 5}}'"""]
)
def test_what_does_not_run_is_not_used(path: Path, text: str) -> None:
    """A kubectl that fails or says no version is as if there were none."""
    program(path, text)
    assert kubectl_on_path("v1.37.2") is None


def test_file_that_is_no_program(path: Path) -> None:
    """A file that the system cannot run is as if there were none."""
    file = path / "kubectl"
    file.write_bytes(b"\x7fELF, but not really")
    file.chmod(0o755)
    assert kubectl_on_path("v1.37.2") is None


def test_none(path: Path) -> None:
    """Without a kubectl there is none."""
    assert list(path.iterdir()) == []
    assert kubectl_on_path("v1.37.2") is None


@pytest.mark.cluster
def test_demo_prefers_it(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A real kubectl of a fitting version is used; one of another version is not; KUBEBUILDER_ASSETS wins."""
    monkeypatch.setenv("NO_DOWNLOAD", "1")
    real, apiserver = provide(Tool.KUBECTL), provide(Tool.KUBE_APISERVER)
    (path / "kubectl").symlink_to(real)
    assert existing_programs(Kubernetes.NEWEST) == {Tool.KUBECTL: path / "kubectl"}
    assert kubectl_on_path(version(Tool.KUBE_APISERVER_OLDEST)) is None

    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "kube-apiserver").symlink_to(apiserver)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    assert existing_programs(Kubernetes.NEWEST) == {Tool.KUBECTL: path / "kubectl"}
    (assets / "kubectl").symlink_to(real)
    assert existing_programs(Kubernetes.NEWEST) == {}


@pytest.mark.cluster
def test_demo_builds_where_none_fits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubectl of another version is left alone."""
    monkeypatch.setenv("NO_DOWNLOAD", "1")
    claiming(path, "v1.10.0")
    assert existing_programs(Kubernetes.NEWEST) == {}
