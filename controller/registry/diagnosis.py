"""Diagnosis: which registry error an exception of the HTTP libraries stands for, and its cause in a few words."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import aiohttp
import httpx

from controller.errors import RegistryUnavailable, TLSVerificationFailed
from controller.registry.tls import Trust
from controller.registry.transport import Timeouts

LIBRARY_ERRORS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    aiohttp.ClientError,
    OSError,  # includes TimeoutError and ssl.SSLError
    ValueError,
)
"""Exceptions that httpx, aiohttp and asyncio have been seen to raise."""

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


def diagnose(error: BaseException, *, trust: Trust, timeouts: Timeouts) -> Diagnosis:
    """Return what an exception stands for.

    Args:
        error: One of ``LIBRARY_ERRORS``.
        trust: The trust settings of the connection.
        timeouts: The timeouts of the connection.
    """
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError) and not isinstance(link, aiohttp.ClientError):
            return Diagnosis(TLSVerificationFailed, *trust.explain(link))
    for link in chain:
        if found := _diagnose_link(link, timeouts):
            return found
    return Diagnosis(RegistryUnavailable, "connection closed early")


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
