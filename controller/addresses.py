"""Addresses of a registry as seen from each place: laptop, container runtime, Pod.

Each address comes from the first source that has it: the operator's configuration; for the default registry, the
cluster's advertisement (KEP-1755, ConfigMap ``kube-public/local-registry-hosting``); ``registryUrl``. An address that
no source has stays unknown: a wrong reference is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

from controller.binding import RegistryBinding
from controller.errors import ConfigError, InvalidNameError
from controller.flatyaml import NotText, read_flat_mapping
from controller.names import DEFAULT_PORTS, MAX_REFERENCE, is_host, is_unspecified, reference_host
from controller.urls import is_loopback

HOSTING_NAMESPACE: Final = "kube-public"
HOSTING_NAME: Final = "local-registry-hosting"
HOSTING_KEY: Final = "localRegistryHosting.v1"


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
    problems: tuple[str, ...] = field(default=(), compare=False)
    """What is wrong with fields that are ignored; the others are valid."""

    @classmethod
    def parse(cls, text: str, *, known: RegistryHosting | None = None) -> Self:
        """Parse the value of key ``localRegistryHosting.v1``.

        Args:
            text: The value, YAML.
            known: The last advertisement; an invalid field keeps its value.

        Raises:
            ConfigError: The value is not a short YAML mapping; the message says what is expected.
        """
        try:
            data = read_flat_mapping(text)
        except ConfigError as error:
            raise ConfigError(f"{HOSTING_KEY} {error}") from error
        last = known or cls()
        problems: list[str] = []

        def address(name: str, kept: str | None) -> str | None:
            value = data.get(name) or None
            if value is None:
                return None
            if isinstance(value, NotText) or not is_host(value):
                problems.append(f"{name} must be host or host:port")
            elif is_unspecified(value):
                problems.append(f"{name} is {value}, where a server listens, and no address of it")
            else:
                return value
            return kept

        return cls(
            host=address("host", last.host),
            host_from_container_runtime=address("hostFromContainerRuntime", last.host_from_container_runtime),
            host_from_cluster_network=address("hostFromClusterNetwork", last.host_from_cluster_network),
            problems=tuple(problems),
        )

    def is_about(self, binding: RegistryBinding) -> bool:
        """Return whether this registry is the advertised one: by its ``registryUrl``, or because its binding says so.

        Args:
            binding: The registry's configuration.
        """
        default_port = DEFAULT_PORTS[urlsplit(binding.registry_url).scheme]

        def is_called(address: str | None) -> bool:
            parts = urlsplit(f"//{address or ''}")
            called, port = binding.address
            host = parts.hostname or ""
            is_same = host == called or (is_loopback(host) and is_loopback(called))
            return is_same and (parts.port or default_port) == port

        return binding.advertised_by_cluster or is_called(self.host_from_cluster_network) or is_called(self.host)


@dataclass(frozen=True, slots=True)
class Location:
    """A repository's addresses, as in status.

    Args:
        uri: ``status.uri``.
        references: ``status.references``.
    """

    uri: str
    references: Mapping[str, str]


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

    @classmethod
    def from_status(cls, status: Mapping[str, Any], path: str) -> Self | None:
        """Return the addresses that a status has; None where its ``uri`` is not that of this repository.

        Args:
            status: The status of an object.
            path: The repository's path in the registry.
        """

        def address(value: object) -> str | None:
            text = str(value or "")
            return text.removesuffix(f"/{path}") if text.endswith(f"/{path}") else None

        uri, references = address(status.get("uri")), status.get("references") or {}
        if uri is None:
            return None
        return cls(
            uri=uri,
            host=address(references.get("host")),
            container_runtime=address(references.get("containerRuntime")),
            cluster_network=address(references.get("clusterNetwork")),
        )

    def locate(self, path: str) -> Location:
        """Return ``status.uri`` and ``status.references`` of a repository.

        Args:
            path: The repository's path in the registry.

        Raises:
            InvalidNameError: One of them is longer than clients accept.
        """
        return Location(f"{self.uri}/{path}", self.references(path))

    def references(self, path: str) -> dict[str, str]:
        """Return ``status.references`` for a repository.

        Args:
            path: The repository's path in the registry.

        Raises:
            InvalidNameError: One of them, or ``status.uri``, is longer than clients accept.
        """
        self.check_length(path)
        named = {
            "host": self.host,
            "containerRuntime": self.container_runtime,
            "clusterNetwork": self.cluster_network,
        }
        return {place: f"{address}/{path}" for place, address in named.items() if address}

    def check_length(self, path: str) -> None:
        """Check the length of the references to a repository.

        Args:
            path: The repository's path in the registry.

        Raises:
            InvalidNameError: One of them, or ``status.uri``, is longer than clients accept.
        """
        longest = max(filter(None, (self.uri, self.host, self.container_runtime, self.cluster_network)), key=len)
        if (length := len(longest) + 1 + len(path)) > MAX_REFERENCE:
            raise InvalidNameError(
                f"reference {longest}/... has {length} characters, clients accept at most {MAX_REFERENCE}"
            )


def resolve_addresses(binding: RegistryBinding, hosting: RegistryHosting | None) -> RegistryAddresses:
    """Return the addresses of a registry.

    Args:
        binding: The registry's configuration.
        hosting: The cluster's advertisement; None if there is none or the registry is not the default one.
    """
    configured = binding.references
    advertised = hosting or RegistryHosting()
    called = urlsplit(binding.registry_url)
    if is_loopback(called.hostname or ""):
        from_outside, from_pod = called.netloc, None
    else:
        from_outside, from_pod = None, called.netloc
    default_port = DEFAULT_PORTS[called.scheme]

    def written(address: str | None) -> str | None:
        return address and reference_host(address, default_port=default_port)

    host = (configured.host if configured else None) or advertised.host or from_outside
    runtime = (
        ((configured.container_runtime or configured.host) if configured else None)
        or advertised.host_from_container_runtime
        or advertised.host
        or from_outside
    )
    pod = (configured.cluster_network if configured else None) or advertised.host_from_cluster_network or from_pod
    return RegistryAddresses(
        uri=reference_host(runtime or called.netloc, default_port=default_port),
        host=written(host),
        container_runtime=written(runtime),
        cluster_network=written(pod),
    )
