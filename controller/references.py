"""How a registry is called from each place: laptop, container runtime, Pod.

Each address is told by the first source that knows it: the operator's configuration, for the default registry the
cluster's own advertisement (KEP-1755, ConfigMap ``kube-public/local-registry-hosting``), ``registryUrl``. What nothing
tells stays unknown: a made-up reference costs its reader more than none.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from controller.config import RegistryBinding, read_yaml
from controller.errors import ConfigError
from controller.names import is_host

HOSTING_NAMESPACE: Final = "kube-public"
HOSTING_NAME: Final = "local-registry-hosting"
HOSTING_KEY: Final = "localRegistryHosting.v1"

_MAX_HOSTING: Final = 8192
"""Characters of an advertisement that are read: it has five short lines, and YAML of a megabyte takes half a minute."""


@dataclass(frozen=True, slots=True)
class RegistryHosting:
    """What the cluster advertises about its local registry (KEP-1755, LocalRegistryHosting v1).

    Args:
        host: Address to push to from outside the cluster.
        host_from_container_runtime: Address for ``image:``; the KEP lets it default to ``host``.
        host_from_cluster_network: Address from inside a Pod.
    """

    host: str | None = None
    host_from_container_runtime: str | None = None
    host_from_cluster_network: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what the ConfigMap's value says.

        Args:
            text: The value of key ``localRegistryHosting.v1``, YAML.

        Raises:
            ConfigError: It is not a short YAML mapping of strings; the message says what is expected.
        """
        if len(text) > _MAX_HOSTING:
            raise ConfigError(f"{HOSTING_KEY} has {len(text)} characters, at most {_MAX_HOSTING} are read")
        try:
            data = read_yaml(text)
        except ConfigError as error:
            raise ConfigError(f"{HOSTING_KEY} is not valid YAML") from error
        if not isinstance(data, dict):
            raise ConfigError(f"{HOSTING_KEY} must be a mapping such as 'host: localhost:5001'")

        def address(name: str) -> str | None:
            value = data.get(name)
            if value is None or value == "":
                return None
            if not isinstance(value, str) or not is_host(value):
                raise ConfigError(f"{HOSTING_KEY}: {name} must be host or host:port")
            return value

        return cls(
            host=address("host"),
            host_from_container_runtime=address("hostFromContainerRuntime"),
            host_from_cluster_network=address("hostFromClusterNetwork"),
        )


@dataclass(frozen=True, slots=True)
class RegistryAddresses:
    """A registry's ``host[:port]`` as seen from each place; None where nothing tells.

    Args:
        uri: The address of ``status.uri``: the container runtime's, else the one the operator calls.
        host: Address to push to from a laptop.
        container_runtime: Address for ``image:``.
        cluster_network: Address from inside a Pod.
    """

    uri: str
    host: str | None
    container_runtime: str | None
    cluster_network: str | None

    def references(self, path: str) -> dict[str, str]:
        """Return ``status.references`` for a repository.

        Args:
            path: The repository's path in the registry.
        """
        named = {
            "host": self.host,
            "containerRuntime": self.container_runtime,
            "clusterNetwork": self.cluster_network,
        }
        return {place: f"{address}/{path}" for place, address in named.items() if address}


def resolve_addresses(binding: RegistryBinding, hosting: RegistryHosting | None) -> RegistryAddresses:
    """Return how a registry is called from each place.

    Args:
        binding: The registry's configuration.
        hosting: The cluster's advertisement; None where there is none or the registry is not the default one.
    """
    configured = binding.references
    advertised = hosting or RegistryHosting()
    called = urlsplit(binding.registry_url)
    if _is_loopback(called.hostname or ""):
        from_outside, from_pod = called.netloc, None
    else:
        from_outside, from_pod = None, called.netloc

    host = (configured.host if configured else None) or advertised.host or from_outside
    runtime = (
        ((configured.container_runtime or configured.host) if configured else None)
        or advertised.host_from_container_runtime
        or advertised.host
        or from_outside
    )
    pod = (configured.cluster_network if configured else None) or advertised.host_from_cluster_network or from_pod
    return RegistryAddresses(uri=runtime or called.netloc, host=host, container_runtime=runtime, cluster_network=pod)


def _is_loopback(hostname: str) -> bool:
    if hostname == "localhost" or hostname.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return False
