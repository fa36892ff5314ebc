"""One term of work: the engine and what feeds it, from the moment this process may work until it may not any more."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.config import OperatorConfig, RegistryBinding, format_duration, load_config
from controller.engine.engine import Engine
from controller.engine.ports import Clock, EventRecorder, EventType
from controller.engine.reconciler import Reconciler
from controller.engine.registries import ManagedRegistry, RegistryPool
from controller.engine.resync import resync_forever, sweep
from controller.errors import ConfigError, KubernetesError, KubernetesUnavailable
from controller.kube.api import KubernetesApi
from controller.kube.edge import STEADY, watch
from controller.kube.hosting import HostingFollower
from controller.metrics import Metrics
from controller.pauses import Pauses
from controller.references import RegistryHosting
from controller.registry.connection import RequestRecord
from controller.registry.local import LocalArtifactRegistry
from controller.registryfiles import RegistryFiles
from controller.resource import ArtifactRepository, ConditionType
from controller.target import intended_registry
from controller.watchmonitor import WatchMonitor

logger = logging.getLogger(__name__)

_LOOK_AT_FILE_EVERY: Final = 2.0
"""How often the configuration file is read, in seconds; the kubelet itself takes up to a minute to write it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is worked on.

    Args:
        namespaces: The namespaces to watch; empty: all.
        label_selector: Restricts the objects that are watched; empty: no restriction.
        concurrent: How many objects of one registry may be worked on at the same time.
    """

    namespaces: Sequence[str] = ()
    label_selector: str = ""
    concurrent: int = 64


class Session:
    """See the module's text.

    Args:
        scope: What is worked on.
        config_file: The configuration file, followed while the session lasts.
        config: What was read from it last and could be used.
        api: The API server.
        events: Where is told what status does not keep.
        may_write: Tells whether this process still may; asked again before each step of a reconcile.
        metrics: Where is counted.
        clock: The time.
        rng: Source of all jitter.
    """

    def __init__(
        self,
        *,
        scope: Scope,
        config_file: Path,
        config: OperatorConfig,
        api: KubernetesApi,
        events: EventRecorder,
        may_write: Callable[[], bool],
        metrics: Metrics,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._scope = scope
        self._config_file = config_file
        self._api = api
        self._events = events
        self._may_write = may_write
        self._metrics = metrics
        self._clock = clock
        self._rng = rng
        self._registries = RegistryPool(config, connect=self._connect, rng=rng)
        self._engine = Engine(
            reconciler=Reconciler(
                registries=self._registries, store=api, events=events, clock=clock, check=self._check_leadership
            ),
            registries=self._registries,
            store=api,
            clock=clock,
            rng=rng,
            concurrent=scope.concurrent,
            metrics=metrics,
            outages=self,
        )
        self._hosting = HostingFollower(api, changed=self._advertised, rng=rng)
        metrics.observe_registries(self._registries.failing_since)

    async def run(
        self, *, set_not_ready: Callable[[str | None], None], install_signal_handlers: Callable[[], None]
    ) -> None:
        """Work until cancelled; then stop with :meth:`stop`.

        Args:
            set_not_ready: Called with what is wrong with the watch; with None while it is established.
            install_signal_handlers: Puts back the process's own handlers, which kopf replaces.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hosting.run())
            # An object that is looked at before its references can be known would be written twice.
            await self._hosting.wait_for_first_look()
            self._engine.start()
            group.create_task(self._watch_forever(set_not_ready, install_signal_handlers))
            group.create_task(
                resync_forever(
                    self._engine,
                    store=self._api,
                    interval=self._resync_interval,
                    clock=self._clock,
                    rng=self._rng,
                )
            )
            group.create_task(self._follow_config())
            group.create_task(self._follow_registry_files())

    async def stop(self, *, grace: float) -> None:
        """End what is left of the work.

        Args:
            grace: How long reconciles that are under way may take, in seconds.
        """
        await self._engine.stop(grace=grace)
        await self._registries.close()

    async def outage_lasts(self, registry: ManagedRegistry) -> None:
        """Tell the world of an outage that is no blip (see :class:`controller.engine.outage.OutageObserver`)."""
        patience = self._registries.config.timings.unavailable_after
        message = f"{registry.described} has been failing for {format_duration(patience)}: {registry.gate.last_failure}"
        self._events.about_operator(EventType.WARNING, "RegistryUnavailable", message)
        await self._sweep(only=functools.partial(self._is_in, registry))

    async def outage_ended(self, registry: ManagedRegistry) -> None:
        """Tell the world that a registry which it was told of answers again."""
        self._events.about_operator(EventType.NORMAL, "RegistryAvailable", f"{registry.described} answers again")

    def _resync_interval(self) -> float:
        return self._registries.config.timings.resync_interval.total_seconds()

    def _is_in(self, registry: ManagedRegistry, object_: ArtifactRepository) -> bool:
        return intended_registry(object_, self._registries.config) == registry.name

    async def _sweep(self, only: Callable[[ArtifactRepository], bool] | None = None) -> None:
        """Have all objects looked at; where they cannot be listed now, try until they can."""
        pauses = Pauses(self._rng)
        while True:
            try:
                await sweep(self._engine, store=self._api, clock=self._clock, only=only)
            except KubernetesError as error:
                logger.warning("The objects cannot be listed, trying again: %s", error)
                await asyncio.sleep(pauses.next())
            else:
                return

    async def _watch_forever(
        self, set_not_ready: Callable[[str | None], None], install_signal_handlers: Callable[[], None]
    ) -> None:
        """Keep a watch running, whatever ends it."""
        pauses = Pauses(self._rng)
        monitor = WatchMonitor(
            ", ".join(self._scope.namespaces) or "all namespaces",
            set_not_ready=set_not_ready,
            on_persistent_failure=lambda problem: self._events.about_operator(
                EventType.WARNING, "WatchFailed", problem
            ),
        )
        while True:
            begun = self._clock.monotonic()
            try:
                await watch(
                    self._engine,
                    namespaces=self._scope.namespaces,
                    label_selector=self._scope.label_selector,
                    monitor=monitor,
                    install_signal_handlers=install_signal_handlers,
                )
            except Exception as error:  # noqa: BLE001 - whatever ended the watch, it has to go on
                monitor.failed(str(error) or type(error).__name__)
            if self._clock.monotonic() - begun >= STEADY:
                pauses.reset()
            await asyncio.sleep(pauses.next())

    async def _follow_config(self) -> None:
        """Take over each change of the configuration file; a bad one is told and the last good one kept."""
        seen: bytes | None = None
        wrong = ""
        while True:
            await asyncio.sleep(_LOOK_AT_FILE_EVERY)
            text = await asyncio.to_thread(_read, self._config_file)
            if text == seen and not wrong:  # what was wrong may be a file that it names, and be mended there
                continue
            seen = text
            try:
                config = await asyncio.to_thread(load_config, self._config_file)
                if config != self._registries.config:
                    self._registries.configure(config)
                elif not wrong:
                    continue
            except ConfigError as error:
                if str(error) != wrong:
                    wrong = str(error)
                    logger.error("The changed configuration is not used, the last good one is kept: %s", wrong)  # noqa: TRY400
                    self._metrics.config_loads.labels("invalid").inc()
                    self._metrics.config_good.set(0)
                    self._events.about_operator(EventType.WARNING, "InvalidConfiguration", wrong)
                continue
            wrong = ""
            logger.info("The configuration has changed; registries: %s", ", ".join(sorted(config.registries)))
            self._metrics.config_loads.labels("good").inc()
            self._metrics.config_good.set(1)
            await self._engine.reconfigured()
            await self._sweep()

    async def _follow_registry_files(self) -> None:
        """Retry at once what failed with credentials or CAs that have been replaced since."""
        files = RegistryFiles()
        while True:
            changed = await asyncio.to_thread(files.changed, self._registries.config.registries)
            if changed:
                logger.info("Credential or CA files of %s have changed; retrying", ", ".join(sorted(changed)))
                await self._sweep(only=functools.partial(self._is_failing_in, changed))
            await asyncio.sleep(_LOOK_AT_FILE_EVERY)

    def _is_failing_in(self, registries: set[str], object_: ArtifactRepository) -> bool:
        is_ready = object_.condition(ConditionType.READY).get("status") == "True"
        return not is_ready and intended_registry(object_, self._registries.config) in registries

    async def _advertised(self, hosting: RegistryHosting) -> None:
        """Take over what the cluster tells of its local registry; references in status follow."""
        self._registries.advertise(hosting)
        await self._sweep()

    def _connect(self, name: str, binding: RegistryBinding) -> LocalArtifactRegistry:
        self._metrics.expect_registry(name)
        return LocalArtifactRegistry(name, binding, on_request=functools.partial(self._count_request, name))

    def _count_request(self, registry: str, record: RequestRecord) -> None:
        self._metrics.registry_requests.labels(registry, record.method, record.code).inc()
        self._metrics.registry_request_duration.labels(registry).observe(record.seconds)
        self._check_leadership()  # what is asked next may be a write

    def _check_leadership(self) -> None:
        if not self._may_write():
            raise KubernetesUnavailable("this process does not lead any more")


def _read(path: Path) -> bytes | None:
    """Return a file's content; None where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None
