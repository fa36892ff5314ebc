"""The registries of the configuration, each with its client and its circuit breaker."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controller.addresses import RegistryAddresses, RegistryHosting, resolve_addresses
from controller.config import OperatorConfig, RegistryBinding
from controller.reconcile.breaker import BreakerState, CircuitBreaker
from controller.reconcile.interfaces import Clock, RepositoryRegistry

RegistryFactory = Callable[[str, RegistryBinding], RepositoryRegistry]
"""Creates the client of a registry from its binding name and its binding."""


@dataclass(slots=True)
class ManagedRegistry:
    """One configured registry.

    Args:
        name: Its binding name.
        binding: Its configuration.
        client: Its client.
        breaker: Its circuit breaker.
        addresses: Its address as seen from each place.
    """

    name: str
    binding: RegistryBinding
    client: RepositoryRegistry
    breaker: CircuitBreaker
    addresses: RegistryAddresses

    @property
    def described(self) -> str:
        """The registry's name and address, for messages."""
        return f"Registry '{self.name}' ({self.binding.registry_url})"


class RegistryPool:
    """All registries of the configuration.

    Args:
        config: The initial configuration.
        connect: Creates a registry's client.
        clock: The time.
        rng: Source of jitter.
    """

    def __init__(self, config: OperatorConfig, *, connect: RegistryFactory, clock: Clock, rng: random.Random) -> None:
        self._connect = connect
        self._clock = clock
        self._rng = rng
        self._hosting: RegistryHosting | None = None
        self._registries: dict[str, ManagedRegistry] = {}
        self._retired: list[RepositoryRegistry] = []
        self.config = config
        self.configure(config)

    def __getitem__(self, name: str) -> ManagedRegistry:
        return self._registries[name]

    def __contains__(self, name: str) -> bool:
        return name in self._registries

    def __iter__(self) -> Iterator[ManagedRegistry]:
        return iter(self._registries.values())

    def failing_since(self) -> dict[str, float | None]:
        """Return by name since when each registry fails, on the monotonic clock; None while its breaker is closed."""
        return {
            registry.name: None if registry.breaker.state is BreakerState.CLOSED else registry.breaker.failing_since
            for registry in self
        }

    def configure(self, config: OperatorConfig) -> None:
        """Apply a configuration; unchanged registries keep their connections and their breaker.

        Args:
            config: The new configuration.

        Raises:
            ConfigError: A registry's client cannot be created; nothing has been applied.
        """
        probe_interval = config.timings.probe_interval.total_seconds()
        before, after = self._registries, {}
        for name, binding in config.registries.items():
            known = before.get(name)
            if known is not None and known.binding == binding:
                after[name] = known
            else:
                breaker = CircuitBreaker(probe_interval=probe_interval, clock=self._clock, rng=self._rng)
                addresses = resolve_addresses(binding, None)
                after[name] = ManagedRegistry(name, binding, self._connect(name, binding), breaker, addresses)
        self._registries, self.config = after, config
        self._retired.extend(known.client for name, known in before.items() if after.get(name) is not known)
        for registry in self:
            registry.breaker.probe_interval = probe_interval
        self._resolve_addresses()

    def advertise(self, hosting: RegistryHosting) -> None:
        """Apply the cluster's advertisement of its local registry; it concerns the default registry only.

        Args:
            hosting: The advertisement.
        """
        self._hosting = hosting
        self._resolve_addresses()

    async def close_retired(self) -> None:
        """Close the connections of registries that are no longer in use."""
        while self._retired:
            await self._retired.pop().close()

    async def close(self) -> None:
        """Close all connections."""
        self._retired.extend(registry.client for registry in self)
        self._registries = {}
        await self.close_retired()

    def _resolve_addresses(self) -> None:
        for registry in self:
            registry.addresses = resolve_addresses(registry.binding, self._advertised(registry.name))

    def _advertised(self, name: str) -> RegistryHosting | None:
        return self._hosting if name == self.config.default_registry else None
