"""URLs in the configuration: of registries and of the proxies in front of them. Validated when they are loaded."""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from controller.names import is_host, is_unspecified
from controller.redaction import remember

_PROXY: Final = re.compile(r"(https?)://(?:([^@]*)@)?([^@/?#]+)/?")
_PROXY_SYNTAX: Final = (
    "not a proxy URL: write for example http://proxy.example.com:3128 or http://user:password@proxy.example.com:3128, "
    "with '@', '/' and '%' in the password as %40, %2F and %25"
)


def shown(value: str) -> str:
    """Return a value for a message, without what may be a password."""
    return repr(re.sub(r":(?!//).*@", ":[redacted]@", value, flags=re.DOTALL))


def is_loopback(hostname: str) -> bool:
    """Return whether a host name or an address means the machine itself."""
    if hostname == "localhost" or hostname.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return False


def is_near(hostname: str) -> bool:
    """Return whether a host is this machine or has a name of one word, which only a local network resolves.

    Such a registry is expected without TLS (kind, k3d, docker-compose). Any other address or name may be anywhere.
    """
    return is_loopback(hostname) or re.search(r"[.:]", hostname) is None


def normalise_registry_url(value: str) -> str:
    """Return a registry's base URL as ``scheme://host[:port]``.

    A bare ``host:port`` gets ``http://`` if the host is loopback or one word, and ``https://`` otherwise; a trailing
    slash is removed.

    Args:
        value: The value in the configuration.

    Raises:
        ValueError: The value is empty or not a usable URL; the message says what to write.
    """
    text = value.strip()
    if not text:
        raise ValueError("must not be empty: write for example http://kind-registry:5000")
    if not text.isprintable():  # urlsplit() would remove tabs and line breaks
        raise ValueError(f"{shown(value)} is not a URL: write for example http://kind-registry:5000")
    if "@" in text:
        raise ValueError("must not carry a user or password: name the files of a Secret in credentials")
    try:
        if "://" not in text:
            text = f"{'http' if is_near(urlsplit(f'//{text}').hostname or '') else 'https'}://{text}"
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises for a port that is out of range
    except ValueError as error:
        raise ValueError(f"{shown(value)} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"scheme '{parts.scheme}' is not supported: use http:// or https://")
    if parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ValueError("must end after host and port: use pathPrefix for a path")
    if not is_host(parts.netloc):
        raise ValueError(f"{shown(value)} has no usable host or port: write for example http://kind-registry:5000")
    check_specified(parts.netloc)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def check_specified(netloc: str) -> None:
    """Check that an address is not one that a server listens on and nobody connects to.

    Raises:
        ValueError: It is.
    """
    if is_unspecified(netloc):
        raise ValueError(
            f"a server listens on {netloc!r}, but clients need its address: write for example localhost:5001"
        )


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy.

    Args:
        url: Its URL, without user and password.
        authorization: The Proxy-Authorization header; None for none.
    """

    url: str
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, value: str) -> Self:
        """Parse a proxy's URL; its user and password are redacted everywhere from now on.

        Args:
            value: ``http://`` or ``https://``, perhaps user and password, and the host.

        Raises:
            ValueError: It is something else. Neither the message nor a cause contains a part of it.
        """
        match = _PROXY.fullmatch(value.strip())
        try:
            port = urlsplit(f"//{match[3]}").port if match else 0
        except ValueError:
            port = 0
        if match is None or not is_host(match[3]) or port == 0 or is_unspecified(match[3]):
            raise ValueError(_PROXY_SYNTAX)
        scheme, userinfo, netloc = match.groups()
        url = f"{scheme}://{netloc.lower()}"
        if userinfo is None:
            return cls(url)
        user, _, password = (unquote(part) for part in userinfo.partition(":"))
        login = f"{user}:{password}"
        remember(password or user, userinfo, login)
        return cls(url, f"Basic {base64.b64encode(login.encode()).decode()}")
