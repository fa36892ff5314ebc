"""Runner: one term of leadership, or the lifetime of the process without leader election."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.addresses import RegistryHosting
from controller.advertisements import Advertisements
from controller.api.conditions import ConditionStatus, ConditionType
from controller.api.target import intended_registry
from controller.api.v1alpha1 import ArtifactRepository
from controller.binding import RegistryBinding
from controller.config import OperatorConfig
from controller.configfollower import POLL_INTERVAL, ConfigFollower
from controller.durations import format_duration
from controller.kube.client import KubernetesClient
from controller.kube.localregistry import LocalRegistryDiscovery
from controller.metrics import Metrics
from controller.reconcile.controller import Controller
from controller.reconcile.interfaces import Clock, EventRecorder, EventType
from controller.reconcile.reconciler import Reconciler
from controller.reconcile.registries import ManagedRegistry, RegistryFactory, RegistryPool
from controller.reconcile.resync import Resync, Selection
from controller.reconcile.writes import StatusWrites
from controller.registry.connection import RequestRecord
from controller.registry.local import LocalArtifactRegistry
from controller.registryfiles import RegistryFiles
from controller.supervision import run_forever
from controller.watching import Watches

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects are reconciled, and how many at once.

    Args:
        namespaces: The namespaces to watch; empty for all.
        label_selector: Restricts the objects that are watched; empty for no restriction.
        concurrent: Maximum concurrent reconciles per registry, fewer while the event loop lags.
    """

    namespaces: Sequence[str] = ()
    label_selector: str = ""
    concurrent: int = 32


