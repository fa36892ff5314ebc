"""Addresses of a registry as seen from each place: laptop, container runtime, Pod.

Each address comes from the first source that has it: the operator's configuration; for the default registry, the
cluster's advertisement (KEP-1755, ConfigMap ``kube-public/local-registry-hosting``); ``registryUrl``. An address that
no source has stays unknown: a wrong reference is worse than none.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from controller.config import RegistryBinding
from controller.configfile import read_yaml
from controller.errors import ConfigError
from controller.names import is_host

HOSTING_NAMESPACE: Final = "kube-public"
HOSTING_NAME: Final = "local-registry-hosting"
HOSTING_KEY: Final = "localRegistryHosting.v1"

_MAX_HOSTING: Final = 8192
"""Maximum length of an advertisement in characters. It has five short lines, and parsing 1 MB of YAML takes 30 s."""


@dataclass(frozen=True, slots=True)
class RegistryHosting:
    """What the cluster advertises about its local registry (KEP-1755, LocalRegistryHosting v1).

    Args:
        host: Address to push to from outside the cluster.
        host_from_container_runtime: Address for ``image:``; by the KEP, the default is ``host``.
        host_from_cluster_network: Address for use inside a Pod.
    """

    host: str | None = None
    host_from_container_runtime: str | None = None
    host_from_cluster_network: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the value of key ``localRegistryHosting.v1``.

        Args:
            text: The value, YAML.

        Raises:
            ConfigError: The value is not a short YAML mapping of strings; the message says what is expected.
        """
        if len(text) > _MAX_HOSTING:
            raise ConfigError(f"{HOSTING_KEY} has {len(text)} characters, at most {_MAX_HOSTING} are allowed")
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
    """A registry's ``host[:port]`` as seen from each place; None where it is unknown.

    Args:
        uri: Address in ``status.uri``: that for the container runtime, or else that of ``registryUrl``.
        host: Address for pushing from a laptop.
        container_runtime: Address for ``image:``.
        cluster_network: Address for use inside a Pod.
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
    """Return the addresses of a registry.

    Args:
        binding: The registry's configuration.
        hosting: The cluster's advertisement; None if there is none or the registry is not the default one.
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
