"""The node: from nothing to Ready, what runs in it and on its laptop, and its end."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from devcluster.cluster import cluster_tools
from devcluster.command import run_command
from devcluster.engine import find_engine
from devcluster.errors import CommandFailed
from devcluster.node.access import Access
from devcluster.node.addresses import NODE_NAME
from devcluster.node.configuration import etc
from devcluster.node.images import OPERATOR, provide_images
from devcluster.node.namespaces import Namespaces, program
from devcluster.node.servers import Servers
from devcluster.node.standins import BUILT
from devcluster.node.support import require
from devcluster.progress import Progress, to_stderr
from devcluster.tools import NODE_ONLY, Tool, provide_all

NODE_TOOLS: Final = (*cluster_tools(), Tool.CRANE, Tool.HELM, *NODE_ONLY)
"""All programs that a node needs, and those that a person at its laptop has."""

_ROOT = Path(__file__).parents[2]
_REGISTRY_SCRIPT = _ROOT / "manifests" / "kind" / "registry.sh"
_COMMAND_TIMEOUT = 120.0


class Node:
    """A single Kubernetes node and a laptop beside it, in a ``with`` block.

    It is Ready once the block is entered, with the operator's image loaded and its registry advertised. At the end of
    the block it is gone with all that ran on it, and also if this process is killed.

    Args:
        progress: Takes a line now and then while something is built.

    Attributes:
        folder: Where all the node's files are.
        ca_file: The CA that the API server is verified by.
        kubeconfig: Of a cluster administrator, for programs on this machine.
        servers: All its servers, and the registry, for faults.
    """

    folder: Path
    ca_file: Path
    kubeconfig: Path
    servers: Servers

    def __init__(self, *, progress: Progress = to_stderr) -> None:
        self._progress = progress
        self._cleanup = ExitStack()

    def prepare(self) -> None:
        """Build all that a node is made of and that is not in a cache yet; starting one does so, too.

        Raises:
            NodeUnavailable: This machine cannot run a node.
            BuildFailed: Something could not be built.
        """
        require()
        self._tools = provide_all(NODE_TOOLS, progress=self._progress)
        self._engine = find_engine()
        self._images = provide_images(self._engine, self._progress)

    def __enter__(self) -> Self:
        self.prepare()
        with ExitStack() as cleanup:
            self.folder = Path(tempfile.mkdtemp(prefix="node-"))
            cleanup.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._set_up(cleanup)
            self._start()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @property
    def url(self) -> str:
        """The API server, on loopback: ``https://127.0.0.1:PORT``."""
        return self.servers.url

    @property
    def cgroups(self) -> Sequence[Path]:
        """The cgroups that it has, one in each hierarchy."""
        return self._namespaces.cgroups

    def run(self, *command: str | Path, stdin: str | None = None, check: bool = True) -> str:
        """Run a command in the node, with its files, network and processes; return what it printed.

        Args:
            command: Program and arguments.
            stdin: What it reads.
            check: Whether it has to succeed; if not, what it said on stderr is returned too.

        Raises:
            CommandFailed: It failed and had to succeed, or took longer than two minutes.
        """
        return _command([self._namespaces.node, *command], stdin, check=check)

    def laptop(self, *command: str | Path, stdin: str | None = None, check: bool = True) -> str:
        """Run a command as a developer does: with the laptop's network and the machine's files, in the checkout.

        Args:
            command: Program and arguments.
            stdin: What it reads.
            check: Whether it has to succeed; if not, what it said on stderr is returned too.

        Raises:
            CommandFailed: It failed and had to succeed, or took longer than two minutes.
        """
        return _command([self._namespaces.laptop, *command], stdin, check=check)

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl as an administrator, on the laptop; see `laptop`."""
        return self.laptop("kubectl", *arguments, stdin=stdin, check=check)

    def helm(self, *arguments: str | Path, check: bool = True) -> str:
        """Run helm as an administrator, on the laptop; see `laptop`."""
        return self.laptop("helm", *arguments, check=check)

    def log_tails(self, lines: int = 15) -> str:
        """Return the ends of all servers' logs.

        Args:
            lines: How many of each.
        """
        return "\n".join(f"--- {server.name}\n{server.log_tail(lines)}" for server in self.servers)

    def _set_up(self, cleanup: ExitStack) -> None:
        """Make the namespaces and compose all servers; none of them runs yet."""
        binaries = self.folder / "bin"
        binaries.mkdir()
        for tool, path in self._tools.items():
            if tool is not Tool.NODE_PACKAGES:
                (binaries / tool.value).symlink_to(path.resolve())
        for name in ("docker", "kind"):
            # This process has the network of the machine.
            machine = ("nsenter", f"--net=/proc/{os.getpid()}/ns/net", "--", "env", f"PYTHONPATH={_ROOT}")
            standin = (sys.executable, "-m", "devcluster.node.standins", name, str(binaries))
            program(binaries / name, f'exec {shlex.join((*machine, *standin))} "$@"')
        access = Access(self.folder)
        access.kubeconfig("laptop", access.admin)
        self.ca_file = access.ca_file
        self._namespaces = cleanup.enter_context(Namespaces(self.folder, self._tools[Tool.NODE_PACKAGES], etc()))
        cleanup.callback(self._forget_images)
        self.servers = Servers(self._namespaces, access, cleanup)
        self.kubeconfig = access.kubeconfig("admin", access.admin, self.url)

    def _start(self) -> None:
        with ThreadPoolExecutor() as pool:
            imports: list[Future[None]] = []
            self.servers.start(lambda: imports.extend(pool.submit(self._import, one) for one in self._images.all))
            for each in imports:
                each.result()
        self.kubectl("wait", "--for=condition=Ready", f"node/{NODE_NAME}", "--timeout=60s")
        # Examples on the laptop begin with `FROM busybox`.
        self._engine.load(self._images.busybox)
        self.laptop(_REGISTRY_SCRIPT)

    def _import(self, archive: Path) -> None:
        """Load an image into the node."""
        with archive.open("rb") as content:
            answer = subprocess.run(  # noqa: S603 - programs of ours
                [self._namespaces.node, "ctr", "images", "import", "-"],
                stdin=content,
                capture_output=True,
                text=True,
                check=False,
                timeout=_COMMAND_TIMEOUT,
            )
        if answer.returncode != 0:
            raise CommandFailed(f"{archive.name} could not be imported: {answer.stdout}{answer.stderr}")

    def _forget_images(self) -> None:
        """Remove what `docker build` on the laptop has made of the machine's own engine."""
        built = self.folder / BUILT
        if built.exists():
            # The operator's is everybody's who works on it, and building it takes a minute.
            self._engine.untag(sorted({*built.read_text().split()} - {OPERATOR}))


def _command(command: Sequence[str | Path], stdin: str | None, *, check: bool) -> str:
    name = " ".join(map(str, command[1:]))
    return run_command(command, name=name, timeout=_COMMAND_TIMEOUT, stdin=stdin, check=check, directory=_ROOT)
