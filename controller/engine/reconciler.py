"""One object, one try: from the newest state to at most one write of its status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final

from controller.engine.gate import GateState
from controller.engine.pacer import WritePacer
from controller.engine.ports import Clock, EventRecorder, EventType, ObjectStore
from controller.engine.registries import ManagedRegistry, RegistryPool
from controller.errors import (
    AccessDenied,
    AuthenticationFailed,
    NameRefused,
    RegistryError,
    RegistryReadOnly,
    RegistryUnavailable,
    TLSVerificationFailed,
)
from controller.registry.protocol import Origin
from controller.resource import ArtifactRepository, Key, Reason
from controller.status import TERMINAL_REASONS, Failed, Outcome, Suspended, Verified, decide, merge_patch
from controller.target import Refusal, Target, resolve_target

_EXPLANATIONS: Final[tuple[tuple[type[RegistryError], Reason, str, str], ...]] = (
    (
        TLSVerificationFailed,
        Reason.TLS_VERIFICATION_FAILED,
        "has a certificate that was refused",
        "Check the registry's certificate and tls.caFile in the operator's configuration.",
    ),
    (
        RegistryUnavailable,
        Reason.REGISTRY_UNAVAILABLE,
        "is not available",
        "Check that the registry runs and that the operator's Pod can reach this address.",
    ),
    (
        AuthenticationFailed,
        Reason.AUTHENTICATION_FAILED,
        "does not accept the operator's credentials",
        "Check the Secret that credentials in the operator's configuration names.",
    ),
    (
        AccessDenied,
        Reason.ACCESS_DENIED,
        "denies access",
        "Allow the operator's user to pull and push this repository.",
    ),
    (
        RegistryReadOnly,
        Reason.REGISTRY_READ_ONLY,
        "takes no writes",
        "Switch off its read-only mode, or push an image there by other means: the repository is then adopted.",
    ),
    (
        NameRefused,
        Reason.NAME_NOT_SUPPORTED,
        "does not take names of this shape",
        "Use a repositoryTemplate such as '{namespace}.{name}', or another registry.",
    ),
    (
        RegistryError,
        Reason.UNEXPECTED_ANSWER,
        "gave an unexpected answer",
        "Check that registryUrl in the operator's configuration is an OCI registry's.",
    ),
)
"""What a person is told about each error; the first class that fits counts."""


FAILURE_WRITES_PER_SECOND: Final = 100.0
"""How fast failures are written to status: thousands of objects may share the registry that failed."""


class Next(Enum):
    """What becomes of an object after a try."""

    SETTLED = "settled"
    """Nothing, until it changes or is resynced."""

    WAIT = "wait"
    """It waits: for its registry, for its turn to write, or for the time after which its status changes by itself."""

    RETRY = "retry"
    """It is tried again after a short backoff."""

    RETRY_SLOWLY = "retry slowly"
    """It is tried again after a long backoff: a person has to do something first."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a try.

    Args:
        repository: The object as it is now.
        outcome: What was found.
        next: What becomes of the object.
        registry: The registry that was, or would have been, asked; None where there is none.
        parked: Whether the object waits for that registry to answer again.
        after: When it has to be looked at again at the latest, if at all.
        written: Whether its status was written.
        recreated: Whether a repository that had vanished was made again.
    """

    repository: ArtifactRepository
    outcome: Outcome
    next: Next
    registry: str | None
    parked: bool
    after: timedelta | None
    written: bool
    recreated: bool


class Reconciler:
    """Makes an object's repository exist and its status say so.

    Args:
        registries: The registries, and with them the configuration.
        store: Where status is written.
        events: Where is told what status does not keep.
        clock: The time.
        check: Called before status is written; raises KubernetesError where that is not this process's to do any more.
    """

    def __init__(
        self,
        *,
        registries: RegistryPool,
        store: ObjectStore,
        events: EventRecorder,
        clock: Clock,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._registries = registries
        self._store = store
        self._events = events
        self._clock = clock
        self._check = check
        self._pacer = WritePacer(rate=FAILURE_WRITES_PER_SECOND)

    def forget(self, key: Key) -> None:
        """Drop what is remembered of an object that is gone."""
        self._pacer.drop(key)

    async def reconcile(self, repository: ArtifactRepository, *, failing_for: timedelta) -> Result:
        """Look at one object once.

        Args:
            repository: Its newest known state.
            failing_for: How long it has been failing already.

        Raises:
            KubernetesError: Its status could not be written; ObjectGone and Conflict as ObjectStore tells.
        """
        target = resolve_target(repository, self._registries.config)
        registry, recreated, next_ = None, False, Next.SETTLED
        outcome: Outcome
        if repository.suspend:
            outcome = Suspended(target.registry, target.repository_name)
        elif isinstance(target, Refusal):
            outcome = Failed(target.reason, target.message, "", target.registry, target.repository_name)
            next_ = Next.SETTLED if target.reason in TERMINAL_REASONS else Next.RETRY_SLOWLY
        else:
            registry = self._registries[target.registry]
            outcome, next_, recreated = await self._verify(repository, target, registry, failing_for)

        decision = decide(repository, outcome, now=self._clock.now(), timings=self._registries.config.timings)
        patch = merge_patch(repository.status, decision.status)
        after = decision.recheck_after
        if patch is not None and isinstance(outcome, Failed):
            turn = self._pacer.wait(repository.key, now=self._clock.monotonic())
            if turn > 0:
                patch, after, next_ = None, timedelta(seconds=turn), Next.WAIT
        waits = next_ is Next.WAIT and registry is not None and registry.gate.state is not GateState.OPEN
        if patch is not None:
            self._check()
            repository = await self._store.patch_status(repository, patch)
        if waits and registry is not None and registry.gate.state is GateState.OPEN:
            next_, waits = Next.RETRY, False  # it came back while that was written, and nobody would tell the object
        return Result(
            repository=repository,
            outcome=outcome,
            next=next_,
            registry=target.registry if registry else None,
            parked=waits,
            after=after,
            written=patch is not None,
            recreated=recreated,
        )

    async def _verify(
        self, repository: ArtifactRepository, target: Target, registry: ManagedRegistry, failing_for: timedelta
    ) -> tuple[Outcome, Next, bool]:
        gate = registry.gate
        known = _known_origin(repository, target)
        verifying = known is not None
        if not gate.admits(verifying=verifying):
            return self._waiting(registry, target), Next.WAIT, False
        try:
            ensured = await registry.client.ensure_repository(target.repository_name, known_origin=known)
        except RegistryUnavailable as error:
            gate.failed(error, now=self._clock.monotonic())
            # Behind a closed gate it goes on with the others, not when its own backoff is over.
            next_ = Next.RETRY if gate.state is GateState.OPEN else Next.WAIT
            outcome = self._explain(registry, target, error, failing_for)
        except RegistryError as error:
            gate.succeeded(verifying=verifying)  # it answers; that this answer is no good concerns this object
            outcome, next_ = self._explain(registry, target, error, failing_for), Next.RETRY_SLOWLY
        except BaseException:
            if not verifying:
                gate.released()
            raise
        else:
            gate.succeeded(verifying=not ensured.created)
            if not verifying:
                gate.released()  # it may have found somebody's tags, which tells nothing about pushes
            # Where the address has changed, the old repository is where it was.
            same_place = repository.status.get("uri") == f"{registry.addresses.uri}/{target.path}"
            recreated = ensured.created and known is not None and same_place
            if recreated:
                self._events.about_object(
                    repository,
                    EventType.WARNING,
                    "RepositoryRecreated",
                    f"The repository had vanished from registry '{registry.name}' and was made again, empty: "
                    "push its images again.",
                )
            return Verified(target, registry.addresses, ensured.origin), Next.SETTLED, recreated
        return outcome, next_, False

    def _waiting(self, registry: ManagedRegistry, target: Target) -> Failed:
        """Say what a closed gate means for an object: the same as if its own request had failed since it closed."""
        gate = registry.gate
        error = gate.last_failure or RegistryUnavailable("it was not asked yet")
        since = gate.failing_since if gate.failing_since is not None else self._clock.monotonic()
        return self._explain(registry, target, error, timedelta(seconds=self._clock.monotonic() - since))

    def _explain(
        self, registry: ManagedRegistry, target: Target, error: RegistryError, failing_for: timedelta
    ) -> Failed:
        for type_, reason, what, advice in _EXPLANATIONS:
            if isinstance(error, type_):
                return Failed(
                    reason,
                    f"{registry.described} {what}",
                    f": {error}. {advice}",
                    target.registry,
                    target.repository_name,
                    failing_for,
                )
        raise AssertionError(f"no explanation for {type(error).__name__}")  # the last row fits all


def _known_origin(repository: ArtifactRepository, target: Target) -> Origin | None:
    """Return the origin that status tells of this very repository; None where it has not been verified yet."""
    status = repository.status
    if not status.get("uri") or (status.get("registry"), status.get("repositoryName")) != (
        target.registry,
        target.repository_name,
    ):
        return None
    try:
        return Origin(status.get("origin", ""))
    except ValueError:
        return None
