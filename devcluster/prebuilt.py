"""Prebuilt control planes: the archives that ``setup-envtest`` downloads, verified and unpacked into the cache.

They save the minutes that kube-apiserver takes to compile. Whatever keeps one from being had is told in a line, and the
build from sources follows.
"""

import hashlib
import os
import platform
import shutil
import sys
import tarfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import click
import httpx

from devcluster.cache import cache_root, make_once
from devcluster.cluster import Kubernetes
from devcluster.errors import DevClusterError
from devcluster.progress import HEARTBEAT_SECONDS, Progress, to_stderr
from devcluster.tools import Tool, is_provided

_PINS: Final = Path(__file__).parent / "envtest.toml"
_MEMBERS: Final = "controller-tools/envtest"
_ARCHITECTURES: Final = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_REACH_SECONDS: Final = 5.0
"""For how long a host may be silent, at the start or in between."""
_DOWNLOAD_SECONDS: Final = 240.0
"""A download that takes longer is not worth waiting for: the build takes about as long."""
_ATTEMPTS: Final = 4
_MEGABYTE: Final = 1_000_000


class DownloadFailed(DevClusterError):
    """An archive cannot be had; the message says why."""


@dataclass(frozen=True)
class Archive:
    """A published archive of programs.

    Args:
        url: Where it is.
        sha512: What it has to hash to, in hexadecimal digits.
    """

    url: str
    sha512: str

    @property
    def name(self) -> str:
        """The last part of its URL."""
        return self.url.rpartition("/")[2]


def control_plane(kubernetes: Kubernetes, *, progress: Progress = to_stderr) -> dict[Tool, Path]:
    """Return a prebuilt etcd, kube-apiserver and kubectl, downloading them first where need be.

    Empty, so that they are built, where ``KUBEBUILDER_ASSETS`` or ``NO_DOWNLOAD`` is set, where the two servers were
    built before, and where no archive can be had.

    Args:
        kubernetes: Which API server.
        progress: Takes a line now and then.
    """
    names = {"etcd": Tool.ETCD, "kube-apiserver": kubernetes.apiserver, "kubectl": Tool.KUBECTL}
    chosen = any(os.environ.get(variable) for variable in ("KUBEBUILDER_ASSETS", "NO_DOWNLOAD"))
    if chosen or all(is_provided(tool) for tool in (Tool.ETCD, kubernetes.apiserver)):
        return {}
    archive = pinned(kubernetes)
    if archive is None:
        return {}
    try:
        folder = unpacked(archive, tuple(names), progress=progress)
    except DownloadFailed as error:
        progress(f"{error}; building from sources instead (NO_DOWNLOAD=1 skips this step)")
        return {}
    return {tool: folder / name for name, tool in names.items()}


def pinned(kubernetes: Kubernetes) -> Archive | None:
    """Return the archive for this machine, or None if none is published for its platform.

    Args:
        kubernetes: Which API server it has.
    """
    pins: Mapping[str, Any] = tomllib.loads(_PINS.read_text())
    release = pins[kubernetes.value]
    target = f"{sys.platform}-{_ARCHITECTURES.get(platform.machine().lower(), 'other')}"
    if target not in release:
        return None
    version = release["version"]
    return Archive(f"{pins['releases']}/envtest-{version}/envtest-{version}-{target}.tar.gz", release[target])


def unpacked(archive: Archive, names: tuple[str, ...], *, progress: Progress) -> Path:
    """Return the folder of the cache that holds an archive's programs, downloading it first where need be.

    Args:
        archive: Which one.
        names: The programs that it has to contain.
        progress: Takes a line now and then.

    Raises:
        DownloadFailed: It cannot be had, is not what was pinned, or lacks a program.
    """
    folder = cache_root() / "envtest" / f"{archive.name.removesuffix('.tar.gz')}-{archive.sha512[:12]}"

    def make(scratch: Path) -> Path:
        file = scratch / archive.name
        begun = time.monotonic()
        download(archive, file, progress=progress)
        _unpack(file, scratch / "programs", names)
        progress(f"downloaded {archive.name} in {time.monotonic() - begun:.0f} s: {folder}")
        return scratch / "programs"

    make_once(folder, make, progress=progress)
    return folder


