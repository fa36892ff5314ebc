"""Packages of Debian and Ubuntu, unpacked into a folder: nothing is installed, and no root is needed."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from devcluster.errors import BuildFailed, ToolUnavailable
from devcluster.progress import Progress, run_visibly

_TIMEOUT = 10 * 60.0


class Packages:
    """The package manager of this machine, as far as an ordinary user may call it.

    Args:
        why: What the packages are for, for the message where there is no package manager.
        scratch: A folder for downloads and logs; commands run in it.
        progress: Takes a line now and then.

    Raises:
        ToolUnavailable: This machine has no apt.
    """

    def __init__(self, why: str, scratch: Path, progress: Progress) -> None:
        self._apt_get, self._dpkg_deb = program("apt-get", why), program("dpkg-deb", why)
        self._scratch = scratch
        self._progress = progress
        self._options: tuple[str, ...] = ()
        self.log = scratch / "log"
        """Where the output of all commands goes."""

    def unpack(self, packages: Sequence[str], root: Path) -> None:
        """Unpack packages into a folder, over each other.

        Args:
            packages: Their names.
            root: The folder.

        Raises:
            BuildFailed: They could not be downloaded or unpacked.
        """
        self.with_lists("download", *packages)
        for archive in self._scratch.glob("*.deb"):
            self.run(self._dpkg_deb, "--extract", archive, root)

    def not_installed(self, packages: Sequence[str]) -> list[str]:
        """Return which of some packages, and of all that they depend on, this machine lacks.

        Args:
            packages: Their names.

        Raises:
            BuildFailed: Some of them do not exist.
        """
        before = len(self.log.read_text().splitlines()) if self.log.exists() else 0
        self.with_lists("install", "--simulate", "--no-install-recommends", *packages)
        planned = (line.split() for line in self.log.read_text().splitlines()[before:])
        return [words[1] for words in planned if words[:1] == ["Inst"]]

    def with_lists(self, *arguments: str) -> None:
        """Run apt-get; where it fails, once more with fresh package lists.

        Lists of our own, in the scratch folder, take no root and change nothing outside of it.
        """
        try:
            self.run(self._apt_get, *self._options, *arguments)
        except BuildFailed:
            if self._options:
                raise
            state, cache = self._scratch / "state", self._scratch / "cache"
            (state / "lists" / "partial").mkdir(parents=True)
            (cache / "archives" / "partial").mkdir(parents=True)
            self._options = ("-o", f"Dir::State={state}", "-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User=")
            self.run(self._apt_get, *self._options, "update")
            self.run(self._apt_get, *self._options, *arguments)

    def run(self, *command: str | Path) -> None:
        """Run a command with its output in the log.

        Raises:
            BuildFailed: It failed.
        """
        run_visibly(
            command,
            what="unpacking packages",
            log=self.log,
            progress=self._progress,
            timeout=_TIMEOUT,
            directory=self._scratch,
        )


def merge_usr(root: Path) -> None:
    """Move what packages put into /bin, /sbin and /lib below /usr, where those lead on a current system.

    Args:
        root: The folder that packages were unpacked into.
    """
    for name in ("bin", "sbin", "lib", "lib64"):
        if (top := root / name).is_dir():
            shutil.copytree(top, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(top)


def program(name: str, why: str) -> Path:
    """Return the path of a program that a build needs.

    Args:
        name: Its name.
        why: What it is for.

    Raises:
        ToolUnavailable: It is not on the PATH.
    """
    found = shutil.which(name)
    if found is None:
        raise ToolUnavailable(f"{name} is not on the PATH; {why}")
    return Path(found)
