"""How each tool is built, and what its build depends on."""

import hashlib
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from devcluster.debian import Packages, merge_usr, program
from devcluster.errors import BuildFailed, ToolUnavailable
from devcluster.gotoolchain import go_toolchain
from devcluster.progress import Progress, run_visibly, tail

_HERE = Path(__file__).parent
# Generous: a cold kube-apiserver takes under five minutes on two cores.
_TIMEOUT = 30 * 60.0


class Recipe(Protocol):
    """A way to make one binary."""

    @property
    def expected_seconds(self) -> int:
        """How long it takes on two cores with nothing downloaded and nothing compiled yet."""
        ...

    def version(self) -> str:
        """Return the version that is made, for names and messages."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of all that decides what comes out, but for the platform."""
        ...

    def build(self, scratch: Path, progress: Progress) -> Path:
        """Make the binary in a scratch folder and return its path.

        Raises:
            ToolUnavailable: The machine lacks what it takes.
            BuildFailed: It does not, and the build failed.
        """
        ...


@dataclass(frozen=True)
class GoRecipe:
    """A program that is pinned by a go.mod of ours: of a Go module, or of our own beside the go.mod.

    Args:
        module: Folder of that go.mod below ``devcluster/go``. There is one per family of tools, because a common one
            makes Go agree on one version of everything, which once took Kubernetes years back.
        package: The program.
        source: The Go module whose version, read from go.mod, is the tool's; empty for a program of our own that needs
            no module, whose version is that of the Go language it is written in.
        expected_seconds: See `Recipe`.
        stamps: Linker variables that carry the version; ``{version}``, ``{major}`` and ``{minor}`` are filled in.
        tags: Build tags.
    """

    module: str
    package: str
    source: str
    expected_seconds: int
    stamps: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def version(self) -> str:  # noqa: D102 - see Recipe
        if not self.source:
            return _find(r"^go (\S+)", self._go_mod())
        return _find(rf"^(?:require)?\s*{re.escape(self.source)} (v\S+)", self._go_mod())

    def fingerprint(self) -> str:  # noqa: D102
        own = [path.read_text() for path in sorted(self._directory.rglob("*.go"))]
        return _hash(self._go_mod(), (self._directory / "go.sum").read_text(), *self._flags(), self.package, *own)

    def build(self, scratch: Path, progress: Progress) -> Path:  # noqa: D102
        go = go_toolchain(_find(r"^go (\S+)", self._go_mod()), progress)
        binary = scratch / "binary"
        run_visibly(
            # -v names each package as it is compiled: the heartbeat shows the last one.
            [go.command, "build", "-v", *self._flags(), "-o", binary, self.package],
            what=f"building {self.package}",
            log=scratch / "log",
            progress=progress,
            timeout=_TIMEOUT,
            directory=self._directory,
            # Static binaries need no C compiler; a go.work in a folder above must not change what is built.
            environment={"CGO_ENABLED": "0", "GOWORK": "off", **go.environment},
        )
        return binary

    @property
    def _directory(self) -> Path:
        return _HERE / "go" / self.module

    def _go_mod(self) -> str:
        return (self._directory / "go.mod").read_text()

    def _flags(self) -> tuple[str, ...]:
        version = self.version()
        major, minor, *_ = version.removeprefix("v").split(".")
        stamps = (
            f"-X {variable}={value.format(version=version, major=major, minor=minor)}"
            for variable, value in self.stamps.items()
        )
        tags = ("-tags", ",".join(self.tags)) if self.tags else ()
        return ("-mod=readonly", "-trimpath", *tags, "-ldflags", " ".join(("-s", "-w", *stamps)))


