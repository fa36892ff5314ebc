"""The demo: a cluster, the operator in it under its own ServiceAccount, the samples, and what to try next.

Who uses whom::

    demo                    starts and ends everything
    ├── demo_readiness      waits for the samples
    ├── demo_tour           plays the steps by itself
    └── demo_terminal       commands and lines for a person's terminal
        └── demo_registry   the command `registry`: an outage, a push, a loss
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import click

from devcluster.cluster import DevCluster, Kubernetes, cluster_tools
from devcluster.command import run_command
from devcluster.demo_readiness import wait_until_ready
from devcluster.demo_terminal import (
    DemoServers,
    Servers,
    add_registry_command,
    environment,
    indented,
    link_tools,
    next_steps,
)
from devcluster.demo_tour import Played, play
from devcluster.kubectl import kubectl_on_path
from devcluster.manifests import PERMISSIONS
from devcluster.prebuilt import prebuilt_programs
from devcluster.process import ServerProcess
from devcluster.signals import Interrupted
from devcluster.tools import Tool, from_assets, is_provided, provide, provide_all, version

_ROOT = Path(__file__).parents[1]
_MANIFESTS = _ROOT / "manifests"
_NAMESPACE = "artifact-repository-system"
_SERVICE_ACCOUNT = "artifact-repository-controller"
# A demo may be left open over a weekend; nothing refreshes the token of an operator that runs outside a Pod.
_TOKEN_LIFETIME = timedelta(days=30)
_POLL_SECONDS = 0.3
# It finishes the work under way first.
_OPERATOR_STOP_TIMEOUT = 10.0
_COMMAND_TIMEOUT = 30.0
# Nobody wants to wait in a demo for as long as an operator may take to notice an outage or a lost repository.
_TIMINGS = {"resyncInterval": "5s", "unavailableAfter": "5s", "probeInterval": "1s"}
_ABOUT_TIMINGS = """\
For this demo the operator verifies each repository every 5 s (10 minutes by default), and objects become Unknown when
the registry has been down for 5 s (60 s by default)."""


def demo(kubernetes: Kubernetes, *, once: bool, limit: float) -> None:
    """Show the operator at work.

    Args:
        kubernetes: Which API server it works with.
        once: End when all objects are Ready, instead of staying until Ctrl-C.
        limit: How many seconds the objects have to become Ready.

    Raises:
        DevClusterError: Something did not start, or did not get Ready in time.
    """
    with demo_cluster(kubernetes) as (cluster, process):
        click.echo("\nApplying the samples")
        click.echo(cluster.kubectl("apply", "-f", _MANIFESTS / "samples"), nl=False)
        wait_until_ready(cluster, process, limit)
        click.echo(f"\n$ kubectl get artrepo -A\n{cluster.kubectl('get', 'artrepo', '-A')}")
        if once:
            return
        click.echo(f"{_ABOUT_TIMINGS}\n\nTry in another terminal:\n")
        click.echo(indented(environment(cluster)))
        click.echo(indented(next_steps()))
        click.echo(f"The operator's log: {process.log}")
        stay(DemoServers(cluster, process))


def tour(kubernetes: Kubernetes, *, registry_port: int | None = None) -> list[Played]:
    """Play the steps of a demo, an outage among them, and return them with their output.

    Args:
        kubernetes: Which API server the operator works with.
        registry_port: The registry's port; any free one if none is given.

    Raises:
        DevClusterError: Something did not start, or a step failed.
    """
    with demo_cluster(kubernetes, registry_port=registry_port) as (cluster, process):
        click.echo(f"\n{_ABOUT_TIMINGS}")
        return play(cluster, DemoServers(cluster, process))


def up(kubernetes: Kubernetes) -> None:
    """Run the servers until Ctrl-C.

    Args:
        kubernetes: Which API server.

    Raises:
        DevClusterError: Something did not start.
    """
    with started_cluster(kubernetes, whole=True) as cluster:
        click.echo(f"\nThe registry: {cluster.registry_url}\nThe API server:\n")
        link_tools(cluster, Tool.KUBECTL, Tool.CRANE)
        click.echo(indented(environment(cluster)))
        stay(Servers(*cluster.servers))


@contextmanager
def demo_cluster(
    kubernetes: Kubernetes, *, registry_port: int | None = None
) -> Iterator[tuple[DevCluster, ServerProcess]]:
    """Run a cluster with the operator in it, and with the commands for a person's terminal.

    Args:
        kubernetes: Which API server.
        registry_port: The registry's port; any free one if none is given.
    """
    with started_cluster(kubernetes, whole=False, registry_port=registry_port) as cluster:
        click.echo("\nInstalling the CRD and the operator's permissions")
        install(cluster)
        link_tools(cluster, Tool.KUBECTL)
        add_registry_command(cluster)
        with operator(cluster) as process:
            click.echo(f"\nThe operator runs as the ServiceAccount {_NAMESPACE}/{_SERVICE_ACCOUNT}")
            yield cluster, process


@contextmanager
def started_cluster(kubernetes: Kubernetes, *, whole: bool, registry_port: int | None = None) -> Iterator[DevCluster]:
    """Run a dev cluster, and say so.

    Args:
        kubernetes: Which API server.
        whole: With kube-controller-manager and crane, all built from sources; otherwise with what is there already or
            can be downloaded.
        registry_port: The registry's port; any free one if none is given.
    """
    prebuilt = {} if whole else existing_programs(kubernetes)
    wanted = (*cluster_tools(kubernetes, controllers=whole), *((Tool.CRANE,) if whole else ()))
    provide_all([tool for tool in wanted if tool not in prebuilt])
    click.echo(f"Starting etcd, kube-apiserver{', kube-controller-manager' if whole else ''} and a registry")
    begun = time.monotonic()
    with DevCluster(
        kubernetes=kubernetes, prebuilt=prebuilt, controllers=whole, registry_port=registry_port
    ) as cluster:
        click.echo(f"They are ready after {time.monotonic() - begun:.1f} s; all their files are in {cluster.folder}")
        yield cluster


def existing_programs(kubernetes: Kubernetes) -> dict[Tool, Path]:
    """Return the programs of a demo that need not be built: downloaded ones, and the user's own kubectl.

    Args:
        kubernetes: Which API server.
    """
    programs = prebuilt_programs(kubernetes)
    if from_assets(Tool.KUBECTL) is None and (kubectl := kubectl_on_path(_server_version(kubernetes, programs))):
        click.echo(f"Using {kubectl}")
        programs[Tool.KUBECTL] = kubectl
    return programs


def _server_version(kubernetes: Kubernetes, programs: Mapping[Tool, Path]) -> str:
    """Return the version of the API server that will run; one of ``KUBEBUILDER_ASSETS`` may have any."""
    tool = kubernetes.apiserver
    if tool not in programs and not is_provided(tool):
        return version(tool)
    binary = programs.get(tool) or provide(tool)
    return run_command([binary, "--version"], name=tool.value, timeout=_COMMAND_TIMEOUT).removeprefix("Kubernetes ")


def install(cluster: DevCluster) -> None:
    """Install the CRD and the operator's ServiceAccount and permissions."""
    # The namespace first: the others are in it.
    for manifest in ("namespace.yaml", "crd.yaml", *PERMISSIONS):
        click.echo(cluster.kubectl("apply", "-f", _MANIFESTS / manifest), nl=False)
    cluster.wait_established()


