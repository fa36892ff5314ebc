"""Long steps are never silent, and failures show what the command said."""

import re
import sys
from pathlib import Path

import pytest

from devcluster import progress
from devcluster.errors import BuildFailed
from devcluster.progress import duration, run_visibly, tail
from tests.devcluster.observe import alive, eventually


def test_heartbeat_shows_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a command runs, lines tell how long it takes so far and what it said last."""
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.2)
    lines: list[str] = []
    _run(tmp_path, "print('compiling x', flush=True); import time; time.sleep(2)", lines=lines)
    assert len(lines) >= 2
    assert re.search(r"building a thing: \d s so far, at compiling x", lines[-2])


def test_failure_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """A person sees what the compiler said, not only that it failed."""
    with pytest.raises(BuildFailed, match=r"(?s)building a thing failed with exit code 3.*undefined: x"):
        _run(tmp_path, "print('undefined: x'); raise SystemExit(3)")


def test_command_that_is_not_there(tmp_path: Path) -> None:
    """A missing program is a failure like others."""
    with pytest.raises(BuildFailed, match="could not start"):
        run_visibly(
            ["/no/such/program"], what="it", log=tmp_path / "log", progress=print, timeout=1, directory=tmp_path
        )


def test_time_limit_ends_the_whole_group(tmp_path: Path) -> None:
    """What takes too long is ended together with the processes it has started."""
    script = (
        "import subprocess, sys, time, pathlib;"
        "child = subprocess.Popen(['sleep', '60']); pathlib.Path('pid').write_text(str(child.pid)); time.sleep(60)"
    )
    with pytest.raises(BuildFailed, match="took over 5 s"):
        _run(tmp_path, script, timeout=5)
    child = int((tmp_path / "pid").read_text())
    eventually(lambda: not alive(child), "the command's child is gone")


def test_tail_of_a_log(tmp_path: Path) -> None:
    """A log that is missing or long is no trouble."""
    assert tail(tmp_path / "none") == "(the log is empty)"
    (tmp_path / "log").write_text("\n".join(f"line {number}" for number in range(100_000)))
    assert tail(tmp_path / "log", 2) == "line 99998\nline 99999"


@pytest.mark.parametrize(("seconds", "told"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s")])
def test_duration(seconds: float, told: str) -> None:
    """Times are told as people say them."""
    assert duration(seconds) == told


def _run(folder: Path, script: str, *, lines: list[str] | None = None, timeout: float = 20) -> None:
    run_visibly(
        [sys.executable, "-c", script],
        what="building a thing",
        log=folder / "log",
        progress=([] if lines is None else lines).append,
        timeout=timeout,
        directory=folder,
    )
