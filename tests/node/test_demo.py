"""`make demo ARGS=--node`, as a person sees it, and what is left of a node when the process that runs it is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devcluster.engine import find_engine
from devcluster.manifests import ROOT
from devcluster.node.cgroups import hierarchies
from devcluster.node.demo import next_steps
from tests.cluster.eventually import eventually
from tests.devcluster.observe import output_until, processes_mentioning


@pytest.mark.usefixtures("able")
def test_what_to_try_next_works(tmp_path: Path) -> None:
    """The lines that it prints are run as they are, in another shell; after SIGKILL nothing of it is left."""
    before = cgroups()
    with subprocess.Popen(
        [sys.executable, "-m", "devcluster", "demo", "--node"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        told = output_until(process, "Ctrl-C ends everything")
        assert "default/web is Ready after" in told
        (environment,) = (line for line in told.splitlines() if line.startswith("  export KUBECONFIG="))
        script = f"{environment}\n{next_steps()}"
        assert all(line in told for line in next_steps().splitlines())
        tried = subprocess.run(
            ["sh", "-euc", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )
        assert tried.returncode == 0, tried.stdout + tried.stderr
        assert "this image came from status.uri" in tried.stdout
        assert tried.stdout.splitlines()[-2:] == ["latest", "v1"]
        assert cgroups() != before
        process.send_signal(signal.SIGKILL)
    # Only this is left: a name in the machine's own container engine.
    find_engine().untag(["localhost:5001/artifacts/default/mine:v1"])
    eventually(lambda: processes_mentioning(str(tmp_path)) == [], what="the end of all processes")
    eventually(lambda: list(tmp_path.iterdir()) == [], what="the removal of its files")
    eventually(lambda: cgroups() == before, what="the removal of its cgroups")


def cgroups() -> set[Path]:
    """Return the cgroups of nodes."""
    return {cgroup for hierarchy in hierarchies() for cgroup in hierarchy.own.glob("node-*")}
