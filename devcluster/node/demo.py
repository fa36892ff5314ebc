"""The demo on a node: the operator as a Pod, installed from its chart, the samples, and what to try next."""

import time

import click

from devcluster.demo import stay
from devcluster.demo_readiness import wait_until_ready
from devcluster.demo_terminal import Servers, indented
from devcluster.manifests import CHART, MANIFESTS, NAMESPACE
from devcluster.node.node import Node

_RELEASE = "artifacts"
_DEPLOYMENT = f"deploy/{_RELEASE}-artifact-repository-controller"


def demo(*, once: bool, limit: float) -> None:
    """Show the operator at work on a node.

    Args:
        once: End when all objects are Ready, instead of staying until Ctrl-C.
        limit: How many seconds the objects have to become Ready.

    Raises:
        NodeUnavailable: This machine cannot run a node.
        DevClusterError: Something did not start, or did not get Ready in time.
    """
    node = Node()
    node.prepare()
    click.echo("Starting a node, and a registry beside it")
    begun = time.monotonic()
    with node:
        click.echo(f"It is Ready after {time.monotonic() - begun:.1f} s; all its files are in {node.folder}")
        click.echo("\nInstalling the operator from its chart")
        install(node)
        click.echo("\nThe operator runs as a Pod. Applying the samples")
        click.echo(node.kubectl("apply", "-f", MANIFESTS / "samples"), nl=False)
        wait_until_ready(node, _Deployment(node), limit)
        click.echo(f"\n$ kubectl get artrepo,pods -A\n{node.kubectl('get', 'artrepo,pods', '-A')}")
        if once:
            return
        click.echo("Try in another terminal, in this folder:\n")
        click.echo(indented(environment(node)))
        click.echo(indented(next_steps()))
        stay(Servers(*node.servers))


def install(node: Node) -> None:
    """Install the operator from its chart and wait until it is available.

    Args:
        node: Where.
    """
    registry = "config.registries.artifacts.registryUrl=http://kind-registry:5000"
    node.helm("install", _RELEASE, CHART, "--namespace", NAMESPACE, "--create-namespace", "--set", registry, "--wait")


def environment(node: Node) -> str:
    """Return the shell line after which kubectl, helm and the commands `node` and `laptop` work in another terminal."""
    return f"export KUBECONFIG={node.kubeconfig} PATH={node.folder / 'bin'}:$PATH\n"


def next_steps() -> str:
    """Return shell lines that show the rest: they are run by a test, so they work."""
    return """\
# Push an image from the laptop, where the registry is localhost:5001 as it is with kind
echo '{"apiVersion": "artifacts.alien.dev/v1alpha1", "kind": "ArtifactRepository", "metadata": {"name": "mine"}}' |
  kubectl apply -f -
kubectl wait artrepo/mine --for=condition=Ready --timeout=30s
host=$(kubectl get artrepo mine -o jsonpath='{.status.references.host}')
laptop docker build -t "$host:v1" manifests/kind/example
laptop docker push "$host:v1"

# Run it in a Pod
kubectl run mine --image="$(kubectl get artrepo mine -o jsonpath='{.status.references.containerRuntime}'):v1"
kubectl wait pod/mine --for=condition=Ready --timeout=60s
kubectl logs mine

# The operator, as the cluster sees it
kubectl describe pods -n artifact-repository-system
helm test artifacts -n artifact-repository-system

# On the node itself; without a command, `node` and `laptop` start a shell
node crictl ps
laptop crane ls "$host"
"""


class _Deployment:
    """The operator, as far as `wait_until_ready` looks at it."""

    name = "the operator"
    running = True

    def __init__(self, node: Node) -> None:
        self._node = node

    def log_tail(self, lines: int = 30) -> str:
        """Return the end of its log."""
        return self._node.kubectl("logs", "-n", NAMESPACE, _DEPLOYMENT, f"--tail={lines}", check=False)
