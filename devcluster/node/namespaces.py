"""The namespaces and cgroups that a node lives in, apart from the machine's, and their end."""

import stat
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from devcluster.errors import CommandFailed
from devcluster.lifeline import Lifeline
from devcluster.node.cgroups import hierarchies
from devcluster.process import ServerProcess
from devcluster.progress import tail

_SCRIPTS = Path(__file__).parent / "scripts"
_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--uts", "--ipc", "--cgroup")
_REMOVE_TIMEOUT = 60.0
# The kubelet would set these for the whole machine.
_SYSCTLS: Final[Mapping[str, str]] = {
    "kernel/keys/root_maxbytes": "25000000",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
}


class Namespaces:
    """Namespaces for a node and its laptop, with nothing in them yet but PID 1, in a ``with`` block.

    At the end of the block all that was started in them ends with PID 1, and their files and cgroups are removed; so
    they are if this process is killed.

    Args:
        folder: All of the node's files; removed with it. ``folder/bin`` has links to the programs that run in the node.
        packages: The folder that is laid over /usr.
        etc: Files that the node has in /etc besides the machine's, by their path in there.
    """

    def __init__(self, folder: Path, packages: Path, etc: Mapping[str, str]) -> None:
        self.folder = folder
        self.node: Final = folder / "bin" / "node"
        """A program that runs a command in the node."""
        self.laptop: Final = folder / "bin" / "laptop"
        """A program that runs a command with the laptop's network and the machine's files."""
        self.logs: Final = folder / "log"
        """A folder for the logs of servers."""
        self._etc = etc
        self._cgroups: list[Path] = []
        self._first = ServerProcess(
            "the node's PID 1",
            [folder / "start", *_UNSHARE, _SCRIPTS / "root.sh", folder, packages],
            probes=[self],
            log=self.logs / "pid-1.log",
            directory=folder,
        )
        self._lifeline: Lifeline | None = None
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            cleanup.callback(self._remove)
            self._prepare()
            self._first.start()
            self._lifeline = Lifeline([str(argument) for argument in self._removal(str(self._first.pid))])
            self._first.wait_until_ready()
            self._write_programs()
            self._connect()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @property
    def cgroups(self) -> Sequence[Path]:
        """The node's cgroup in each hierarchy."""
        return self._cgroups

    @property
    def pid(self) -> int:
        """The process id of the node's PID 1, as this process sees it; 0 if there is none yet."""
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children")
        try:
            return int(children.read_text().split()[0])
        except (OSError, IndexError):
            return 0

    @property
    def root(self) -> Path:
        """The node's file system."""
        return Path(f"/proc/{self.pid}/root")

    def succeeds(self) -> bool:
        """Tell whether PID 1 has made the node's file system: then it is our own program instead of a shell."""
        try:
            return self.pid != 0 and Path(f"/proc/{self.pid}/comm").read_text().strip() == "pause"
        except OSError:
            return False

    def _prepare(self) -> None:
        """Write what `root.sh` reads."""
        name = f"node-{uuid.uuid4().hex[:8]}"
        mounts = []
        for hierarchy in hierarchies():
            self._cgroups.append(hierarchy.make(name))
            mounts.append(f"{hierarchy.options} {hierarchy.mounted.name}\n")
        (self.folder / "cgroups").write_text("".join(mounts))
        for file, value in _SYSCTLS.items():
            if Path("/proc/sys", file).exists():
                _write(self.folder / "sysctl" / file, f"{value}\n")
        for file, text in self._etc.items():
            _write(self.folder / "overlay" / "etc" / "upper" / file, text)
        self.logs.mkdir()
        (self.folder / "root").mkdir()
        joined = [f"echo $$ >'{cgroup}/cgroup.procs'" for cgroup in self._cgroups]
        program(self.folder / "start", *joined, 'exec "$@"')

    def _write_programs(self) -> None:
        """Write what enters the namespaces; a person may use it, too."""
        binaries = self.folder / "bin"
        kubeconfig = self.folder / "kubeconfigs" / "laptop"
        clean = f'env -i TERM="${{TERM:-dumb}}" HOME=/root LANG=C.UTF-8 KUBECONFIG={kubeconfig}'
        runtime = "CONTAINERD_NAMESPACE=k8s.io CONTAINER_RUNTIME_ENDPOINT=unix:///run/containerd/containerd.sock"
        path = f"PATH={binaries}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        enter = f"nsenter --target {self.pid} --mount --pid --net --uts --ipc --cgroup"
        program(
            self.node,
            "[ $# -gt 0 ] || set -- bash",
            f'exec {self.folder / "start"} {enter} -- {clean} {runtime} {path} "$@"',
        )
        program(
            self.laptop,
            '[ $# -gt 0 ] || set -- "${SHELL:-sh}"',
            f'export KUBECONFIG={kubeconfig} PATH="{binaries}:$PATH"',
            'export NO_PROXY="172.16.0.0/12${NO_PROXY:+,$NO_PROXY}"',
            f'exec nsenter --net={self.root}/run/netns/laptop -- "$@"',
        )

    def _connect(self) -> None:
        script = (_SCRIPTS / "network.sh").read_text()
        log = self.logs / "network.log"
        with log.open("wb") as output:
            answer = subprocess.run(  # noqa: S603 - a script of ours
                [self.node, "sh", "-euc", script], stdout=output, stderr=subprocess.STDOUT, check=False
            )
        if answer.returncode != 0:
            raise CommandFailed(f"the node's network could not be made: {tail(log)}")

    def _removal(self, group: str) -> Sequence[str | Path]:
        return [_SCRIPTS / "remove.sh", group, self.folder, *self._cgroups]

    def _remove(self) -> None:
        self._first.kill()
        subprocess.run(self._removal("-"), check=False, timeout=_REMOVE_TIMEOUT)  # noqa: S603 - a script of ours
        if self._lifeline is not None:
            self._lifeline.release()


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def program(file: Path, *lines: str) -> None:
    """Write a shell script that can be executed.

    Args:
        file: Where.
        lines: What it does.
    """
    file.write_text("\n".join(("#!/bin/sh", *lines, "")))
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
