"""Reading a registry's answers: pure functions from what came back to values and errors.

Everything here is written for an answer that may be hostile: texts are cut and stripped before they reach a message,
addresses are rebuilt on the registry's own endpoint, numbers are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import urljoin, urlsplit

from controller.errors import (
    AccessDenied,
    AuthenticationFailed,
    NameRefused,
    ProtocolViolation,
    RegistryError,
    RegistryReadOnly,
    RegistryUnavailable,
    ResourceNotFound,
)

MAX_RETRY_AFTER: Final = 600.0
"""Longest ``Retry-After`` that is believed, in seconds: a registry must not be able to silence its objects for days."""

NAME_UNKNOWN: Final = "NAME_UNKNOWN"

_NOT_FOUND_CODES: Final = frozenset({"BLOB_UNKNOWN", "MANIFEST_UNKNOWN", NAME_UNKNOWN})
_NOT_NOW: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_WRITES: Final = frozenset({"POST", "PATCH", "PUT"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_MAX_SHOWN: Final = 200

_MAX_JSON: Final = 1 << 20
"""Bytes of JSON that are parsed: in memory it may take twenty times as much."""

_CODE = re.compile(r"[A-Z][A-Z_]{0,40}")
_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_REL_NEXT = re.compile(r';\s*rel\s*=\s*"?next"?\s*(;|,|$)', re.IGNORECASE)
_UNSAFE_IN_URL = re.compile(r"[^!-~]|\\")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens: the unit that credentials are bound to.

    Args:
        scheme: ``http`` or ``https``.
        host: Host name or address, lower case, IPv6 without brackets.
        port: Port, the scheme's default filled in.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the endpoint of an absolute URL.

        Raises:
            ValueError: It is not an http(s) URL, or carries a user.
        """
        if _UNSAFE_IN_URL.search(url):
            raise ValueError("not a URL: it contains a space, a control character, a backslash or non-ASCII text")
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc or parts.port == 0:
            raise ValueError("not an http:// or https:// URL of a host")
        return cls(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])

    def url(self, target: str) -> str:
        """Return path and query of ``target`` as a URL on this endpoint, whatever host ``target`` names."""
        parts = urlsplit(target)
        query = f"?{parts.query}" if parts.query else ""
        return f"{self}{parts.path or '/'}{query}"

    @property
    def authority(self) -> str:
        """``host[:port]``, the port left out where it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request.

    Args:
        method: The request's method.
        url: The request's URL, without secrets.
        status: HTTP status.
        headers: Headers, looked up without regard to case.
        body: The body, or its beginning where it is an error's and too long.
    """

    method: str
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)  # a token service's holds the token


def printable(text: str) -> str:
    """Return ``text`` fit for one line of a message: cut, and without characters that could forge another line."""
    shown = "".join(char if char.isprintable() else " " for char in text[: _MAX_SHOWN + 1])
    return f"{shown[:_MAX_SHOWN]}…" if len(shown) > _MAX_SHOWN else shown


def parse_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``body``, or None if there is none, or a large one."""
    if len(body) > _MAX_JSON:
        return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):  # the latter: nested deeper than the parser goes
        return None
    return value if isinstance(value, dict) else None


def error_codes(body: bytes) -> tuple[str, ...] | None:
    """Return the specification's error codes in ``body``; None if it is no error body of the specification."""
    errors = _errors(body)
    return None if errors is None else tuple(code for code, _ in errors)


def _errors(body: bytes) -> list[tuple[str, str]] | None:
    """Return code and message of each error in a body of the form ``{"errors": [{"code": …, "message": …}]}``."""
    value = parse_object(body)
    entries = value.get("errors") if value is not None else None
    if not isinstance(entries, list):
        return None
    found = []
    for entry in entries[:10]:
        code = entry.get("code") if isinstance(entry, dict) else None
        if isinstance(code, str) and _CODE.fullmatch(code):
            message = entry.get("message")
            found.append((code, message if isinstance(message, str) else ""))
    return found or None


def _shown(answer: Answer) -> str:
    """Say what came back: the status, and what the body tells about it."""
    errors = _errors(answer.body)
    if errors:
        detail = "; ".join(f"{code}: {message}" if message else code for code, message in errors)
    elif answer.headers.get("content-type", "").startswith("text/plain"):
        detail = answer.body[: 4 * _MAX_SHOWN].decode(errors="replace").strip()
    else:
        detail = ""
    return f"{answer.status} ({printable(detail)})" if detail else str(answer.status)


