"""Local registry discovery: reads the cluster's advertisement of its local registry (KEP-1755)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from controller.addresses import HOSTING_KEY, HOSTING_NAME, HOSTING_NAMESPACE, RegistryHosting
from controller.backoff import OPERATOR_BACKOFF
from controller.errors import ConfigError, KubernetesError, ObjectGone
from controller.kube.client import KubernetesClient

logger = logging.getLogger(__name__)

_PATH: Final = f"/api/v1/namespaces/{HOSTING_NAMESPACE}/configmaps/{HOSTING_NAME}"
_INTERVAL: Final = 30.0
"""Mean interval between two reads, in seconds. The ConfigMap hardly ever changes."""

_FIRST_READ: Final = 5.0
"""Maximum time to wait for the first read before reconciliation starts, in seconds."""

_CONFIG_MAP: Final = f"ConfigMap {HOSTING_NAMESPACE}/{HOSTING_NAME}"


class LocalRegistryDiscovery:
    """Reports changes of the advertisement.

    The last valid one is kept if the ConfigMap is deleted, becomes invalid or can no longer be read, because the
    registry most likely still has its addresses.

    Args:
        api: The API server.
        rng: Source of jitter.
    """

    def __init__(self, api: KubernetesClient, *, rng: random.Random) -> None:
        self._api = api
        self._rng = rng
        self._known: RegistryHosting | None = None
        self._logged = ""
        self._read_once = asyncio.Event()

    async def wait_for_first_read(self) -> None:
        """Return after the first successful read, or after a few seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_READ):
                await self._read_once.wait()

    async def run(self, changed: Callable[[RegistryHosting], Awaitable[None]]) -> None:
        """Read the ConfigMap at an interval until cancelled.

        Args:
            changed: Called with each new advertisement.
        """
        delays = OPERATOR_BACKOFF.delays(self._rng)
        while True:
            if await self._read(changed):
                delays = OPERATOR_BACKOFF.delays(self._rng)
                self._read_once.set()
                await asyncio.sleep(_INTERVAL * self._rng.uniform(0.8, 1.2))
            else:
                await asyncio.sleep(next(delays))

    async def _read(self, changed: Callable[[RegistryHosting], Awaitable[None]]) -> bool:
        """Read the ConfigMap once; return whether the result is definite: its content, not found, or forbidden."""
        try:
            config_map = await self._api.request("GET", _PATH)
        except ObjectGone:
            kept = "the last valid one is kept" if self._known else "addresses come from the configuration"
            self._log(f"{_CONFIG_MAP} does not exist; {kept}", logging.INFO)
        except KubernetesError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                self._log(f"Failed to read {_CONFIG_MAP}, retrying: {error}")
                return False
            self._log(f"Not allowed to read {_CONFIG_MAP}; addresses come from the configuration: {error}")
        else:
            hosting = self._parse(config_map)
            if hosting is not None and hosting != self._known:
                self._known = hosting
                self._log(f"{_CONFIG_MAP} advertises the local registry as {hosting.host or 'nothing'}", logging.INFO)
                await changed(hosting)
            if hosting is not None and hosting.problems:
                self._log(f"{_CONFIG_MAP}: ignored: {'; '.join(hosting.problems)}")
        return True

    def _parse(self, config_map: dict[str, Any]) -> RegistryHosting | None:
        data = config_map.get("data")
        text = data.get(HOSTING_KEY) if isinstance(data, dict) else None
        if not isinstance(text, str):
            self._log(f"{_CONFIG_MAP} has no key {HOSTING_KEY} and is ignored")
            return None
        try:
            return RegistryHosting.parse(text, known=self._known)
        except ConfigError as error:
            self._log(f"{_CONFIG_MAP} is invalid and is ignored: {error}")
            return None

    def _log(self, message: str, level: int = logging.WARNING) -> None:
        """Log a message unless it equals that of the last read."""
        if message != self._logged:
            self._logged = message
            logger.log(level, message)
