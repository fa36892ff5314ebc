"""What happens around a closed gate: objects are parked, one prober asks, and on recovery they go on step by step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from itertools import islice
from math import inf
from typing import Final, Protocol

from controller.engine.gate import GateState
from controller.engine.ports import Clock
from controller.engine.registries import ManagedRegistry, RegistryPool
from controller.errors import KubernetesError, RegistryError, RegistryUnavailable
from controller.resource import Key

logger = logging.getLogger(__name__)

_RELEASED_AT_ONCE: Final = 50
_RELEASE_PAUSE: Final = 0.1
"""Recovery goes on at 500 objects per second: a registry that has just come back is not thrown over again."""

_TRIAL_PAUSE: Final = 0.5
"""How often to see whether the trial is over, or another object has to be sent, in seconds."""


class OutageObserver(Protocol):
    """Who is told of outages that are more than a blip."""

    async def outage_lasts(self, registry: ManagedRegistry) -> None:
        """Have every object of that registry looked at: its status says by now that it cannot be verified."""
        ...

    async def outage_ended(self, registry: ManagedRegistry) -> None:
        """Tell that a registry of which the former was told answers again."""
        ...


class OutageKeeper:
    """Keeps the objects that wait for their registries, and the probers.

    Args:
        registries: The registries with their gates.
        clock: The time.
        expedite: Makes a parked object ready.
        observer: Who is told of outages.
    """

    def __init__(
        self,
        *,
        registries: RegistryPool,
        clock: Clock,
        expedite: Callable[[Key], None],
        observer: OutageObserver,
    ) -> None:
        self._registries = registries
        self._clock = clock
        self._expedite = expedite
        self._observer = observer
        self._parked: dict[str, dict[Key, None]] = {}
        self._where: dict[Key, str] = {}
        self._probers: dict[str, asyncio.Task[bool]] = {}

    def park(self, key: Key, registry: str | None) -> None:
        """Remember that an object waits for a registry."""
        if registry is not None:
            self._where[key] = registry
            self._parked.setdefault(registry, {})[key] = None

    def unpark(self, key: Key) -> None:
        """Forget that an object waits, if it does."""
        registry = self._where.pop(key, None)
        if registry is not None:
            self._parked[registry].pop(key, None)

    def notice(self, name: str | None) -> None:
        """See to a registry after a try: start its prober if its gate has closed."""
        if name is None or name in self._probers or name not in self._registries:
            return
        registry = self._registries[name]
        if registry.gate.state is GateState.OPEN and not self._parked.get(name):
            return
        task = asyncio.create_task(self._attend(registry), name=f"prober of {name}")
        self._probers[name] = task
        task.add_done_callback(partial(self._left, name))

    def _left(self, name: str, prober: asyncio.Task[bool]) -> None:
        """See to a registry that has got into trouble again while its prober took its leave."""
        self._probers.pop(name, None)
        if not prober.cancelled() and prober.result():
            self.notice(name)

    async def stop(self) -> None:
        """End all probers."""
        probers = list(self._probers.values())
        for task in probers:
            task.cancel()
        await asyncio.gather(*probers, return_exceptions=True)

    async def restart(self) -> None:
        """Follow a new set of registries: objects that wait for one that is gone, or is another one now, go on."""
        await self.stop()
        for name, waiting in list(self._parked.items()):
            if name not in self._registries or self._registries[name].gate.state is GateState.OPEN:
                for key in list(waiting):
                    self.unpark(key)
                    self._expedite(key)
            self.notice(name)

    async def _attend(self, registry: ManagedRegistry) -> bool:
        """Probe until the registry is well again, and let the parked objects go on, until none is left.

        Returns:
            Whether it is well; otherwise this process may not ask it any more.
        """
        logger.warning("%s does not answer: %s", registry.described, registry.gate.last_failure)
        telling: asyncio.Task[None] | None = None
        try:
            while not await self._go_on(registry):
                if telling is None and self._patience_left(registry) <= 0:
                    telling = asyncio.create_task(self._observer.outage_lasts(registry))
        except KubernetesError as error:  # this process does not lead any more; if it does again, objects tell
            logger.info("%s is not asked any more: %s", registry.described, error)
            return False
        finally:
            if telling is not None:
                telling.cancel()
                await asyncio.wait((telling,))
        logger.info("%s answers again", registry.described)
        if telling is not None:
            await self._observer.outage_ended(registry)
        return True

    async def _go_on(self, registry: ManagedRegistry) -> bool:
        """Take the next step towards recovery; return whether there is none left to take."""
        waiting = self._parked.get(registry.name)
        match registry.gate.state:
            case GateState.CLOSED:
                await self._probe(registry)
            case GateState.TRIAL if waiting:
                self._expedite(next(iter(waiting)))
                await asyncio.sleep(_TRIAL_PAUSE)
            case GateState.TRIAL:
                registry.gate.succeeded(verifying=False)  # nobody is there to try; the probe has to do
            case GateState.OPEN if waiting:
                for key in list(islice(waiting, _RELEASED_AT_ONCE)):
                    self.unpark(key)
                    self._expedite(key)
                await asyncio.sleep(_RELEASE_PAUSE)
            case GateState.OPEN:
                return True
        return False

    def _patience_left(self, registry: ManagedRegistry) -> float:
        """Return how long until an outage counts as one, in seconds; infinite where there is none."""
        since = registry.gate.failing_since
        if since is None:
            return inf
        return since + self._registries.config.timings.unavailable_after.total_seconds() - self._clock.monotonic()

    async def _probe(self, registry: ManagedRegistry) -> None:
        """Wait until it is time, then ask; do neither before the outage has been told of."""
        gate = registry.gate
        wait = (gate.next_probe or 0.0) - self._clock.monotonic()
        patience = self._patience_left(registry)
        if 0 < patience < wait:
            await asyncio.sleep(patience)
            return
        await asyncio.sleep(max(0.0, wait))
        if gate.state is not GateState.CLOSED:
            return
        patience = self._patience_left(registry)
        try:
            async with asyncio.timeout(patience if 0 < patience < inf else None):
                await registry.client.ping()
        except TimeoutError:
            return  # it hangs: the outage is told of first, then it is asked again
        except RegistryUnavailable as error:
            gate.probe_failed(error, now=self._clock.monotonic())
        except RegistryError:
            gate.probe_answered()  # not what a registry should say, but it says something
        else:
            gate.probe_answered()
