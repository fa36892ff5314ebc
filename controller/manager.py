"""Manager: the lifetime of an operator process.

It owns what exists once per process: signal handlers, health server, API client and leader election. What exists once
per term of leadership belongs to :class:`controller.runner.Runner`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import random
import resource
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controller import NAME, USER_AGENT
from controller.config import OperatorConfig
from controller.configfile import load_config
from controller.errors import ConfigError, KubernetesError
from controller.health import probes
from controller.httpserver import serve
from controller.kube.access import ClusterAccess
from controller.kube.client import KubernetesClient
from controller.kube.holder import new_identity
from controller.kube.kubeconfig import SERVICE_ACCOUNT_DIRECTORY, KubeconfigSource
from controller.kube.leaderelection import LeaderElector
from controller.kube.recorder import KubernetesEventRecorder, NoEventRecorder
from controller.kube.tokenreview import TokenReviewer
from controller.metrics import Metrics
from controller.metricsserver import metrics_application, server_certificate
from controller.reconcile.interfaces import EventRecorder, SystemClock
from controller.runner import Runner, Scope
from controller.supervision import Delays, run_forever

logger = logging.getLogger(__name__)

LEASE_NAME: Final = NAME


@dataclass(frozen=True, slots=True)
class MetricsOptions:
    """Options of the metrics server.

    Args:
        address: Its address; None for no server.
        certificate: Directory with ``tls.crt`` and ``tls.key``; None for plain HTTP.
        authorization: Whether a request needs the token of a user who may get ``/metrics``.
    """

    address: str | None = None
    certificate: Path | None = None
    authorization: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """Options of an operator process.

    Args:
        config: The configuration file.
        cluster: Where address and credentials of the API server come from.
        scope: Which objects are reconciled.
        leader_elect: Whether to reconcile only while holding the Lease.
        lease_namespace: Namespace of the Lease; None for the Pod's own.
        lease_name: Name of the Lease. Operators that share the objects of a cluster need different ones.
        health_address: Address of the server for probes; None for no server.
        metrics: Options of the metrics server.
        grace: Seconds to wait for reconciles in progress when the process stops.
        events: Whether to record Kubernetes events.
    """

    config: Path
    cluster: KubeconfigSource = field(default_factory=KubeconfigSource)
    scope: Scope = field(default_factory=Scope)
    leader_elect: bool = False
    lease_namespace: str | None = None
    lease_name: str = LEASE_NAME
    health_address: str | None = None
    metrics: MetricsOptions = field(default_factory=MetricsOptions)
    grace: float = 20.0
    events: bool = True


class Manager:
    """One operator process.

    Args:
        options: Its options.
        config: The configuration from the file.
    """

    def __init__(self, options: Options, config: OperatorConfig) -> None:
        self._options = options
        self._config = config
        self._metrics = Metrics()
        self._clock = SystemClock()
        self._rng = random.Random()  # noqa: S311 - jitter, not secrets
        self._stopping = asyncio.Event()
        self._not_ready: str | None = "starting"
        self._runner: Runner | None = None
        self._standby: LeaderElector | None = None
        """The elector while this process waits for the Lease."""
        scope = options.scope
        self._access = ClusterAccess(
            options.cluster, observe=lambda method, code: self._metrics.api_requests.labels(method, code).inc()
        )
        self._api = KubernetesClient(
            self._access,
            namespaces=scope.namespaces,
            label_selector=scope.label_selector,
            connections=scope.concurrent + 8,
        )

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            ConfigError: A server cannot listen on its address, or its certificate cannot be read.
            KubernetesError: There are no credentials for an API server.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._access.close)
            stack.push_async_callback(self._api.close)
            self._install_signal_handlers()
            _raise_descriptor_limit()
            await self._unless_stopping(self._connect())
            self._warn_of_unrestricted()
            await self._start_servers(stack)
            events: EventRecorder = NoEventRecorder()
            if self._options.events:
                events = recorder = KubernetesEventRecorder(self._api, self._clock)
                recording = asyncio.create_task(run_forever("The event recorder", recorder.run, rng=self._rng))
                stack.callback(recording.cancel)
            if self._options.leader_elect:
                await self._run_while_leading(events)
            else:
                await self._run_once(events)
        logger.info("Stopped")

    async def _start_servers(self, stack: contextlib.AsyncExitStack) -> None:
        """Serve probes and metrics until the stack is closed."""
        if self._options.health_address:
            await stack.enter_async_context(serve(probes(self._why_not_ready), self._options.health_address))
        options = self._options.metrics
        if options.address:
            tls = None if options.certificate is None else server_certificate(options.certificate)
            authorize = TokenReviewer(self._api, self._clock).authorize if options.authorization else None
            application = metrics_application(self._metrics, authorize)
            await stack.enter_async_context(serve(application, options.address, tls=tls))

    def _warn_of_unrestricted(self) -> None:
        """Warn of registries where all namespaces of the cluster share one set of repository names."""
        if self._config.unrestricted and not self._options.scope.namespaces:
            logger.warning(
                "In registry %s, any namespace may use the repositories of any other: "
                "set repositoryPolicy: Namespaced, or list its namespaces",
                ", ".join(self._config.unrestricted),
            )

    async def _connect(self) -> None:
        """Read the credentials; without any, the process fails at once."""
        client = await self._api.connect()
        logger.info("Starting %s; the API server is %s", USER_AGENT, client.configuration.host)

    def _why_not_ready(self) -> str | None:
        """Return why the process is not ready; None if it is.

        A standby is ready only next to a live leader: otherwise a replica without permissions or API server, which
        could never take over, would be ready.
        """
        if self._standby is not None and not self._stopping.is_set():
            return None if self._standby.stands_by else "waiting for the Lease; no live leader has been observed"
        return self._not_ready or (self._runner.problem if self._runner else None)

    def _install_signal_handlers(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)

    def _stop(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            logger.warning("Received a second %s, exiting immediately", number.name)
            os._exit(128 + number)
        logger.info("Received %s, finishing reconciles in progress", number.name)
        self._not_ready = "stopping"
        self._stopping.set()

    def _set_not_ready(self, reason: str | None) -> None:
        if not self._stopping.is_set():
            self._not_ready = reason

    async def _run_while_leading(self, events: EventRecorder) -> None:
        namespace, name = self._options.lease_namespace or _own_namespace(), self._options.lease_name
        # A separate connection: renewals must not wait for other requests or dead connections.
        api = KubernetesClient(self._access, connections=1)
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
                    await elector.lead(lambda: self._run_once(events, check_leadership=elector.check))
        finally:
            await api.close()

    async def _run_once(self, events: EventRecorder, *, check_leadership: Callable[[], None] = lambda: None) -> None:
        """Reconcile until the process stops, then stop gracefully; cancelled when leadership is lost."""
        self._set_not_ready("waiting for the API server")
        await self._unless_stopping(self._wait_for_access())
        self._runner = runner = self._new_runner(events, check_leadership)
        grace = 0.0
        try:
            await self._unless_stopping(
                runner.run(set_not_ready=self._set_not_ready, install_signal_handlers=self._install_signal_handlers)
            )
            grace = self._options.grace
        finally:
            self._config, self._runner = runner.config, None
            await runner.stop(grace=grace)

    def _new_runner(self, events: EventRecorder, check_leadership: Callable[[], None]) -> Runner:
        """Return a runner with the configuration in the file, or with the last valid one if that cannot be used."""
        new = functools.partial(
            Runner,
            scope=self._options.scope,
            config_file=self._options.config,
            api=self._api,
            events=events,
            check_leadership=check_leadership,
            metrics=self._metrics,
            clock=self._clock,
            rng=self._rng,
        )
        try:
            return new(config=load_config(self._options.config))
        except ConfigError:  # the runner reports it
            return new(config=self._config)

    async def _wait_for_access(self) -> None:
        """Return once the objects can be read; log each new error."""
        delays, logged = Delays(self._rng), ""
        while True:
            try:
                await self._api.check_access()
            except KubernetesError as error:
                if str(error) != logged:
                    logged = str(error)
                    logger.error("Not ready to start, retrying: %s", logged)  # noqa: TRY400 - a trace does not help
                await asyncio.sleep(delays.next(error))
            else:
                return

    async def _unless_stopping(self, work: Awaitable[None]) -> None:
        """Run ``work``, and cancel it when the process stops."""
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


def _raise_descriptor_limit() -> None:
    """Allow as many open files as the system permits, as Go programs do at start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS rejects an unlimited number
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _own_namespace() -> str:
    """Return the namespace of this process's Pod; ``default`` outside of a Pod."""
    try:
        return (SERVICE_ACCOUNT_DIRECTORY / "namespace").read_text(encoding="utf-8").strip()
    except OSError:
        return os.environ.get("POD_NAMESPACE", "default")


async def run_manager(options: Options) -> None:
    """Run an operator process until SIGTERM or SIGINT.

    Args:
        options: Its options.

    Raises:
        ConfigError: The configuration file is invalid, or a server cannot be started.
        KubernetesError: There are no credentials for an API server.
    """
    await Manager(options, load_config(options.config)).run()
