"""Prebuilt programs: published archives of a control plane and of the registry, unpacked into the cache.

They save the minutes that the demo's servers take to compile. Whatever keeps one from being had is told in a line, and
the build from sources follows.
"""

import os
import platform
import shutil
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from devcluster.cache import cache_root, make_once
from devcluster.cluster import Kubernetes
from devcluster.download import Archive, DownloadFailed, OutOfReach, download
from devcluster.progress import Progress, to_stderr
from devcluster.tools import Tool, is_provided

_PINS: Final = Path(__file__).parent / "prebuilt.toml"
_ARCHITECTURES: Final = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Release:
    """An archive, and what it is downloaded for.

    Args:
        archive: The archive.
        programs: Where it has each program.
    """

    archive: Archive
    programs: Mapping[Tool, str]

    @property
    def is_needed(self) -> bool:
        """Whether a server would have to be built; a kubectl may be on the PATH."""
        return not all(is_provided(tool) for tool in self.programs if tool is not Tool.KUBECTL)


def prebuilt_programs(kubernetes: Kubernetes, *, progress: Progress = to_stderr) -> dict[Tool, Path]:
    """Return prebuilt servers of a cluster and a kubectl, downloading them first where need be.

    Those are missing, so that they are built, that were built before, and those of an archive that cannot be had. With
    ``NO_DOWNLOAD`` all are missing, and with ``KUBEBUILDER_ASSETS`` the control plane.

    Args:
        kubernetes: Which API server.
        progress: Takes a line now and then.
    """
    programs: dict[Tool, Path] = {}
    if os.environ.get("NO_DOWNLOAD"):
        return programs
    for release in filter(lambda release: release.is_needed, releases(kubernetes)):
        try:
            folder = unpacked(release.archive, release.programs.values(), progress=progress)
        except DownloadFailed as error:
            progress(f"{error}; building from sources instead (NO_DOWNLOAD=1 skips this step)")
            if isinstance(error, OutOfReach):
                break  # all are on one host
        else:
            programs |= {tool: folder / Path(member).name for tool, member in release.programs.items()}
    return programs


def releases(kubernetes: Kubernetes) -> Iterator[Release]:
    """Yield what is published for this machine's platform, of what the environment does not provide.

    Args:
        kubernetes: Which API server.
    """
    pins: Mapping[str, Any] = tomllib.loads(_PINS.read_text())
    if not os.environ.get("KUBEBUILDER_ASSETS") and (archive := _pinned(pins["control-plane"], kubernetes.value)):
        tools = {"etcd": Tool.ETCD, "kube-apiserver": kubernetes.apiserver, "kubectl": Tool.KUBECTL}
        yield Release(archive, {tool: f"controller-tools/envtest/{name}" for name, tool in tools.items()})
    if archive := _pinned(pins["registry"], "newest"):
        yield Release(archive, {Tool.DISTRIBUTION: "registry"})


def _pinned(pins: Mapping[str, Any], release: str) -> Archive | None:
    """Return the archive of a release for this machine, or None if none is published for its platform."""
    system, architecture = sys.platform, _ARCHITECTURES.get(platform.machine().lower(), "other")
    pin: Mapping[str, str] = pins[release]
    digest = pin.get(f"{system}-{architecture}")
    if digest is None:
        return None
    return Archive(pins["url"].format(version=pin["version"], system=system, architecture=architecture), digest)


def unpacked(archive: Archive, members: Iterable[str], *, progress: Progress) -> Path:
    """Return the folder of the cache that holds an archive's programs, downloading it first where need be.

    Args:
        archive: Which one.
        members: Where it has to have the programs.
        progress: Takes a line now and then.

    Raises:
        DownloadFailed: It cannot be had, is not what was pinned, or lacks a program.
    """
    digits = archive.digest.partition(":")[2]
    folder = cache_root() / "prebuilt" / f"{archive.name.removesuffix('.tar.gz')}-{digits[:12]}"

    def make(scratch: Path) -> Path:
        file = scratch / archive.name
        begun = time.monotonic()
        download(archive, file, progress=progress)
        _unpack(file, scratch / "programs", members)
        progress(f"downloaded {archive.name} in {time.monotonic() - begun:.0f} s: {folder}")
        return scratch / "programs"

    make_once(folder, make, progress=progress)
    return folder


def _unpack(file: Path, folder: Path, members: Iterable[str]) -> None:
    """Copy some programs out of an archive.

    Raises:
        DownloadFailed: One is not in it.
    """
    folder.mkdir()
    with tarfile.open(file, "r:gz") as archive:
        for member in members:
            try:
                content = archive.extractfile(member)
            except KeyError:
                content = None
            if content is None:
                raise DownloadFailed(f"{file.name} has no {member}")
            program = folder / Path(member).name
            with content, program.open("wb") as target:
                shutil.copyfileobj(content, target)
            program.chmod(0o755)
