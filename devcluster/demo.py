"""The demo: a cluster, the operator in it under its own ServiceAccount, the samples, and what to try next."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import click

from devcluster.cluster import DevCluster, Kubernetes, cluster_tools
from devcluster.errors import DevClusterError
from devcluster.manifests import PERMISSIONS
from devcluster.prebuilt import control_plane
from devcluster.process import ServerProcess
from devcluster.signals import Interrupted
from devcluster.tools import Tool, provide_all

_ROOT = Path(__file__).parents[1]
_MANIFESTS = _ROOT / "manifests"
_NAMESPACE = "artifact-repository-system"
_SERVICE_ACCOUNT = "artifact-repository-controller"
# A demo may be left open over a weekend; nothing refreshes the token of an operator that runs outside a Pod.
_TOKEN_LIFETIME = timedelta(days=30)
_POLL_SECONDS = 0.3
_HEARTBEAT_SECONDS = 10.0
# It finishes the work under way first.
_OPERATOR_STOP_TIMEOUT = 10.0
_LOG_LINES = 40


class NotReadyInTime(DevClusterError):
    """Some objects were not Ready within the limit; the message has their status and the ends of the logs."""


class Cluster(Protocol):
    """What has the API that the demo looks at."""

    def kubectl(self, *arguments: str | Path, check: bool = True) -> str:
        """Run kubectl and return what it printed; also what it said of a failure that is allowed."""
        ...

    def log_tails(self, lines: int = 15) -> str:
        """Return the ends of all servers' logs."""
        ...


class Operator(Protocol):
    """An operator that runs somewhere."""

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    @property
    def running(self) -> bool:
        """Whether there is still hope."""
        ...

    def log_tail(self, lines: int = 30) -> str:
        """Return the end of its log."""
        ...


@dataclass(frozen=True)
class ObjectState:
    """What a person wants to know of an object.

    Args:
        name: ``namespace/name``.
        ready: Whether its status says so, and says it of its present generation.
        message: The URI of a ready one, the condition's message of another.
    """

    name: str
    ready: bool
    message: str

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> "ObjectState":
        """Read it off an ArtifactRepository."""
        metadata, status = manifest["metadata"], manifest.get("status", {})
        conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
        condition = conditions.get("Ready", {})
        ready = condition.get("status") == "True" and status.get("observedGeneration") == metadata["generation"]
        message = status.get("uri", "") if ready else condition.get("message", "not seen by the operator yet")
        return cls(f"{metadata['namespace']}/{metadata['name']}", ready, message)


def demo(kubernetes: Kubernetes, *, once: bool, limit: float) -> None:
    """Show the operator at work.

    Args:
        kubernetes: Which API server it works with.
        once: End when all objects are Ready, instead of staying until Ctrl-C.
        limit: How many seconds the objects have to become Ready.

    Raises:
        DevClusterError: Something did not start, or did not get Ready in time.
    """
    with started_cluster(kubernetes, whole=False) as cluster:
        click.echo("\nInstalling the CRD and the operator's permissions")
        install(cluster)
        with operator(cluster) as process:
            click.echo(
                f"\nThe operator runs as the ServiceAccount {_NAMESPACE}/{_SERVICE_ACCOUNT}. Applying the samples"
            )
            click.echo(cluster.kubectl("apply", "-f", _MANIFESTS / "samples"), nl=False)
            wait_until_ready(cluster, process, limit)
            click.echo(f"\n$ kubectl get artrepo -A\n{cluster.kubectl('get', 'artrepo', '-A')}")
            if once:
                return
            click.echo("Try in another terminal:\n")
            click.echo(indented(environment(cluster, Tool.KUBECTL)))
            click.echo(indented(next_steps()))
            click.echo(f"The operator's log: {process.log}")
            stay(*cluster.servers, process)


def up(kubernetes: Kubernetes) -> None:
    """Run the servers until Ctrl-C.

    Args:
        kubernetes: Which API server.

    Raises:
        DevClusterError: Something did not start.
    """
    with started_cluster(kubernetes, whole=True) as cluster:
        click.echo(f"\nThe registry: {cluster.registry_url}\nThe API server:\n")
        click.echo(indented(environment(cluster, Tool.KUBECTL, Tool.CRANE)))
        stay(*cluster.servers)