@dataclass(frozen=True)
class CargoRecipe:
    """A program of ours around a crate, pinned by its Cargo.lock.

    Args:
        crate: Its folder below ``devcluster/rust``, and the name of its binary and of the crate that it serves.
        expected_seconds: See `Recipe`.
    """

    crate: str
    expected_seconds: int

    def version(self) -> str:  # noqa: D102
        return _find(rf'^name = "{self.crate}"\nversion = "(\S+)"', (self._directory / "Cargo.lock").read_text())

    def fingerprint(self) -> str:  # noqa: D102
        files = ("Cargo.toml", "Cargo.lock", "src/main.rs")
        return _hash(*((self._directory / file).read_text() for file in files))

    def build(self, scratch: Path, progress: Progress) -> Path:  # noqa: D102
        cargo = program("cargo", f"install Rust to build the registry {self.crate}")
        run_visibly(
            [cargo, "build", "--release", "--locked", "--target-dir", scratch / "target"],
            what=f"building {self.crate}",
            log=scratch / "log",
            progress=progress,
            timeout=_TIMEOUT,
            directory=self._directory,
        )
        return scratch / "target" / "release" / self.crate

    @property
    def _directory(self) -> Path:
        return _HERE / "rust" / self.crate


@dataclass(frozen=True)
class DebianRecipe:
    """A program out of a Debian package, unpacked but not installed, so that it takes no root.

    Args:
        package: Its name, and that of the program in /usr/bin.
        expected_version: How its version has to begin: distributions differ in the rest.
        expected_seconds: See `Recipe`.
    """

    package: str
    expected_version: str
    expected_seconds: int

    def version(self) -> str:  # noqa: D102
        return self.expected_version

    def fingerprint(self) -> str:  # noqa: D102
        return _hash(self.package, self.expected_version)

    def build(self, scratch: Path, progress: Progress) -> Path:  # noqa: D102
        packages = Packages(f"{self.package} comes from a package of Debian and Ubuntu", scratch, progress)
        binary = scratch / "root" / "usr" / "bin" / self.package
        try:
            packages.unpack([self.package], scratch / "root")
            packages.run(binary, "--version")
        except BuildFailed as error:
            # Not our build: this machine's packages or its network.
            raise ToolUnavailable(f"{self.package} could not be downloaded by apt-get: {error}") from error
        if f" {self.expected_version}" not in (told := tail(packages.log, 1)):
            raise ToolUnavailable(f"{self.package} {self.expected_version} is needed; this machine has: {told}")
        return binary


@dataclass(frozen=True)
class DebianTreeRecipe:
    """Debian packages in one folder, with whatever they depend on that this machine lacks.

    It is to be laid over this machine's own /usr, so it has the packages of this machine's release.

    Args:
        packages: Their names.
        links: Symbolic links that a package would make only when it is installed: path below the folder, target.
        expected_seconds: See `Recipe`.
    """

    packages: tuple[str, ...]
    links: Mapping[str, str]
    expected_seconds: int

    def version(self) -> str:  # noqa: D102
        return _release().get("VERSION_ID", "0")

    def fingerprint(self) -> str:  # noqa: D102
        links = (f"{path} {target}" for path, target in self.links.items())
        return _hash(_release().get("ID", ""), self.version(), *self.packages, *links)

    def build(self, scratch: Path, progress: Progress) -> Path:  # noqa: D102
        packages = Packages(f"a node needs packages of Debian or Ubuntu: {', '.join(self.packages)}", scratch, progress)
        root = scratch / "root"
        try:
            # Also those that are installed: the folder has to serve after they were removed.
            packages.unpack(sorted({*self.packages, *packages.not_installed(self.packages)}), root)
        except BuildFailed as error:
            raise ToolUnavailable(f"the packages of a node could not be downloaded by apt-get: {error}") from error
        merge_usr(root)
        for path, target in self.links.items():
            (root / path).unlink(missing_ok=True)
            (root / path).symlink_to(target)
        return root


def _release() -> Mapping[str, str]:
    """Return what the distribution says of itself; nothing where there is no such file."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise BuildFailed(f"nothing matches {pattern!r} in the file that should pin a version")
    return str(match.group(1))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
