"""Queue, breaker, reconciler, status and registry client as one machine, used at random; the guarantees as invariants.

The world is in memory and its time is looptime's, so that a step may be an hour. The API server refuses old versions,
two registries behave as Distribution does and fail as they are told, watch events get lost, doubled and late, and the
operator dies in the middle of its work. What must never happen is checked where it would happen: at each request to a
registry, at each write of a status, and at the end of each step.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf
from typing import Any, Final

import httpx
import looptime
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from controller.addresses import RegistryHosting
from controller.api.conditions import ConditionStatus, ConditionType
from controller.api.reasons import TERMINAL_REASONS, Reason
from controller.api.target import Target, resolve_target
from controller.api.v1alpha1 import REQUESTED_AT_ANNOTATION, ArtifactRepository, Key
from controller.binding import RegistryBinding
from controller.errors import Conflict, KubernetesUnavailable
from controller.names import RepositoryPath
from controller.reconcile.breaker import BreakerState, CircuitBreaker
from controller.reconcile.interfaces import RepositoryRegistry
from controller.reconcile.reconciler import Reconciler, Result
from controller.reconcile.records import Claims
from controller.reconcile.workqueue import Priority
from controller.registry import marker
from controller.registry.local import LocalArtifactRegistry
from controller.registry.protocol import Ensured, Origin
from tests.fakes.registry import FakeRegistry, FakeRepository, StoredManifest
from tests.settings import FULL
from tests.unit.objects import make_config
from tests.unit.reconcile.world import LoopClock, MemoryStore, World

EXAMPLES: Final = 3000 if FULL else 60
STEPS: Final = 40

CONFIG: Final = make_config(
    {
        "artifacts": {"registryUrl": "http://registry:5000"},
        "strict": {
            "registryUrl": "http://strict:5000",
            "repositoryPolicy": "Namespaced",
            "repositoryTemplate": "{namespace}.{name}",
        },
    }
)
OURS: Final = tuple(ConditionType)
FOREIGN: Final = {"type": "example.com/X", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "t"}
FACTS: Final = (
    "observedGeneration",
    "lastHandledReconcileAt",
    "registry",
    "repositoryName",
    "uri",
    "references",
    "origin",
)

_at_work: ContextVar[ArtifactRepository | None] = ContextVar("at_work", default=None)
"""The object on whose behalf a request is made."""


class Violations(list[str]):
    """What must never happen and did; raising at the place would only be taken for a failure that is retried."""

    def unless(self, truth: object, what: str) -> None:
        """Note what happened unless it is true that it may."""
        if not truth:
            self.append(what)


def row(repository: ArtifactRepository) -> tuple[Any, ...]:
    """Return the row of the status table that an object is in."""
    ready = repository.condition(ConditionType.READY)
    beside = (bool(repository.condition(t)) for t in (ConditionType.RECONCILING, ConditionType.STALLED))
    return (ready.get("status"), ready.get("reason"), *beside)


class ModelStore(MemoryStore):
    """An API server that looks at each write, and loses answers."""

    def __init__(self, violations: Violations) -> None:
        super().__init__()
        self.violations = violations
        self.lose_answers = 0
        """Of so many writes: carried out, and the writer is told that they failed."""
        self.verified: dict[Key, float] = {}
        """When the repository of each object was verified last."""
        self.disturbed: set[Key] = set()
        """Objects whose status somebody else has written since we did."""
        self.inherited: set[Key] = set()
        """Objects whose status an earlier process wrote: only it knew whether the message of Ready was its own."""

    async def patch_status(self, repository: ArtifactRepository, patch: Mapping[str, Any]) -> ArtifactRepository:
        """Write a status as an API server does, and check what is written."""
        written = await super().patch_status(repository, patch)
        self._check(repository, written)
        self.disturbed.discard(written.key)
        self.inherited.discard(written.key)
        if self.lose_answers:
            self.lose_answers -= 1
            raise KubernetesUnavailable("the answer was lost")
        return written

    def _check(self, before: ArtifactRepository, after: ArtifactRepository) -> None:
        key, check = after.key, self.violations.unless
        check(not after.deleting, f"{key} is being deleted, and was written")
        check(after.status.get("uri", "some"), f"{key}: an empty uri")
        check(all(after.status.get("references", {"": "some"}).values()), f"{key}: an empty reference")
        check(after.status["observedGeneration"] == after.generation, f"{key}: another generation was observed")
        echo = "lastHandledReconcileAt"
        asked = None if after.suspend else after.requested_at  # without a request the last echo stays
        check(after.status.get(echo) == (asked or before.status.get(echo)), f"{key}: {echo} is wrong")
        reconciling, stalled = (after.condition(t) for t in (ConditionType.RECONCILING, ConditionType.STALLED))
        check(not (reconciling and stalled), f"{key}: both Reconciling and Stalled")
        check(reconciling.get("status", "True") == stalled.get("status", "True") == "True", f"{key}: not True")
        check(after.condition(ConditionType.READY), f"{key}: no Ready")
        check((FOREIGN in _conditions(before)) == (FOREIGN in _conditions(after)), f"{key}: a foreign condition")
        if ConditionStatus.TRUE == before.condition(ConditionType.READY).get("status") != row(after)[0]:
            check(self._may_doubt(before, after), f"{key}: {row(after)} without patience")
        is_past = not reconciling or _is_past(reconciling["lastTransitionTime"])
        check(is_past, f"{key}: the deadline counts from the future")
        for type_ in OURS:
            old, new = before.condition(type_), after.condition(type_)
            # The deadline counts from the start of each generation, and an edited one is corrected.
            is_current = old.get("observedGeneration") == after.generation and _is_past(old["lastTransitionTime"])
            starts = type_ is ConditionType.RECONCILING and not is_current
            if old.get("lastTransitionTime") and new and old["status"] == new["status"] and not starts:
                check(old["lastTransitionTime"] == new["lastTransitionTime"], f"{key}: {type_}'s time moved alone")
            elif new:
                check(new["lastTransitionTime"].endswith("Z"), f"{key}: {type_} has no time")
        if key not in self.disturbed and row(before) == row(after):
            moved = [name for name in FACTS if before.status.get(name) != after.status.get(name)]
            texts = {one.condition(ConditionType.READY)["message"] for one in (before, after)}
            is_replaced = key in self.inherited and len(texts) > 1
            check(moved or is_replaced, f"{key}: a write in {row(after)} that tells nothing new")

    def _may_doubt(self, before: ArtifactRepository, after: ArtifactRepository) -> bool:
        """Tell whether an object may be Ready no longer."""
        patience = CONFIG.timings.unavailable_after.total_seconds()
        is_long = LoopClock().monotonic() - self.verified.get(after.key, -inf) >= patience
        same = all(before.status.get(name) == after.status.get(name) for name in ("uri", "registry", "repositoryName"))
        reason = after.condition(ConditionType.READY)["reason"]
        return is_long or not same or reason in TERMINAL_REASONS or after.suspend or after.key in self.disturbed


def _is_past(time: str) -> bool:
    """Tell whether a time is over; an edited one that is none has no bearing on the deadline."""
    try:
        return datetime.fromisoformat(time) <= LoopClock().now()
    except ValueError:
        return True


def _conditions(repository: ArtifactRepository) -> list[Mapping[str, Any]]:
    return list(repository.status.get("conditions") or ())


@dataclass
class Mood:
    """How a registry answers.

    Args:
        down: Connections are refused.
        hangs: It takes requests and says nothing.
        reads: Status of the answer to each question; None: as it should be.
        writes: Status of the answer to each write; None: as it should be.
        loses: So many writes are carried out, and their answer is lost.
        latency: Seconds before an answer.
    """

    down: bool = False
    hangs: bool = False
    reads: int | None = None
    writes: int | None = None
    loses: int = 0
    latency: float = 0.003


MOODS: Final = (
    Mood(down=True),
    Mood(hangs=True),
    Mood(reads=503, writes=503),
    Mood(writes=507),
    Mood(reads=401, writes=401),
    Mood(writes=403),
    Mood(writes=405),
    Mood(reads=204),
    Mood(reads=429, writes=429),
    Mood(loses=2),
    Mood(latency=0.8),
    Mood(latency=2.5),
)


class ModelRegistry(FakeRegistry):
    """A registry that looks at each request: on whose behalf, to which path, and what was said before."""

    def __init__(self, name: str, violations: Violations) -> None:
        super().__init__()
        self.name = name
        self.violations = violations
        self.mood = Mood()
        self.told: dict[str, bool] = {}
        """By path: whether the last answer to a question said that there is something."""
        self.paths: set[str] = set()
        """The paths of all objects that there ever were."""
        self.users: dict[tuple[str, str], str] = {}
        """What users have pushed: path and tag, and digest; without what was lost in the documented window."""

    def push(self, path: str, tag: str) -> None:
        """Do what a user does."""
        manifest = StoredManifest(f'{{"schemaVersion": 2, "by": "{tag}"}}'.encode(), marker.MANIFEST_MEDIA_TYPE)
        digest = marker.sha256_digest(manifest.content)
        repository = self.repositories.setdefault(path, FakeRepository())
        repository.manifests[digest] = manifest
        repository.tags[tag] = self.users[path, tag] = digest

    def wipe(self) -> None:
        """Lose everything."""
        self.repositories.clear()
        self.users.clear()

    async def respond(self, request: httpx.Request) -> httpx.Response:
        """Response according to mood, and look closely."""
        path = self._check_asked(request)
        mood = self.mood
        await asyncio.sleep(mood.latency)
        if mood.down:
            raise httpx.ConnectError("refused")
        if mood.hangs:
            await asyncio.Event().wait()
        write = request.method not in ("GET", "HEAD")
        status = mood.writes if write else mood.reads
        if status is not None:
            self.requests.append(request)
            return httpx.Response(status)
        if write and "/manifests/" in request.url.path:
            self._check_push(path)
        answer = await super().respond(request)
        if not write and "/blobs/" not in request.url.path and path:
            self.told[path] = bool(answer.status_code == 200)
        if write and mood.loses:
            mood.loses -= 1
            raise httpx.ReadError("lost")
        return answer

    def _check_asked(self, request: httpx.Request) -> str:
        """Check who asks for what; return the repository's path, empty for a probe."""
        check, object_ = self.violations.unless, _at_work.get()
        if request.url.path == "/v2/":  # a prober's, or a check after a failed request
            return ""
        if object_ is None:
            check(False, f"{request.method} {request.url} is not a probe")
            return ""
        target = resolve_target(object_, CONFIG)
        own = target.path if isinstance(target, Target) else None
        path = request.url.path.removeprefix("/v2/").partition("/manifests/")[0].partition("/tags/")[0]
        path = path.partition("/blobs/")[0]
        source = request.url.params.get("from")
        check(isinstance(target, Target) and target.registry == self.name, f"{object_.key} asks {self.name}")
        # An ignored mount is followed by a question about its source.
        check(path == own or (request.method == "HEAD" and path in self.paths), f"{object_.key} asks for {path}")
        check(source is None or source in self.paths, f"{object_.key} mounts from {source}")
        check(not object_.suspend and not object_.deleting, f"{object_.key} is not to be worked on")
        return path

    def _check_push(self, path: str) -> None:
        self.violations.unless(self.told.get(path) is False, f"a push to {path}, of which was told that it is there")
        if (path, "latest") in self.users:
            del self.users[path, "latest"]  # pushed since the last question: the window of docs/security.md


