"""Follows what the cluster advertises about its local registry (KEP-1755), by a watch of that one ConfigMap."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from controller.errors import ConfigError, KubernetesError
from controller.kube.api import KubernetesApi
from controller.pauses import Pauses
from controller.references import HOSTING_KEY, HOSTING_NAME, HOSTING_NAMESPACE, RegistryHosting

logger = logging.getLogger(__name__)

_PATH: Final = f"/api/v1/namespaces/{HOSTING_NAMESPACE}/configmaps"
_ONLY_IT: Final = {"fieldSelector": f"metadata.name={HOSTING_NAME}"}
_FIRST_LOOK: Final = 5.0
"""Longest time that the operator waits for the first answer, in seconds."""

_NAMED: Final = f"ConfigMap {HOSTING_NAMESPACE}/{HOSTING_NAME}"


class HostingFollower:
    """Tells of each change of the advertisement.

    The last good one is kept when the ConfigMap goes, becomes malformed, or may not be read any more: the registry is
    where it was.

    Args:
        api: The API server.
        changed: Told of each new advertisement.
        rng: Source of jitter.
    """

    def __init__(
        self, api: KubernetesApi, *, changed: Callable[[RegistryHosting], Awaitable[None]], rng: random.Random
    ) -> None:
        self._api = api
        self._changed = changed
        self._pauses = Pauses(rng)
        self._known: RegistryHosting | None = None
        self._said = ""
        self._looked = asyncio.Event()

    async def wait_for_first_look(self) -> None:
        """Return once it is known what is advertised, or that this cannot be known now; after some seconds anyway."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_LOOK):
                await self._looked.wait()

    async def run(self) -> None:
        """Follow it until cancelled."""
        while True:
            try:
                await self._follow()
            except KubernetesError as error:
                if error.status == HTTPStatus.FORBIDDEN:
                    self._say(f"{_NAMED} may not be read, so references come from elsewhere: {error}")
                elif error.status != HTTPStatus.GONE:
                    self._say(f"{_NAMED} cannot be read, trying again: {error}")
            self._looked.set()
            await asyncio.sleep(self._pauses.next())

    async def _follow(self) -> None:
        """Read it, then watch it until the API server ends the watch."""
        answer = await self._api.request("GET", _PATH, query=_ONLY_IT)
        self._pauses.reset()
        if not answer["items"]:
            self._say(f"{_NAMED} is not there: what it would tell comes from registryUrl")
        for item in answer["items"]:
            await self._see(item)
        self._looked.set()
        query = _ONLY_IT | {"resourceVersion": answer["metadata"]["resourceVersion"]}
        async for kind, item in self._api.watch(_PATH, query=query):
            if kind == "DELETED":
                self._say(f"{_NAMED} is gone, the last good one is kept")
            elif kind != "BOOKMARK":
                await self._see(item)

    async def _see(self, config_map: dict[str, Any]) -> None:
        text = (config_map.get("data") or {}).get(HOSTING_KEY)
        if text is None:
            self._say(f"{_NAMED} has no key {HOSTING_KEY} and is ignored")
            return
        try:
            hosting = RegistryHosting.parse(text)
        except ConfigError as error:
            self._say(f"{_NAMED} cannot be used and is ignored: {error}")
            return
        if hosting != self._known:
            self._known = hosting
            self._say(f"{_NAMED} advertises the local registry as {hosting.host or 'nothing'}", level=logging.INFO)
            await self._changed(hosting)

    def _say(self, message: str, *, level: int = logging.WARNING) -> None:
        """Say what is new."""
        if message != self._said:
            self._said = message
            logger.log(level, message)