@contextmanager
def started_cluster(kubernetes: Kubernetes, *, whole: bool) -> Iterator[DevCluster]:
    """Run a dev cluster, and say so.

    Args:
        kubernetes: Which API server.
        whole: With kube-controller-manager and crane, all built from sources; otherwise with what can be downloaded.
    """
    prebuilt = {} if whole else control_plane(kubernetes)
    wanted = (*cluster_tools(kubernetes, controllers=whole), *((Tool.CRANE,) if whole else ()))
    provide_all([tool for tool in wanted if tool not in prebuilt])
    click.echo(f"Starting etcd, kube-apiserver{', kube-controller-manager' if whole else ''} and a registry")
    begun = time.monotonic()
    with DevCluster(kubernetes=kubernetes, prebuilt=prebuilt, controllers=whole) as cluster:
        click.echo(f"They are ready after {time.monotonic() - begun:.1f} s; all their files are in {cluster.folder}")
        yield cluster


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
    registry = {"service": "local", "registryUrl": cluster.registry_url, "repositoryPolicy": "Namespaced"}
    config.write_text(json.dumps({"defaultRegistry": "artifacts", "registries": {"artifacts": registry}}, indent=2))
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


def wait_until_ready(cluster: Cluster, process: Operator, limit: float) -> None:
    """Wait until all objects are Ready, with a line for each that gets there.

    Args:
        cluster: Where they are.
        process: The operator.
        limit: For how many seconds.

    Raises:
        NotReadyInTime: They are not.
    """
    begun = told = time.monotonic()
    shown: set[str] = set()
    while True:
        listed = json.loads(cluster.kubectl("get", "artrepo", "-A", "-o", "json"))["items"]
        states = [ObjectState.of(manifest) for manifest in listed]
        now = time.monotonic()
        for state in states:
            if state.ready and state.name not in shown:
                click.echo(f"  {state.name} is Ready after {now - begun:.1f} s: {state.message}")
                shown.add(state.name)
        if states and all(state.ready for state in states):
            return
        waiting = "\n".join(f"  … {state.name}: {state.message}" for state in states if not state.ready)
        if now - begun > limit or not process.running:
            raise NotReadyInTime(
                f"not Ready after {now - begun:.0f} s:\n{waiting or '  there are no objects'}\n"
                f"{cluster.kubectl('get', 'artrepo', '-A', '-o', 'yaml', check=False)}\n"
                f"--- {process.name}\n{process.log_tail(_LOG_LINES)}\n{cluster.log_tails()}"
            )
        if now - told > _HEARTBEAT_SECONDS:
            click.echo(waiting)
            told = now
        time.sleep(_POLL_SECONDS)


def environment(cluster: DevCluster, *tools: Tool) -> str:
    """Return the shell line after which some tools work in another terminal."""
    binaries = cluster.folder / "bin"
    binaries.mkdir()
    for tool in tools:
        (binaries / tool.value).symlink_to(cluster.binary(tool))
    return f"export KUBECONFIG={cluster.kubeconfig} PATH={binaries}:$PATH\n"


def next_steps() -> str:
    """Return shell lines that show the rest.

    People paste them as they are printed, indented, into an interactive shell. A here-document would not end there, and
    zsh takes a comment's quotes for the start of a string.
    """
    return """\
# Create a repository of your own; kubectl explain artrepo.spec lists the fields
echo '{"apiVersion": "artifacts.alien.dev/v1alpha1", "kind": "ArtifactRepository", "metadata": {"name": "mine"}}' |
  kubectl apply -f -
kubectl wait artrepo/mine --for=condition=Ready --timeout=30s
uri=$(kubectl get artrepo mine -o jsonpath='{.status.uri}')

# Ask the registry for its tags; docker push $uri:v1 would add one
curl -fsS "http://${uri%%/*}/v2/${uri#*/}/tags/list"

# Suspend it: the operator then asks the registry for nothing
kubectl patch artrepo mine --type=merge -p '{"spec": {"suspend": true}}'
kubectl get artrepo mine -o wide

# Delete it: the object goes at once, the repository and its tags stay
kubectl delete artrepo mine
curl -fsS "http://${uri%%/*}/v2/${uri#*/}/tags/list"
"""


def stay(*servers: ServerProcess) -> None:
    """Return at Ctrl-C or SIGTERM.

    Raises:
        DevClusterError: A server ended meanwhile; the message has the end of its log.
    """
    try:
        click.echo("\nCtrl-C ends everything")
        while True:
            for server in servers:
                if not server.running:
                    raise DevClusterError(f"{server.name} ended. The end of its log:\n{server.log_tail()}")
            time.sleep(_POLL_SECONDS)
    except Interrupted:
        click.echo("\nEnding everything")


def indented(text: str) -> str:
    """Return lines of a shell as they are shown to a person."""
    return "".join(f"  {line}" if line.strip() else line for line in text.splitlines(keepends=True))
