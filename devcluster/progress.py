"""Long steps that show what they do: a line at the start, one every few seconds, one at the end."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from devcluster.errors import BuildFailed
from devcluster.lifeline import Lifeline

HEARTBEAT_SECONDS = 15.0

# A step's first output can be long lines of package names; a terminal line has room for the end of one.
_LAST_LINE_WIDTH = 60
_TAIL_BYTES = 64 * 1024

Progress = Callable[[str], None]
"""Takes one line for a person who waits."""


def to_stderr(line: str) -> None:
    """Print a progress line where it does not mix with a command's results."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the place that prints


def tail(log: Path, lines: int = 30) -> str:
    """Return the last lines of a log, or a remark that there are none.

    Args:
        log: The file; it need not exist.
        lines: How many.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        text = ""
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


def duration(seconds: float) -> str:
    """Return seconds as a person says them: ``8 s``, ``3 min 20 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def run_visibly(
    command: Sequence[str | Path],
    *,
    what: str,
    log: Path,
    progress: Progress,
    timeout: float,
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a long command with its output in a log and a heartbeat for the person who waits.

    Args:
        command: Program and arguments.
        what: What is being done, as the lines begin: ``building etcd``.
        log: Where the output goes; added to, so that a build of several commands has one log.
        progress: Takes the lines.
        timeout: After how many seconds the command is ended.
        directory: Where it runs.
        environment: Added to our own.

    Raises:
        BuildFailed: It failed, took too long, or could not be started.
    """
    begun = time.monotonic()
    with log.open("ab") as output:
        output.write(f"$ {shlex.join(map(str, command))}\n".encode())
        output.flush()
        try:
            process = subprocess.Popen(  # noqa: S603 - commands come from our recipes
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # compilers are children of the build, and end with their group
            )
        except OSError as error:
            raise BuildFailed(f"{what} could not start: {error}") from error
    lifeline = Lifeline(["kill", "-s", "KILL", "--", f"-{process.pid}"])
    try:
        code = _wait(process, what=what, log=log, progress=progress, begun=begun, timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        lifeline.release()
    if code is None:
        raise BuildFailed(f"{what} took over {duration(timeout)} and was ended. The end of its log:\n{tail(log)}")
    if code != 0:
        raise BuildFailed(f"{what} failed with exit code {code}. The end of its log:\n{tail(log)}")


def _wait(
    process: subprocess.Popen[bytes], *, what: str, log: Path, progress: Progress, begun: float, timeout: float
) -> int | None:
    """Return the exit code, or None once the time is over, with a heartbeat until then."""
    while (left := begun + timeout - time.monotonic()) > 0:
        try:
            return process.wait(min(HEARTBEAT_SECONDS, left))
        except subprocess.TimeoutExpired:
            last_line = tail(log, 1).strip()[-_LAST_LINE_WIDTH:]
            progress(f"  … {what}: {duration(time.monotonic() - begun)} so far, at {last_line}")
    return None
