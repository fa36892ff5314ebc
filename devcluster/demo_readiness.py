"""Waits until all objects of a demo are Ready, with a line for each that gets there."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click

from devcluster.errors import DevClusterError

_POLL_SECONDS = 0.3
_HEARTBEAT_SECONDS = 10.0
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
