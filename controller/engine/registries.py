"""The registries of the configuration, each with its client and its gate."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controller.config import OperatorConfig, RegistryBinding
from controller.engine.gate import GateState, RegistryGate
from controller.engine.ports import RepositoryRegistry
from controller.references import RegistryAddresses, RegistryHosting, resolve_addresses

RegistryFactory = Callable[[str, RegistryBinding], RepositoryRegistry]
"""Makes the client of a registry from its binding name and its binding."""


@dataclass(slots=True)
class ManagedRegistry:
    """One registry in use.

    Args:
        name: Its binding name.
        binding: Its configuration.
        client: Asks it.
        gate: Tells whether it may be asked now.
        addresses: How it is called from each place.
    """

    name: str
    binding: RegistryBinding
    client: RepositoryRegistry
    gate: RegistryGate
    addresses: RegistryAddresses

    @property
    def described(self) -> str:
        """The registry as messages name it."""
        return f"Registry '{self.name}' ({self.binding.registry_url})"


class RegistryPool:
    """All registries of the configuration.

    Args:
        config: The configuration to begin with.
        connect: Makes a registry's client.
        rng: Source of the gates' jitter.
    """

    def __init__(self, config: OperatorConfig, *, connect: RegistryFactory, rng: random.Random) -> None:
        self._connect = connect
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
        """Return since when each registry that is not asked fails, on the monotonic time; None for the others."""
        return {
            registry.name: None if registry.gate.state is GateState.OPEN else registry.gate.failing_since
            for registry in self
        }

    def configure(self, config: OperatorConfig) -> None:
        """Follow a configuration; registries that did not change keep their connections and their gate.

        Args:
            config: The new configuration.

        Raises:
            ConfigError: A registry's client cannot be made of it; everything is as it was.
        """
        probe_interval = config.timings.probe_interval.total_seconds()
        before, after = self._registries, {}
        for name, binding in config.registries.items():
            known = before.get(name)
            if known is not None and known.binding == binding:
                after[name] = known
            else:
                gate = RegistryGate(probe_interval=probe_interval, rng=self._rng)
                addresses = resolve_addresses(binding, None)
                after[name] = ManagedRegistry(name, binding, self._connect(name, binding), gate, addresses)
        self._registries, self.config = after, config
        self._retired.extend(known.client for name, known in before.items() if after.get(name) is not known)
        for registry in self:
            registry.gate.probe_interval = probe_interval
        self._resolve_addresses()

    def advertise(self, hosting: RegistryHosting) -> None:
        """Follow the cluster's advertisement of its local registry; it concerns the default one only.

        Args:
            hosting: What it says.
        """
        self._hosting = hosting
        self._resolve_addresses()

    async def close_retired(self) -> None:
        """Close the connections of registries that are not in use any more."""
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