class ModelClient(LocalArtifactRegistry):
    """A registry's client that checks its circuit breaker."""

    breaker: Callable[[], CircuitBreaker]
    trials: int = 0
    verified: dict[Key, float]
    violations: Violations

    async def ensure(self, path: RepositoryPath, *, known_origin: Origin | None = None) -> Ensured:
        """Check that the breaker lets through only calls that may pass."""
        breaker = self.breaker()
        verifying = known_origin is not None and breaker._only_pushes_fail
        self.violations.unless(
            breaker.state is not BreakerState.OPEN or verifying, f"{path} was asked for behind an open breaker"
        )
        on_trial = breaker.state is BreakerState.HALF_OPEN and not verifying
        self.trials += on_trial
        self.violations.unless(self.trials <= 1, f"{self.trials} objects on trial")
        try:
            ensured = await super().ensure(path, known_origin=known_origin)
        finally:
            self.trials -= on_trial
        object_ = _at_work.get()
        assert object_ is not None
        self.verified[object_.key] = LoopClock().monotonic()
        return ensured


class ModelReconciler(Reconciler):
    """A reconciler that knows for whom it works."""

    busy: set[Key]
    violations: Violations

    async def reconcile(
        self,
        repository: ArtifactRepository,
        *,
        failing_for: timedelta,
        claims: Claims,
        own_messages: Collection[str] = (),
    ) -> Result:
        """Check that nobody else works on the object."""
        self.violations.unless(repository.key not in self.busy, f"{repository.key} is in flight twice")
        self.violations.unless(not repository.deleting, f"{repository.key} is looked at while it is being deleted")
        self.busy.add(repository.key)
        token = _at_work.set(repository)
        try:
            return await super().reconcile(
                repository, failing_for=failing_for, claims=claims, own_messages=own_messages
            )
        finally:
            _at_work.reset(token)
            self.busy.discard(repository.key)


