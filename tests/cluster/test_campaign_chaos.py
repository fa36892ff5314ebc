"""Faults at random under a stream of changes, and then an audit. The seed is told, and can be given.

Two replicas work while people create, change and delete objects and push images; whatever can fail does, two things
at a time. The first replica is frozen and cut off, but never killed, so that what it leaks would be seen in the end.
"""

import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import pytest

from controller.registry import marker
from devcluster.cluster import DevCluster
from devcluster.process import ServerProcess
from tests.cluster.campaign import LENIENT, LIMIT, SECONDS, SEED, Record, defects
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import (
    OPERATOR_NAMESPACE,
    AccessLog,
    Object,
    Objects,
    OperatorProcess,
    condition,
    is_ready,
)
from tests.cluster.proxy import Action, Delay, FaultProxy, Lose, Response
from tests.cluster.test_faults_crash import catalog
from tests.cluster.test_faults_leadership import LEASE
from tests.cluster.test_lifecycle import fetch, put_image
from tests.settings import FULL

pytestmark = [pytest.mark.cluster, pytest.mark.campaign, pytest.mark.timeout(LIMIT)]

OBJECTS: Final = 300 if FULL else 80
"""How many objects live at the same time, at most."""

CHANGES_PER_SECOND: Final = 15
REQUESTED_AT: Final = "artifacts.alien.dev/requestedAt"
TIMINGS: Final = {
    "resyncInterval": "5s",
    "unavailableAfter": "3s",
    "progressDeadline": "20s",
    "probeInterval": "500ms",
}

Fault = Callable[[], AbstractContextManager[object]]


class Worker:
    """Does something again and again, in a thread, in the ``with`` block; what it raises is raised at its end.

    Args:
        name: How the thread is called.
        step: What is done; it gets to know when it is over.
    """

    def __init__(self, name: str, step: Callable[[threading.Event], None]) -> None:
        self._step = step
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(120)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while not self._over.is_set():
                self._step(self._over)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is seen
            self._error = error


