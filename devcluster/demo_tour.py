"""The tour: the demo's steps, played with their real output."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from devcluster.cluster import DevCluster
from devcluster.demo_terminal import Servers, binaries
from devcluster.errors import DevClusterError

_ROOT: Final = Path(__file__).parents[1]
_POLL_SECONDS: Final = 0.2
_HEARTBEAT_SECONDS: Final = 5.0
_STEP_SECONDS: Final = 120.0
"""Time after which a step has failed; the waiting commands have limits of their own, which are shorter."""


class TourFailed(DevClusterError):
    """A step failed; the message has its output and the ends of the logs."""


@dataclass(frozen=True)
class Step:
    """A step of the tour.

    Args:
        name: How documentation refers to it.
        text: What it shows.
        command: Lines of a shell, in the folder of the project.
    """

    name: str
    text: str
    command: str


@dataclass(frozen=True)
class Played:
    """A step with what it printed."""

    step: Step
    output: str


def steps(registry: str) -> tuple[Step, ...]:
    """Return the steps of the tour.

    Args:
        registry: The registry's ``host:port``.
    """
    web = f"{registry}/artifacts/default/web"
    ready = "kubectl wait artrepo --all --for=condition=Ready --timeout=60s"
    return (
        Step("apply", "Declare two repositories", "kubectl apply -f manifests/samples"),
        Step("wait", "The operator creates them in the registry", ready),
        Step("get", "uri is what a Pod's image field needs", "kubectl get artrepo"),
        Step(
            "status",
            "status has the name for each place; here, the registry is for this machine only",
            "kubectl get artrepo web -o yaml | sed -n '/^status:/,$p'",
        ),
        Step("push", f"Push an image, as docker push {web}:v1 would", f"registry push {web}:v1"),
        Step(
            "populated",
            "The object reports it at its next verification",
            "kubectl wait artrepo/web --for=condition=Populated --timeout=60s",
        ),
        Step("stop", "An outage: the registry stops", "registry stop"),
        Step(
            "unknown",
            "It shows once it has lasted for 5 s; this takes up to 15 s",
            "kubectl wait artrepo --all --for=condition=Ready=Unknown --timeout=60s",
        ),
        Step("outage", "The repositories and their names stay known", "kubectl get artrepo"),
        Step("start", "The registry is back, and the objects recover by themselves", f"registry start && {ready}"),
        Step("recovered", "The same repositories, verified again", "kubectl get artrepo"),
        Step("events", "Events tell of both", "kubectl events --for artrepo/web"),
        Step("forget", "Somebody removes the repository behind the operator's back", f"registry forget {web}"),
        Step(
            "recreated",
            "It is created again, empty, within 10 s",
            "until kubectl events --for artrepo/web | grep RepositoryRecreated; do sleep 1; done",
        ),
        Step("delete", "An object is deleted at once", "kubectl delete artrepo web"),
        Step("tags", "Its repository stays, with the marker that made it exist", f"registry tags {web}"),
    )


def play(cluster: DevCluster, servers: Servers) -> list[Played]:
    """Play all steps, print them as they go, and return them.

    Args:
        cluster: The cluster, with an operator.
        servers: What has to run meanwhile.

    Raises:
        TourFailed: A step failed.
        DevClusterError: A server ended.
    """
    variables = {"KUBECONFIG": str(cluster.kubeconfig), "PATH": f"{binaries(cluster)}:{os.environ['PATH']}"}
    played = []
    for step in steps(urlsplit(cluster.registry_url).netloc):
        click.echo(f"\n# {step.text}\n$ {step.command}")
        code, output = _run(step.command, variables, servers)
        click.echo(output, nl=False)
        if code != 0:
            raise TourFailed(f"the tour failed at this step, with exit code {code}\n{cluster.log_tails()}")
        played.append(Played(step, output))
    return played


def _run(command: str, variables: Mapping[str, str], servers: Servers) -> tuple[int, str]:
    """Return the exit code and the output of a command, with a line now and then while it runs.

    Raises:
        TourFailed: It took too long.
        DevClusterError: A server ended.
    """
    begun = told = time.monotonic()
    with _process(command, variables) as process:
        while True:
            try:
                output, _ = process.communicate(timeout=_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                servers.check()
            else:
                return process.returncode, output
            now = time.monotonic()
            if now - begun > _STEP_SECONDS:
                raise TourFailed(f"the last step has not ended after {_STEP_SECONDS:g} s")
            if now - told > _HEARTBEAT_SECONDS:
                click.echo(f"  … {now - begun:.0f} s", err=True)
                told = now


@contextmanager
def _process(command: str, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command of the shell; end it and its children where it is left early."""
    with subprocess.Popen(  # noqa: S603 - the steps are ours
        ["/bin/sh", "-ec", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=_ROOT,
        env={**os.environ, **variables},
        start_new_session=True,
    ) as process:
        try:
            yield process
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
