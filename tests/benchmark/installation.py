"""The operator's packages as its users install them: without the development tools.

Some packages import others that happen to be there (httpx does so with rich), which makes them slower to start.
"""

import sys
from pathlib import Path

from devcluster.progress import run_visibly, to_stderr
from tests.cluster.harness import ROOT

_LOCK = ROOT / "requirements" / "runtime.txt"
_WITHIN = 600.0
"""Longest time for an installation, in seconds."""


def interpreter(folder: Path, base: Path) -> Path:
    """Return the interpreter of an environment with the packages in requirements/runtime.txt, and nothing else.

    Args:
        folder: Where the environment is, or is made.
        base: The interpreter that the environment is made of.

    Raises:
        BuildFailed: The packages cannot be installed; the message has the end of the log.
    """
    python, installed = folder / "bin" / "python", folder / "runtime.txt"
    wanted = f"# {base}\n{_LOCK.read_text()}"
    if not installed.exists() or installed.read_text() != wanted:
        _run(folder, base, "-m", "venv", "--clear", "--without-pip", folder)
        pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
        _run(folder, *pip, "install", "--require-hashes", "-r", _LOCK)
        installed.write_text(wanted)
    return python


def _run(folder: Path, *command: str | Path) -> None:
    run_visibly(
        command,
        what="installing what users install",
        log=folder.with_suffix(".log"),
        progress=to_stderr,
        timeout=_WITHIN,
        directory=ROOT,
    )