class ModelWorld(World):
    """The controller with everything around it, all of which looks closely."""

    store: ModelStore

    def __init__(self, violations: Violations) -> None:
        self.violations = violations
        self.servers: dict[str, ModelRegistry] = {name: ModelRegistry(name, violations) for name in CONFIG.registries}
        super().__init__(CONFIG, concurrent=3, store=ModelStore(violations))

    def _connect(self, name: str, binding: RegistryBinding) -> RepositoryRegistry:
        client = ModelClient(name, binding, transport=self.servers[name])
        client.violations, client.verified = self.violations, self.store.verified
        client.breaker = lambda: self.pool[name].breaker
        return client

    def _make_reconciler(self) -> Reconciler:
        reconciler = ModelReconciler(
            registries=self.pool,
            store=self.store,
            events=self.events,
            clock=self.clock,
            check_leadership=self._check_leadership,
        )
        reconciler.busy, reconciler.violations = set(), self.violations
        return reconciler

    async def kill(self) -> None:
        """Die without a word, and be started again: the initial list of the watch tells of all objects."""
        tasks = [*self.controller._workers._tasks, *self.controller._recovery._probers.values()]
        self.controller._running = False
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.controller.stop(grace=0)
        hosting = self.pool._hosting
        self.pool = type(self.pool)(CONFIG, connect=self._connect, clock=self.clock, rng=self.rng)
        if hosting is not None:
            self.pool.advertise(hosting)
        self.controller = self._make_controller(3)
        self.controller.start(self)
        self.store.inherited = set(self.store.bodies)
        for key in self.store.bodies:
            self.controller.enqueue(self.store.read(key), Priority.LOW)

    def target(self, key: Key) -> Target | None:
        """Return the repository that an object means; None where it means none."""
        target = resolve_target(self.store.read(key), CONFIG)
        return target if isinstance(target, Target) else None

    def tell(self, key: Key, how: str, before: ArtifactRepository | None) -> None:
        """Have the watch tell of an object's change, as well as a watch does."""
        now = self.store.read(key)
        if how != "missed" and not now.is_handled:
            self.controller.enqueue(now, Priority.HIGH)
        if how == "twice":
            self.controller.enqueue(now, Priority.HIGH)
        elif how == "late" and before is not None:
            self.controller.enqueue(before, Priority.HIGH)


