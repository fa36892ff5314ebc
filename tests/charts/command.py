"""Commands that tests run in the repository's folder."""

import subprocess
from pathlib import Path

from tests.cluster.harness import ROOT
from tests.environment import outside_make


def must(*command: str | Path, timeout: float = 60.0, **environment: str) -> str:
    """Run a command that has to succeed; return what it printed."""
    answer = subprocess.run(
        command,
        cwd=ROOT,
        env={**outside_make(), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert answer.returncode == 0, f"{command}: {answer.stdout[-3000:]}{answer.stderr[-3000:]}"
    return answer.stdout.strip()
