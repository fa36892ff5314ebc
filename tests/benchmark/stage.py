"""Where a round takes place: servers of its own, objects, and a watch that sees them become Ready."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from controller.api.v1alpha1 import GROUP, PLURAL, VERSION
from devcluster.cluster import DevCluster
from devcluster.process import ServerProcess
from tests.cluster import harness
from tests.cluster.harness import AccessLog, Api, Audit, Objects

NAMESPACE = "bench"

_QUIET_WINDOW = 0.5
_QUIET_SHARE = 0.1
_QUIET_WITHIN = 300.0
_SILENCE = 200.0
"""Longest time without any news of an object, in seconds: an outage is told of after a minute."""

_POLL = 0.02
_OPENINGS = 10
"""How often a watch may end in a row without having told anything."""


@dataclass(frozen=True)
class Stage:
    """Fresh servers: what an earlier round has left behind slows no later one.

    Args:
        cluster: The servers.
        objects: The round's objects.
        audit: What the API server notes of each request.
        access_log: What the registry notes of each request.
    """

    cluster: DevCluster
    objects: Objects
    audit: Audit
    access_log: AccessLog

    def create(self, count: int, *, first: int = 0) -> list[str]:
        """Create objects; return their names once the servers have nothing left to do."""
        names = [f"repo-{number:05}" for number in range(first, first + count)]
        self.objects.create_many(names)
        pids = [server.pid for server in self.cluster.servers]
        wait_until_quiet(*(pid for pid in pids if pid is not None))
        os.sync()  # what is still to be written to the disk would slow down whoever comes next
        return names

    def beside(self, name: str) -> Self:
        """Return the same servers with another namespace, which is made."""
        self.objects.api.must("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return replace(self, objects=Objects(self.objects.api, name))

    @contextmanager
    def watch(self) -> Iterator["ReadyWatch"]:
        """Watch the objects from now on."""
        yield ReadyWatch(self.objects)


@contextmanager
def stage() -> Iterator[Stage]:
    """Start the servers for a round."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        audit_log = Path(folder, "audit.log")
        with harness.operator_cluster(*harness.audit_flags(audit_log)) as cluster:
            api = Api(cluster)
            api.must("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
            yield Stage(cluster, Objects(api, NAMESPACE), Audit(audit_log), AccessLog(cluster.registry.log))
            api.close()


class Heads:
    """Counts the HEAD requests that the registry has answered, from now on.

    Args:
        stage: Where.
    """

    def __init__(self, stage: Stage) -> None:
        self._log = stage.access_log.path
        self._position = stage.access_log.mark()
        self._count = 0

    def count(self) -> int:
        """Return their number; reads only what is new in the log."""
        with self._log.open("rb") as log:
            log.seek(self._position)
            new = log.read()
        whole = new.rfind(b"\n") + 1
        self._position += whole
        self._count += new[:whole].count(b'"HEAD /v2/')
        return self._count

    def wait(self, count: int, *, within: float) -> float:
        """Return when so many were answered, on time.monotonic().

        Args:
            count: How many.
            within: For how many seconds to wait.

        Raises:
            TimeoutError: The time is over.
        """
        deadline = time.monotonic() + within
        while self.count() < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._count} of {count} objects were verified within {within:g} s")
            time.sleep(_POLL)
        return time.monotonic()


