"""Endpoint: scheme, host and port of a server, the unit that credentials are bound to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from controller.names import DEFAULT_PORTS

_UNSAFE_IN_URL = re.compile(r"[^!-~]|\\")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Scheme, host and port of a server.

    Args:
        scheme: ``http`` or ``https``.
        host: Host name or address, lower case, IPv6 without brackets.
        port: Port, by default the scheme's.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the endpoint of an absolute URL.

        Raises:
            ValueError: It is not an http(s) URL, or contains a user.
        """
        if _UNSAFE_IN_URL.search(url):
            raise ValueError("not a URL: it contains a space, a control character, a backslash or non-ASCII text")
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc or parts.port == 0:
            raise ValueError("not an http:// or https:// URL of a host")
        return cls(parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme])

    def url(self, target: str) -> str:
        """Return path and query of ``target`` as a URL on this endpoint, whatever host ``target`` names."""
        parts = urlsplit(target)
        query = f"?{parts.query}" if parts.query else ""
        return f"{self}{parts.path or '/'}{query}"

    @property
    def authority(self) -> str:
        """``host[:port]``, without the scheme's default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"
