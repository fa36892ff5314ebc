"""The engine: takes keys from the queue, has them reconciled, and decides what becomes of them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from math import inf
from typing import Final

from controller.engine.outage import OutageKeeper, OutageObserver
from controller.engine.ports import Clock, ObjectStore
from controller.engine.queue import Backoff, Priority, Work, WorkQueue
from controller.engine.reconciler import Next, Reconciler, Result
from controller.engine.registries import RegistryPool
from controller.errors import Conflict, KubernetesError, ObjectGone
from controller.metrics import Metrics
from controller.resource import ArtifactRepository, ConditionType, Key
from controller.target import intended_registry

logger = logging.getLogger(__name__)

_QUICK: Final = Backoff(first=0.5, cap=60.0)
_SLOW: Final = Backoff(first=10.0, cap=300.0)
_API_SERVER: Final = Backoff(first=0.2, cap=30.0)
_CONFLICT: Final = Backoff(first=0.2, cap=2.0)
"""Nothing is out of order: somebody has changed the object, and most likely waits for us."""


_MARGIN: Final = 0.01
"""Added to what is waited for, in seconds: come a rounding error too early, an object would come again and again."""

LOW_PLACES: Final = 4
"""One place in so many may be taken by what nobody waits for: a new object is not to wait until others are verified."""

_LONGEST_RECONCILE: Final = 60.0
"""How long old connections are kept for reconciles that still use them, in seconds."""


@dataclass(slots=True)
class _Heard:
    """What is known of an object even while it is in no queue.

    Args:
        at: When it was heard of or looked at last, on the clock's monotonic time.
        version: The newest version of it, or of a namesake before it, that was heard of.
    """

    at: float
    version: int


class Engine:
    """Runs reconciles for the objects that it is told of.

    Args:
        reconciler: Looks at one object once.
        registries: The registries; a closed gate of theirs makes objects wait.
        store: Where the newest state of an object is read when ours turns out to be old.
        clock: The time.
        rng: Source of all jitter.
        concurrent: How many objects of one registry may be worked on at the same time; of those that nobody waits for,
            a quarter.
        metrics: Where is counted.
        outages: Who is told of outages.
    """

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        registries: RegistryPool,
        store: ObjectStore,
        clock: Clock,
        rng: random.Random,
        concurrent: int,
        metrics: Metrics,
        outages: OutageObserver,
    ) -> None:
        self._reconciler = reconciler
        self._registries = registries
        self._store = store
        self._clock = clock
        self._concurrent = concurrent
        self._metrics = metrics
        self._queue: WorkQueue[Key, ArtifactRepository] = WorkQueue(
            newer=ArtifactRepository.is_newer_than, rng=rng, lane=self._lane
        )
        self._outages = OutageKeeper(registries=registries, clock=clock, expedite=self._expedite, observer=outages)
        self._ready: dict[Key, str] = {}
        self._heard: dict[Key, _Heard] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: Counter[tuple[Hashable, Priority]] = Counter()
        """How many objects of a lane are worked on: a registry that hangs fills only its own."""
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        metrics.observe_queue(lambda: self._queue.depth, self._ready.values)

    def start(self) -> None:
        """Begin to work; needs a running event loop."""
        self._running = True
        self._pump()

    async def stop(self, *, grace: float) -> None:
        """Take no more keys, let those in flight finish, then cancel what is left.

        Args:
            grace: How long they may take, in seconds.
        """
        self._running = False
        self._metrics.observe_queue(lambda: 0, tuple)  # another replica counts them from now on
        if self._timer is not None:
            self._timer.cancel()
        await self._outages.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def reconfigured(self) -> None:
        """Follow a new set of registries: what was asked of the old ones may finish, then they are closed."""
        await self._outages.restart()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=_LONGEST_RECONCILE)
        await self._registries.close_retired()

    def enqueue(self, repository: ArtifactRepository, priority: Priority) -> None:
        """Have an object looked at as soon as possible.

        Args:
            repository: Its newest known state.
            priority: How urgent it is.
        """
        if repository.deleting:
            self.gone(repository)
            return
        now = self._clock.monotonic()
        self._hear(repository, now)
        self._queue.add(repository.key, repository, now=now, priority=priority)
        self._pump()

    def enqueue_later(self, repository: ArtifactRepository, delay: float, *, listed: float = inf) -> None:
        """Have an object looked at within a time, unless it is to be looked at anyway.

        One that was looked at since the list was begun is left alone: its state in the list may be older than ours.

        Args:
            repository: A state of it.
            delay: Seconds from now.
            listed: When the list that shows it was begun, on the clock's monotonic time; infinite: it is no old state.
        """
        if repository.deleting:
            self.gone(repository)
            return
        now = self._clock.monotonic()
        heard = self._heard.get(repository.key)
        if heard is not None and heard.at > listed:
            return
        self._hear(repository, now)
        self._queue.add_after(repository.key, repository, delay, now=now)
        self._arm_timer()

    def gone(self, repository: ArtifactRepository) -> None:
        """Drop an object that is gone or going; a namesake that was made since stays.

        The watch keeps the order of one object's events, but not that of two objects of one name.

        Args:
            repository: Its last state.
        """
        heard = self._heard.get(repository.key)
        if heard is None or heard.version <= repository.version:
            self.forget(repository.key)

    def forget(self, key: Key) -> None:
        """Drop whatever is known by a name."""
        self._queue.forget(key)
        self._outages.unpark(key)
        self._reconciler.forget(key)
        self._ready.pop(key, None)
        self._heard.pop(key, None)

    def forget_unseen(self, seen: set[Key], *, since: float) -> None:
        """Drop every object that a complete list did not show, unless it was heard of after the list was begun.

        Args:
            seen: The keys in the list.
            since: When the list was begun, on the clock's monotonic time.
        """
        for key in [key for key, heard in self._heard.items() if heard.at < since and key not in seen]:
            self.forget(key)

    def _hear(self, repository: ArtifactRepository, now: float) -> None:
        heard = self._heard.get(repository.key)
        if heard is None:
            self._heard[repository.key] = _Heard(now, repository.version)
        else:
            heard.at, heard.version = now, max(heard.version, repository.version)

    def _expedite(self, key: Key) -> None:
        self._queue.expedite(key, now=self._clock.monotonic())
        self._pump()

    def _pump(self) -> None:
        """Start as many reconciles as there are free places and ready keys."""
        if not self._running:
            return
        while (work := self._queue.take(now=self._clock.monotonic(), full=self._is_full)) is not None:
            task = asyncio.create_task(self._process(work))
            self._tasks.add(task)
            task.add_done_callback(partial(self._landed, work))
            self._busy[work.lane, work.priority] += 1
        self._arm_timer()

    def _landed(self, work: Work[Key, ArtifactRepository], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._busy[work.lane, work.priority] -= 1
        self._pump()

    def _is_full(self, lane: Hashable, priority: Priority) -> bool:
        high, low = self._busy[lane, Priority.HIGH], self._busy[lane, Priority.LOW]
        if high + low >= self._concurrent:
            return True
        return priority is Priority.LOW and low >= max(1, self._concurrent // LOW_PLACES)

    def _lane(self, repository: ArtifactRepository) -> Hashable:
        """Return the name of the registry that an object means; None where it is not configured."""
        name = intended_registry(repository, self._registries.config)
        return name if name in self._registries else None

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._queue.next_due()
        if due is not None and self._running:
            delay = max(0.0, due - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._pump)

    async def _process(self, work: Work[Key, ArtifactRepository]) -> None:
        repository = work.item
        now = self._clock.monotonic()
        self._metrics.queue_latency.observe(work.waited)
        self._outages.unpark(work.key)
        failing_for = timedelta(seconds=0 if work.failing_since is None else now - work.failing_since)
        try:
            result = await self._reconciler.reconcile(repository, failing_for=failing_for)
        except ObjectGone:
            self._ended(work.key, repository, "gone")
        except Conflict:
            await self._read_again(repository)
        except KubernetesError as error:
            self._write_failed(repository, error)
        except Exception:
            # A defect of ours: this object must not take the others with it, nor be lost.
            logger.exception("Reconciling %s failed unexpectedly", work.key)
            self._again(repository, _SLOW, "defect")
        else:
            self._settle(result)
        finally:
            self._metrics.reconcile_duration.observe(self._clock.monotonic() - now)

    def _settle(self, result: Result) -> None:
        repository, key = result.repository, result.repository.key
        now = self._clock.monotonic()
        after = None if result.after is None else result.after.total_seconds() + _MARGIN
        if key in self._heard:  # it may have been forgotten while in flight
            self._ready[key] = str(repository.condition(ConditionType.READY).get("status", "Unknown"))
            self._hear(repository, now)
        self._count(result)
        match result.next:
            case Next.SETTLED:
                self._queue.done(key, repository, now=now)
            case Next.WAIT:
                self._queue.park(key, repository, _SLOW.cap if after is None else after, now=now)
                if result.parked:
                    self._outages.park(key, result.registry)
            case Next.RETRY | Next.RETRY_SLOWLY:
                backoff = _QUICK if result.next is Next.RETRY else _SLOW
                self._queue.retry(key, repository, backoff, now=now, at_most=after)
                self._metrics.retries.inc()
        self._outages.notice(result.registry)

    def _count(self, result: Result) -> None:
        self._metrics.reconciles.labels(type(result.outcome).__name__.lower()).inc()
        if result.written:
            self._metrics.status_writes.inc()
        if result.recreated:
            self._metrics.drift_repairs.labels(result.registry).inc()

    async def _read_again(self, repository: ArtifactRepository) -> None:
        """Decide anew on the newest state: ours was changed by somebody, or is a namesake's that is gone."""
        try:
            newest = await self._store.get(repository.key)
        except ObjectGone:
            self._ended(repository.key, repository, "gone")
        except KubernetesError as error:
            self._write_failed(repository, error)
        else:
            if newest.deleting:
                self._ended(repository.key, newest, "gone")
            else:
                self._again(newest, _CONFLICT, "conflict")

    def _write_failed(self, repository: ArtifactRepository, error: KubernetesError) -> None:
        logger.warning("Status of %s could not be written, will be tried again: %s", repository.key, error)
        self._again(repository, _API_SERVER, "api_error")

    def _again(self, repository: ArtifactRepository, backoff: Backoff, result: str) -> None:
        self._metrics.reconciles.labels(result).inc()
        self._metrics.retries.inc()
        self._queue.retry(repository.key, repository, backoff, now=self._clock.monotonic())

    def _ended(self, key: Key, repository: ArtifactRepository, result: str) -> None:
        self._metrics.reconciles.labels(result).inc()
        self._queue.done(key, repository, now=self._clock.monotonic())
        if key not in self._queue:
            self.forget(key)
