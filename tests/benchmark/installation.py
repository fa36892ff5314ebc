"""The operator's packages as its users install them: without the development tools.

Some packages import others that happen to be there (httpx does so with rich), which makes them slower to start.
"""

import subprocess
import sys
from pathlib import Path

from tests.cluster.harness import ROOT

_LOCK = ROOT / "requirements" / "runtime.txt"
_WITHIN = 600.0
"""Longest time for an installation, in seconds."""


def interpreter(folder: Path) -> Path:
    """Return the interpreter of an environment with the packages in requirements/runtime.txt, and nothing else.

    Args:
        folder: Where the environment is, or is made.

    Raises:
        subprocess.CalledProcessError: The packages cannot be installed.
    """
    python, installed = folder / "bin" / "python", folder / "runtime.txt"
    if not installed.exists() or installed.read_bytes() != _LOCK.read_bytes():
        _run(sys.executable, "-m", "venv", "--clear", folder)
        _run(python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--require-hashes", "-r", _LOCK)
        installed.write_bytes(_LOCK.read_bytes())
    return python


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=_WITHIN)
