"""Recovery from registry outages: objects wait, a prober pings the registry, and objects are released in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from math import inf
from typing import Final, Protocol

from controller.api.v1alpha1 import Key
from controller.errors import LeadershipLost, RegistryError, RegistryUnavailable
from controller.reconcile.breaker import BreakerState
from controller.reconcile.interfaces import Clock
from controller.reconcile.records import Record
from controller.reconcile.registries import ManagedRegistry, RegistryPool

logger = logging.getLogger(__name__)

_BATCH: Final = 50
_BATCH_INTERVAL: Final = 0.1
"""Objects are released at 500 per second, so that a registry that has just recovered is not overwhelmed."""

_MAX_SLEEP: Final = 1.0
"""Longest time before the timings are read again, which may have been shortened, in seconds."""

_MARGIN: Final = 0.01
"""Added to the time until something is due, in seconds, so that a rounding error does not make it another round."""

_TRIAL_INTERVAL: Final = 0.5
"""How often to check whether the trial is over or another object has to be tried, in seconds."""


_RESTART_DELAY: Final = 5.0
"""Delay until a prober that failed unexpectedly is started again, in seconds."""


class OutageObserver(Protocol):
    """Notified when an outage has outlasted ``unavailableAfter``, and when such an outage ends."""

    async def outage_lasts(self, registry: ManagedRegistry) -> None:
        """Have every object of that registry reconciled: its status has to say that it cannot be verified."""
        ...

    async def outage_ended(self, registry: ManagedRegistry) -> None:
        """Report that the registry responds again."""
        ...


class Recovery:
    """The objects that wait for their registries, and a prober for each registry that does not respond.

    Args:
        registries: The registries with their breakers.
        clock: The time.
    """

    _release: Callable[[Key], None]
    _observer: OutageObserver

    def __init__(self, *, registries: RegistryPool, clock: Clock) -> None:
        self._registries = registries
        self._clock = clock
        self._waiting: dict[str, dict[Key, None]] = {}
        self._tried: dict[str, dict[str, None]] = {}
        """The namespaces whose objects were tried, by registry, the last one at the end."""
        self._probers: dict[str, asyncio.Task[bool]] = {}
        self._probed: dict[str, ManagedRegistry] = {}
        """The registry of each prober."""

    def start(self, *, release: Callable[[Key], None], observer: OutageObserver) -> None:
        """Set what recovery acts on; to be called before any object waits.

        Args:
            release: Called with the key of an object that may be reconciled again.
            observer: Notified of outages.
        """
        self._release = release
        self._observer = observer

    def add(self, key: Key, record: Record, registry: str) -> None:
        """Have an object wait for a registry, and note that in its record."""
        record.waiting_for = registry
        self._waiting.setdefault(registry, {})[key] = None

    def discard(self, key: Key, record: Record) -> None:
        """Remove an object from those that wait, if it does."""
        if record.waiting_for is not None:
            self._waiting.get(record.waiting_for, {}).pop(key, None)
            record.waiting_for = None

    def ensure_prober(self, name: str | None) -> None:
        """Start a registry's prober where its breaker is not closed or objects wait for it.

        Args:
            name: The registry; None for none.
        """
        if name is None or name in self._probers or name not in self._registries:
            return
        registry = self._registries[name]
        if registry.breaker.state is BreakerState.CLOSED and not self._waiting.get(name):
            return
        task = asyncio.create_task(self._recover(registry), name=f"prober of {name}")
        self._probers[name], self._probed[name] = task, registry
        task.add_done_callback(partial(self._on_done, name))

    def _on_done(self, name: str, prober: asyncio.Task[bool]) -> None:
        """Start another prober for a registry that failed again while this one was ending."""
        if self._probers.get(name) is prober:
            del self._probers[name]
        if prober.cancelled():
            return
        if (error := prober.exception()) is not None:
            # A bug; a prober that is missing would keep its objects waiting.
            logger.error("Probing registry '%s' failed unexpectedly", name, exc_info=error)
            asyncio.get_running_loop().call_later(_RESTART_DELAY, self.ensure_prober, name)
        elif prober.result():
            self.ensure_prober(name)

    async def stop(self) -> None:
        """End all probers."""
        await self._end(list(self._probers))

    async def restart(self) -> None:
        """Apply a new set of registries: objects whose registry was removed or replaced are released.

        Probers of the others continue: an outage is reported once.
        """
        current = {id(registry) for registry in self._registries}
        await self._end([name for name in self._probers if id(self._probed[name]) not in current])
        for name, waiting in list(self._waiting.items()):
            if name not in self._probers:
                self._release_some(waiting, len(waiting))

    async def _end(self, names: Sequence[str]) -> None:
        probers = [self._probers.pop(name) for name in names]
        for prober in probers:
            prober.cancel()
        await asyncio.gather(*probers, return_exceptions=True)

    async def _recover(self, registry: ManagedRegistry) -> bool:
        """Probe until the registry responds, then release the waiting objects until none is left.

        Returns:
            Whether it has recovered; False where this process must no longer contact it.
        """
        logger.warning("Registry '%s' is unavailable: %s", registry.name, registry.breaker.last_failure)
        notifying: asyncio.Task[None] | None = None
        try:
            while not await self._step(registry):
                if notifying is None and self._time_until_report(registry) <= 0:
                    notifying = asyncio.create_task(self._observer.outage_lasts(registry))
        except LeadershipLost as error:
            logger.info("Stopped probing registry '%s': %s", registry.name, error)
            return False
        finally:
            if notifying is not None:
                notifying.cancel()
                await asyncio.wait((notifying,))
        logger.info("%s is available again", registry.described)
        if notifying is not None:
            await self._observer.outage_ended(registry)
        return True

    async def _step(self, registry: ManagedRegistry) -> bool:
        """Take the next step towards recovery; return whether it is complete."""
        waiting = self._waiting.get(registry.name)
        match registry.breaker.state:
            case BreakerState.OPEN:
                await self._probe(registry)
            case BreakerState.HALF_OPEN if waiting:
                if not registry.breaker.is_trying:
                    self._release(self._next_trial(registry.name, waiting))  # it keeps waiting until it is reconciled
                await asyncio.sleep(_TRIAL_INTERVAL)
            case BreakerState.HALF_OPEN:
                registry.breaker.close()
            case BreakerState.CLOSED if waiting:
                self._release_some(waiting, _BATCH)
                await asyncio.sleep(_BATCH_INTERVAL)
            case BreakerState.CLOSED:
                return True
        return False

    def _next_trial(self, registry: str, waiting: Mapping[Key, None]) -> Key:
        """Return the object to try: of another namespace than the last ones, which may have bad repositories only."""
        tried = self._tried.setdefault(registry, {})
        order = {namespace: number for number, namespace in enumerate(tried)}
        key = min(waiting, key=lambda key: order.get(key.namespace, -1))
        tried.pop(key.namespace, None)
        tried[key.namespace] = None
        return key

    def _release_some(self, waiting: dict[Key, None], number: int) -> None:
        for key in list(islice(waiting, number)):
            del waiting[key]
            self._release(key)

    def _time_until_report(self, registry: ManagedRegistry) -> float:
        """Return the seconds until ``unavailableAfter`` has passed; infinite while nothing fails."""
        since = registry.breaker.failing_since
        if since is None:
            return inf
        return since + self._registries.config.timings.unavailable_after.total_seconds() - self._clock.monotonic()

    async def _probe(self, registry: ManagedRegistry) -> None:
        """Ping the registry if the next probe is due, else sleep; return once ``unavailableAfter`` has passed."""
        breaker = registry.breaker
        wait = (breaker.next_probe or 0.0) - self._clock.monotonic()
        remaining = self._time_until_report(registry)
        if wait > 0:
            await asyncio.sleep(min(wait, remaining if remaining > 0 else inf, _MAX_SLEEP) + _MARGIN)
            return
        try:
            async with asyncio.timeout(remaining if 0 < remaining < inf else None):
                await registry.client.ping()
        except TimeoutError:
            return  # no response in time: report the outage first, then probe again
        except RegistryUnavailable as error:
            breaker.probe_failed(error)
        except RegistryError:
            breaker.probe_succeeded()  # an unexpected response is still a response
        else:
            breaker.probe_succeeded()