class ReadyWatch:
    """Sees at once what becomes of the objects' Ready condition; asking for it would cost the servers more.

    Args:
        objects: The objects, watched from now on.
    """

    def __init__(self, objects: Objects) -> None:
        self._api = objects.api
        self._path = f"/apis/{GROUP}/{VERSION}/namespaces/{objects.namespace}/{PLURAL}"
        self._version = self._api.must("GET", f"{self._path}?limit=1")["metadata"]["resourceVersion"]
        self._lines: Iterator[str] = iter(())
        self._ready: dict[str, str] = {}

    def wait(self, names: Iterable[str], *, status: str = "True", within: float) -> float:
        """Return when the last of some objects was seen to have a status of Ready, on time.monotonic().

        Args:
            names: The objects.
            status: The status.
            within: For how many seconds to wait.

        Raises:
            TimeoutError: The time is over.
        """
        deadline = time.monotonic() + within
        missing = {name for name in names if self._ready.get(name) != status}
        while missing:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(missing)} objects were not Ready={status} within {within:g} s")
            name, ready = self._next()
            if ready == status:
                missing.discard(name)
        return time.monotonic()

    def _next(self) -> tuple[str, str]:
        """Return the next object that has changed, and its status of Ready."""
        for _ in range(_OPENINGS):
            line = next(self._lines, None)
            if line is not None:
                break
            # At first, and when the server has ended the watch: it does so to those that read slowly.
            query = f"watch=true&resourceVersion={self._version}"
            self._lines = self._api.lines(f"{self._path}?{query}", silence=_SILENCE)
        else:
            raise TimeoutError("the API server ends each watch at once")
        object_ = json.loads(line)["object"]
        name, ready = object_["metadata"]["name"], harness.ready(object_)[0] or ""
        self._version = object_["metadata"]["resourceVersion"]
        self._ready[name] = ready
        return name, ready


def wait_until_quiet(*pids: int) -> None:
    """Wait until processes have used next to no CPU for a moment.

    Raises:
        TimeoutError: They do not come to rest.
    """

    def used() -> float:
        return sum(map(harness.cpu_seconds, pids))

    before = used()
    for _ in range(int(_QUIET_WITHIN / _QUIET_WINDOW)):
        time.sleep(_QUIET_WINDOW)
        now = used()
        if now - before < _QUIET_SHARE * _QUIET_WINDOW:
            return
        before = now
    raise TimeoutError(f"no rest within {_QUIET_WITHIN:g} s")


@dataclass(frozen=True)
class Contender:
    """One of those that are compared.

    Args:
        name: How the results call it.
        agent: How it calls itself to the registry.
        prepare: Returns its process, not started yet, for a folder of its own.
    """

    name: str
    agent: str
    prepare: Callable[[Stage, Path], ServerProcess]


class Running:
    """A contender at work, from its start to its stop.

    Args:
        contender: Who.
        stage: Where.
    """

    def __init__(self, contender: Contender, stage: Stage) -> None:
        self._contender = contender
        self._stage = stage
        self._folder = tempfile.TemporaryDirectory(prefix="contender-")
        self.directory = Path(self._folder.name)
        self.process = contender.prepare(stage, self.directory)

    def __enter__(self) -> Self:
        self.mark()
        self.begun = time.monotonic()
        self.process.start()
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if error is not None:
            state = "runs" if self.process.running else "has ended"
            error.add_note(f"{self._contender.name} {state}; the end of its log:\n{self.process.log_tail()}")
        self.process.stop(timeout=30)
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            RuntimeError: It has ended; the message has the end of its log.
        """
        if self.process.pid is None:
            raise RuntimeError(f"{self._contender.name} has ended:\n{self.process.log_tail()}")
        return self.process.pid

    def cpu(self) -> float:
        """Return how much CPU time it has used, in seconds, once it has come to rest."""
        wait_until_quiet(self.pid)
        return harness.cpu_seconds(self.pid)

    def peak_megabytes(self) -> float:
        """Return how much memory it had at most."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        peak = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(peak) * 1024 / 1e6

    def mark(self) -> None:
        """Count requests from here on."""
        self._audit_mark, self._access_mark = self._stage.audit.mark(), self._stage.access_log.mark()

    def writes(self) -> list[str]:
        """Return what it has written to the API server since the mark."""
        return self._stage.audit.writes(self._audit_mark)

    def api_requests(self) -> Sequence[harness.Object]:
        """Return its requests to the API server since the mark."""
        return self._stage.audit.since(self._audit_mark)

    def registry_requests(self) -> list[str]:
        """Return what it has asked of the registry since the mark."""
        return self._stage.access_log.since(self._access_mark, agent=self._contender.agent)