class Runner:
    """Runs the watch, the controller and what they depend on, for one term of leadership.

    Args:
        scope: Which objects are reconciled.
        config_file: The configuration file; changes are applied.
        config: The configuration to start with.
        api: The API server.
        events: The event recorder.
        check_leadership: Called before each registry request and each status write; raises LeadershipLost.
        metrics: Metrics sink.
        clock: The time.
        rng: Source of jitter.
    """

    def __init__(
        self,
        *,
        scope: Scope,
        config_file: Path,
        config: OperatorConfig,
        api: KubernetesClient,
        events: EventRecorder,
        check_leadership: Callable[[], None],
        metrics: Metrics,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._scope = scope
        self._api = api
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._rng = rng
        self._registries = RegistryPool(
            config, connect=_registry_factory(metrics, check_leadership), clock=clock, rng=rng
        )
        self._writes = StatusWrites(events=events, metrics=metrics, clock=clock)
        self._controller = Controller(
            reconciler=Reconciler(
                registries=self._registries,
                store=api,
                events=events,
                clock=clock,
                check_leadership=check_leadership,
            ),
            registries=self._registries,
            store=api,
            clock=clock,
            rng=rng,
            max_concurrent=scope.concurrent,
            metrics=metrics,
            writes=self._writes,
        )
        self._resyncs = {
            namespace: Resync(
                self._controller,
                store=api,
                namespace=namespace,
                interval=self._resync_interval,
                clock=clock,
                rng=rng,
            )
            for namespace in api.namespaces
        }
        self._follower = ConfigFollower(
            config_file, registries=self._registries, on_applied=self._reconfigured, events=events, metrics=metrics
        )
        self._discovery = LocalRegistryDiscovery(
            api, rng=rng, is_enabled=lambda: self._registries.config.follow_local_registry_hosting
        )
        self._advertisements = Advertisements(self._registries, events=events, metrics=metrics)
        metrics.observe_registries(self._registries.failing_since)

    @property
    def config(self) -> OperatorConfig:
        """The last valid configuration."""
        return self._registries.config

    async def run(
        self, *, set_not_ready: Callable[[str | None], None], install_signal_handlers: Callable[[], None]
    ) -> None:
        """Run until cancelled; then call :meth:`stop`.

        Args:
            set_not_ready: Called with the problem of the watch; with None once it is established.
            install_signal_handlers: Restores the process's own handlers, which kopf replaces.
        """
        async with asyncio.TaskGroup() as group:

            def supervise(name: str, work: Callable[[], Awaitable[object]]) -> None:
                group.create_task(run_forever(name, work, rng=self._rng), name=name)

            supervise("Local registry discovery", functools.partial(self._discovery.run, self._advertised))
            # Objects reconciled before the advertisement is known would be written twice.
            await self._discovery.wait_for_first_read()
            self._controller.start(OutageReporter(self._events, registries=self._registries, resync=self._request))
            watches = Watches(
                self._controller,
                access=self._api.access,
                namespaces=self._api.namespaces,
                label_selector=self._scope.label_selector,
                on_listed=lambda namespace: self._resyncs[namespace].request(),
                events=self._events,
                set_not_ready=set_not_ready,
                install_signal_handlers=install_signal_handlers,
                rng=self._rng,
            )
            self._metrics.observe_watches(watches.established)
            supervise("The watch", watches.run)
            for resync in self._resyncs.values():
                supervise("The resync", resync.run)
            supervise("Following the configuration file", self._follower.run)
            supervise("Following credential and CA files", self._follow_registry_files)

    @property
    def problem(self) -> str | None:
        """Why the operator can do nothing useful although it watches; None if it can."""
        return self._writes.problem

    async def stop(self, *, grace: float) -> None:
        """Stop reconciling and close all connections.

        Args:
            grace: Seconds to wait for reconciles in progress.
        """
        self._metrics.observe_watches(dict)  # from now on another replica reports them
        await self._controller.stop(grace=grace)
        await self._registries.close()

    def _resync_interval(self) -> float:
        return self._registries.config.timings.resync_interval.total_seconds()

    async def _reconfigured(self) -> None:
        """Have all objects reconciled with a new configuration."""
        await self._controller.reconfigured()
        self._request()

    def _request(self, only: Selection | None = None) -> None:
        """Have objects of all namespaces reconciled as soon as possible."""
        for resync in self._resyncs.values():
            resync.request(only)

    async def _follow_registry_files(self) -> None:
        """Retry failed objects of a registry as soon as its credential or CA files change."""
        files = RegistryFiles()
        while True:
            changed = await asyncio.to_thread(files.changed, self._registries.config.registries)
            if changed:
                names = ", ".join(sorted(changed))
                logger.info("Credential or CA files of %s have changed; retrying failed objects", names)
                self._request(functools.partial(self._is_failing_in, changed))
            await asyncio.sleep(POLL_INTERVAL)

    def _is_failing_in(self, registries: set[str], object_: ArtifactRepository) -> bool:
        is_ready = object_.condition(ConditionType.READY).get("status") == ConditionStatus.TRUE
        return not is_ready and intended_registry(object_, self._registries.config) in registries

    async def _advertised(self, hosting: RegistryHosting | None) -> None:
        """Apply the advertisement of the local registry, and update the references of all objects."""
        self._advertisements.apply(hosting)
        if self._controller.is_running:  # before, no object has been reconciled
            self._request()


class OutageReporter:
    """Reports outages of registries that last longer than ``unavailableAfter``, by events and in status.

    Args:
        events: The event recorder.
        registries: The registries and the configuration.
        resync: Has objects reconciled as soon as possible.
    """

    def __init__(self, events: EventRecorder, *, registries: RegistryPool, resync: Callable[[Selection], None]) -> None:
        self._events = events
        self._registries = registries
        self._resync = resync

    async def outage_lasts(self, registry: ManagedRegistry) -> None:
        """Report an outage (see :class:`controller.reconcile.recovery.OutageObserver`)."""
        patience = format_duration(self._registries.config.timings.unavailable_after)
        message = f"Registry '{registry.name}' has been failing for {patience}: {registry.breaker.last_failure}"
        self._events.event(None, EventType.WARNING, "RegistryUnavailable", message)
        self._resync(lambda object_: intended_registry(object_, self._registries.config) == registry.name)

    async def outage_ended(self, registry: ManagedRegistry) -> None:
        """Report the end of an outage."""
        self._events.event(None, EventType.NORMAL, "RegistryAvailable", f"{registry.described} is available again")


def _registry_factory(metrics: Metrics, check_leadership: Callable[[], None]) -> RegistryFactory:
    """Return the factory of registry clients, with fencing and metrics."""

    def connect(name: str, binding: RegistryBinding) -> LocalArtifactRegistry:
        durations = metrics.registry_request_duration.labels(name)
        counters = functools.cache(functools.partial(metrics.registry_requests.labels, name))

        def observe(record: RequestRecord) -> None:
            counters(record.method, record.code).inc()
            durations.observe(record.seconds)

        metrics.expect_registry(name)
        return LocalArtifactRegistry(name, binding, before_request=check_leadership, on_request=observe)

    return connect
