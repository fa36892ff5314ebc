"""Programs that are built inside their own module's source."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devcluster.gomodules import GoModules
from devcluster.progress import Progress, run_visibly

_TIMEOUT = 30 * 60.0
_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w")


@dataclass(frozen=True)
class GoSourceRecipe:
    """A program built as its authors build it: with the versions and the replacements of its own go.mod.

    A go.mod of ours that requires the program cannot do that, because Go ignores ``replace`` in the modules that it
    requires. The hash of the source pins its go.sum, and with it everything else that goes into the program.

    Args:
        modules: The family that pins the source.
        source: The program's module; its root is the program.
        nested: Modules that the source's go.mod expects in folders of its own, by folder. They are not part of the
            source as Go publishes it.
        expected_seconds: See `Recipe`.
    """

    modules: GoModules
    source: str
    expected_seconds: int
    nested: Mapping[str, str] = field(default_factory=dict)

    def version(self) -> str:  # noqa: D102 - see Recipe
        return self.modules.pin(self.source).version

    def fingerprint(self) -> str:  # noqa: D102
        pins = (f"{module} {self.modules.pin(module)}" for module in (self.source, *self.nested.values()))
        return hashlib.sha256("\0".join((*pins, *_FLAGS)).encode()).hexdigest()

    def build(self, scratch: Path, progress: Progress) -> Path:  # noqa: D102
        folders = self.modules.download((self.source, *self.nested.values()), scratch=scratch, progress=progress)
        source, binary = scratch / "source", scratch / "binary"
        _copy(folders[self.source], source)
        for folder, module in self.nested.items():
            _copy(folders[module], source / folder)
        go = self.modules.toolchain(progress)
        run_visibly(
            # -v names each package as it is compiled: the heartbeat shows the last one.
            [go.command, "build", "-v", *_FLAGS, "-o", binary, "."],
            what=f"building {self.source}",
            log=scratch / "log",
            progress=progress,
            timeout=_TIMEOUT,
            directory=source,
            environment={"CGO_ENABLED": "0", "GOWORK": "off", **go.environment},
        )
        return binary


def _copy(source: Path, target: Path) -> None:
    """Copy a folder of the module cache without its permissions, which allow nobody to write."""
    for path in (source, *source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        else:
            shutil.copyfile(path, copy)
