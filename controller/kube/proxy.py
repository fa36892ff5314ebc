"""Proxy for the API server: the rules of Go's ``golang.org/x/net/http/httpproxy``, which kubectl follows. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from controller.errors import KubernetesError
from controller.names import DEFAULT_PORTS

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def proxy_for(server: str, *, proxy_url: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy for requests to a server; None for a direct connection.

    Args:
        server: URL of the server.
        proxy_url: The kubeconfig's ``proxy-url``, which applies to every host; empty if there is none.
        environment: Variables such as ``HTTPS_PROXY`` and ``NO_PROXY``.

    Raises:
        KubernetesError: The proxy is not an http or https URL.
    """
    if proxy_url:
        return _checked(proxy_url, "proxy-url")
    parts = urlsplit(server)
    name = f"{parts.scheme.upper()}_PROXY"
    proxy = _variable(environment, name)
    if not proxy or not _is_proxied(parts, _variable(environment, "NO_PROXY")):
        return None
    return _checked(proxy if "://" in proxy else f"http://{proxy}", name)


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def _checked(url: str, source: str) -> str:
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        # The URL may contain a password.
        raise KubernetesError(f"the proxy for the API server, from {source}, is not an http:// or https:// URL")
    return url


def _is_proxied(server: SplitResult, no_proxy: str) -> bool:
    host = (server.hostname or "").lower()
    port = server.port or DEFAULT_PORTS.get(server.scheme, 0)
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return False
    return not any(_is_excluded(entry.strip().lower(), host, port, address) for entry in no_proxy.split(","))


def _is_excluded(entry: str, host: str, port: int, address: _Address | None) -> bool:
    """Return whether an entry of NO_PROXY applies: ``*``, a network, or an address or domain, which may have a port."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    entry_host, entry_port = _host_and_port(entry)
    if not entry_host or (entry_port and entry_port != str(port)):
        return False
    entry_address = _address(entry_host)
    if entry_address is not None:
        return entry_address == address
    # "*.corp" and ".corp" mean subdomains, "corp" also the domain itself.
    suffix = entry_host.removeprefix("*")
    return host.endswith(suffix) if suffix.startswith(".") else host == suffix or host.endswith(f".{suffix}")


def _host_and_port(entry: str) -> tuple[str, str]:
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
        return host, port.removeprefix(":")
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, port
    return entry, ""


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
