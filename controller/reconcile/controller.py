"""Controller: gets keys from the work queue, has them reconciled, and decides when they are reconciled again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Hashable
from datetime import timedelta
from functools import partial
from math import inf
from typing import Final

from controller.api.conditions import ConditionStatus, ConditionType
from controller.api.status import Failed
from controller.api.target import intended_registry
from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.backoff import Backoff
from controller.errors import Conflict, KubernetesError, LeadershipLost, ObjectGone
from controller.logs import with_fields
from controller.metrics import Metrics
from controller.reconcile.interfaces import Clock, ObjectStore
from controller.reconcile.overwrites import Overwrites
from controller.reconcile.reconciler import Reconciler, Result
from controller.reconcile.records import NO_CLAIMS, Record
from controller.reconcile.recovery import OutageObserver, Recovery
from controller.reconcile.registries import RegistryPool
from controller.reconcile.requeue import SLOW, Done, Requeue, RequeueAfter, Retry, WhenAvailable
from controller.reconcile.workers import Workers
from controller.reconcile.workqueue import Item, Priority, WorkQueue
from controller.reconcile.writes import StatusWrites

logger = logging.getLogger(__name__)

_API_SERVER: Final = Backoff(first=0.2, cap=30.0)
_CONFLICT: Final = Backoff(first=0.2, cap=2.0)
"""Short: the object was just changed, and its owner most likely waits for the operator."""

_MARGIN: Final = 0.01
"""Added to delays, in seconds: with a rounding error, an object would be reconciled too early, again and again."""

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
        max_concurrent: Maximum concurrent reconciles per registry; low-priority keys may use a quarter of them.
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
        self._reconciler = reconciler
        self._registries = registries
        self._store = store
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._writes = writes
        self._queue: WorkQueue[Key, ArtifactRepository] = WorkQueue(
            newer=ArtifactRepository.is_newer_than, lane=self._lane, flow=lambda key: key.namespace
        )
        self._recovery = Recovery(registries=registries, clock=clock)
        self._records: dict[Key, Record] = {}
        self._overwrites = Overwrites()
        self._workers = Workers(max_concurrent)
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        metrics.observe_queue(lambda: self._queue.depth, self._ready_statuses)

    @property
    def is_running(self) -> bool:
        """Whether objects are reconciled."""
        return self._running

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
        await self._recovery.stop()
        await self._workers.stop(grace=grace)

    async def reconfigured(self) -> None:
        """Apply a new set of registries, without waiting for reconciles in progress, which may hang."""
        await self._recovery.restart()
        self._workers.after_these(partial(self._registries.close_retired, self._registries.retired))

    def enqueue(self, repository: ArtifactRepository, priority: Priority) -> None:
        """Have an object reconciled as soon as possible.

        Args:
            repository: Its newest known state.
            priority: How urgent it is.
        """
        if repository.deleting:
            self.deleted(repository)
            return
        now = self._clock.monotonic()
        self._see(repository, now)
        self._queue.add(repository.key, repository, now=now, priority=priority)
        self._dispatch()

    def enqueue_later(self, repository: ArtifactRepository, delay: float, *, listed: float = inf) -> None:
        """Have an object reconciled within a time, unless that happens anyway.

        An object that was reconciled since the list was started is skipped: its state in the list may be outdated.

        Args:
            repository: A state of it.
            delay: Seconds from now.
            listed: When the list that contains it was started, on the monotonic clock; infinite for none.
        """
        if repository.deleting:
            self.deleted(repository)
            return
        now = self._clock.monotonic()
        record = self._records.get(repository.key)
        if record is not None and record.last_seen > listed:
            return
        self._see(repository, now)
        self._queue.add_after(repository.key, repository, delay, now=now)
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
        record = self._records.get(repository.key)
        if record is None or record.version <= repository.version:
            self.forget(repository.key)

    def forget(self, key: Key) -> None:
        """Drop everything known about an object."""
        self._queue.forget(key)
        self._overwrites.forget(key)
        record = self._records.pop(key, None)
        if record is not None:
            self._stop_waiting(key, record)
            record.claims.release()

    def forget_unseen(self, seen: set[Key], *, since: float, namespace: str) -> None:
        """Drop every object that a complete list does not contain, unless it was seen after the list was started.

        Args:
            seen: The keys in the list.
            since: When the list was started, on the monotonic clock.
            namespace: The namespace that was listed; empty for all.
        """
        for key, record in list(self._records.items()):
            if record.last_seen < since and key not in seen and namespace in ("", key.namespace):
                self.forget(key)

    def _see(self, repository: ArtifactRepository, now: float) -> None:
        record = self._records.get(repository.key)
        if record is None:
            self._records[repository.key] = record = Record(now, repository.version)
            if repository.is_handled:
                record.ready = _ready_status(repository)
        else:
            record.last_seen, record.version = now, max(record.version, repository.version)

    def _ready_statuses(self) -> list[str]:
        """Return the status of every object's Ready condition, for metrics."""
        return [record.ready for record in self._records.values()]

    def _release(self, key: Key) -> None:
        """Have an object reconciled whose registry may be available again."""
        self._queue.expedite(key, now=self._clock.monotonic())
        self._dispatch()

    def _stop_waiting(self, key: Key, record: Record) -> None:
        if record.waiting_for is not None:
            self._recovery.discard(key, record.waiting_for)
            record.waiting_for = None

    def _dispatch(self) -> None:
        """Start as many reconciles as there are free workers and ready keys."""
        if not self._running:
            return
        while (item := self._next_item()) is not None:
            self._workers.start(item.lane, item.priority, self._process(item), on_done=self._dispatch)
        self._arm_timer()

    def _next_item(self) -> Item[Key, ArtifactRepository] | None:
        now = self._clock.monotonic()
        return None if now < self._writes.held_until else self._queue.get(now=now, full=self._is_full)

    def _is_full(self, lane: Hashable, priority: Priority) -> bool:
        return self._workers.is_full(lane, priority, one_only=self._writes.is_cautious)

    def _lane(self, repository: ArtifactRepository) -> Hashable:
        """Return the name of the registry that an object means; None where it is not configured."""
        name = intended_registry(repository, self._registries.config)
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
            repository, requeue = await self._reconcile(item, started)
        except Exception:
            # A bug: this object must neither be lost nor stop others.
            fields = with_fields(namespace=item.key.namespace, name=item.key.name)
            logger.exception("Reconciling %s failed unexpectedly", item.key, extra=fields)
            self._metrics.reconciles.labels("defect").inc()
        finally:
            self._requeue(item, repository, requeue)
            self._metrics.reconcile_duration.observe(self._clock.monotonic() - started)

    async def _reconcile(
        self, item: Item[Key, ArtifactRepository], now: float
    ) -> tuple[ArtifactRepository | None, Requeue]:
        """Return the object as it is now (None where it no longer exists), and when to reconcile it again."""
        record, revision = self._records.get(item.key), self._registries.revision
        if record is not None:
            self._stop_waiting(item.key, record)
        since = record.failing_since if record else None
        try:
            result = await self._reconciler.reconcile(
                item.state,
                failing_for=timedelta(seconds=0 if since is None else now - since),
                claims=record.claims if record else NO_CLAIMS,
                last_message=record.message if record else None,
            )
        except LeadershipLost as error:
            logger.info("Stopped reconciling %s: %s", item.key, error)
            return item.state, self._after_api_failure(item.key, _API_SERVER)
        self._note(result)
        match result.write_error:
            case None:
                pass
            case ObjectGone():
                return self._gone()
            case Conflict():
                return await self._read_again(item.state)
            case failure:
                return self._write_failed(item.state, failure)
        if self._registries.revision != revision:
            return result.repository, RequeueAfter(0)  # it may have been reconciled with the old configuration
        return result.repository, result.requeue

    def _note(self, result: Result) -> None:
        """Record a result in metrics and in the object's record; start a prober where its registry failed."""
        if result.write_error is None:
            self._metrics.reconciles.labels(type(result.outcome).__name__.lower()).inc()
        if result.written:
            self._writes.succeeded()
        if result.recreated:
            self._metrics.drift_repairs.labels(result.registry).inc()
        record, now = self._records.get(result.repository.key), self._clock.monotonic()
        if record is not None:  # it may have been forgotten while in flight
            record.ready = _ready_status(result.repository)
            record.claims = result.claims
            record.message = result.message
            record.note_attempt(now, failed=isinstance(result.outcome, Failed))
            if result.write_error is None:
                record.api_failures = 0
            self._see(result.repository, now)
        else:
            result.claims.release()
        self._recovery.ensure_prober(result.registry)

    async def _read_again(self, repository: ArtifactRepository) -> tuple[ArtifactRepository | None, Requeue]:
        """Return the newest state: the object was changed, or replaced by another one of its name."""
        try:
            newest = await self._store.get(repository.key)
        except ObjectGone:
            return self._gone()
        except KubernetesError as error:
            return self._write_failed(repository, error)
        if newest.deleting:
            return self._gone()
        self._metrics.reconciles.labels("conflict").inc()
        return newest, self._after_api_failure(repository.key, _CONFLICT)

    def _write_failed(
        self, repository: ArtifactRepository, error: KubernetesError
    ) -> tuple[ArtifactRepository, Requeue]:
        self._writes.failed(repository.key, error)
        self._metrics.reconciles.labels("api_error").inc()
        return repository, self._after_api_failure(repository.key, _API_SERVER)

    def _after_api_failure(self, key: Key, backoff: Backoff) -> RequeueAfter:
        """Return when to reconcile an object again that could not be read or written."""
        record = self._records.get(key)
        if record is not None:
            record.api_failures += 1
        self._metrics.retries.inc()
        return RequeueAfter(backoff.delay(record.api_failures if record else 1, self._rng))

    def _gone(self) -> tuple[None, Requeue]:
        self._metrics.reconciles.labels("gone").inc()
        return None, Done()

    def _requeue(
        self, item: Item[Key, ArtifactRepository], repository: ArtifactRepository | None, requeue: Requeue
    ) -> None:
        key, now, record = item.key, self._clock.monotonic(), self._records.get(item.key)
        state = repository or item.state
        match requeue:
            case Done():
                self._queue.done(key, state, now=now)
            case RequeueAfter(delay):
                self._queue.requeue(key, state, delay + _MARGIN, now=now)
            case WhenAvailable(registry, latest):
                self._queue.requeue(key, state, _MAX_WAIT if latest is None else latest + _MARGIN, now=now)
                if record is not None:
                    record.waiting_for = registry
                    self._recovery.add(key, registry)
            case Retry(backoff, latest, earliest):
                failures = 1 if record is None else record.failures + 1
                delay = max(backoff.delay(failures, self._rng), earliest)
                self._queue.requeue(key, state, delay if latest is None else min(delay, latest + _MARGIN), now=now)
                self._metrics.retries.inc()
                if record is not None:
                    record.failures = failures
        overwritten = self._overwrites.end(state)
        if repository is None and key not in self._queue:
            self.forget(key)
        elif overwritten is not None:
            self.correct(overwritten)


def _ready_status(repository: ArtifactRepository) -> str:
    return str(repository.condition(ConditionType.READY).get("status", ConditionStatus.UNKNOWN))
