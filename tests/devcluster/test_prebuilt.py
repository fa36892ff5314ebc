"""Prebuilt control planes: from a server on loopback that serves them well, badly, or not at all."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from devcluster import prebuilt
from devcluster.cluster import Kubernetes
from devcluster.prebuilt import Archive, DownloadFailed, control_plane, download, pinned, unpacked
from devcluster.tools import Tool

_PROGRAMS = ("etcd", "kube-apiserver", "kubectl")


def archive_of(*names: str) -> bytes:
    """Return an archive as they are published, with programs that say their names."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in names:
            # Random bytes keep it from being compressed to nothing, so that it can be cut off.
            content = f"#!/bin/sh\necho {name}\nexit\n".encode() + os.urandom(100_000)
            member = tarfile.TarInfo(f"controller-tools/envtest/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def silent(_: str) -> None:
    """Take a line of progress."""


@dataclass
class Releases:
    """A server of one archive.

    Args:
        content: The archive.
        status: What it answers with.
        cuts: How many of its answers it cuts off half way.
        ranges: Whether it can resume.
        pause: Seconds that it waits before it answers.
    """

    content: bytes
    status: int = 200
    cuts: int = 0
    ranges: bool = True
    pause: float = 0.0
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def archive(self, sha512: str | None = None) -> Archive:
        """Return what to download, with the right hash unless another one is given."""
        return Archive(f"{self.url}/envtest.tar.gz", sha512 or hashlib.sha512(self.content).hexdigest())


@contextmanager
def serving(releases: Releases) -> Iterator[Releases]:
    """Serve an archive on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            time.sleep(releases.pause)
            self.send_response(releases.status)
            self.end_headers()

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "all")
            releases.asked.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if releases.ranges and asked != "all" else 0
            content = releases.content[start:]
            self.send_response(206 if start and releases.status == 200 else releases.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if releases.cuts > 0:
                releases.cuts -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    releases.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield releases
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep these tests out of the user's cache and settings."""
    for variable in ("KUBEBUILDER_ASSETS", "NO_DOWNLOAD"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_programs_are_unpacked_once() -> None:
    """A good archive is downloaded once, and its programs can be run."""
    told: list[str] = []
    with serving(Releases(archive_of(*_PROGRAMS))) as releases:
        folder = unpacked(releases.archive(), _PROGRAMS, progress=told.append)
        assert unpacked(releases.archive(), _PROGRAMS, progress=told.append) == folder
    assert releases.asked == ["all"]
    for name in _PROGRAMS:
        assert subprocess.run([folder / name], capture_output=True, text=True, check=True).stdout == f"{name}\n"
    assert told[0].startswith("downloading envtest.tar.gz, ")


@pytest.mark.parametrize("ranges", [True, False], ids=["resumed", "started again"])
def test_what_was_cut_off_is_continued(tmp_path: Path, *, ranges: bool) -> None:
    """A download that is cut off twice arrives whole, from where it ended if the server can do that."""
    with serving(Releases(archive_of("etcd"), cuts=2, ranges=ranges)) as releases:
        download(releases.archive(), tmp_path / "file", progress=silent)
    assert (tmp_path / "file").read_bytes() == releases.content
    half = len(releases.content) // 2
    assert releases.asked[:2] == ["all", f"bytes={half}-"]
    assert len(releases.asked) == 3


def test_attempts_end(tmp_path: Path) -> None:
    """A download that is always cut off fails after a few attempts."""
    with serving(Releases(archive_of("etcd"), cuts=99)) as releases, pytest.raises(DownloadFailed, match="times"):
        download(releases.archive(), tmp_path / "file", progress=silent)
    assert len(releases.asked) == 4


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (503, 4)])
def test_refusals_are_reported(tmp_path: Path, status: int, asked: int) -> None:
    """What the server refuses is reported with its status; only its own failures are tried again."""
    releases = Releases(b"no", status=status)
    with serving(releases), pytest.raises(DownloadFailed, match=f"HTTP {status}"):
        download(releases.archive(), tmp_path / "file", progress=silent)
    assert len(releases.asked) == asked


def test_other_content_is_refused(empty_cache: Path) -> None:
    """What does not have the pinned hash is neither unpacked nor kept."""
    releases = Releases(archive_of(*_PROGRAMS))
    with serving(releases), pytest.raises(DownloadFailed, match="is not what was pinned"):
        unpacked(releases.archive("0" * 128), _PROGRAMS, progress=silent)
    assert [path for path in empty_cache.rglob("*") if path.is_file() and not path.name.endswith(".lock")] == []


def test_missing_program_is_reported() -> None:
    """An archive that lacks a program is refused with its name."""
    with (
        serving(Releases(archive_of("etcd"))) as releases,
        pytest.raises(DownloadFailed, match="has no controller-tools/envtest/kubectl"),
    ):
        unpacked(releases.archive(), ("etcd", "kubectl"), progress=silent)


def test_silent_host_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that takes connections and says nothing is out of reach after the time for that."""
    monkeypatch.setattr(prebuilt, "_REACH_SECONDS", 0.2)
    with serving(Releases(b"", pause=2.0)) as releases, pytest.raises(DownloadFailed, match="out of reach"):
        download(releases.archive(), tmp_path / "file", progress=silent)
    assert releases.asked == []


def test_slow_download_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that takes longer than a build is ended."""
    monkeypatch.setattr(prebuilt, "_DOWNLOAD_SECONDS", 0.0)
    with serving(Releases(archive_of("etcd"))) as releases, pytest.raises(DownloadFailed, match="takes longer than"):
        download(releases.archive(), tmp_path / "file", progress=silent)


@pytest.mark.parametrize("kubernetes", Kubernetes)
def test_every_platform_has_a_pin(kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux and macOS on both architectures have an archive each; other platforms build."""
    found = set()
    for system in ("linux", "darwin"):
        for machine in ("x86_64", "aarch64"):
            monkeypatch.setattr(sys, "platform", system)
            monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
            archive = pinned(kubernetes)
            assert archive is not None
            assert len(bytes.fromhex(archive.sha512)) == 64
            assert archive.name.startswith("envtest-v1.")
            assert archive.name in archive.url
            found.add(archive)
    assert len(found) == 4
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert pinned(kubernetes) is None


@pytest.mark.parametrize("variable", ["KUBEBUILDER_ASSETS", "NO_DOWNLOAD"])
def test_users_choice_wins(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded where the user has a control plane, or wants none from the network."""
    with serving(Releases(archive_of(*_PROGRAMS))) as releases:
        monkeypatch.setattr(prebuilt, "pinned", lambda _: releases.archive())
        monkeypatch.setenv(variable, "1")
        assert control_plane(Kubernetes.NEWEST, progress=silent) == {}
        assert releases.asked == []
        monkeypatch.delenv(variable)
        assert set(control_plane(Kubernetes.OLDEST, progress=silent)) == {
            Tool.ETCD,
            Tool.KUBE_APISERVER_OLDEST,
            Tool.KUBECTL,
        }


def test_failure_leads_to_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be downloaded, a line says why and that the build follows."""
    told: list[str] = []
    with serving(Releases(b"", status=404)) as releases:
        monkeypatch.setattr(prebuilt, "pinned", lambda _: releases.archive())
        assert control_plane(Kubernetes.NEWEST, progress=told.append) == {}
    assert "HTTP 404; building from sources instead" in told[-1]