names = st.sampled_from(["a", "b", "c", "d", "e"])
tellings = st.sampled_from(["told", "told", "told", "twice", "late", "missed"])
specs = st.fixed_dictionaries(
    {},
    optional={
        "repositoryName": st.sampled_from(["shared/x", "team/own", "team.own", "other/y"]),
        "registry": st.sampled_from(["artifacts", "artifacts", "strict", "unknown"]),
        "suspend": st.sampled_from([False, False, True]),
    },
)


@dataclass
class Tally:
    """What a run of the machine has seen.

    Args:
        steps: Its steps.
        writes: Writes of status.
        requests: Requests to registries.
        audits: How often everything was brought to rest and looked at.
    """

    steps: int = 0
    writes: int = 0
    requests: int = 0
    audits: int = 0


@dataclass
class _Loop:
    """An event loop whose time passes at once, with what went wrong in its callbacks."""

    loop: asyncio.AbstractEventLoop = field(default_factory=looptime.new_event_loop)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loop.set_exception_handler(lambda _, context: self.problems.append(str(context)))


class EngineMachine(RuleBasedStateMachine):
    """See the module's text."""

    tally = Tally()

    def __init__(self) -> None:
        super().__init__()
        self.violations = Violations()
        self.time = _Loop()
        self.world: ModelWorld = self.run(self._world())
        self.versions = 0

    async def _world(self) -> ModelWorld:
        return ModelWorld(self.violations)

    def run(self, work: Any) -> Any:
        """Let time pass until something is done; what is under way goes on at the next step."""
        return self.time.loop.run_until_complete(work)

    def teardown(self) -> None:
        """End it, and close the loop."""

        async def end() -> None:
            await self.world.controller.stop(grace=0)
            await self.world.pool.close()

        self.run(end())
        self.time.loop.close()
        self.tally.writes += len(self.world.store.writes)
        self.tally.requests += sum(len(server.requests) for server in self.world.servers.values())

    @asynccontextmanager
    async def change(self, key: Key, how: str) -> AsyncIterator[dict[str, Any]]:
        """Change an object's body, and have the watch tell of it."""
        before = self.world.store.read(key)
        yield self.world.store.bodies[key]
        self.world.store.touch(key)
        self.world.tell(key, how, before)

    @initialize(specs=st.lists(specs, min_size=2, max_size=4), seconds=st.sampled_from([0.002, 0.004, 0.008, 2]))
    def begin(self, specs: list[dict[str, Any]], seconds: float) -> None:
        """Some objects are there; they may be Ready, or at work."""
        for name, spec in zip("abcd", specs, strict=False):
            self.create(name, spec, "told")
        self.wait(seconds)

    @rule(name=names, spec=specs, how=tellings)
    def create(self, name: str, spec: dict[str, Any], how: str) -> None:
        """Somebody creates an object; where there is one already, deletes that first."""
        key = Key("team", name)

        async def create() -> None:
            gone = self.world.store.remove(key) if key in self.world.store.bodies else None
            if gone is not None and how in ("told", "twice"):
                self.world.controller.deleted(gone)
            self.world.store.put(name, spec)
            self.world.tell(key, how, gone)
            if gone is not None and how == "late":  # the order of two namesakes' events is anybody's guess
                self.world.controller.deleted(gone)

        self.run(create())
        self._remember_paths()

    @rule(name=names, spec=specs, how=tellings)
    def respecify(self, name: str, spec: dict[str, Any], how: str) -> None:
        """Somebody changes what may be changed of a spec."""
        key = Key("team", name)

        async def change() -> None:
            if key not in self.world.store.bodies:
                return
            async with self.change(key, how) as body:
                kept = {"repositoryName": body["spec"]["repositoryName"]} if "repositoryName" in body["spec"] else {}
                body["spec"] = {**spec, **kept} if kept else {k: v for k, v in spec.items() if k != "repositoryName"}
                body["metadata"]["generation"] += 1

        self.run(change())
        self._remember_paths()

    def _remember_paths(self) -> None:
        for key in self.world.store.bodies:
            target = self.world.target(key)
            if target is not None:
                self.world.servers[target.registry].paths.add(target.path)

    @rule(name=names, how=tellings)
    def request(self, name: str, how: str) -> None:
        """Somebody asks for a verification."""
        key = Key("team", name)
        self.versions += 1

        async def change() -> None:
            if key in self.world.store.bodies:
                async with self.change(key, how) as body:
                    body["metadata"]["annotations"] = {REQUESTED_AT_ANNOTATION: str(self.versions)}

        self.run(change())

    @rule(name=names, told=st.booleans())
    def delete(self, name: str, told: bool) -> None:
        """Somebody deletes an object."""
        key = Key("team", name)

        async def delete() -> None:
            if key in self.world.store.bodies:
                gone = self.world.store.remove(key)
                if told:
                    self.world.controller.deleted(gone)

        self.run(delete())

    @rule(name=names, how=tellings)
    def begin_to_delete(self, name: str, how: str) -> None:
        """Somebody deletes an object that somebody's finalizer keeps."""
        key = Key("team", name)

        async def change() -> None:
            if key in self.world.store.bodies:
                async with self.change(key, how) as body:
                    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

        self.run(change())

    @rule(name=names, edit=st.sampled_from(["uri", "all", "foreign", "ready", "times", "origin", "stalled", "future"]))
    def edit_status(self, name: str, edit: str) -> None:
        """Somebody edits a status; the watch tells of that, too, and it is no reason to hurry."""
        key = Key("team", name)

        async def change() -> None:
            if key not in self.world.store.bodies:
                return
            self.world.store.disturbed.add(key)
            async with self.change(key, "told") as body:
                body["status"] = _edited(body["status"], edit)

        self.run(change())
        self._remember_paths()

    @rule(registry=st.sampled_from(["artifacts", "strict"]), mood=st.sampled_from(MOODS))
    def fail(self, registry: str, mood: Mood) -> None:
        """A registry fails in one way or another."""
        self.world.servers[registry].mood = Mood(**vars(mood))

    @rule(registry=st.sampled_from(["artifacts", "strict"]), latency=st.sampled_from([0.003, 0.9]))
    def recover(self, registry: str, latency: float) -> None:
        """A registry is well again, if not in a hurry."""
        self.world.servers[registry].mood = Mood(latency=latency)

    @rule(registry=st.sampled_from(["artifacts", "strict"]))
    def wipe(self, registry: str) -> None:
        """A registry loses its data."""
        self.world.servers[registry].wipe()

    @rule(name=names, tag=st.sampled_from(["latest", "v1"]))
    def push(self, name: str, tag: str) -> None:
        """A user pushes to the repository of an object, which may not be there yet."""
        key = Key("team", name)
        target = self.world.target(key) if key in self.world.store.bodies else None
        if target is not None:
            self.world.servers[target.registry].push(target.path, tag)

    @rule(error=st.sampled_from([KubernetesUnavailable("500", status=500), Conflict("409", status=409)]))
    def refuse_writes(self, error: KubernetesUnavailable | Conflict) -> None:
        """The API server has a bad moment."""
        self.world.store.errors = [error] * 3

    @rule()
    def lose_an_answer(self) -> None:
        """The API server writes and does not tell."""
        self.world.store.lose_answers = 1

    @rule(may=st.booleans())
    def lead(self, may: bool) -> None:
        """The process loses or wins the Lease."""
        self.world.may_write = may

    @rule(host=st.sampled_from(["localhost:5001", "localhost:5002"]))
    def advertise(self, host: str) -> None:
        """The cluster tells another address, and a session has everything looked at."""

        async def advertise() -> None:
            self.world.pool.advertise(RegistryHosting(host, host_from_cluster_network="registry:5000"))
            await self.world.verify_all()

        self.run(advertise())

    @rule()
    def restart(self) -> None:
        """Kill -9, and a new process."""
        self.run(self.world.kill())

    @rule()
    def resync(self) -> None:
        """A resync is due."""
        self.run(self.world.verify_all())

    @rule(seconds=st.sampled_from([0.001, 0.002, 0.004, 0.007, 0.01]))
    def wait(self, seconds: float) -> None:
        """Time passes: enough for a request, not for all of them."""
        self.run(asyncio.sleep(seconds))

    @rule(seconds=st.sampled_from([0.05, 1, 5, 70, 700]))
    def wait_longer(self, seconds: float) -> None:
        """Time passes: enough for retries, for patience to end, for deadlines."""
        self.run(asyncio.sleep(seconds))

    @precondition(lambda self: self.world.store.bodies)
    @rule()
    def come_to_rest(self) -> None:
        """All faults end: everything converges, is true, and is then left alone, whatever asks and restarts."""
        world = self.world
        for server in world.servers.values():
            server.mood = Mood()
        world.store.errors, world.store.lose_answers, world.may_write = [], 0, True
        for seconds in (120, 700):  # past the deadline of what only a person can mend
            self.run(world.verify_all())
            self.run(asyncio.sleep(seconds))
        self._check_rest()
        writes = len(world.store.writes)
        self.run(world.verify_all())
        self.run(asyncio.sleep(60))
        self.run(world.kill())
        self.run(asyncio.sleep(60))
        assert len(world.store.writes) == writes, "written in the steady state"
        self._check_rest()
        self.tally.audits += 1

    def _check_rest(self) -> None:
        world = self.world
        living = {key for key in world.store.bodies if not world.store.read(key).deleting}
        assert set(world.controller._records.unseen_since(inf, namespace="")) == living
        assert not asyncio.all_tasks(self.time.loop), "a task was leaked"
        assert not any(world.controller._recovery._waiting.values())
        assert world.controller._queue.depth == 0
        assert not any(world.controller._workers._busy.values())
        for key in living:
            self._check_object(key)
        for server in world.servers.values():
            for (path, tag), digest in server.users.items():
                assert server.repositories[path].tags[tag] == digest, f"a user's {path}:{tag} was harmed"

    def _check_object(self, key: Key) -> None:
        world, object_ = self.world, self.world.store.read(key)
        status, reason, reconciling, stalled = row(object_)
        assert object_.is_handled, key
        record = world.controller._records.get(key)
        assert record is not None
        assert record.ready == status
        target = resolve_target(object_, CONFIG)
        if object_.suspend:
            assert (reconciling, stalled) == (False, False)
            return
        if isinstance(target, Target):
            assert (status, reason, reconciling, stalled) == ("True", Reason.REPOSITORY_READY, False, False), key
            assert object_.status["uri"] == f"{world.pool[target.registry].addresses.uri}/{target.path}"
            assert world.servers[target.registry].repositories[target.path].tags, f"{target.path} is not there"
        else:
            assert reason == target.reason
            assert reconciling is not stalled
            assert status != "True"

    @invariant()
    def nothing_forbidden_happens(self) -> None:
        """What must never happen has not happened, and no defect was caught and retried."""
        EngineMachine.tally.steps += 1
        assert not self.violations, self.violations
        assert not self.time.problems, self.time.problems
        defects = self.world.metrics.registry.get_sample_value(
            "artifact_repository_reconciles_total", {"result": "defect"}
        )
        assert not defects


