"""Attempts: has one object reconciled, records what came of it, and says when the next attempt is due."""

from __future__ import annotations

import logging
import random
from datetime import timedelta
from typing import Final

from controller.api.outcome import Failed
from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.backoff import Backoff
from controller.errors import Conflict, KubernetesError, LeadershipLost, ObjectGone
from controller.metrics import Metrics
from controller.reconcile.interfaces import Clock, ObjectStore
from controller.reconcile.reconciler import Reconciler, Result
from controller.reconcile.records import NO_CLAIMS, Records, ready_status
from controller.reconcile.recovery import Recovery
from controller.reconcile.registries import RegistryPool
from controller.reconcile.requeue import Done, Requeue, RequeueAfter
from controller.reconcile.writes import StatusWrites

logger = logging.getLogger(__name__)

_API_SERVER: Final = Backoff(first=0.2, cap=30.0)
_CONFLICT: Final = Backoff(first=0.2, cap=2.0)
"""Short: the object was just changed, and its owner most likely waits for the operator."""


class Attempts:
    """Attempts at objects, and what the result of one means for the object.

    Args:
        reconciler: Reconciles one object once.
        registries: The registries with their configuration, which may change during an attempt.
        store: Provides the newest state of an object after a conflict.
        records: What is known of each object.
        recovery: Probes registries that do not respond.
        clock: The time.
        rng: Source of the jitter of delays.
        metrics: Metrics sink.
        writes: Notified of the results of status writes.
    """

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        registries: RegistryPool,
        store: ObjectStore,
        records: Records,
        recovery: Recovery,
        clock: Clock,
        rng: random.Random,
        metrics: Metrics,
        writes: StatusWrites,
    ) -> None:
        self._reconciler = reconciler
        self._registries = registries
        self._store = store
        self._records = records
        self._recovery = recovery
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._writes = writes

    async def run(self, repository: ArtifactRepository, now: float) -> tuple[ArtifactRepository | None, Requeue]:
        """Return the object as it is afterwards (None where it no longer exists), and when to reconcile it again.

        Args:
            repository: The object.
            now: The time, on the monotonic clock.
        """
        key, revision = repository.key, self._registries.revision
        record = self._records.get(key)
        if record is not None:
            self._recovery.discard(key, record)
        since = record.failing_since if record else None
        try:
            result = await self._reconciler.reconcile(
                repository,
                failing_for=timedelta(seconds=0 if since is None else now - since),
                claims=record.claims if record else NO_CLAIMS,
                own_messages=record.messages if record else (),
            )
        except LeadershipLost as error:
            logger.info("Stopped reconciling %s: %s", key, error)
            return repository, self._after_api_failure(key, _API_SERVER)
        self._note(result)
        match result.write_error:
            case None:
                pass
            case ObjectGone():
                return self._gone()
            case Conflict():
                return await self._read_again(repository)
            case failure:
                return self._write_failed(repository, failure)
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
            record.ready = ready_status(result.repository)
            record.claims = result.claims
            failed = isinstance(result.outcome, Failed)
            if result.claims.write is None:  # otherwise its write has to wait
                record.note_message(result.message if failed else None, result.write_error)
            record.note_attempt(now, failed=failed)
            if result.write_error is None:
                record.api_failures = 0
            self._records.see(result.repository, now)
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
