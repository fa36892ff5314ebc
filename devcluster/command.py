"""A command that is waited for, with what it printed."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster.errors import CommandFailed


def run_command(
    command: Sequence[str | Path],
    *,
    name: str,
    timeout: float,
    stdin: str | None = None,
    check: bool = True,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command and return what it printed.

    Args:
        command: Program and arguments.
        name: The command as messages show it.
        timeout: Seconds after which it is ended.
        stdin: What it reads.
        check: Whether it has to succeed; if not, what it said on stderr is returned too.
        directory: Where it runs; None for the current directory.
        environment: Its whole environment; None for this process's own.

    Raises:
        CommandFailed: It failed and had to succeed, or took too long.
    """
    try:
        answer = subprocess.run(  # noqa: S603 - the callers' programs are ours
            command,
            cwd=directory,
            env=environment,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{name}: no answer within {timeout:g} s") from error
    if not check:
        return answer.stdout + answer.stderr
    if answer.returncode != 0:
        raise CommandFailed(f"{name}: exit code {answer.returncode}: {answer.stdout}{answer.stderr}".rstrip())
    return answer.stdout
