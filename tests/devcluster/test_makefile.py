"""The Makefile is the front door: it has to tell a newcomer what is missing."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.environment import outside_make

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with what `make install` reads, and nothing installed."""
    shutil.copy(_ROOT / "Makefile", tmp_path)
    shutil.copytree(_ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(_ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as a person does, also where these tests are run by a make themselves."""
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=outside_make(), capture_output=True, text=True, check=False, timeout=60
    )


def interpreter(folder: Path, version: str, *, new_enough: bool, has_venv: bool) -> str:
    """Write a stand-in for a Python and return what to call it by."""
    path = folder / "python"
    path.write_text(
        "#!/bin/sh\n"
        f'case "$*" in --version) echo Python {version};; *version_info*) {"true" if new_enough else "false"};;'
        f' *ensurepip*) {"true" if has_venv else "false"};; *) echo "unexpected: $*";; esac\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return "./python"


def test_help_is_the_default(checkout: Path) -> None:
    """Plain `make` lists what there is, one line each."""
    listed = make(checkout).stdout.splitlines()
    names = [line.split()[1] for line in listed]
    expected = """
        help install demo unit test bench campaign lint linters tools sbom audit site lock clean clean-cache
        docs demo-pictures manifests chart package image kind-load
    """
    assert names == expected.split()
    assert all(len(line.split()) > 3 for line in listed)


def test_old_python(checkout: Path) -> None:
    """One sentence says what to install, and nothing was done."""
    name = interpreter(checkout, "3.9.2", new_enough=False, has_venv=True)
    answer = make(checkout, "demo", f"PYTHON={name}")
    assert answer.returncode != 0
    assert answer.stdout == ""
    assert answer.stderr.splitlines()[0] == (
        "Python 3.11 or newer is needed, and './python' is Python 3.9.2: "
        "install it, or name another one, as in: make PYTHON=python3.12 demo"
    )
    assert not (checkout / ".venv").exists()


def test_python_without_venv(checkout: Path) -> None:
    """The same where Debian's python3-venv is missing."""
    name = interpreter(checkout, "3.11.2", new_enough=True, has_venv=False)
    answer = make(checkout, "demo", f"PYTHON={name}")
    assert answer.returncode != 0
    assert answer.stderr.splitlines()[0] == (
        "Python 3.11.2 has no venv module: install it (on Debian and Ubuntu: apt install python3-venv), "
        "or name another Python, as in: make PYTHON=python3.12 demo"
    )
    assert not (checkout / ".venv").exists()


def test_no_python(checkout: Path) -> None:
    """The same where there is none."""
    answer = make(checkout, "install", "PYTHON=python-is-not-here")
    assert answer.stderr.splitlines()[0] == (
        "Python 3.11 or newer is needed, and 'python-is-not-here' is not there: "
        "install it, or name another one, as in: make PYTHON=python3.12 install"
    )


def test_locks_name_no_index() -> None:
    """A lock pins by hash and leaves to each machine where packages come from."""
    for lock in (_ROOT / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
        assert "--find-links" not in text
        assert "--index-url" not in text


def test_ci_runs_what_developers_run() -> None:
    """CI has no steps of its own."""
    script = _ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert commands[0] == "set -euo pipefail"
    assert commands[-1] == "make test"
