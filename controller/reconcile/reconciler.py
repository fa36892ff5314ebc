"""Reconciler: one attempt at one object, from its newest state to at most one write of its status."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from controller.api.conditions import ConditionType
from controller.api.outcome import Failed, Outcome, Suspended, Verified
from controller.api.reasons import TERMINAL_REASONS, Reason
from controller.api.status import Decision, decide, merge_patch
from controller.api.tags import summarise
from controller.api.target import Refusal, Target, resolve_target
from controller.api.v1alpha1 import ArtifactRepository, Key, condition_of
from controller.errors import InvalidNameError, KubernetesError, RegistryError, RegistryUnavailable
from controller.reconcile.breaker import BreakerState, CircuitOpen, Outage, retry_after
from controller.reconcile.creations import CreationLimiter, Permit
from controller.reconcile.explanations import explain
from controller.reconcile.interfaces import Clock, EventRecorder, ObjectStore
from controller.reconcile.ratelimit import RateLimiter
from controller.reconcile.recorded import addresses_to_write, known_origin, recorded_location
from controller.reconcile.records import NO_CLAIMS, Claims
from controller.reconcile.registries import ManagedRegistry, RegistryPool
from controller.reconcile.reports import report_recreation, report_write
from controller.reconcile.requeue import QUICK, SLOW, Done, Requeue, RequeueAfter, Retry, WhenAvailable, no_later_than
from controller.registry.protocol import Ensured, Origin

logger = logging.getLogger(__name__)

FAILURE_WRITES_PER_SECOND: Final = 100.0
"""How fast failures are written to status: thousands of objects may share the registry that failed."""


@dataclass(frozen=True, slots=True)
class Result:
    """Result of one attempt.

    Args:
        repository: The object as it is now.
        outcome: What was found.
        requeue: When to reconcile again.
        registry: The registry that was, or would have been, contacted; None where there is none.
        claims: What the object holds of rate limits, for the next attempt.
        written: Whether its status was written.
        write_error: Why its status could not be written; None if it could, or did not have to.
        recreated: Whether a missing repository was created again.
        message: The message of Ready that was decided on.
    """

    repository: ArtifactRepository
    outcome: Outcome
    requeue: Requeue
    registry: str | None
    message: str
    claims: Claims = NO_CLAIMS
    written: bool = False
    write_error: KubernetesError | None = None
    recreated: bool = False


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Outcome of one call of the registry, before status is written."""

    outcome: Outcome
    requeue: Requeue
    registry: ManagedRegistry | None = None
    permit: Permit | None = None
    recreated: bool = False


