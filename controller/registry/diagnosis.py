"""Diagnosis: which registry error an exception of the HTTP libraries stands for, and its cause in a few words."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

import aiohttp
import httpx

from controller.errors import RegistryUnavailable, TLSVerificationFailed
from controller.registry.endpoint import Endpoint
from controller.registry.tls import Trust
from controller.registry.transport import Timeouts
from controller.urls import Proxy

LIBRARY_ERRORS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    aiohttp.ClientError,
    OSError,  # includes TimeoutError and ssl.SSLError
    ValueError,
)
"""Exceptions that httpx, aiohttp and asyncio have been seen to raise."""

PROXY_PAUSE: Final = 60.0
"""Seconds before a proxy that rejects the login is contacted again: it may lock the account."""

_CAUSES: Final = (
    (aiohttp.ClientConnectorDNSError, "host name not found"),
    (aiohttp.SocketTimeoutError, "no data for {0.read:g} s"),
    (aiohttp.ServerTimeoutError, "connection timed out"),
    (TimeoutError, "timed out after {0.total:g} s"),
)
"""Causes by exception class, special before general."""

_CLOSED: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
"""OpenSSL's reasons for a handshake with a server that does not speak TLS."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What an exception stands for.

    Args:
        error: Class of the registry error.
        cause: The cause in a few words.
        advice: What to do, where the cause says it.
    """

    error: type[RegistryUnavailable]
    cause: str
    advice: str | None = None


def diagnose(error: BaseException, *, trust: Trust, timeouts: Timeouts, proxy: Proxy | None) -> Diagnosis:
    """Return what an exception stands for.

    Args:
        error: One of ``LIBRARY_ERRORS``.
        trust: The trust settings of the connection.
        timeouts: The timeouts of the connection.
        proxy: The proxy of the connection, which may have caused it as well as the registry.
    """
    found = _diagnose(error, trust, timeouts)
    return replace(found, cause=f"{found.cause} (through proxy {proxy.url})") if proxy else found


def _diagnose(error: BaseException, trust: Trust, timeouts: Timeouts) -> Diagnosis:
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError) and not isinstance(link, aiohttp.ClientError):
            return Diagnosis(TLSVerificationFailed, *trust.explain(link))
    for link in chain:
        if found := _diagnose_link(link, timeouts):
            return found
    return Diagnosis(RegistryUnavailable, "connection closed early")


def refused_by_proxy(proxy: Proxy, status: int, operation: str, url: str) -> RegistryUnavailable:
    """Return the error for a proxy that does not connect to the registry.

    Args:
        proxy: The proxy.
        status: The status of its response.
        operation: What was attempted, to follow "cannot".
        url: The URL on the registry.
    """
    cause, advice, pause = f"proxy {proxy.url} responds {status}", "allow the registry there, or check proxy", None
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        problem = "requires a login" if proxy.authorization is None else "rejects the login"
        cause, advice, pause = f"proxy {proxy.url} {problem} (407)", "check user and password in proxy", PROXY_PAUSE
    return RegistryUnavailable(operation, str(Endpoint.of(url)), cause, advice=advice, retry_after=pause)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _diagnose_link(error: BaseException, timeouts: Timeouts) -> Diagnosis | None:
    """Return what one exception of a chain stands for; None where it is not specific enough."""
    if isinstance(error, ssl.SSLError):
        # aiohttp's own exception is an SSLError, too, but has no reason; the real one comes later in the chain.
        reason = getattr(error, "reason", None)
        if reason in _NO_TLS:
            return Diagnosis(RegistryUnavailable, "no TLS on this port", "use http:// in registryUrl")
        return Diagnosis(RegistryUnavailable, f"TLS handshake failed ({reason})") if reason else None
    for kind, cause in _CAUSES:
        if isinstance(error, kind):
            return Diagnosis(RegistryUnavailable, cause.format(timeouts))
    if isinstance(error, OSError) and error.errno is not None and error.errno not in _CLOSED:
        return Diagnosis(RegistryUnavailable, os.strerror(error.errno).lower())
    return None