class People:
    """Those who create, change and delete objects, and push images; what fails they try another time.

    Args:
        objects: Their objects.
        registry_url: Where they push to, past all proxies.
        dice: What they do next.
    """

    def __init__(self, objects: Objects, registry_url: str, dice: random.Random) -> None:
        self._objects = objects
        self._registry_url = registry_url
        self._dice = dice
        self._number = 0
        self.names: list[str] = []
        self.paths: set[str] = set()
        """All that any object ever meant."""
        self.pushed: dict[tuple[str, str], bytes] = {}
        """Path and tag, and the manifest: what the registry has confirmed."""
        self.doubtful: set[tuple[str, str]] = set()
        """What it has not."""
        self.done: Counter[str] = Counter()

    def step(self, over: threading.Event) -> None:
        """Do one thing."""
        what, weight = zip(*self._menu().items(), strict=True)
        (choice,) = self._dice.choices(what, weight)
        try:
            choice()
        except (httpx.HTTPError, AssertionError, ValueError, KeyError):
            self.done["changes that failed meanwhile"] += 1
            over.wait(0.2)
        else:
            self.done[choice.__name__] += 1
        over.wait(self._dice.uniform(0, 2 / CHANGES_PER_SECOND))

    def _menu(self) -> Mapping[Callable[[], None], int]:
        if not self.names:
            return {self.create: 1}
        crowded = len(self.names) >= OBJECTS
        return {
            self.create: 0 if crowded else 8,
            self.adopt: 0 if crowded else 2,
            self.delete: 8 if crowded else 2,
            self.recreate: 1,
            self.respecify: 3,
            self.ask: 3,
            self.push: 2,
        }

    def create(self) -> None:
        """Create an object; of some, several share a repository."""
        self._number += 1
        spec = self._spec()
        if self._dice.random() < 0.2:
            spec["repositoryName"] = f"{self._objects.namespace}/shared-{self._dice.randrange(20)}"
        self._create(f"repo-{self._number:05}", spec)

    def adopt(self) -> None:
        """Push an image to where an object comes later."""
        self._number += 1
        name, spec = f"repo-{self._number:05}", self._spec()
        self._push(self._path(name, spec), self._dice.choice(["latest", "v1"]))
        self._create(name, spec)

    def delete(self) -> None:
        """Delete an object."""
        name = self._dice.choice(self.names)
        self._objects.delete(name)
        self.names.remove(name)

    def recreate(self) -> None:
        """Delete an object and create a namesake at once."""
        name = self._dice.choice(self.names)
        self._objects.delete(name)
        self.names.remove(name)
        self._create(name, self._spec())

    def respecify(self) -> None:
        """Change an object's registry, or suspend it, or end that."""
        name, registry = self._dice.choice(self.names), self._dice.choice(["first", "second"])
        suspend = self._dice.random() < 0.3
        # Noted before: it may be carried out, and the answer be lost.
        self.paths.add(self._path(name, {**self._get(name)["spec"], "registry": registry}))
        self._objects.patch(name, {"spec": {"registry": registry, "suspend": suspend or None}})

    def ask(self) -> None:
        """Ask for a verification."""
        annotations = {REQUESTED_AT: f"{time.monotonic():.6f}"}
        self._objects.patch(self._dice.choice(self.names), {"metadata": {"annotations": annotations}})

    def push(self) -> None:
        """Push an image, ``latest`` too, to a repository that is Ready, as docs/security.md advises."""
        object_ = self._get(self._dice.choice(self.names))
        if is_ready(object_) and not object_["spec"].get("suspend"):
            path = object_["status"]["uri"].partition("/")[2]
            self._push(path, self._dice.choice(["latest", f"v{self._dice.randrange(5)}"]))

    def _get(self, name: str) -> Object:
        return self._objects.api.must("GET", f"{self._objects._path}/{name}")

    def _spec(self) -> Object:
        return {"registry": "second"} if self._dice.random() < 0.3 else {}

    def _path(self, name: str, spec: Object) -> str:
        return f"{spec.get('registry', 'first')}/{spec.get('repositoryName', f'{self._objects.namespace}/{name}')}"

    def _create(self, name: str, spec: Object) -> None:
        self.paths.add(self._path(name, spec))
        self._objects.create(name, spec)
        self.names.append(name)

    def _push(self, path: str, tag: str) -> None:
        self.paths.add(path)
        self.doubtful.add((path, tag))
        self.pushed[path, tag] = put_image(self._registry_url, path, tag)
        self.doubtful.discard((path, tag))