def error_for(answer: Answer, *, doing: str, resource: str, endpoint: Endpoint) -> RegistryError:
    """Return the error that an unwanted answer stands for.

    Args:
        answer: The answer.
        doing: What was asked, to follow "cannot" (``look up tag latest of a/b``).
        resource: Id of what was asked for, for a clear not-found.
        endpoint: Who was asked.
    """
    status = answer.status
    codes = error_codes(answer.body)
    known = codes or ()
    said = f"cannot {doing}: {endpoint} answered {_shown(answer)}"
    # The order matters: a status that says "not now" is never read as "not there", whatever the body says.
    if status in _NOT_NOW or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        wait = parse_retry_after(answer.headers.get("retry-after"), now=datetime.now(UTC))
        return RegistryUnavailable(said, status=status, retry_after=wait, codes=known)
    if status < HTTPStatus.BAD_REQUEST:
        return ProtocolViolation(f"{said}, which the specification does not allow here", status=status)
    if status == HTTPStatus.UNAUTHORIZED:
        return AuthenticationFailed(f"{said}: check the registry's credentials", status=status, codes=known)
    if answer.method in _WRITES:
        return _write_error(answer, said, known)
    if _NOT_FOUND_CODES.intersection(known) or (status == HTTPStatus.NOT_FOUND and codes is None):
        return ResourceNotFound(resource, status=status, codes=known)
    return _refusal(said, status, known)


def _write_error(answer: Answer, said: str, codes: tuple[str, ...]) -> RegistryError:
    """Read a refused write, where "not there" has no meaning of its own: the name is not wanted."""
    if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
        hint = "the registry is read-only: switch its maintenance mode off, or use another registry"
        return RegistryReadOnly(f"{said}: {hint}", status=answer.status, codes=codes)
    if answer.method == "POST" and answer.status == HTTPStatus.NOT_FOUND:
        hint = (
            "the registry creates no repository of this name on a push"
            if codes
            else "the registry does not take names of this shape, perhaps only fewer path levels "
            '(repositoryTemplate: "{namespace}.{name}" saves one)'
        )
        return NameRefused(f"{said}: {hint}", status=answer.status, codes=codes)
    return _refusal(said, answer.status, codes)


def _refusal(said: str, status: int, codes: tuple[str, ...]) -> RegistryError:
    if "NAME_INVALID" in codes:
        return NameRefused(f"{said}: choose another repositoryName", status=status, codes=codes)
    if status == HTTPStatus.FORBIDDEN or "DENIED" in codes:
        hint = "the credentials do not allow it: grant them pull and push on this repository"
        return AccessDenied(f"{said}: {hint}", status=status, codes=codes)
    return RegistryError(said, status=status, codes=codes)


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Return how many seconds ``Retry-After`` asks to wait, bounded; None if it is absent or unreadable.

    Args:
        value: The header: seconds, or an HTTP date.
        now: The time, with a time zone.
    """
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value):
        seconds = float(value)
    else:
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        # A date without a zone is UTC: HTTP knows no other.
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def next_page(header: str | None) -> str | None:
    """Return the target of the link with ``rel="next"`` in a ``Link`` header, as it stands there."""
    for target, attributes in _LINK.findall(header or ""):
        if _REL_NEXT.search(attributes):
            return str(target)
    return None


def resolve(target: str | None, *, answer: Answer, doing: str, endpoint: Endpoint) -> str:
    """Return the URL that an answer points to, if it lies on the registry itself.

    The result is rebuilt on ``endpoint``, so whatever two parsers may see in ``target``, the request goes there.

    Args:
        target: An absolute or relative URL (``Location`` or ``Link``); None or empty where the registry sent none.
        answer: The answer that holds it.
        doing: What was asked, to follow "cannot".
        endpoint: The registry.

    Raises:
        ProtocolViolation: It is absent, no URL, or lies elsewhere; following it could carry credentials to a stranger.
    """
    status = answer.status
    if not target:
        raise ProtocolViolation(f"cannot {doing}: {endpoint} does not say where to go on (no Location)", status=status)
    try:
        url = urljoin(answer.url, target)
        other = Endpoint.of(url)
    except ValueError as error:
        shown = printable(target)
        raise ProtocolViolation(
            f"cannot {doing}: {endpoint} points to an unusable address ({shown!r})", status=status
        ) from error
    if other != endpoint:
        raise ProtocolViolation(
            f"cannot {doing}: {endpoint} points to another address ({printable(str(other))}), which is not followed; "
            "if both are the same registry, let it use relative addresses "
            "(Distribution: unset http.host, or http.relativeurls: true) or write that address into registryUrl",
            status=status,
        )
    return endpoint.url(url)


def with_query(url: str, addition: str) -> str:
    """Return ``url`` with ``addition`` at the end of its query; what the query holds already (``_state``) is kept."""
    return f"{url}{'&' if '?' in url else '?'}{addition}"
