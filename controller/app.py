"""The composition root: the only place that knows all parts. Starts them, supervises them, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import random
import signal
import socket
import uuid
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.config import OperatorConfig, RegistryBinding, load_config
from controller.engine.engine import Engine
from controller.engine.ports import SystemClock
from controller.engine.reconciler import Reconciler
from controller.engine.registries import RegistryPool
from controller.engine.resync import resync_forever
from controller.errors import KubernetesError
from controller.health import serve_health
from controller.kube.access import SERVICE_ACCOUNT_DIRECTORY, load_configuration
from controller.kube.api import KubernetesApi
from controller.kube.edge import watch
from controller.kube.events import NoEvents
from controller.kube.lease import LeaderElector
from controller.metrics import Metrics
from controller.registry.connection import RequestRecord
from controller.registry.local import LocalArtifactRegistry

logger = logging.getLogger(__name__)

LEASE_NAME: Final = "artifact-repository-controller"

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """How the operator is to run.

    Args:
        config: The configuration file.
        namespaces: The namespaces to watch; empty: all.
        label_selector: Restricts the objects that are watched; empty: no restriction.
        concurrent: How many objects may be worked on at the same time.
        leader_elect: Whether to work only while holding the Lease.
        lease_namespace: Namespace of the Lease; None: the Pod's own.
        health_address: Where health and metrics are served; None: nowhere.
        grace: How long reconciles that are under way may take after a stop, in seconds.
    """

    config: Path
    namespaces: Sequence[str] = ()
    label_selector: str = ""
    concurrent: int = 16
    leader_elect: bool = False
    lease_namespace: str | None = None
    health_address: str | None = None
    grace: float = 20.0


class Operator:
    """One operator process.

    Args:
        options: How it is to run.
        config: The configuration that was read from the file.
    """

    def __init__(self, options: Options, config: OperatorConfig) -> None:
        self._options = options
        self._config = config
        self._metrics = Metrics()
        self._clock = SystemClock()
        self._rng = random.Random()  # noqa: S311 - jitter, not secrets
        self._stopping = asyncio.Event()
        self._not_ready: str | None = "starting"
        self._api = KubernetesApi(
            namespaces=options.namespaces,
            label_selector=options.label_selector,
            connections=options.concurrent + 8,
        )

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT.

        Raises:
            ConfigError: The health address cannot be listened on.
            KubernetesError: There are no credentials for an API server.
        """
        await load_configuration()  # without credentials there is nothing to wait for
        self._install_signal_handlers()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._api.close)
            if self._options.health_address:
                health = serve_health(
                    self._options.health_address, why_not_ready=lambda: self._not_ready, metrics=self._metrics
                )
                await stack.enter_async_context(health)
            if self._options.leader_elect:
                await self._work_while_leading()
            else:
                await self._work()
        logger.info("Stopped")

    def _install_signal_handlers(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)

    def _stop(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            logger.warning("Second %s: stopping at once", number.name)
            os._exit(128 + number)
        logger.info("%s: finishing what is under way", number.name)
        self._not_ready = "stopping"
        self._stopping.set()

    async def _work_while_leading(self) -> None:
        namespace = self._options.lease_namespace or _own_namespace()
        elector = LeaderElector(
            self._api,
            namespace=namespace,
            name=LEASE_NAME,
            identity=f"{socket.gethostname()}_{uuid.uuid4()}",
            rng=self._rng,
        )
        self._metrics.observe_leader(lambda: elector.is_leader)
        logger.info("Waiting for the Lease %s/%s", namespace, LEASE_NAME)
        while not self._stopping.is_set():
            self._not_ready = None  # standing by is what a second replica is for
            await self._unless_stopping(elector.acquire())
            if not self._stopping.is_set():
                await elector.lead(self._work)

    async def _work(self) -> None:
        """Reconcile until the process is to stop; cancelled when leadership is lost."""
        self._not_ready = "waiting for the API server"
        await self._unless_stopping(self._wait_for_access())
        registries = RegistryPool(self._config, connect=self._connect, rng=self._rng)
        reconciler = Reconciler(registries=registries, store=self._api, events=NoEvents(), clock=self._clock)
        engine = Engine(
            reconciler=reconciler,
            registries=registries,
            store=self._api,
            clock=self._clock,
            rng=self._rng,
            concurrent=self._options.concurrent,
            metrics=self._metrics,
        )
        grace = 0.0
        try:
            engine.start()
            await self._unless_stopping(self._feed(engine, registries))
            grace = self._options.grace
        finally:
            await engine.stop(grace=grace)
            await registries.close()

    async def _feed(self, engine: Engine, registries: RegistryPool) -> None:
        """Keep the engine supplied with objects."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_forever(engine))
            group.create_task(
                resync_forever(
                    engine,
                    store=self._api,
                    interval=registries.config.timings.resync_interval.total_seconds(),
                    clock=self._clock,
                    rng=self._rng,
                )
            )

    async def _watch_forever(self, engine: Engine) -> None:
        pauses = _Pauses(self._rng)
        while True:
            self._not_ready = None
            started = self._clock.monotonic()
            try:
                await watch(
                    engine,
                    namespaces=self._options.namespaces,
                    label_selector=self._options.label_selector,
                    install_signal_handlers=self._install_signal_handlers,
                )
            except Exception as error:  # noqa: BLE001 - whatever ended the watch, it has to go on
                logger.warning("The watch ended and is started again: %s", error)
            self._not_ready = "the watch is interrupted"
            if self._clock.monotonic() - started > _LONGEST_PAUSE:
                pauses = _Pauses(self._rng)
            await asyncio.sleep(pauses.next())
            await self._wait_for_access()

    async def _wait_for_access(self) -> None:
        """Return once the objects can be read; say what is in the way, once for each thing that is."""
        pauses, said = _Pauses(self._rng), ""
        while True:
            try:
                await self._api.check_access()
            except KubernetesError as error:
                if str(error) != said:
                    said = str(error)
                    logger.error("Cannot work yet, trying again: %s", said)  # noqa: TRY400 - a sentence, no trace
                await asyncio.sleep(pauses.next())
            else:
                return

    async def _unless_stopping(self, work: Awaitable[None]) -> None:
        """Do ``work``, and cancel it when the process is to stop."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.wait((working,))
        if not working.cancelled():
            working.result()

    def _connect(self, name: str, binding: RegistryBinding) -> LocalArtifactRegistry:
        return LocalArtifactRegistry(name, binding, on_request=functools.partial(self._count_request, name))

    def _count_request(self, registry: str, record: RequestRecord) -> None:
        self._metrics.registry_requests.labels(registry, record.method, record.code).inc()
        self._metrics.registry_request_duration.labels(registry).observe(record.seconds)


class _Pauses:
    """Pauses between tries: growing to half a minute, jittered."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._bound = _FIRST_PAUSE

    def next(self) -> float:
        pause = self._bound * self._rng.uniform(0.5, 1.0)
        self._bound = min(2 * self._bound, _LONGEST_PAUSE)
        return pause


def _own_namespace() -> str:
    """Return the namespace of the Pod that this process runs in; ``default`` outside of one."""
    try:
        return (SERVICE_ACCOUNT_DIRECTORY / "namespace").read_text(encoding="utf-8").strip()
    except OSError:
        return os.environ.get("POD_NAMESPACE", "default")


async def run_operator(options: Options) -> None:
    """Run an operator until SIGTERM or SIGINT.

    Args:
        options: How it is to run.

    Raises:
        ConfigError: The configuration file cannot be used, or the health address cannot be listened on.
        KubernetesError: There are no credentials for an API server.
    """
    await Operator(options, load_config(options.config)).run()
