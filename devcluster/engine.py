"""The container engine of this machine: what builds the operator's image, and runs or saves it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import CommandFailed, DevClusterError
from devcluster.progress import Progress, run_visibly, to_stderr

OUTSIDE_MAKE = ("env", *(f"--unset={name}" for name in ("MAKEFLAGS", "MFLAGS", "GNUMAKEFLAGS", "MAKELEVEL")))
"""A command that runs another one without the flags, variables and job server of a make that runs this process."""

BASE = "localhost/artifact-repository-controller-base:bookworm-slim"

_ROOT = Path(__file__).parents[1]
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# What Debian's packages bring and no container needs: half of a base.
_SUPERFLUOUS = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man")
_BUILD_TIMEOUT = 15 * 60.0
_COMMAND_TIMEOUT = 120.0
# Steps of a build run in a chroot, which needs no network of their own; unchanged ones are not run again.
_BUILDAH = {"BUILDAH_ISOLATION": "chroot", "BUILDAH_FORMAT": "docker", "BUILDAH_LAYERS": "true"}


class NoEngine(DevClusterError):
    """This machine can neither build nor run images; the message says what it lacks."""


@dataclass(frozen=True)
class Engine:
    """What builds images and what runs them.

    Args:
        build: The program that `make image` calls.
        run: The command that runs one, up to and with its general options.
        debian: Whether an operator's image is built on a base of Debian's packages, instead of the Dockerfile's own.
        environment: Added to the environment of what builds.
    """

    build: str
    run: Sequence[str]
    debian: bool
    environment: Mapping[str, str]

    @property
    def program(self) -> str:
        """The program that runs images."""
        return self.run[0]

    def build_operator(self, image: str, progress: Progress, log: Path) -> None:
        """Build the operator's image as a person does, by `make image`.

        Args:
            image: Its name and tag.
            progress: Takes a line now and then.
            log: Where the output goes.

        Raises:
            BuildFailed: It failed.
        """
        run_visibly(
            [*OUTSIDE_MAKE, "make", "--no-print-directory", "image", *self.make_arguments(progress), f"IMAGE={image}"],
            what=f"building the image {image}",
            log=log,
            progress=progress,
            timeout=_BUILD_TIMEOUT,
            directory=_ROOT,
            environment=self.environment,
        )

    def make_arguments(self, progress: Progress = to_stderr) -> Sequence[str]:
        """Return what `make image` has to be told here, after making the base if there is none.

        Args:
            progress: Takes a line if a base has to be made.

        Raises:
            CommandFailed: No base could be made.
        """
        if self.debian and not _succeeds("buildah", "inspect", "--type", "image", BASE):
            progress("making a base of Debian's packages for the operator's image, once; about 80 s")
            _make_base()
        return (f"CONTAINER_ENGINE={self.build}", *([f"BASE_IMAGE={BASE}"] if self.debian else []))

    def build_folder(self, image: str, folder: Path) -> None:
        """Build an image from a folder with a Dockerfile that starts from scratch.

        Args:
            image: Its name and tag.
            folder: The folder.

        Raises:
            CommandFailed: It failed.
        """
        _must(self.build, "build", "--quiet", "--tag", image, folder, environment=self.environment)

    def save(self, image: str, archive: Path, name: str) -> None:
        """Write an image into an archive, as `docker save` does.

        Args:
            image: The image.
            archive: The file.
            name: How the archive is to call it.

        Raises:
            CommandFailed: It failed.
        """
        if self.build == "buildah":
            _must("buildah", "push", "--quiet", image, f"docker-archive:{archive}:{name}")
        else:
            _must(self.build, "tag", image, name)
            _must(self.build, "save", "--output", archive, name)

    def untag(self, images: Sequence[str]) -> None:
        """Remove names of images, and the images that have no other one; what is gone already does not matter.

        Args:
            images: The names.
        """
        if images:
            _succeeds(self.build, "rmi", *images)

    def load(self, archive: Path) -> None:
        """Load the image of an archive.

        Args:
            archive: The file.

        Raises:
            CommandFailed: It failed.
        """
        if self.build == "buildah":
            _must("buildah", "pull", "--quiet", f"docker-archive:{archive}")
        else:
            _must(self.build, "load", "--quiet", "--input", archive)


def find_engine() -> Engine:
    """Return Docker where it answers, else buildah and podman with a base of Debian's packages.

    Raises:
        NoEngine: There is neither.
    """
    if shutil.which("docker") and _succeeds("docker", "info"):
        return Engine("docker", ("docker", "run"), debian=False, environment={})
    lacking = [name for name in ("buildah", "podman", "runc", "debootstrap") if shutil.which(name) is None]
    if lacking or os.geteuid() != 0:
        install = f"; install {', '.join(lacking)}" if lacking else ""
        raise NoEngine(f"no Docker daemon answers; start one, or run as root with podman{install}")
    # Without systemd's cgroups, with limits that also a container of a container may set, and without the entry in
    # /etc/passwd that podman makes for the image's user and a kubelet does not.
    run = ("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "--passwd=false")
    limits = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=10000:10000")
    return Engine("buildah", (*run, *limits), debian=True, environment=_BUILDAH)


def _make_base() -> None:
    """Make a base with Python from Debian's packages; no registry of base images is needed."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        include = "--include=python3,python3-venv"
        _must("debootstrap", "--variant=minbase", include, "bookworm", root, timeout=_BUILD_TIMEOUT)
        for folder in _SUPERFLUOUS:
            shutil.rmtree(root / folder, ignore_errors=True)
        # The machine's own authorities: what it installs from may stand behind a proxy.
        authorities = root / _AUTHORITIES.relative_to("/")
        authorities.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_AUTHORITIES, authorities)
        container = _must("buildah", "from", "scratch").strip()
        _must("buildah", "add", container, root, "/")
        _must("buildah", "config", "--env", f"PIP_CERT={_AUTHORITIES}", container)
        _must("buildah", "commit", "--rm", container, BASE)


def _must(*command: str | Path, timeout: float = _COMMAND_TIMEOUT, environment: Mapping[str, str] | None = None) -> str:
    answer = subprocess.run(  # noqa: S603 - programs of this machine, with arguments of ours
        command,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if answer.returncode != 0:
        raise CommandFailed(f"{' '.join(map(str, command))}: {answer.stdout[-3000:]}{answer.stderr[-3000:]}")
    return answer.stdout


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0  # noqa: S603 - likewise
