"""Sources of Go modules, pinned by a go.mod and a go.sum in this repository and downloaded by the go command."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import BuildFailed, ToolUnavailable
from devcluster.gotoolchain import GoToolchain, go_toolchain
from devcluster.progress import Progress, run_visibly

_FOLDER = Path(__file__).parent / "go"
_DOWNLOAD_TIMEOUT = 10 * 60.0


@dataclass(frozen=True)
class Pin:
    """Version and hash of a module's source.

    Args:
        version: The version, as in go.mod.
        sum: The ``h1:`` hash, as in go.sum.
    """

    version: str
    sum: str


@dataclass(frozen=True)
class GoModules:
    """A family of Go modules whose sources are used as they are, without resolving what they require.

    Args:
        family: Folder below ``devcluster/go`` with the go.mod and the go.sum that pin them.
    """

    family: str

    def pin(self, module: str) -> Pin:
        """Return what a module's source has to be.

        Args:
            module: Its path.

        Raises:
            BuildFailed: go.sum has no hash of it.
        """
        lines = (line.split() for line in (self._folder / "go.sum").read_text().splitlines())
        pins = [Pin(version, hash_) for path, version, hash_ in lines if path == module and "/" not in version]
        if len(pins) != 1:
            raise BuildFailed(f"go.sum of {self.family} has {len(pins)} hashes of {module}, and should have one")
        return pins[0]

    def toolchain(self, progress: Progress) -> GoToolchain:
        """Return the Go that the go.mod asks for.

        Args:
            progress: Takes lines while one is installed.

        Raises:
            ToolUnavailable: There is none.
        """
        go_mod = (self._folder / "go.mod").read_text()
        return go_toolchain(go_mod.partition("\ngo ")[2].split()[0], progress)

    def download(self, modules: Iterable[str], *, scratch: Path, progress: Progress) -> dict[str, Path]:
        """Download modules and return the read-only folder of each one.

        Args:
            modules: Their paths.
            scratch: A folder for the log.
            progress: Takes lines while it takes long.

        Raises:
            ToolUnavailable: There is no Go, or a module cannot be downloaded.
            BuildFailed: What was downloaded is not what go.sum pins.
        """
        go = self.toolchain(progress)
        # The go command adds lines that it misses to go.sum: to a copy, not to the repository's file.
        workplace = scratch / "modules"
        workplace.mkdir()
        for name in ("go.mod", "go.sum"):
            shutil.copyfile(self._folder / name, workplace / name)
        return {module: self._download(module, go, workplace, progress) for module in modules}

    def _download(self, module: str, go: GoToolchain, workplace: Path, progress: Progress) -> Path:
        pin = self.pin(module)
        log = workplace / f"{module.replace('/', '_')}.log"
        try:
            run_visibly(
                [go.command, "mod", "download", "-json", module],
                what=f"downloading {module}",
                log=log,
                progress=progress,
                timeout=_DOWNLOAD_TIMEOUT,
                directory=workplace,
                environment={"GOWORK": "off", **go.environment},
            )
        except BuildFailed as error:
            if "checksum mismatch" in str(error):
                raise
            told = f"{module} {pin.version} cannot be downloaded: the Go module proxy is not reachable"
            raise ToolUnavailable(f"{told}\n{error}") from error
        # Progress messages may come before the result.
        text = log.read_text()
        result, _ = json.JSONDecoder().raw_decode(text, text.index("\n{\n") + 1)
        found = Pin(result["Version"], result["Sum"])
        if found != pin:
            raise BuildFailed(f"{module} was downloaded as {found}, and go.sum pins {pin}")
        return Path(result["Dir"])

    @property
    def _folder(self) -> Path:
        return _FOLDER / self.family
