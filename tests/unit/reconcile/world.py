"""A small world for the controller: an API server and registries in memory, and a clock that only the test moves."""

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from controller.api.conditions import ConditionType
from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.binding import RegistryBinding
from controller.config import OperatorConfig
from controller.errors import Conflict, KubernetesError, LeadershipLost, ObjectGone, RegistryError
from controller.metrics import Metrics
from controller.names import RepositoryPath
from controller.reconcile.controller import Controller
from controller.reconcile.interfaces import EventType, Page, RepositoryRegistry
from controller.reconcile.reconciler import Reconciler
from controller.reconcile.registries import ManagedRegistry, RegistryPool
from controller.reconcile.resync import Resync
from controller.reconcile.workqueue import Priority
from controller.reconcile.writes import StatusWrites
from controller.registry.protocol import Ensured, Origin
from tests.unit.objects import NOW, make_config


def merged(value: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object after a merge patch (RFC 7386)."""
    result = dict(value)
    for name, change in patch.items():
        if change is None:
            result.pop(name, None)
        elif isinstance(change, Mapping):
            before = result.get(name)
            result[name] = merged(before if isinstance(before, Mapping) else {}, change)
        else:
            result[name] = change
    return result


class LoopClock:
    """The event loop's time, which looptime lets pass without waiting."""

    def now(self) -> datetime:
        """Return the time for people."""
        return NOW + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Return the loop's seconds."""
        return asyncio.get_running_loop().time()


class MemoryStore:
    """Objects with the API server's rules: versions grow, and a patch of an old version is refused."""

    def __init__(self) -> None:
        self.bodies: dict[Key, dict[str, Any]] = {}
        self.writes: list[Key] = []
        self.errors: list[KubernetesError] = []
        """Raised by the next writes, one each."""
        self.before_write: Callable[[], None] = lambda: None
        self.after_write: Callable[[], None] = lambda: None
        self._version = 100

    def put(self, name: str, spec: Mapping[str, Any] | None = None, *, namespace: str = "team") -> ArtifactRepository:
        """Create an object, or change its spec."""
        key = Key(namespace, name)
        body = self.bodies.setdefault(
            key,
            {
                "metadata": {"namespace": namespace, "name": name, "uid": f"uid-{self._version}", "generation": 0},
                "status": {"observedGeneration": -1},
            },
        )
        body["metadata"]["generation"] += 1
        body["spec"] = dict(spec or {})
        return self.touch(key)

    def touch(self, key: Key, status: Mapping[str, Any] | None = None) -> ArtifactRepository:
        """Give an object a new version, and perhaps a status that somebody else wrote."""
        self._version += 1
        self.bodies[key]["metadata"]["resourceVersion"] = str(self._version)
        if status is not None:
            self.bodies[key]["status"] = dict(status)
        return self.read(key)

    def remove(self, key: Key) -> ArtifactRepository:
        """Delete an object; return its last state, as the watch tells it."""
        last = self.touch(key)
        del self.bodies[key]
        return last

    def read(self, key: Key) -> ArtifactRepository:
        """Return an object as it is now."""
        return ArtifactRepository.from_body(copy.deepcopy(self.bodies[key]))

    async def get(self, key: Key) -> ArtifactRepository:
        """Return the newest state of an object."""
        await asyncio.sleep(0.001)
        if key not in self.bodies:
            raise ObjectGone(f"{key} not found", status=404)
        return self.read(key)

    async def patch_status(self, repository: ArtifactRepository, patch: Mapping[str, Any]) -> ArtifactRepository:
        """Merge a patch into the status of exactly the version that was read."""
        await asyncio.sleep(0.001)
        self.before_write()
        if self.errors:
            raise self.errors.pop(0)
        body = self.bodies.get(repository.key)
        if body is None:
            raise ObjectGone("not found", status=404)
        if body["metadata"]["resourceVersion"] != repository.resource_version:
            raise Conflict("changed", status=409)
        self.writes.append(repository.key)
        written = self.touch(repository.key, merged(body["status"], patch))
        self.after_write()
        return written

    @property
    def namespaces(self) -> Sequence[str]:
        """All namespaces."""
        return ("",)

    async def list_pages(self, namespace: str) -> AsyncIterator[Page]:
        """Return the objects of a namespace in pages of two."""
        keys = sorted(key for key in self.bodies if namespace in ("", key.namespace))
        for start in range(0, max(1, len(keys)), 2):
            await asyncio.sleep(0.001)
            objects = [self.read(key) for key in keys[start : start + 2] if key in self.bodies]
            yield Page(objects, is_last=start + 2 >= len(keys))


class MemoryRegistry:
    """A registry that remembers names, and fails as it is told."""

    def __init__(self) -> None:
        self.repositories: set[str] = set()
        self.error: RegistryError | None = None
        """Raised by every call."""
        self.damaged: dict[str, RegistryError] = {}
        """Raised by calls for these repositories, whatever the others do."""
        self.write_error: RegistryError | None = None
        """Raised by calls that would have to create."""
        self.ping_error: Exception | None = None
        """Raised by each ping."""
        self.tags: dict[str, tuple[str, ...]] = {}
        """The tags besides the marker, by repository."""
        self.tags_error: RegistryError | None = None
        """Raised by each request for tags."""
        self.listed: list[str] = []
        """The repositories whose tags were asked for."""
        self.asked: list[str] = []
        self.pings = 0
        self.busy = 0
        self.most_busy = 0
        self.latency = 0.005

    async def ensure(self, path: RepositoryPath, *, known_origin: Origin | None = None) -> Ensured:
        """Create the repository unless it exists."""
        name = path.partition("/")[2]
        self.asked.append(name)
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        try:
            await asyncio.sleep(self.latency)
        finally:
            self.busy -= 1
        if self.error is not None:
            raise self.error
        if name in self.damaged:
            raise self.damaged[name]
        created = name not in self.repositories
        if created and self.write_error is not None:
            raise self.write_error
        self.repositories.add(name)
        return Ensured(known_origin or Origin.CREATED, created)

    async def user_tags(self, path: RepositoryPath) -> tuple[str, ...]:
        """Return the tags besides the marker."""
        name = path.partition("/")[2]
        self.listed.append(name)
        if self.tags_error is not None:
            raise self.tags_error
        return self.tags.get(name, ())

    async def ping(self) -> None:
        """Ask whether the registry answers at all."""
        self.pings += 1
        if self.ping_error is not None:
            raise self.ping_error
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        """Nothing is open."""


class ListEvents:
    """Remembers events."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def event(self, regarding: ArtifactRepository | None, type_: EventType, reason: str, message: str) -> None:
        """Remember one."""
        assert type_
        assert message
        self.seen.append(("operator" if regarding is None else regarding.key.name, reason))


class World:
    """An controller with everything around it.

    Args:
        config: The configuration; by default one registry, ``artifacts``.
        concurrent: How many objects may be worked on at the same time.
        store: The API server, where it is not a plain one.
    """

    def __init__(
        self, config: OperatorConfig | None = None, *, concurrent: int = 16, store: MemoryStore | None = None
    ) -> None:
        self.clock = LoopClock()
        self.store = store or MemoryStore()
        self.events = ListEvents()
        self.metrics = Metrics()
        self.writes = StatusWrites(events=self.events, metrics=self.metrics, clock=self.clock)
        self.may_write = True
        self.registries: dict[str, MemoryRegistry] = {}
        self.rng = random.Random(1)
        self.pool = RegistryPool(config or make_config(), connect=self._connect, clock=self.clock, rng=self.rng)
        self.pool.advertise(None)
        self.controller = self._make_controller(concurrent)
        self.controller.start(self)

    def _make_controller(self, concurrent: int) -> Controller:
        return Controller(
            reconciler=self._make_reconciler(),
            registries=self.pool,
            store=self.store,
            clock=self.clock,
            rng=self.rng,
            max_concurrent=concurrent,
            metrics=self.metrics,
            writes=self.writes,
        )

    def _make_reconciler(self) -> Reconciler:
        return Reconciler(
            registries=self.pool,
            store=self.store,
            events=self.events,
            clock=self.clock,
            check_leadership=self._check_leadership,
        )

    @property
    def registry(self) -> MemoryRegistry:
        """The registry ``artifacts``."""
        return self.registries["artifacts"]

    def _connect(self, name: str, binding: RegistryBinding) -> RepositoryRegistry:
        assert binding.registry_url
        return self.registries.setdefault(name, MemoryRegistry())

    def _check_leadership(self) -> None:
        if not self.may_write:
            raise LeadershipLost("not the leader")

    def put(self, name: str, spec: Mapping[str, Any] | None = None, *, namespace: str = "team") -> Key:
        """Create or change an object, and have the watch tell of it."""
        repository = self.store.put(name, spec, namespace=namespace)
        self.controller.enqueue(repository, Priority.HIGH)
        return repository.key

    def delete(self, key: Key) -> None:
        """Delete an object, and have the watch tell of it."""
        self.controller.deleted(self.store.remove(key))

    def ready(self, key: Key) -> tuple[str | None, str | None]:
        """Return status and reason of an object's Ready condition."""
        condition = self.store.read(key).condition(ConditionType.READY)
        return condition.get("status"), condition.get("reason")

    def has(self, key: Key, type_: ConditionType) -> bool:
        """Tell whether an object has a condition."""
        return bool(self.store.read(key).condition(type_))

    async def until(self, condition: Callable[[], bool], *, every: float = 0.01) -> None:
        """Let time pass until a condition is true, an hour at most.

        Args:
            condition: The condition.
            every: Seconds between two looks at it; looking takes real time.
        """
        async with asyncio.timeout(3600):
            while not condition():  # noqa: ASYNC110 - the world does not tell
                await asyncio.sleep(every)

    async def verify_all(self) -> None:
        """Have all objects reconciled as soon as possible, after those that wait to be handled."""
        started = self.clock.monotonic()
        async for page in self.store.list_pages(""):
            for object_ in page.objects:
                self.controller.enqueue(object_, Priority.LOW)
        self.controller.forget_unseen(started, namespace="")

    def resync(self, *, namespace: str = "", interval: Callable[[], float] = lambda: 3600.0) -> Resync:
        """Return a resync."""
        return Resync(
            self.controller,
            store=self.store,
            namespace=namespace,
            interval=interval,
            clock=self.clock,
            rng=self.rng,
        )

    async def outage_lasts(self, registry: ManagedRegistry) -> None:
        """Do what a session does."""
        self.events.event(None, EventType.WARNING, "RegistryUnavailable", registry.described)
        await self.verify_all()

    async def outage_ended(self, registry: ManagedRegistry) -> None:
        """Do what a session does."""
        self.events.event(None, EventType.NORMAL, "RegistryAvailable", registry.described)