class Reconciler:
    """Ensures that an object's repository exists and that its status says so.

    Args:
        registries: The registries, and with them the configuration.
        store: Where status is written.
        events: The event recorder.
        clock: The time.
        check_leadership: Called before each status write; raises LeadershipLost.
    """

    def __init__(
        self,
        *,
        registries: RegistryPool,
        store: ObjectStore,
        events: EventRecorder,
        clock: Clock,
        check_leadership: Callable[[], None] = lambda: None,
    ) -> None:
        self._registries = registries
        self._store = store
        self._events = events
        self._clock = clock
        self._check_leadership = check_leadership
        self._creations = CreationLimiter(clock)
        self._failure_writes = RateLimiter(rate=FAILURE_WRITES_PER_SECOND, clock=clock)

    async def reconcile(
        self,
        repository: ArtifactRepository,
        *,
        failing_for: timedelta,
        claims: Claims,
        own_messages: Collection[str] = (),
    ) -> Result:
        """Reconcile one object once.

        Args:
            repository: Its newest known state.
            failing_for: How long its attempts have been failing.
            claims: The claims of the previous result.
            own_messages: The messages of Ready that this process may have written.

        Raises:
            LeadershipLost: This process must not act any more.
        """
        attempt = await self._attempt(repository, failing_for, claims.creation)
        if claims.creation is not None and claims.creation is not attempt.permit:
            claims.creation.release()
        decision = self._decide(repository, attempt.outcome, own_messages)
        patch = merge_patch(repository.status, decision.status)
        result = functools.partial(
            Result,
            outcome=attempt.outcome,
            registry=attempt.registry.name if attempt.registry else None,
            recreated=attempt.recreated,
            message=condition_of(decision.status, ConditionType.READY).get("message", ""),
        )
        if patch is not None and isinstance(attempt.outcome, Failed):
            write = claims.write
            if write is None or not write.is_held:
                write = self._failure_writes.reserve(repository.key.namespace)
            delay = write.moment - self._clock.monotonic()
            if delay > 0:
                return result(
                    repository, requeue=no_later_than(attempt.requeue, delay), claims=Claims(write, attempt.permit)
                )
            write.release()
        elif claims.write is not None:
            claims.write.release()
        if attempt.permit is not None:
            result = functools.partial(result, claims=Claims(creation=attempt.permit))
        if patch is not None:
            self._check_leadership()
            try:
                written = await self._store.patch_status(repository, patch)
            except KubernetesError as error:
                return result(repository, requeue=Done(), write_error=error)
            report_write(repository, written, attempt.outcome, self._events)
            repository = written
        requeue = self._requeue(attempt, decision.recheck_after)
        return result(repository, requeue=requeue, written=patch is not None)

    def _decide(self, repository: ArtifactRepository, outcome: Outcome, own_messages: Collection[str]) -> Decision:
        return decide(
            repository,
            outcome,
            now=self._clock.now(),
            timings=self._registries.config.timings,
            recorded=None if isinstance(outcome, Verified) else recorded_location(repository, self._registries),
            own_messages=own_messages,
        )

    def _requeue(self, attempt: _Attempt, recheck_after: timedelta | None) -> Requeue:
        """Return when to reconcile again, no later than the passing of time alone changes the status."""
        latest = None if recheck_after is None else recheck_after.total_seconds()
        match attempt.requeue:
            case Retry() as retry:
                return replace(retry, latest=latest)
            case WhenAvailable(registry):
                if self._registries[registry].breaker.state is BreakerState.CLOSED:
                    return Retry(QUICK, latest)  # it recovered during the write, before the object was waiting
                return WhenAvailable(registry, latest)
            case RequeueAfter(delay) if latest is not None:
                return RequeueAfter(min(delay, latest))
            case other:
                return other

    async def _attempt(self, repository: ArtifactRepository, failing_for: timedelta, permit: Permit | None) -> _Attempt:
        """Ensure the repository that an object means, unless the object is suspended or means none."""
        target = self._resolve(repository)
        if repository.suspend:
            return _Attempt(Suspended(target.registry, target.repository_name), Done())
        if isinstance(target, Refusal):
            failed = Failed(target.reason, target.message, "", target.registry, target.repository_name, failing_for)
            return _Attempt(failed, Done() if target.reason in TERMINAL_REASONS else Retry(SLOW))
        registry = self._registries[target.registry]
        known = known_origin(repository, target)
        if known is None:
            permit = self._creations.reserve(repository.key.namespace, self._registries.config.creations, permit)
            if permit.moment > self._clock.monotonic():
                return self._throttled(repository, target, permit, failing_for)
        try:
            ensured = await self._ensure(repository.key, target, registry, known, permit)
        except CircuitOpen as rejected:
            # As if the object's own request had failed since the outage began.
            outage = timedelta(seconds=self._clock.monotonic() - rejected.since)
            return self._failed(target, registry, rejected.failure, outage)
        except RegistryError as error:
            return self._failed(target, registry, error, failing_for)
        addresses = addresses_to_write(repository, target, self._registries)
        # At another address it would be a new repository.
        is_same_place = repository.status.get("uri") == f"{addresses.uri}/{target.path}"
        recreated = ensured.created and known is not None and is_same_place
        if recreated:
            report_recreation(repository, target.registry, self._events)
        tags = await self._tags(repository, target, registry, is_empty=ensured.created)
        return _Attempt(Verified(target, addresses, ensured.origin, tags), Done(), registry, recreated=recreated)

    async def _tags(
        self, repository: ArtifactRepository, target: Target, registry: ManagedRegistry, *, is_empty: bool
    ) -> Mapping[str, Any] | None:
        """Return the new ``status.tags``; the current one where the tags cannot be read, which is no failure."""
        names = registry.binding.report_tags
        if not names:
            return None
        try:
            tags = () if is_empty else await registry.client.user_tags(target.path)
        except RegistryError as error:
            logger.debug("The tags of %s cannot be reported: %s", target.path, error)
            return repository.status.get("tags")
        return summarise(tags, names=names)

    def _resolve(self, repository: ArtifactRepository) -> Target | Refusal:
        """Return the repository that an object means, unless a reference to it would be too long."""
        target = resolve_target(repository, self._registries.config)
        if isinstance(target, Refusal):
            return target
        try:
            self._registries[target.registry].addresses.check_length(target.path)
        except InvalidNameError as error:
            message = f"{error}; use a shorter name or pathPrefix"
            return Refusal(Reason.INVALID_NAME, message, target.registry, target.repository_name)
        return target

    async def _ensure(
        self, key: Key, target: Target, registry: ManagedRegistry, known: Origin | None, permit: Permit | None
    ) -> Ensured:
        """Ensure a repository through the breaker; the permit is spent if it is created, else released."""
        ensure = functools.partial(registry.client.ensure, target.path, known_origin=known)
        try:
            ensured = await registry.breaker.call(key, ensure, may_push=known is None)
            if ensured.created and permit is not None:
                permit.spend()
            return ensured
        finally:
            if permit is not None:
                permit.release()

    def _throttled(
        self, repository: ArtifactRepository, target: Target, permit: Permit, failing_for: timedelta
    ) -> _Attempt:
        """Have an object wait for its turn, because its namespace creates too many repositories."""
        rate = self._registries.config.creations.per_second
        outcome = Failed(
            Reason.CREATION_RATE_LIMITED,
            f"Namespace '{repository.key.namespace}' exceeds its {rate:g} new repositories per second; ",
            "waiting for its turn",
            target.registry,
            target.repository_name,
            failing_for,
        )
        return _Attempt(outcome, RequeueAfter(permit.moment - self._clock.monotonic()), permit=permit)

    def _failed(
        self, target: Target, registry: ManagedRegistry, error: RegistryError, failing_for: timedelta
    ) -> _Attempt:
        requeue: Requeue = Retry(SLOW)
        explanation, detail = explain(error), ""
        if isinstance(error, Outage):
            if registry.breaker.state is BreakerState.CLOSED:
                requeue = Retry(QUICK, earliest=retry_after(error))
                if isinstance(error, RegistryUnavailable) and error.status is not None:
                    detail = f"{target.path}: "  # perhaps the only one that fails
            else:
                requeue = WhenAvailable(registry.name)
        outcome = Failed(
            explanation.reason,
            explanation.subject,
            f"{detail}{explanation.detail}",
            target.registry,
            target.repository_name,
            failing_for,
        )
        return _Attempt(outcome, requeue, registry)
