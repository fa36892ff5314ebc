"""The registries of the configuration, each with its client and its circuit breaker."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controller.addresses import RegistryAddresses, RegistryHosting, resolve_addresses
from controller.binding import RegistryBinding
from controller.config import OperatorConfig
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
        self._hosting_known = False
        self._registries: dict[str, ManagedRegistry] = {}
        self._retired: list[RepositoryRegistry] = []
        self.config = config
        self.revision = 0
        """Changes whenever a configuration or an advertisement is applied."""
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
            Exception: A registry's client cannot be created, mostly a ConfigError; nothing has been applied.
        """
        before, after = self._registries, {}
        try:
            for name, binding in config.registries.items():
                known = before.get(name)
                after[name] = known if known and known.binding == binding else self._new(name, binding, config)
            addresses = {name: self._addresses(registry, config) for name, registry in after.items()}
        except BaseException:
            self._retire(after, used=before)
            raise
        self._retire(before, used=after)
        self._registries, self.config = after, config
        self.revision += 1
        for name, registry in after.items():
            registry.addresses = addresses[name]
            registry.breaker.set_probe_interval(config.timings.probe_interval.total_seconds())

    def advertise(self, hosting: RegistryHosting | None) -> None:
        """Apply the cluster's advertisement of its local registry; it concerns the default registry only.

        Args:
            hosting: The advertisement; None where there is none, for certain.
        """
        self._hosting, self._hosting_known = hosting, True
        self.revision += 1
        for registry in self:
            registry.addresses = self._addresses(registry, self.config)

    def are_addresses_known(self, name: str) -> bool:
        """Return whether a registry's addresses are final; not while it is unknown what the cluster advertises.

        Args:
            name: The registry.
        """
        is_followed = self.config.follow_local_registry_hosting and name == self.config.default_registry
        return self._hosting_known or not is_followed

    @property
    def retired(self) -> Sequence[RepositoryRegistry]:
        """The clients of registries that are no longer in use, but not yet closed."""
        return tuple(self._retired)

    async def close_retired(self, clients: Sequence[RepositoryRegistry]) -> None:
        """Close the connections of registries that are no longer in use.

        Args:
            clients: The clients, of :attr:`retired`.
        """
        for client in clients:
            if client in self._retired:
                self._retired.remove(client)
                await client.close()

    async def close(self) -> None:
        """Close all connections."""
        self._retire(self._registries, used={})
        self._registries = {}
        await self.close_retired(self.retired)

    def _new(self, name: str, binding: RegistryBinding, config: OperatorConfig) -> ManagedRegistry:
        interval = config.timings.probe_interval.total_seconds()
        client = self._connect(name, binding)
        breaker = CircuitBreaker(probe_interval=interval, ping=client.ping, clock=self._clock, rng=self._rng)
        return ManagedRegistry(name, binding, client, breaker, resolve_addresses(binding, None))

    def _addresses(self, registry: ManagedRegistry, config: OperatorConfig) -> RegistryAddresses:
        is_followed = config.follow_local_registry_hosting and registry.name == config.default_registry
        is_advertised = is_followed and self._hosting is not None and self._hosting.is_about(registry.binding)
        return resolve_addresses(registry.binding, self._hosting if is_advertised else None)

    def _retire(self, registries: Mapping[str, ManagedRegistry], *, used: Mapping[str, ManagedRegistry]) -> None:
        self._retired.extend(known.client for name, known in registries.items() if used.get(name) is not known)