def _edited(status: Mapping[str, Any], edit: str) -> dict[str, Any]:
    """Return a status as somebody may leave it who may write it; the CRD's schema holds."""
    conditions = [c for c in status.get("conditions", []) if c["type"] != FOREIGN["type"]]
    ready = {"type": "Ready", "status": "True", "reason": "X", "message": "x", "lastTransitionTime": "t"}
    edits: Mapping[str, Mapping[str, Any]] = {
        "uri": {"uri": "evil:5000/x/y"},
        "foreign": {"conditions": [*conditions, FOREIGN]},
        "ready": {"conditions": [ready]},
        "times": {"conditions": [{**condition, "lastTransitionTime": "long ago"} for condition in conditions]},
        "future": {
            "conditions": [{**condition, "lastTransitionTime": "2999-01-01T00:00:00Z"} for condition in conditions]
        },
        "origin": {"origin": "Adopted", "repositoryName": "team/elsewhere"},
        "stalled": {"conditions": [{**ready, "type": "Stalled"}, {**ready, "type": "Reconciling"}, FOREIGN]},
    }
    if edit == "all":
        return {"observedGeneration": status.get("observedGeneration", -1)}
    return {**status, **edits[edit]}


@pytest.mark.campaign
@pytest.mark.timeout(3600 if FULL else 300)
def test_the_guarantees_hold_whatever_happens(
    record_property: Callable[[str, object], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Random use of the whole controller: see the module's text. ``make campaign`` tries many more examples."""
    EngineMachine.tally = tally = Tally()
    how = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck))
    with caplog.at_level(logging.CRITICAL):
        run_state_machine_as_test(EngineMachine, settings=how)
    for name, count in vars(tally).items():
        record_property(f"model: {name}", count)
    assert tally.audits
