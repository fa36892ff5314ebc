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


def interpreter(folder: Path) -> Path:
    """Return the interpreter of an environment with the packages in requirements/runtime.txt, and nothing else.

    Args:
        folder: Where the environment is, or is made.

    Raises:
        BuildFailed: The packages cannot be installed; the message has the end of the log.
    """
    python, installed = folder / "bin" / "python", folder / "runtime.txt"
    if not installed.exists() or installed.read_bytes() != _LOCK.read_bytes():
        _run(folder, sys.executable, "-m", "venv", "--clear", folder)
        _run(folder, python, "-m", "pip", "install", "--disable-pip-version-check", "--require-hashes", "-r", _LOCK)
        installed.write_bytes(_LOCK.read_bytes())
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
