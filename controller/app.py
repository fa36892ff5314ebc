"""The composition root: one operator process, from its options to its end.

What may be started only once lives here: signals, health, the connection to the API server, the Lease. What is started
anew with each term of leadership is a :class:`controller.session.Session`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controller.config import OperatorConfig, load_config
from controller.engine.ports import EventRecorder, SystemClock
from controller.errors import ConfigError, KubernetesError
from controller.health import serve_health
from controller.kube.access import SERVICE_ACCOUNT_DIRECTORY
from controller.kube.api import KubernetesApi
from controller.kube.events import KubernetesEvents, NoEvents
from controller.kube.holder import new_identity
from controller.kube.lease import LeaderElector
from controller.metrics import Metrics
from controller.pauses import Pauses
from controller.session import Scope, Session

logger = logging.getLogger(__name__)

LEASE_NAME: Final = "artifact-repository-controller"


@dataclass(frozen=True, slots=True)
class Options:
    """How the operator is to run.

    Args:
        config: The configuration file.
        scope: What is worked on.
        leader_elect: Whether to work only while holding the Lease.
        lease_namespace: Namespace of the Lease; None: the Pod's own.
        lease_name: Name of the Lease. Those that share the objects between them have one each.
        health_address: Where health and metrics are served; None: nowhere.
        grace: How long reconciles that are under way may take after a stop, in seconds.
        events: Whether to record Kubernetes events.
    """

    config: Path
    scope: Scope = field(default_factory=Scope)
    leader_elect: bool = False
    lease_namespace: str | None = None
    lease_name: str = LEASE_NAME
    health_address: str | None = None
    grace: float = 20.0
    events: bool = True


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
        self._standby: LeaderElector | None = None
        """Set while waiting for the Lease."""
        scope = options.scope
        self._api = KubernetesApi(
            namespaces=scope.namespaces, label_selector=scope.label_selector, connections=scope.concurrent + 8
        )

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT.

        Raises:
            ConfigError: The health address cannot be listened on.
            KubernetesError: There are no credentials for an API server.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._api.close)
            self._install_signal_handlers()
            await self._unless_stopping(self._connect())
            if self._options.health_address:
                health = serve_health(
                    self._options.health_address, why_not_ready=self._why_not_ready, metrics=self._metrics
                )
                await stack.enter_async_context(health)
            events: EventRecorder = NoEvents()
            if self._options.events:
                events = recorder = KubernetesEvents(self._api, self._clock)
                recording = asyncio.create_task(recorder.run())
                stack.callback(recording.cancel)
            if self._options.leader_elect:
                await self._work_while_leading(events)
            else:
                await self._work(events)
        logger.info("Stopped")

    async def _connect(self) -> None:
        """Read the credentials: without any there is nothing to wait for."""
        await self._api.connect()

    def _why_not_ready(self) -> str | None:
        """Return what is missing; None when ready.

        A replica that stands by is ready only next to a leader that is alive: otherwise it would report ready without
        permissions or without an API server, when it could never take over.
        """
        if self._standby is not None and not self._stopping.is_set():
            return None if self._standby.stands_by else "waiting for the Lease; no live leader has been observed"
        return self._not_ready

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

    def _set_not_ready(self, reason: str | None) -> None:
        if not self._stopping.is_set():
            self._not_ready = reason

    async def _work_while_leading(self, events: EventRecorder) -> None:
        namespace, name = self._options.lease_namespace or _own_namespace(), self._options.lease_name
        # A connection of its own: what renews waits neither behind the work nor for one after the other of its
        # connections that died without a word.
        api = KubernetesApi(connections=1)
        elector = LeaderElector(
            api,
            namespace=namespace,
            name=name,
            identity=new_identity(os.environ),
            rng=self._rng,
            clock=self._clock,
        )
        self._metrics.observe_leader(lambda: elector.is_leader)
        try:
            while not self._stopping.is_set():
                logger.info("Waiting for the Lease %s/%s", namespace, name)
                self._standby = elector
                await self._unless_stopping(elector.acquire())
                self._standby = None
                if not self._stopping.is_set():
                    await elector.lead(lambda: self._work(events, may_write=elector.holds))
        finally:
            await api.close()

    async def _work(self, events: EventRecorder, *, may_write: Callable[[], bool] = lambda: True) -> None:
        """Work until the process is to stop, and end in order; cancelled, at once, when leadership is lost."""
        self._set_not_ready("waiting for the API server")
        await self._unless_stopping(self._wait_for_access())
        with contextlib.suppress(ConfigError):  # the last good one is kept, and the session tells of the bad one
            self._config = load_config(self._options.config)
        session = Session(
            scope=self._options.scope,
            config_file=self._options.config,
            config=self._config,
            api=self._api,
            events=events,
            may_write=may_write,
            metrics=self._metrics,
            clock=self._clock,
            rng=self._rng,
        )
        grace = 0.0
        try:
            await self._unless_stopping(
                session.run(set_not_ready=self._set_not_ready, install_signal_handlers=self._install_signal_handlers)
            )
            grace = self._options.grace
        finally:
            await session.stop(grace=grace)

    async def _wait_for_access(self) -> None:
        """Return once the objects can be read; say what is in the way, once for each thing that is."""
        pauses, said = Pauses(self._rng), ""
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