def download(archive: Archive, file: Path, *, progress: Progress) -> None:
    """Download an archive and verify it; what was cut off is resumed.

    Args:
        archive: Which one.
        file: Where it is written.
        progress: Takes a line now and then where there is no terminal for a progress bar.

    Raises:
        DownloadFailed: Its host is out of reach, refuses, stalls again and again or is too slow, or the content is not
            what was pinned.
    """
    _reach(archive)
    deadline = time.monotonic() + _DOWNLOAD_SECONDS
    failure: Exception | None = None
    with httpx.Client(follow_redirects=True, timeout=_REACH_SECONDS) as client, file.open("w+b") as target:
        for _ in range(_ATTEMPTS):
            try:
                _receive(client, archive, target, deadline, progress)
                break
            except httpx.HTTPStatusError as error:
                failure = DownloadFailed(f"HTTP {error.response.status_code}")
                if not error.response.is_server_error:
                    raise DownloadFailed(f"{archive.url}: {failure}") from error
            except (httpx.HTTPError, OSError) as error:
                failure = error
        else:
            raise DownloadFailed(f"{archive.url}: {failure or 'cut off'}, {_ATTEMPTS} times") from failure
        target.seek(0)
        digest = hashlib.file_digest(target, "sha512").hexdigest()
    if digest != archive.sha512:
        raise DownloadFailed(
            f"{archive.url} is not what was pinned: its SHA-512 is {digest[:16]}…, not {archive.sha512[:16]}…"
        )


def _reach(archive: Archive) -> None:
    """Ask the host for the archive's headers, in a thread, since the resolution of a name knows no timeout.

    Raises:
        DownloadFailed: It does not answer in time.
    """
    answers: list[Exception | None] = []

    def ask() -> None:
        try:
            httpx.head(archive.url, follow_redirects=True, timeout=_REACH_SECONDS)
            answers.append(None)
        except (httpx.HTTPError, OSError) as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_REACH_SECONDS)
    failure = answers[0] if answers else TimeoutError(f"no answer within {_REACH_SECONDS:g} s")
    if failure is not None:
        raise DownloadFailed(f"{archive.url} is out of reach: {failure}") from failure


def _receive(client: httpx.Client, archive: Archive, target: IO[bytes], deadline: float, progress: Progress) -> None:
    """Write the rest of an archive, or all of it if the server cannot resume.

    Raises:
        DownloadFailed: It takes too long.
        httpx.HTTPError: The server refuses, or the connection ends early.
    """
    have = target.seek(0, os.SEEK_END)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with client.stream("GET", archive.url, headers=headers) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return
        answer.raise_for_status()
        if answer.status_code != httpx.codes.PARTIAL_CONTENT:
            have = target.truncate(target.seek(0))
        total = have + int(answer.headers.get("Content-Length", 0))
        with _shown(archive, total, have, progress) as advance:
            for chunk in answer.iter_raw():
                target.write(chunk)
                advance(len(chunk))
                if time.monotonic() > deadline:
                    raise DownloadFailed(f"{archive.url} takes longer than {_DOWNLOAD_SECONDS:g} s")


@contextmanager
def _shown(archive: Archive, total: int, have: int, progress: Progress) -> Iterator[Callable[[int], None]]:
    """Yield what is told of each chunk: a progress bar on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        label = f"downloading {archive.name}"
        with click.progressbar(length=total, label=label, file=sys.stderr, show_eta=True) as bar:
            bar.update(have)
            yield bar.update
        return
    progress(f"downloading {archive.name}, {total / _MEGABYTE:.0f} MB")
    told = time.monotonic()

    def advance(size: int) -> None:
        nonlocal have, told
        have += size
        if time.monotonic() - told >= HEARTBEAT_SECONDS:
            told = time.monotonic()
            progress(f"  … {have / _MEGABYTE:.0f} of {total / _MEGABYTE:.0f} MB")

    yield advance


def _unpack(file: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Copy some programs out of an archive.

    Raises:
        DownloadFailed: One is not in it.
    """
    folder.mkdir()
    with tarfile.open(file, "r:gz") as archive:
        for name in names:
            try:
                content = archive.extractfile(f"{_MEMBERS}/{name}")
            except KeyError:
                content = None
            if content is None:
                raise DownloadFailed(f"{file.name} has no {_MEMBERS}/{name}")
            with content, (folder / name).open("wb") as program:
                shutil.copyfileobj(content, program)
            (folder / name).chmod(0o755)
