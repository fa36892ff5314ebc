"""The tests of the product on the newest Python of this machine, where that is newer than the one that runs this.

The image has a newer Python than the oldest supported one, and they differ: in what TLS accepts, for example.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.cache import cache_root, make_once
from devcluster.errors import ToolUnavailable
from tests.environment import outside_make

ROOT = Path(__file__).parents[2]
NEWEST_MINOR = 20


def candidates() -> Iterator[str]:
    """Yield what may be a newer Python, the newest first: on the PATH, or installed by pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for minor in range(NEWEST_MINOR, sys.version_info.minor, -1):
        name = f"python3.{minor}"
        if found := shutil.which(name):
            yield found
        yield from map(str, pyenv.glob(f"versions/*/bin/{name}"))


def newer_python() -> tuple[str, str]:
    """Return the newest Python of this machine and its version."""
    for candidate in candidates():
        probe = [candidate, "-c", "import ensurepip, platform, venv; print(platform.python_version())"]
        done = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode == 0:
            return candidate, done.stdout.strip()
    raise ToolUnavailable(f"no Python newer than 3.{sys.version_info.minor} with a venv module: install python3.13")


@pytest.fixture(scope="module")
def newer() -> Path:
    """Return the newest Python, with the pinned packages, in a virtual environment in the user's cache."""
    python, version = newer_python()
    lock = ROOT / "requirements" / "dev.txt"
    environment = cache_root() / "python" / f"{version}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"

    def make(scratch: Path) -> Path:
        made = scratch / "environment"
        subprocess.run([python, "-m", "venv", made], check=True, timeout=120)
        pip = [str(made / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "--no-deps", "-r", lock], check=True, timeout=1200)
        return made

    make_once(environment, make, progress=print)
    return environment / "bin" / "python"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tests", ["tests/unit", "tests/contract", "tests/cluster/test_lifecycle.py"])
def test_on_a_newer_python(newer: Path, tests: str, tmp_path: Path) -> None:
    """Unit, contract and lifecycle tests pass on it."""
    environment = {name: value for name, value in outside_make().items() if not name.startswith(("COV", "PYTEST"))}
    command = [str(newer), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'nested'}", tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