class Faults:
    """What goes wrong, and notes about it.

    Args:
        cluster: The servers.
        replicas: The operators; the first one is never killed.
        api_proxy: The operators' way to the API server.
        registry_proxy: Their way to the registry.
        notes: Where each fault is noted.
    """

    def __init__(
        self,
        cluster: DevCluster,
        replicas: list[OperatorProcess],
        api_proxy: FaultProxy,
        registry_proxy: FaultProxy,
        notes: Path,
    ) -> None:
        self._cluster = cluster
        self._mortal = replicas[1]
        self._begun = time.monotonic()
        self._notes = notes
        self._lock = threading.Lock()
        self.injected: Counter[str] = Counter()
        refused = Response(429, b"{}", {"Retry-After": "1"})
        self.of_servers: dict[str, Fault] = {
            "operator: kill -9": lambda: self._restarted(self._mortal.process, kill=True),
            "operator: SIGTERM": lambda: self._restarted(self._mortal.process),
            "operator: SIGSTOP": lambda: _frozen(replicas[0].process),
            "other operator: SIGSTOP": lambda: _frozen(self._mortal.process),
            "API server: kill -9": lambda: self._restarted(cluster.apiserver, kill=True),
            "API server: restart": lambda: self._restarted(cluster.apiserver),
            "API server: SIGSTOP": lambda: _frozen(cluster.apiserver),
            "etcd: SIGSTOP": lambda: _frozen(cluster.etcd),
            "registry: kill -9": lambda: self._restarted(cluster.registry, kill=True),
            "registry: restart": lambda: self._restarted(cluster.registry),
            "registry: SIGSTOP": lambda: _frozen(cluster.registry),
            "registry: disk full": lambda: _full_disk(cluster.registry),
        }
        if not FULL:  # each takes ten seconds, and the kill shows the same
            del self.of_servers["API server: restart"]
        self.of_network: dict[str, Fault] = {}
        for name, proxy in {"API server": api_proxy, "registry": registry_proxy}.items():
            actions: Mapping[str, Action] = {
                "latency": Delay(0.3),
                "500": Response(500, b"{}"),
                "429": refused,
                "answers lost": Lose(),
            }
            self.of_network |= {f"way to {name}: {what}": _ruled(proxy, action) for what, action in actions.items()}
            self.of_network |= {
                f"way to {name}: cut": _done(proxy.cut),
                f"way to {name}: refused": _undone(proxy.refuse, proxy.listen),
                f"way to {name}: swallowed": _undone(proxy.freeze, proxy.thaw),
            }

    def injector(self, faults: Mapping[str, Fault], dice: random.Random) -> Callable[[threading.Event], None]:
        """Return what injects one fault after the other: all of them in a new order, again and again."""
        deck: list[str] = []

        def step(over: threading.Event) -> None:
            if not deck:
                deck.extend(dice.sample(sorted(faults), len(faults)))
            kind = deck.pop()
            # Some last longer than the Lease.
            seconds = dice.uniform(0.2, 2) if not FULL or dice.random() < 0.7 else dice.uniform(2, 20)
            self._note(kind, seconds)
            with faults[kind]():
                over.wait(seconds)
            over.wait(dice.uniform(0, 2 if FULL else 0.5))

        return step

    def _note(self, kind: str, seconds: float) -> None:
        with self._lock, self._notes.open("a") as notes:
            self.injected[kind] += 1
            notes.write(f"{time.monotonic() - self._begun:8.2f} {kind} for {seconds:.1f} s\n")

    @contextmanager
    def _restarted(self, server: ServerProcess, *, kill: bool = False) -> Iterator[None]:
        if kill:
            server.kill()
        else:
            server.stop(timeout=30)
        try:
            yield
        finally:
            server.start()
        if server is not self._mortal.process:
            server.wait_until_ready()


@contextmanager
def _frozen(server: ServerProcess) -> Iterator[None]:
    server.suspend()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def _full_disk(server: ServerProcess) -> Iterator[None]:
    """Let a server write no further byte to any file."""
    pid = server.pid
    assert pid is not None
    without = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, without)


def _ruled(proxy: FaultProxy, action: Action) -> Fault:
    @contextmanager
    def ruled() -> Iterator[None]:
        with ExitStack() as rules:
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH"):
                rules.enter_context(proxy.rule(method, "", action))
            yield

    return ruled


def _done(action: Callable[[], None]) -> Fault:
    @contextmanager
    def done() -> Iterator[None]:
        action()
        yield

    return done


def _undone(begin: Callable[[], None], end: Callable[[], None]) -> Fault:
    @contextmanager
    def undone() -> Iterator[None]:
        begin()
        try:
            yield
        finally:
            end()

    return undone


class Footprint:
    """What a process holds."""

    def __init__(self, operator: OperatorProcess) -> None:
        pid = operator.process.pid
        self.files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        self.threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        self.megabytes = operator.resident_bytes() >> 20


