"""Whether this machine can run a node."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from devcluster.engine import NoEngine, find_engine
from devcluster.errors import DevClusterError
from devcluster.node.cgroups import hierarchies, lacking

_PROGRAMS = ("unshare", "nsenter", "setsid", "mount", "umount", "pivot_root", "hostname", "apt-get", "dpkg-deb")
_TIMEOUT = 20
# What the node's file system is made with; arguments: a folder.
_TRIAL = """
mkdir -p "$1/lower" "$1/upper" "$1/work" "$1/merged"
mount -t overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" overlay "$1/merged"
mount -t sysfs sysfs /sys
"""


class NodeUnavailable(DevClusterError):
    """This machine cannot run a node; the message says why not."""


def require() -> None:
    """Make sure that a node can run on this machine.

    Raises:
        NodeUnavailable: It cannot.
    """
    if (reason := unsupported()) is not None:
        raise NodeUnavailable(f"no node can run on this machine: {reason}")


@functools.cache
def unsupported() -> str | None:
    """Return in one sentence why no node can run on this machine; None where it can."""
    if sys.platform != "linux":
        return "it takes Linux"
    if os.geteuid() != 0:
        return "it takes root"
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        return f"it takes Debian or Ubuntu with util-linux, and there is no {', '.join(missing)} on the PATH"
    if not Path("/bin").is_symlink():
        return "it takes a Debian or Ubuntu whose /bin is in /usr"
    return _without_cgroups() or _without_namespaces() or _without_engine()


def _without_cgroups() -> str | None:
    mounted = hierarchies()
    if not mounted:
        return "it takes the hierarchies of cgroup v1, and none is mounted (cgroup v2 alone is not supported)"
    if missing := lacking(mounted):
        return f"no cgroup v1 hierarchy has the controllers {', '.join(missing)}"
    for hierarchy in mounted:
        try:
            hierarchy.make(f"trial-{uuid.uuid4().hex[:8]}").rmdir()
        except OSError as error:
            return f"no cgroup can be made in {hierarchy.mounted}: {error}"
    return None


def _without_namespaces() -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        namespaces = ("--mount", "--pid", "--fork", "--kill-child", "--net", "--uts", "--ipc", "--cgroup")
        answer = subprocess.run(  # noqa: S603 - a script of ours
            ["unshare", *namespaces, "sh", "-euc", _TRIAL, "trial", folder],  # noqa: S607 - util-linux's
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
        )
    if answer.returncode != 0:
        return f"namespaces, or overlays below {tempfile.gettempdir()}, are not allowed here: {answer.stderr.strip()}"
    return None


def _without_engine() -> str | None:
    try:
        find_engine()
    except NoEngine as error:
        return f"the operator's image cannot be built: {error}"
    return None
