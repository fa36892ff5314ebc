"""Prebuilt programs: what is downloaded for a demo, and when the build follows."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import download as downloads
from devcluster import prebuilt
from devcluster.cluster import Kubernetes
from devcluster.download import DownloadFailed
from devcluster.prebuilt import Release, prebuilt_programs, releases, unpacked
from devcluster.tools import Tool, version
from tests.devcluster.releases import Releases, archive_of, serving, silent

_FOLDER = "controller-tools/envtest"
_PROGRAMS = (f"{_FOLDER}/etcd", f"{_FOLDER}/kube-apiserver", f"{_FOLDER}/kubectl")


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep these tests out of the user's cache and settings."""
    for variable in ("KUBEBUILDER_ASSETS", "NO_DOWNLOAD"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Releases, Releases]]:
    """Serve a control plane and a registry in place of what is pinned."""
    with (
        serving(Releases(archive_of(*_PROGRAMS))) as control_plane,
        serving(Releases(archive_of("registry"))) as registry,
    ):

        def served(kubernetes: Kubernetes) -> Iterator[Release]:
            tools = (Tool.ETCD, kubernetes.apiserver, Tool.KUBECTL)
            yield Release(control_plane.archive(), dict(zip(tools, _PROGRAMS, strict=True)))
            yield Release(registry.archive(algorithm="sha256"), {Tool.DISTRIBUTION: "registry"})

        monkeypatch.setattr(prebuilt, "releases", served)
        yield control_plane, registry


def test_programs_are_unpacked_once() -> None:
    """A good archive is downloaded once, and its programs can be run."""
    told: list[str] = []
    with serving(Releases(archive_of(*_PROGRAMS, "registry"))) as served:
        folder = unpacked(served.archive(), _PROGRAMS, progress=told.append)
        assert unpacked(served.archive(), _PROGRAMS, progress=told.append) == folder
    assert served.asked == ["all"]
    for name in ("etcd", "kube-apiserver", "kubectl"):
        assert subprocess.run([folder / name], capture_output=True, text=True, check=True).stdout == f"{name}\n"
    assert not (folder / "registry").exists()
    assert told[0].startswith("downloading programs.tar.gz, ")


def test_other_content_is_refused(empty_cache: Path) -> None:
    """What does not have the pinned hash is neither unpacked nor kept."""
    with (
        serving(Releases(archive_of("registry"))) as served,
        pytest.raises(DownloadFailed, match="not what was pinned"),
    ):
        unpacked(served.archive(f"sha256:{'0' * 64}"), ["registry"], progress=silent)
    assert [path for path in empty_cache.rglob("*") if path.is_file() and not path.name.endswith(".lock")] == []


def test_missing_program_is_reported() -> None:
    """An archive that lacks a program is refused with its name."""
    with (
        serving(Releases(archive_of(*_PROGRAMS[:1]))) as served,
        pytest.raises(DownloadFailed, match="has no controller-tools/envtest/kubectl"),
    ):
        unpacked(served.archive(), (_PROGRAMS[0], _PROGRAMS[2]), progress=silent)


@pytest.mark.parametrize("kubernetes", Kubernetes)
def test_every_platform_has_a_pin(kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux and macOS have a control plane each, Linux a registry, on both architectures; other platforms build."""
    found = set()
    for system in ("linux", "darwin"):
        for machine in ("x86_64", "aarch64"):
            monkeypatch.setattr(sys, "platform", system)
            monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
            pinned = list(releases(kubernetes))
            assert [set(release.programs) for release in pinned] == [
                {Tool.ETCD, kubernetes.apiserver, Tool.KUBECTL},
                *([{Tool.DISTRIBUTION}] if system == "linux" else []),
            ]
            for release in pinned:
                algorithm, _, digits = release.archive.digest.partition(":")
                assert len(bytes.fromhex(digits)) == {"sha256": 32, "sha512": 64}[algorithm]
                found.add(release.archive)
    assert len({archive.digest for archive in found}) == 6
    names = {archive.name for archive in found}
    assert f"registry_{version(Tool.DISTRIBUTION).removeprefix('v')}_linux_arm64.tar.gz" in names
    assert any(name.startswith("envtest-v1.") and name.endswith("-darwin-arm64.tar.gz") for name in names)
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert list(releases(kubernetes)) == []


def test_servers_are_downloaded(published: tuple[Releases, Releases]) -> None:
    """Both archives are downloaded, and the programs run."""
    programs = prebuilt_programs(Kubernetes.OLDEST, progress=silent)
    assert set(programs) == {Tool.ETCD, Tool.KUBE_APISERVER_OLDEST, Tool.KUBECTL, Tool.DISTRIBUTION}
    for tool, program in programs.items():
        said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
        assert said == f"{tool.value.removesuffix('-oldest')}\n"
    assert [served.asked for served in published] == [["all"], ["all"]]


def test_users_choice_wins(published: tuple[Releases, Releases], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded for a user who wants nothing from the network."""
    monkeypatch.setenv("NO_DOWNLOAD", "1")
    assert prebuilt_programs(Kubernetes.NEWEST, progress=silent) == {}
    assert [served.asked for served in published] == [[], []]


def test_control_plane_of_the_user_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user has a control plane, only the registry is downloaded."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", "/opt/kubebuilder")
    assert [set(release.programs) for release in releases(Kubernetes.NEWEST)] == [{Tool.DISTRIBUTION}]


def test_what_was_built_is_not_downloaded(
    published: tuple[Releases, Releases], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers that were built before are used; a kubectl is no reason for a download."""
    built = (Tool.ETCD, Tool.KUBE_APISERVER)
    monkeypatch.setattr(prebuilt, "is_provided", lambda tool: tool in built)
    assert set(prebuilt_programs(Kubernetes.NEWEST, progress=silent)) == {Tool.DISTRIBUTION}
    assert [served.asked for served in published] == [[], ["all"]]


def test_failure_leads_to_a_build(published: tuple[Releases, Releases]) -> None:
    """Where an archive cannot be had, a line says why and that the build follows; the other one is downloaded."""
    told: list[str] = []
    published[0].status = 404
    assert set(prebuilt_programs(Kubernetes.NEWEST, progress=told.append)) == {Tool.DISTRIBUTION}
    assert "HTTP 404; building from sources instead" in told[0]


def test_host_out_of_reach_is_asked_once(published: tuple[Releases, Releases], monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to decide that the host does not answer is spent once, not for each archive."""
    told: list[str] = []
    monkeypatch.setattr(downloads, "_REACH_SECONDS", 0.2)
    published[0].pause = 2.0
    assert prebuilt_programs(Kubernetes.NEWEST, progress=told.append) == {}
    assert len(told) == 1
    assert "is out of reach" in told[0]
    assert [served.asked for served in published] == [[], []]