def test_chaos(
    mended: DevCluster,
    objects: Objects,
    start_operator: StartOperator,
    api_proxy: FaultProxy,
    registry_proxy: FaultProxy,
    access_log: AccessLog,
    record_property: Record,
    tmp_path: Path,
) -> None:
    """Whatever fails, and whenever: in the end all is Ready and true, no tag is harmed, and nothing is left over."""
    binding = {"registryUrl": registry_proxy.url}
    config = {"defaultRegistry": "first", "registries": {"first": binding, "second": binding}, "timings": TIMINGS}
    # What is idle is used in turn, and so kept: a leak shows among few connections.
    arguments = ("--leader-elect", "--lease-namespace", OPERATOR_NAMESPACE, "--concurrent=16")
    objects.api.request("DELETE", LEASE)
    replicas = [start_operator(config, *arguments, server=api_proxy.url, environment=LENIENT) for _ in range(2)]
    people = People(objects, mended.registry_url, random.Random(f"people {SEED}"))
    for _ in range(20):
        people.create()
    objects.wait_all(is_ready, within=40, tell=replicas[0].log)
    base, mark, notes = Footprint(replicas[0]), access_log.mark(), tmp_path / "faults.log"
    faults = Faults(mended, replicas, api_proxy, registry_proxy, notes)
    servers = faults.injector(faults.of_servers, random.Random(f"servers {SEED}"))
    network = faults.injector(faults.of_network, random.Random(f"network {SEED}"))
    with Worker("people", people.step), Worker("servers", servers), Worker("network", network):
        time.sleep(SECONDS)
    for server in mended.servers:
        server.wait_until_ready()

    begun = time.monotonic()
    tell = f"seed {SEED}, faults in {notes}"
    living = objects.wait_all(
        is_at_rest, within=120, tell=lambda: "\n".join((tell, *(replica.log() for replica in replicas)))
    )
    converged = time.monotonic() - begun
    audit(living, people, mended.registry_url)
    pushes = Counter(one for one in access_log.since(mark) if one.startswith("PUT") and "/manifests/latest 201" in one)
    after = eventually(lambda: no_more_than(base, replicas[0]), within=60, tell=replicas[0].log)
    before = objects.list()
    time.sleep(6)  # a resync
    assert objects.list() == before, "written in the steady state"
    for replica in replicas:
        assert defects(replica.process.log.read_text()) == [], tell

    record_property("chaos: seed", SEED)
    record_property("chaos: seconds", round(SECONDS))
    record_property("chaos: faults injected", sum(faults.injected.values()))
    for what, count in sorted(faults.injected.items()):
        record_property(f"chaos: … {what}", count)
    for what, count in sorted(people.done.items()):
        record_property(f"chaos: people: {what}", count)
    record_property("chaos: living objects audited", len(living))
    record_property("chaos: repositories audited", len(people.paths))
    record_property("chaos: users' tags audited", len(people.pushed))
    record_property("chaos: markers pushed twice (same bytes)", sum(count > 1 for count in pushes.values()))
    record_property("chaos: seconds until all was well", round(converged, 1))
    for what, value in vars(base).items():
        record_property(f"chaos: {what} of the replica that lived on, before", value)
        record_property(f"chaos: {what} of the replica that lived on, after", vars(after)[what])


def is_at_rest(object_: Object) -> bool:
    """Tell whether an object says all that it has to say."""
    status, metadata = object_["status"], object_["metadata"]
    if object_["spec"].get("suspend"):
        quiet = not condition(object_, "Reconciling") and not condition(object_, "Stalled")
        return quiet and status["observedGeneration"] == metadata["generation"]
    asked = metadata.get("annotations", {}).get(REQUESTED_AT)
    return asked in (None, status.get("lastHandledReconcileAt")) and is_ready(object_)


def audit(living: object, people: People, registry_url: str) -> None:
    """Hold what objects and people say against what is in the registry."""
    assert isinstance(living, list)
    there = {prefix: catalog(registry_url, f"{prefix}/{people._objects.namespace}/") for prefix in ("first", "second")}
    repositories = [path for paths in there.values() for path in paths]
    assert len(repositories) == len(set(repositories))
    assert set(repositories) <= people.paths
    tagged = {path for path, _ in people.pushed.keys() | people.doubtful}
    for object_ in living:
        if object_["spec"].get("suspend"):
            continue
        path = people._path(object_["metadata"]["name"], object_["spec"])
        assert object_["status"]["uri"].partition("/")[2] == path
        assert path in repositories, f"{path} is not there"
        if path not in tagged:
            assert fetch(registry_url, path, "tags/list").json()["tags"] == ["latest"], path
            assert fetch(registry_url, path, "manifests/latest").content == marker.MANIFEST, path
            assert object_["status"]["origin"] == "Created"
    for (path, tag), manifest in people.pushed.items():
        if (path, tag) not in people.doubtful:
            assert fetch(registry_url, path, f"manifests/{tag}").content == manifest, f"{path}:{tag} was harmed"


def no_more_than(base: Footprint, operator: OperatorProcess) -> Footprint | None:
    """Return what a process holds once that is about what it held before; connections are kept for some seconds."""
    now = Footprint(operator)
    few = now.files <= base.files + 8 and now.threads <= base.threads + 8
    return now if few and now.megabytes <= base.megabytes + 48 else None
