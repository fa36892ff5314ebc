"""What a person gets to try the demo: commands on the PATH, lines to paste, and an outage."""

import shlex
import sys
from pathlib import Path
from typing import Final

from devcluster.cluster import DevCluster
from devcluster.demo_registry import STOPPED
from devcluster.errors import DevClusterError
from devcluster.process import ServerProcess
from devcluster.tools import Tool

_ROOT: Final = Path(__file__).parents[1]


class Servers:
    """Servers that have to run for as long as a demo does.

    Args:
        servers: The servers.
    """

    def __init__(self, *servers: ServerProcess) -> None:
        self._servers = servers

    def check(self) -> None:
        """Do nothing while all run.

        Raises:
            DevClusterError: One has ended; the message has the end of its log.
        """
        for server in self._servers:
            if not server.running:
                raise DevClusterError(f"{server.name} ended. The end of its log:\n{server.log_tail()}")


class DemoServers(Servers):
    """The servers of a demo, whose registry the command ``registry`` stops and starts from another terminal.

    The command leaves a file, and the demo does what the file says: only a server's parent can start it again.

    Args:
        cluster: The cluster.
        operator: The operator.
    """

    def __init__(self, cluster: DevCluster, operator: ServerProcess) -> None:
        others = (server for server in cluster.servers if server is not cluster.registry)
        super().__init__(*others, operator)
        self._registry = cluster.registry
        self._always = Servers(cluster.registry)
        self._stopped = cluster.folder / STOPPED
        self._is_outage = False

    def check(self) -> None:
        """Stop or start the registry, where the command has asked for it.

        Raises:
            DevClusterError: A server has ended by itself, or the registry does not start.
        """
        super().check()
        if self._stopped.exists():
            self._registry.stop()
            self._is_outage = True
        elif self._is_outage:
            self._registry.restart()
            self._is_outage = False
        else:
            self._always.check()


def link_tools(cluster: DevCluster, *tools: Tool) -> None:
    """Make some tools commands in a person's terminal.

    Args:
        cluster: The cluster.
        tools: Which tools.
    """
    for tool in tools:
        (binaries(cluster) / tool.value).symlink_to(cluster.binary(tool))


def add_registry_command(cluster: DevCluster) -> None:
    """Make ``registry`` a command in a person's terminal.

    Args:
        cluster: The cluster.
    """
    command = (sys.executable, "-P", "-m", "devcluster.demo_registry", cluster.folder, cluster.registry_url)
    program = binaries(cluster) / "registry"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(_ROOT))} exec {shlex.join(map(str, command))} "$@"\n')
    program.chmod(0o755)


def binaries(cluster: DevCluster) -> Path:
    """Return the folder with the commands of a person's terminal."""
    folder = cluster.folder / "bin"
    folder.mkdir(exist_ok=True)
    return folder


def environment(cluster: DevCluster) -> str:
    """Return the shell line after which the commands work in another terminal."""
    kubeconfig, commands = (shlex.quote(str(path)) for path in (cluster.kubeconfig, binaries(cluster)))
    return f"export KUBECONFIG={kubeconfig} PATH={commands}:$PATH\n"


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
host=$(kubectl get artrepo mine -o jsonpath='{.status.references.host}')

# Push an image, as docker push $host:v1 would, and ask the registry for its tags
registry push "$host:v1"
registry tags "$host"

# Stop the registry: objects become Unknown within 15 s, and recover when it is back; events record both
registry stop
kubectl wait artrepo/mine --for=condition=Ready=Unknown --timeout=60s
kubectl get artrepo
registry start
kubectl wait artrepo/mine --for=condition=Ready --timeout=60s
kubectl events --for artrepo/mine

# Suspend it: the operator no longer contacts the registry for it
kubectl patch artrepo mine --type=merge -p '{"spec": {"suspend": true}}'
kubectl get artrepo mine -o wide

# Delete it: the object goes at once, the repository and its tags stay
kubectl delete artrepo mine
registry tags "$host"
"""


def indented(text: str) -> str:
    """Return lines of a shell as they are shown to a person."""
    return "".join(f"  {line}" if line.strip() else line for line in text.splitlines(keepends=True))
