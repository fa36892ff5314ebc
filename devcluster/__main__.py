"""``python -m devcluster``."""

import os
import sys

import click

from devcluster import demo as stage
from devcluster.cluster import Kubernetes
from devcluster.errors import DevClusterError, ToolUnavailable
from devcluster.manifests import MANIFESTS, render
from devcluster.node import demo as node_stage
from devcluster.node.support import unsupported
from devcluster.progress import to_stderr
from devcluster.signals import Interrupted, interruptible
from devcluster.tools import LINTERS, NODE_ONLY, Tool, announce, provide, version

_kubernetes = click.option(
    "--kubernetes",
    type=click.Choice(Kubernetes, case_sensitive=False),
    default=Kubernetes.NEWEST.value,
    show_default=True,
    help=f"Which API server: {', '.join(f'{one} is {version(one.apiserver)}' for one in Kubernetes)}.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run a Kubernetes control plane and a registry on this machine, without a container engine."""


@main.command()
@click.option("--tour", is_flag=True, help="Play the steps by itself, with an outage, in about a minute, and end.")
@click.option("--once", is_flag=True, help="End when all objects are Ready; fail if they are not within the limit.")
@click.option(
    "--limit",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="Seconds that the objects have to become Ready.",
)
@click.option("--node", is_flag=True, help="Run the operator as a Pod, on a real node with a kubelet; root only.")
@_kubernetes
def demo(kubernetes: Kubernetes, *, tour: bool, once: bool, limit: float, node: bool) -> None:
    """Show the operator at work on manifests/samples."""
    if tour and (once or node):
        raise click.UsageError("a tour ends by itself, and does without a node")
    if tour:
        stage.tour(kubernetes)
    elif not node:
        stage.demo(kubernetes, once=once, limit=limit)
    elif kubernetes is Kubernetes.NEWEST:
        node_stage.demo(once=once, limit=limit)
    else:
        raise click.UsageError("a node is of the newest Kubernetes only")


@main.command()
@_kubernetes
def up(kubernetes: Kubernetes) -> None:
    """Start the servers only, and say how to reach them."""
    stage.up(kubernetes)


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("name", type=click.Choice([tool.value for tool in Tool if tool is not Tool.NODE_PACKAGES]))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def tool(name: str, arguments: tuple[str, ...]) -> None:
    """Run one of the tools, such as helm or kubectl, with arguments of its own."""
    binary = provide(Tool(name))
    os.execv(binary, [str(binary), *arguments])  # noqa: S606 - the tool is ours


@main.command()
def manifests() -> None:
    """Write manifests/ anew from the chart."""
    for name, text in render().items():
        (MANIFESTS / name).parent.mkdir(exist_ok=True)
        (MANIFESTS / name).write_text(text, encoding="utf-8")
        click.echo(f"manifests/{name}")


@main.command()
def tools() -> None:
    """Build all servers and clients that are not in the cache yet."""
    reason = unsupported()
    omitted = LINTERS if reason is None else (*LINTERS, *NODE_ONLY)
    wanted = [tool for tool in Tool if tool not in omitted]
    announce(wanted, to_stderr)
    unavailable = 0
    for tool in wanted:
        try:
            click.echo(f"{tool.value}: {provide(tool)}")
        except ToolUnavailable as error:
            # A machine without cargo or apt runs everything but the tests of those registries, which say so too.
            unavailable += 1
            click.echo(f"{tool.value}: not available on this machine: {error}", err=True)
    if reason is not None:
        names = ", ".join(tool.value for tool in NODE_ONLY)
        click.echo(f"{names}: not built, because no node can run on this machine: {reason}", err=True)
    click.echo(f"{len(wanted) - unavailable} tools are there, {unavailable} are not available on this machine")


def run() -> None:
    """Run a command with errors as sentences, and signals as the exit codes that shells expect."""
    try:
        with interruptible():
            main(prog_name="python -m devcluster")
    except DevClusterError as error:
        click.echo(f"\nError: {error}", err=True)
        sys.exit(1)
    except Interrupted as interrupted:
        sys.exit(interrupted.exit_code)


if __name__ == "__main__":
    run()