@contextmanager
def operator(cluster: DevCluster) -> Iterator[ServerProcess]:
    """Run the operator of this checkout with no more access than its ServiceAccount has.

    It is not waited for: whether it works shows in the objects' status, within the limit that they have.
    """
    folder = cluster.folder / "operator"
    folder.mkdir()
    config = folder / "config.yaml"
    registry = {"registryUrl": cluster.registry_url, "repositoryPolicy": "Namespaced", "reportTags": 5}
    settings = {"defaultRegistry": "artifacts", "registries": {"artifacts": registry}, "timings": _TIMINGS}
    config.write_text(json.dumps(settings, indent=2))
    access = cluster.service_account_kubeconfig(_NAMESPACE, _SERVICE_ACCOUNT, _TOKEN_LIFETIME)
    process = ServerProcess(
        "the operator",
        [sys.executable, "-m", "controller", "run", "--config", config],
        probes=[],
        log=cluster.folder / "operator.log",
        directory=folder,
        environment={"KUBECONFIG": str(access), "PYTHONPATH": str(_ROOT)},
    )
    try:
        process.start()
        yield process
    finally:
        process.stop(_OPERATOR_STOP_TIMEOUT)


def stay(servers: Servers) -> None:
    """Return at Ctrl-C or SIGTERM.

    Args:
        servers: What has to run meanwhile.

    Raises:
        DevClusterError: A server ended; the message has the end of its log.
    """
    try:
        click.echo("\nCtrl-C ends everything")
        while True:
            servers.check()
            time.sleep(_POLL_SECONDS)
    except Interrupted:
        click.echo("\nEnding everything")
