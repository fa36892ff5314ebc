"""Follows the configuration file while the operator runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from controller.config import OperatorConfig
from controller.configfile import load_config
from controller.errors import ConfigError
from controller.files import stat_regular
from controller.metrics import Metrics
from controller.reconcile.interfaces import EventRecorder, EventType
from controller.reconcile.registries import RegistryPool

logger = logging.getLogger(__name__)

POLL_INTERVAL: Final = 2.0
"""Interval between two checks of files for changes, in seconds; the kubelet takes up to a minute to update them."""


class ConfigFollower:
    """Applies changes of the configuration file; reports an invalid one and keeps the last valid one.

    Args:
        path: The file.
        registries: Where a configuration is applied.
        on_applied: Has objects reconciled with a new configuration; it may take long, and is cancelled by the next one.
        events: The event recorder.
        metrics: Metrics sink.
        interval: Interval between two checks, in seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        registries: RegistryPool,
        on_applied: Callable[[], Awaitable[None]],
        events: EventRecorder,
        metrics: Metrics,
        interval: float = POLL_INTERVAL,
    ) -> None:
        self._path = path
        self._registries = registries
        self._on_applied = on_applied
        self._events = events
        self._metrics = metrics
        self._interval = interval
        self._seen: bytes | None = None
        self._problem = ""
        self._spreading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Check the file at an interval until cancelled."""
        self._metrics.observe_config(lambda: not self._problem)
        try:
            while True:
                await asyncio.sleep(self._interval)
                await self._check()
        finally:
            self._metrics.observe_config(None)  # only the leader knows whether the file is in use
            if self._spreading is not None:
                self._spreading.cancel()

    async def _check(self) -> None:
        """Apply the file if it has changed; whatever is wrong with it, the last valid configuration stays in use."""
        try:
            content = await asyncio.to_thread(_read, self._path)
            if content == self._seen and not self._problem:
                return  # a problem may be fixed in another file that the configuration names
            self._seen = content
            config = await asyncio.to_thread(load_config, self._path)
            is_new = config != self._registries.config
            if is_new:
                self._registries.configure(config)
        except ConfigError as error:
            self._report(str(error))
        except Exception as error:  # noqa: BLE001 - the loop must survive any defect of a configuration
            self._report(f"{type(error).__name__}: {error}")
        else:
            if is_new or self._problem:
                self._applied(config)

    def _applied(self, config: OperatorConfig) -> None:
        self._problem = ""
        logger.info("The configuration has changed; registries: %s", ", ".join(sorted(config.registries)))
        self._metrics.config_loads.labels("good").inc()
        if self._spreading is not None:
            self._spreading.cancel()
        self._spreading = asyncio.create_task(self._spread())

    async def _spread(self) -> None:
        try:
            await self._on_applied()
        except Exception:
            logger.exception("Reconciling objects with the new configuration failed; the next resync will do it")

    def _report(self, problem: str) -> None:
        if problem == self._problem:
            return
        self._problem = problem
        logger.error("The changed configuration is invalid; the last valid one is kept: %s", problem)
        self._metrics.config_loads.labels("invalid").inc()
        self._events.event(None, EventType.WARNING, "InvalidConfiguration", problem)


def _read(path: Path) -> bytes | None:
    """Return the content of a file; None if it cannot be read."""
    try:
        stat_regular(path)
        return path.read_bytes()
    except OSError:
        return None
