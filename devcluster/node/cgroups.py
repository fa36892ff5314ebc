"""The cgroup v1 hierarchies of this machine, and a cgroup of the node's own in each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CONTROLLERS = frozenset({
    "blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "net_cls", "net_prio", "perf_event",
    "pids",
})  # fmt: skip
_NEEDED = frozenset({"cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"})
"""What the kubelet and runc insist on."""


@dataclass(frozen=True)
class Hierarchy:
    """A mounted hierarchy.

    Args:
        options: What it is mounted with: its controllers, or ``name=…``.
        mounted: Where.
        own: The cgroup in it that this process is in.
    """

    options: str
    mounted: Path
    own: Path

    @property
    def controllers(self) -> frozenset[str]:
        """Its controllers."""
        return frozenset(self.options.split(",")) & _CONTROLLERS

    def make(self, name: str) -> Path:
        """Make a cgroup below the one of this process and return it.

        Args:
            name: How it is called.

        Raises:
            OSError: It cannot be made.
        """
        cgroup = self.own / name
        cgroup.mkdir()
        if "cpuset" in self.controllers:
            # In a new one these are empty, and no process can be put into it.
            for file in ("cpuset.cpus", "cpuset.mems"):
                (cgroup / file).write_text((self.own / file).read_text())
            (cgroup / "cgroup.clone_children").write_text("1")
        return cgroup


def hierarchies() -> Sequence[Hierarchy]:
    """Return the version 1 hierarchies that are mounted; none on a machine with version 2 only."""
    paths = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, options, path = line.split(":", 2)
        paths[frozenset(options.split(","))] = path
    found: dict[frozenset[str], Hierarchy] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        if kind != "cgroup":
            continue
        root, mounted = fields.split(" ")[3:5]
        wanted = [one for one in options.split(",") if one in _CONTROLLERS or one.startswith("name=")]
        if frozenset(wanted) in paths:
            own = Path(mounted, os.path.relpath(paths[frozenset(wanted)], root))
            found.setdefault(frozenset(wanted), Hierarchy(",".join(wanted), Path(mounted), own))
    return list(found.values())


def lacking(hierarchies: Sequence[Hierarchy]) -> Sequence[str]:
    """Return the controllers that a node needs and that no hierarchy has.

    Args:
        hierarchies: The mounted ones.
    """
    return sorted(_NEEDED - frozenset().union(*(hierarchy.controllers for hierarchy in hierarchies)))
