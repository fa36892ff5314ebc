"""Controller: from a notification to the work queue, from there to a worker, and back into the queue."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from math import inf
from typing import Final

from controller.api.target import intended_registry
from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.logs import with_fields
from controller.metrics import Metrics
from controller.reconcile.attempts import Attempts
from controller.reconcile.concurrency import AdaptiveLimit
from controller.reconcile.interfaces import Clock, ObjectStore
from controller.reconcile.overwrites import Overwrites
from controller.reconcile.reconciler import Reconciler
from controller.reconcile.records import Records
from controller.reconcile.recovery import OutageObserver, Recovery
from controller.reconcile.registries import RegistryPool
from controller.reconcile.requeue import SLOW, Done, Requeue, RequeueAfter, Retry, WhenAvailable
from controller.reconcile.workers import Workers
from controller.reconcile.workqueue import Item, Priority, WorkQueue
from controller.reconcile.writes import StatusWrites

logger = logging.getLogger(__name__)

_MARGIN: Final = 0.01
"""Added to delays, in seconds: with a rounding error, an object would be reconciled too early, again and again."""

_ROOM: Final = 2000
"""Number of ready objects of a registry up to which more are enqueued without urgency: each takes about 2 kB."""

_MAX_WAIT: Final = 300.0
"""Maximum wait for a registry without another reconcile, in seconds."""


class Controller:
    """Reconciles the objects that it is notified of.

    Args:
        reconciler: Reconciles one object once.
        registries: The registries; objects wait for one whose breaker is open.
        store: Provides the newest state of an object after a conflict.
        clock: The time.
        rng: Source of all jitter.
        max_concurrent: Maximum concurrent reconciles per registry, fewer while the event loop lags; low-priority keys
            may use half of them.
        metrics: Metrics sink.
        writes: Notified of the results of status writes.
    """

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        registries: RegistryPool,
        store: ObjectStore,
        clock: Clock,
        rng: random.Random,
        max_concurrent: int,
        metrics: Metrics,
        writes: StatusWrites,
    ) -> None:
        self._registries = registries
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._writes = writes
        self._queue: WorkQueue[Key, ArtifactRepository] = WorkQueue(
            newer=ArtifactRepository.is_newer_than, lane=self._lane, flow=lambda key: key.namespace
        )
        self._recovery = Recovery(registries=registries, clock=clock)
        self._records = Records()
        self._overwrites = Overwrites(self._records)
        self._attempts = Attempts(
            reconciler=reconciler,
            registries=registries,
            store=store,
            records=self._records,
            recovery=self._recovery,
            clock=clock,
            rng=rng,
            metrics=metrics,
            writes=writes,
        )
        self._workers = Workers()
        self._limit = AdaptiveLimit(
            max_concurrent, clock, is_busy=lambda: self._workers.are_busy, on_growth=self._dispatch
        )
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        metrics.observe_queue(lambda: self._queue.depth, self._records.ready_statuses)

    @property
    def is_running(self) -> bool:
        """Whether objects are reconciled."""
        return self._running

    def has_room(self, like: Sequence[ArtifactRepository]) -> bool:
        """Return whether more objects of the same registries may be enqueued, without urgency.

        A registry that is slow must not hold up the others: one with room is enough.

        Args:
            like: Objects that mean these registries.
        """
        return any(self._queue.ready_in(self._lane(repository)) < _ROOM for repository in like)

    def start(self, outages: OutageObserver) -> None:
        """Start to reconcile; requires a running event loop.

        Args:
            outages: Notified when an outage starts and ends.
        """
        self._running = True
        self._recovery.start(release=self._release, observer=outages)
        self._dispatch()

    async def stop(self, *, grace: float) -> None:
        """Start no more reconciles, wait for those in progress, then cancel the rest.

        Args:
            grace: Maximum time to wait, in seconds.
        """
        self._running = False
        self._metrics.observe_queue(lambda: 0, tuple)  # from now on another replica reports them
        if self._timer is not None:
            self._timer.cancel()
        self._limit.stop()
        await self._recovery.stop()
        await self._workers.stop(grace=grace)

    async def reconfigured(self) -> None:
        """Apply a new set of registries, without waiting for reconciles in progress, which may hang."""
        await self._recovery.restart()
        self._workers.after_these(partial(self._registries.close_retired, self._registries.retired))

    def enqueue(self, repository: ArtifactRepository, priority: Priority, *, unless_since: float = inf) -> None:
        """Have an object reconciled as soon as possible.

        Args:
            repository: Its newest known state.
            priority: How urgent it is.
            unless_since: See :meth:`enqueue_later`.
        """
        if self._is_news(repository, unless_since):
            now = self._clock.monotonic()
            self._queue.add(repository.key, repository.packed(), now=now, priority=priority)
            self._dispatch()

    def enqueue_later(self, repository: ArtifactRepository, delay: float, *, unless_since: float = inf) -> None:
        """Have an object reconciled within a time, unless that happens anyway.

        Args:
            repository: A state of it.
            delay: Seconds from now.
            unless_since: An object that was reported or reconciled since this moment, on the monotonic clock, is
                skipped: its state in a list may be outdated. Infinite to skip none.
        """
        if self._is_news(repository, unless_since):
            self._queue.add_after(repository.key, repository.packed(), delay, now=self._clock.monotonic())
            self._arm_timer()

    def is_overwritten(self, repository: ArtifactRepository) -> bool:
        """Return whether somebody else has written the status that the watch reports.

        Args:
            repository: The object as the watch reports it.
        """
        return self._overwrites.is_foreign(repository)

    def correct(self, repository: ArtifactRepository) -> None:
        """Have an object verified whose status somebody else has written, at once unless that happens repeatedly.

        Args:
            repository: Its newest known state.
        """
        delay = self._overwrites.delay(repository.key, self._clock.monotonic())
        if delay:
            self.enqueue_later(repository, delay)
        else:
            self.enqueue(repository, Priority.LOW)

    def deleted(self, repository: ArtifactRepository) -> None:
        """Forget an object that is deleted or terminating, unless another one of its name was created since.

        A watch keeps the order of events of one object, but not of two objects with the same name.

        Args:
            repository: Its last state.
        """
        if not self._records.has_newer(repository):
            self.forget(repository.key)

    def forget(self, key: Key) -> None:
        """Drop everything known about an object."""
        self._queue.forget(key)
        record = self._records.pop(key)
        if record is not None:
            self._recovery.discard(key, record)
            record.claims.release()

    def forget_unseen(self, since: float, *, namespace: str, listed: AbstractSet[Key] = frozenset()) -> None:
        """Drop every object that a complete list lacks, unless it was seen since the list was started.

        Args:
            since: When the list was started, on the monotonic clock.
            namespace: The namespace that was listed; empty for all.
            listed: Objects of the list that were not enqueued.
        """
        for key in self._records.unseen_since(since, namespace=namespace):
            if key not in listed:
                self.forget(key)

    def _is_news(self, repository: ArtifactRepository, unless_since: float) -> bool:
        """Note that an object was reported; return whether it is to be reconciled."""
        if repository.deleting:
            self.deleted(repository)
            return False
        record = self._records.get(repository.key)
        is_recent = record is not None and record.last_seen > unless_since
        self._records.see(repository, self._clock.monotonic())
        return not is_recent

    def _release(self, key: Key) -> None:
        """Have an object reconciled whose registry may be available again."""
        self._queue.expedite(key, now=self._clock.monotonic())
        self._dispatch()

    def _dispatch(self) -> None:
        """Start as many reconciles as there are free workers and ready keys."""
        if not self._running:
            return
        while (item := self._next_item()) is not None:
            self._workers.start(item.lane, item.priority, self._process(item), on_done=self._dispatch)
            self._limit.measure()
        self._arm_timer()

    def _next_item(self) -> Item[Key, ArtifactRepository] | None:
        now = self._clock.monotonic()
        return None if now < self._writes.held_until else self._queue.get(now=now, full=self._is_full)

    def _is_full(self, lane: Hashable, priority: Priority) -> bool:
        at_most = 1 if self._writes.is_cautious else self._limit.current
        return self._workers.is_full(lane, priority, at_most=at_most)

    def _lane(self, repository: ArtifactRepository) -> Hashable:
        """Return the name of the registry that an object means; None where it is not configured."""
        name = intended_registry(repository.unpacked(), self._registries.config)
        return name if name in self._registries else None

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now, due = self._clock.monotonic(), self._queue.next_due()
        if now < self._writes.held_until:
            due = self._writes.held_until + _MARGIN
        if due is not None and self._running:
            delay = max(0.0, due - now)
            self._timer = asyncio.get_running_loop().call_later(delay, self._dispatch)

    async def _process(self, item: Item[Key, ArtifactRepository]) -> None:
        """Reconcile one object and requeue it, whatever happens: a key that stays in flight would be lost."""
        started = self._clock.monotonic()
        self._overwrites.begin(item.key)
        repository: ArtifactRepository | None = item.state
        requeue: Requeue = Retry(SLOW)
        try:
            self._metrics.queue_latency.observe(item.waited)
            repository, requeue = await self._attempts.run(item.state.unpacked(), started)
        except Exception:
            # A bug: this object must neither be lost nor stop others.
            fields = with_fields(namespace=item.key.namespace, name=item.key.name)
            logger.exception("Reconciling %s failed unexpectedly", item.key, extra=fields)
            self._metrics.reconciles.labels("defect").inc()
        finally:
            self._requeue(item, repository, requeue)
            self._metrics.reconcile_duration.observe(self._clock.monotonic() - started)

    def _requeue(
        self, item: Item[Key, ArtifactRepository], repository: ArtifactRepository | None, requeue: Requeue
    ) -> None:
        key, now, record = item.key, self._clock.monotonic(), self._records.get(item.key)
        state = repository or item.state
        match requeue:
            case Done():
                self._queue.done(key, state, now=now)
            case RequeueAfter(delay):
                self._queue.requeue(key, state.packed(), delay + _MARGIN, now=now)
            case WhenAvailable(registry, latest):
                self._queue.requeue(key, state.packed(), _MAX_WAIT if latest is None else latest + _MARGIN, now=now)
                if record is not None:
                    self._recovery.add(key, record, registry)
            case Retry(backoff, latest, earliest):
                failures = 1 if record is None else record.failures + 1
                delay = max(backoff.delay(failures, self._rng), earliest)
                self._queue.requeue(
                    key, state.packed(), delay if latest is None else min(delay, latest + _MARGIN), now=now
                )
                self._metrics.retries.inc()
                if record is not None:
                    record.failures = failures
        overwritten = self._overwrites.end(state)
        if repository is None and key not in self._queue:
            self.forget(key)
        elif overwritten is not None:
            self.correct(overwritten)
