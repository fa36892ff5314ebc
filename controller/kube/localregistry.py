"""Local registry discovery: reads the cluster's advertisement of its local registry (KEP-1755)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from controller.addresses import HOSTING_KEY, HOSTING_NAME, HOSTING_NAMESPACE, RegistryHosting
from controller.errors import ConfigError, KubernetesError, KubernetesUnavailable, ObjectGone
from controller.kube.client import KubernetesClient
from controller.supervision import Delays

logger = logging.getLogger(__name__)

Changed = Callable[[RegistryHosting | None], Awaitable[None]]
"""Called with the first definite answer and each new advertisement; None: there is none."""

_PATH: Final = f"/api/v1/namespaces/{HOSTING_NAMESPACE}/configmaps/{HOSTING_NAME}"
_INTERVAL: Final = 30.0
"""Mean interval between two reads, in seconds. The ConfigMap hardly ever changes."""

_GRACE: Final = 300.0
"""Time for which an advertisement is kept after it was deleted, in seconds."""

_FIRST_READ: Final = 5.0
"""Maximum time to wait for a definite answer before reconciliation starts, in seconds.

Objects that are created later while there is none get the addresses of the configuration.
"""

_CONFIG_MAP: Final = f"ConfigMap {HOSTING_NAMESPACE}/{HOSTING_NAME}"


class LocalRegistryDiscovery:
    """Reports changes of the advertisement.

    Only a definite answer counts: the ConfigMap, not found, or forbidden. The last valid advertisement is kept if the
    ConfigMap becomes invalid or can no longer be read, and for a few minutes if it is deleted: a script may delete it
    to create it again.

    Args:
        api: The API server.
        rng: Source of jitter.
        is_enabled: Returns whether the ConfigMap is read at all; asked before each read.
    """

    def __init__(
        self, api: KubernetesClient, *, rng: random.Random, is_enabled: Callable[[], bool] = lambda: True
    ) -> None:
        self._api = api
        self._rng = rng
        self._is_enabled = is_enabled
        self._reported = False
        self._gone_since: float | None = None
        """When the advertisement was first missing, on the event loop's clock; None while it exists."""
        self._known: RegistryHosting | None = None
        self._logged = ""
        self._read_once = asyncio.Event()

    async def wait_for_first_read(self) -> None:
        """Return after the first definite answer, or after a few seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_READ):
                await self._read_once.wait()

    async def run(self, changed: Changed) -> None:
        """Read the ConfigMap at an interval until cancelled.

        Args:
            changed: Notified of the advertisement.
        """
        delays = Delays(self._rng)
        while True:
            if not self._is_enabled():
                self._read_once.set()
                await self._pause()
                continue
            try:
                hosting = await self._read()
            except KubernetesError as error:
                self._log(f"Failed to read {_CONFIG_MAP}, retrying: {error}")
                await asyncio.sleep(delays.next(error))
                continue
            delays.reset()
            if hosting != self._known or not self._reported:
                self._known = hosting
                await changed(hosting)
                self._reported = True
                self._read_once.set()
            await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(_INTERVAL * self._rng.uniform(0.8, 1.2))

    async def _read(self) -> RegistryHosting | None:
        """Read the ConfigMap once; return the advertisement that now applies.

        Raises:
            KubernetesError: There is no definite answer.
        """
        try:
            config_map = await self._api.request("GET", _PATH)
        except ObjectGone:
            return self._missing("does not exist", logging.INFO)
        except KubernetesError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            self._log(f"Not allowed to read {_CONFIG_MAP}; addresses come from the configuration: {error}")
            return self._known
        data = _data(config_map)
        if not isinstance(text := data.get(HOSTING_KEY), str):
            return self._missing(f"has no key {HOSTING_KEY}", logging.WARNING)
        self._gone_since = None
        hosting = self._parse(text)
        if hosting is None:
            return self._known
        if hosting != self._known:
            self._log(f"{_CONFIG_MAP} advertises the local registry as {hosting.host or 'nothing'}", logging.INFO)
        if hosting.problems:
            self._log(f"{_CONFIG_MAP}: ignored: {'; '.join(hosting.problems)}")
        return hosting

    def _missing(self, problem: str, level: int) -> RegistryHosting | None:
        """Return the advertisement that applies although there is none."""
        now = asyncio.get_running_loop().time()
        if self._gone_since is None:
            self._gone_since = now
        is_kept = self._known is not None and now - self._gone_since < _GRACE
        kept = f"the last valid one is kept for {_GRACE:.0f} s" if is_kept else "addresses come from the configuration"
        self._log(f"{_CONFIG_MAP} {problem}; {kept}", level)
        return self._known if is_kept else None

    def _parse(self, text: str) -> RegistryHosting | None:
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


def _data(config_map: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the data of the ConfigMap.

    Raises:
        KubernetesUnavailable: It is not this ConfigMap, but the response of a proxy, for example.
    """
    metadata, data = config_map.get("metadata"), config_map.get("data") or {}
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if config_map.get("kind") != "ConfigMap" or name != HOSTING_NAME or not isinstance(data, Mapping):
        raise KubernetesUnavailable(f"GET {_PATH} returned something other than this ConfigMap")
    return data
