"""What tests can see of processes from outside."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_POLL_SECONDS = 0.05


def eventually(condition: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
    """Wait until something is so.

    Args:
        condition: Whether it is.
        what: What it is, for the failure.
        timeout: For how many seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(_POLL_SECONDS)


def alive(pid: int) -> bool:
    """Whether a process is there and not just waiting for its parent to notice its end."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return Path("/proc/self").exists() is False  # without a /proc, what kill says has to do


def processes_mentioning(*texts: str) -> list[int]:
    """Return the ids of the living processes that have all texts in their command line, other than this one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
        except (OSError, NotADirectoryError):
            continue
        mentioned = all(text.encode() in command for text in texts)
        if entry.name.isdigit() and mentioned and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return [pid for pid in found if alive(pid)]


def output_until(process: subprocess.Popen[str], text: str) -> str:
    """Return what a process prints, up to and with the line that holds a text; it must not end before."""
    assert process.stdout is not None
    output = ""
    while text not in output:
        line = process.stdout.readline()
        assert line, output
        output += line
    return output
