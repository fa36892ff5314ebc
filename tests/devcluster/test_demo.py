"""What a person sees of `make demo`: on real parts, as they are started."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from devcluster.cluster import DevCluster, Kubernetes
from devcluster.demo import install
from devcluster.demo_readiness import NotReadyInTime, ObjectState, wait_until_ready
from devcluster.demo_terminal import indented, next_steps
from devcluster.demo_tour import Played, steps
from devcluster.process import ServerProcess
from devcluster.tools import Tool, provide, version
from tests.devcluster.observe import eventually, output_until, processes_mentioning

_ROOT = Path(__file__).parents[2]
_COMMAND = [sys.executable, "-m", "devcluster", "demo"]


@contextmanager
def started(temporary: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a demo, and end it if the test fails before it does."""
    with subprocess.Popen(
        [*_COMMAND, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # nothing if it has ended


@pytest.mark.cluster
def test_once(tmp_path: Path) -> None:
    """It ends by itself once all samples are Ready, with their URIs, and leaves nothing."""
    answer = subprocess.run(
        [*_COMMAND, "--once"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "default/web is Ready after" in answer.stdout
    assert "NAMESPACE" in answer.stdout
    eventually(lambda: processes_mentioning(str(tmp_path)) == [], "the processes are gone")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
def test_what_to_try_next_works(tmp_path: Path) -> None:
    """What it prints is pasted as it is, indented, into an interactive shell; Ctrl-C then ends it quietly."""
    with started(tmp_path) as process:
        told = output_until(process, "Ctrl-C ends everything")
        pasted = told.partition("Try in another terminal:")[2].partition("The operator's log:")[0]
        assert indented(next_steps()) in pasted
        tried = subprocess.run(
            ["bash", "--norc", "-i"], input=pasted, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=150
        )
        assert tried.returncode == 0, tried.stdout + tried.stderr
        assert "artifactrepository.artifacts.alien.dev/mine condition met" in tried.stdout
        assert tried.stdout.count("mine condition met") == 3  # Ready, Unknown, and Ready again
        assert re.search(r"^mine +Unknown .* RegistryUnavailable ", tried.stdout, re.MULTILINE)
        assert re.search(r" Warning +RegistryUnavailable ", tried.stdout)
        assert re.search(r" Normal +RepositoryReady ", tried.stdout)
        # The tags before and after the object was deleted.
        assert tried.stdout.count('"tags":["latest","v1"]') == 2
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[0]
        assert process.returncode == 0, rest
        assert rest.strip() == "Ending everything"
    eventually(lambda: list(tmp_path.iterdir()) == [], "the folder is gone")


@pytest.mark.cluster
def test_crash_of_the_registry_ends_the_demo(tmp_path: Path) -> None:
    """A registry that ends by itself is no outage that somebody asked for: the demo fails and shows its log."""
    with started(tmp_path) as process:
        output_until(process, "Ctrl-C ends everything")
        (registry,) = processes_mentioning("registry/config.yml", str(tmp_path))
        os.kill(registry, signal.SIGKILL)
        rest = process.communicate(timeout=30)[0]
    assert process.returncode == 1
    assert "Error: registry distribution-3 ended. The end of its log:" in rest


def kubectl_in(folder: Path, text: str) -> Path:
    """Write a kubectl of the user's own, which is the cluster's with something before it."""
    folder.mkdir()
    file = folder / "kubectl"
    file.write_text(f'#!/bin/sh\n{text}\nexec {shlex.quote(str(provide(Tool.KUBECTL)))} "$@"\n')
    file.chmod(0o755)
    return file


@pytest.mark.cluster
def test_tour(tmp_path: Path) -> None:
    """It plays all its steps with their real output and ends, with the user's own kubectl; nothing is left."""
    own = kubectl_in(tmp_path / "bin", ":")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    path = f"{own.parent}:{os.environ['PATH']}"
    answer = subprocess.run(
        [*_COMMAND, "--tour"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, "TMPDIR": str(temporary), "PATH": path},
    )
    told = answer.stdout
    assert answer.returncode == 0, told + answer.stderr
    assert f"Using {own}\n" in told
    outputs = {played.step.name: played.output for played in played_steps(told)}
    assert "artifactrepository.artifacts.alien.dev/web created" in outputs["apply"]
    assert re.search(r"^web +True .* RepositoryReady ", outputs["get"], re.MULTILINE)
    assert yaml.safe_load(outputs["status"])["status"]["references"].keys() == {"host", "containerRuntime"}
    assert outputs["push"].startswith("v1: digest: sha256:")
    for name in ("backend", "web"):
        assert re.search(
            rf"^{name} +Unknown .*/artifacts/default/{name} +RegistryUnavailable ", outputs["outage"], re.MULTILINE
        )
    # In any order: kubectl sorts by the second, and the registry may be back within one.
    assert re.search(r"Warning +RegistryUnavailable ", outputs["events"])
    assert re.search(r"Normal +RepositoryReady ", outputs["events"])
    assert "was recreated empty; push its images again" in outputs["recreated"]
    assert json.loads(outputs["tags"])["tags"] == ["latest"]
    assert list(temporary.iterdir()) == []


def played_steps(told: str) -> list[Played]:
    """Return the steps of a tour with what they printed, each of which has to be there in its order."""
    found = re.search(r"\n\$ registry push (\S+?)/", told)
    assert found, told
    played = []
    for step in reversed(steps(found[1])):
        told, shown, output = told.rpartition(f"\n# {step.text}\n$ {step.command}\n")
        assert shown, step.name
        played.append(Played(step, output))
    return played


@pytest.mark.cluster
def test_tour_fails_with_a_step(tmp_path: Path) -> None:
    """Where a step fails, the tour ends there with its output, the ends of the logs and exit code 1."""
    own = kubectl_in(tmp_path / "bin", 'case "$*" in "wait artrepo --all "*) echo said and failed; exit 3;; esac')
    answer = subprocess.run(
        [*_COMMAND, "--tour"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "PATH": f"{own.parent}:{os.environ['PATH']}"},
    )
    assert answer.returncode == 1
    assert answer.stdout.endswith("said and failed\n")
    assert "Error: the tour failed at this step, with exit code 3\n" in answer.stderr
    assert "--- kube-apiserver\n" in answer.stderr


@pytest.mark.cluster
def test_tour_can_be_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends a tour in the middle of a step, and nothing is left."""
    with started(tmp_path, "--tour") as process:
        output_until(process, "--for=condition=Ready=Unknown")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 128 + signal.SIGINT
    eventually(lambda: processes_mentioning(str(tmp_path)) == [], "the processes are gone")
    eventually(lambda: list(tmp_path.iterdir()) == [], "the folder is gone")


@pytest.fixture
def without_operator() -> Iterator[tuple[DevCluster, ServerProcess]]:
    """Yield a cluster with the CRD, and a process that is no operator."""
    with DevCluster() as cluster:
        install(cluster)
        idle = ServerProcess(
            "the operator",
            ["sh", "-c", "echo I am idle; sleep 60"],
            probes=[],
            log=cluster.folder / "operator.log",
            directory=cluster.folder,
        )
        with idle:
            yield cluster, idle


@pytest.mark.cluster
def test_limit_shows_status_and_logs(without_operator: tuple[DevCluster, ServerProcess]) -> None:
    """If objects are not Ready in time, a person sees which, their status, and the ends of all logs."""
    cluster, idle = without_operator
    with pytest.raises(NotReadyInTime, match="there are no objects"):
        wait_until_ready(cluster, idle, 0.5)
    cluster.kubectl("apply", "-f", _ROOT / "manifests" / "samples")
    with pytest.raises(NotReadyInTime) as failure:
        wait_until_ready(cluster, idle, 0.5)
    told = str(failure.value)
    assert "default/web: not seen by the operator yet" in told
    assert "observedGeneration: -1" in told
    assert "--- the operator\nI am idle" in told
    for server in cluster.servers:
        assert f"--- {server.name}\n" in told


def test_ready_means_the_present_generation() -> None:
    """A status that speaks of an older spec does not count."""
    condition = {"type": "Ready", "status": "True", "message": "said"}
    status = {"observedGeneration": 1, "conditions": [condition], "uri": "host/a"}
    manifest = {"metadata": {"namespace": "n", "name": "o", "generation": 1}, "status": status}
    assert ObjectState.of(manifest) == ObjectState("n/o", ready=True, message="host/a")
    manifest["metadata"] = {"namespace": "n", "name": "o", "generation": 2}
    assert ObjectState.of(manifest) == ObjectState("n/o", ready=False, message="said")


@pytest.mark.parametrize(
    "command",
    [
        ["demo", "--limit", "0"],
        ["demo", "--kubernetes", "1.2"],
        ["demo", "--tour", "--once"],
        ["demo", "--tour", "--node"],
        ["up", "--no-such-option"],
        ["nothing"],
    ],
)
def test_wrong_use_is_told(command: list[str]) -> None:
    """A mistyped command is a usage error, not a failure."""
    answer = subprocess.run(
        [sys.executable, "-m", "devcluster", *command], capture_output=True, text=True, check=False, timeout=20
    )
    assert answer.returncode == 2
    assert "Usage: python -m devcluster" in answer.stderr


@pytest.mark.parametrize("command", ["demo", "up"])
def test_help_tells_which_kubernetes(command: str) -> None:
    """A person sees which versions there are to choose from."""
    answer = subprocess.run(
        [sys.executable, "-m", "devcluster", command, "--help"], capture_output=True, text=True, check=True, timeout=20
    )
    told = " ".join(answer.stdout.split())
    assert "--kubernetes [newest|oldest]" in told
    for one in Kubernetes:
        assert f"{one} is {version(one.apiserver)}" in told
