"""What takes minutes to make is made once, and is never seen half made."""

import subprocess
import sys
from pathlib import Path

import pytest

from devcluster.cache import cache_root, make_once
from devcluster.progress import Progress


def test_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache follows the XDG specification, which says to ignore a relative path."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_root() == tmp_path / ".cache" / "artifact-repository-controller"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_root() == tmp_path / "elsewhere" / "artifact-repository-controller"


def test_is_made_once(tmp_path: Path) -> None:
    """What is there is not made again."""
    made = []

    def make(scratch: Path) -> Path:
        made.append(scratch)
        (scratch / "thing").write_text("made")
        return scratch / "thing"

    for _ in range(2):
        make_once(tmp_path / "deep" / "thing", make, progress=_silent)
    assert (tmp_path / "deep" / "thing").read_text() == "made"
    assert len(made) == 1
    assert not made[0].exists()


def test_failed_attempt_leaves_nothing(tmp_path: Path) -> None:
    """After a failure nothing is there, so the next one begins anew."""

    def fail(scratch: Path) -> Path:
        (scratch / "thing").write_text("half")
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError):
        make_once(tmp_path / "thing", fail, progress=_silent)
    assert [path.name for path in tmp_path.iterdir()] == [".thing.lock"]


def test_abandoned_attempt_is_swept(tmp_path: Path) -> None:
    """What a killed process left does not pile up."""
    (tmp_path / ".thing.building-dead").mkdir()

    def make(scratch: Path) -> Path:
        (scratch / "thing").touch()
        return scratch / "thing"

    make_once(tmp_path / "thing", make, progress=_silent)
    assert {path.name for path in tmp_path.iterdir()} == {".thing.lock", "thing"}


_MAKER = """
import sys, time
from pathlib import Path
from devcluster.cache import make_once

def make(scratch):
    print("making", flush=True)
    time.sleep(0.5)
    (scratch / "thing").touch()
    return scratch / "thing"

make_once(Path(sys.argv[1]), make, progress=print)
print("there:", Path(sys.argv[1]).exists())
"""


def test_processes_do_not_make_it_twice(tmp_path: Path) -> None:
    """Of several processes that want the same thing, one makes it and the others wait for it."""
    processes = [
        subprocess.Popen([sys.executable, "-c", _MAKER, tmp_path / "thing"], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = "".join(process.communicate(timeout=30)[0] for process in processes)
    assert told.count("making") == 1
    assert told.count("there: True") == 3


def _silent(line: str) -> None:
    """Take a line and tell nobody."""


_: Progress = _silent
