"""Responses: pure functions that turn a registry's response into values and errors.

A response may be hostile: texts are cut and sanitised before they reach a message, addresses are rebuilt on the
registry's own endpoint, numbers are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urljoin

from controller.backoff import parse_retry_after
from controller.errors import (
    NameRefused,
    ProtocolViolation,
    RegistryError,
    RegistryUnavailable,
    ResourceNotFound,
    phrase,
)
from controller.redaction import REDACTED, redact
from controller.registry.endpoint import Endpoint
from controller.registry.refusals import TOO_MANY_REQUESTS, is_not_found, refusal

MAX_RETRY_AFTER: Final = 600.0
"""Maximum ``Retry-After``, in seconds: a registry must not be able to stop its objects for days."""

_TEMPORARY: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})

_MAX_SHOWN: Final = 200
"""Maximum characters of a registry's text in a message."""
_MAX_SCANNED: Final = 8192
"""Maximum characters of a text from outside that are searched for secrets."""

_REDUNDANT: Final = frozenset(
    {
        "authentication required",
        "requested access to the resource is denied",
        "invalid repository name",
        "repository name not known to registry",
        "The operation is unsupported.",
        "too many requests",
        "service unavailable",
        "unknown error",
    }
)
"""The standard messages of error codes, which say no more than the code: left out to keep causes short."""

_TEXT_KEYS: Final = ("message", "details", "detail", "error_description", "error")
"""Keys of an explanation in error bodies of token services and gateways."""

_MAX_JSON: Final = 1 << 20
"""Maximum bytes of JSON that are parsed: in memory they may take twenty times as much."""

_CODE = re.compile(r"[A-Z][A-Z_]{0,40}")
_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_REL_NEXT = re.compile(r';\s*rel\s*=\s*"?next"?\s*(;|,|$)', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response to one request.

    Args:
        method: The request's method.
        url: The request's URL, without secrets.
        status: HTTP status.
        headers: Headers; lookup ignores case.
        body: The body; of a long error response, its beginning.
    """

    method: str
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)  # a token service's contains the token


def printable(text: str) -> str:
    """Return ``text`` for one line of a message: cut, without secrets or characters that could forge another line."""
    whole, text = text, redact(text[:_MAX_SCANNED])
    if len(whole) > _MAX_SCANNED and REDACTED in text:  # its end may be the first half of a secret
        text = text[: text.rindex(REDACTED) + len(REDACTED)]
    shown = "".join(char if char.isprintable() else " " for char in text[: _MAX_SHOWN + 1])
    return f"{shown[:_MAX_SHOWN]}..." if len(shown) > _MAX_SHOWN else shown


def parse_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``body``; None if there is none or it is too large."""
    if len(body) > _MAX_JSON:
        return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):  # the latter: nested too deep for the parser
        return None
    return value if isinstance(value, dict) else None


def error_codes(body: bytes) -> tuple[str, ...] | None:
    """Return the specification's error codes in ``body``; None if it is not an error body of the specification."""
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
        if isinstance(code, str) and _CODE.fullmatch(code.upper()):
            message = entry.get("message")
            found.append((code.upper(), message if isinstance(message, str) else ""))
    return found or None


def describe(response: Response) -> str:
    """Return a response's status and what its body says about it, for a message."""
    errors = _errors(response.body)
    if errors:
        detail = "; ".join(
            code if not message or message in _REDUNDANT else f"{code}: {message}" for code, message in errors
        )
    elif said := _said(response.body):
        detail = said
    elif response.headers.get("content-type", "").startswith("text/plain"):
        detail = response.body[: 2 * _MAX_SCANNED].decode(errors="replace").strip()
    else:
        detail = ""
    if detail:
        return f"{response.status} ({printable(detail)})"
    return f"{response.status} {phrase(response.status)}".rstrip()


def _said(body: bytes) -> str | None:
    """Return what a JSON body of another form than the specification's says."""
    value = parse_object(body) or {}
    texts = (value.get(key) for key in _TEXT_KEYS)
    return next((text for text in texts if isinstance(text, str) and text), None)


def error_for(response: Response, *, operation: str, resource: str, endpoint: Endpoint) -> RegistryError:
    """Return the error that an unexpected response stands for.

    Args:
        response: The response.
        operation: What was attempted, to follow "cannot" (``look up tag latest of a/b``).
        resource: Id of the requested resource, for a definite not-found.
        endpoint: The server.
    """
    status, server = response.status, str(endpoint)
    known = error_codes(response.body) or ()
    # A temporary failure is never read as "not found", whatever its body says.
    temporary = status in _TEMPORARY or status >= HTTPStatus.INTERNAL_SERVER_ERROR or TOO_MANY_REQUESTS in known
    if not temporary and status >= HTTPStatus.BAD_REQUEST and is_not_found(response.method, status, known):
        return ResourceNotFound(resource, endpoint=server, status=status, codes=known)
    cause = describe(response)
    if temporary:
        wait = parse_retry_after(response.headers.get("retry-after"), now=datetime.now(UTC), limit=MAX_RETRY_AFTER)
        limited = status == HTTPStatus.TOO_MANY_REQUESTS or TOO_MANY_REQUESTS in known
        advice = "its rate limit is reached; retried later" if limited else None
        return RegistryUnavailable(
            operation, server, cause, advice=advice, status=status, retry_after=wait, codes=known
        )
    if status < HTTPStatus.BAD_REQUEST:
        return ProtocolViolation(operation, server, f"unexpected status {cause}", status=status)
    class_, advice = refusal(response.method, status, known, cause)
    if class_ is NameRefused and not known:
        cause = f"{status} (name rejected)"
    return class_(operation, server, cause, advice=advice, status=status, codes=known)


def next_page(header: str | None) -> str | None:
    """Return the target of the link with ``rel="next"`` in a ``Link`` header, unchanged."""
    for target, attributes in _LINK.findall(header or ""):
        if _REL_NEXT.search(attributes):
            return str(target)
    return None


def resolve(target: str | None, *, response: Response, operation: str, endpoint: Endpoint) -> str:
    """Return the URL that a response points to, if it is on the registry itself.

    The result is rebuilt on ``endpoint``: however ``target`` is parsed elsewhere, the request goes to the registry.

    Args:
        target: An absolute or relative URL (``Location`` or ``Link``); None or empty where there is none.
        response: The response that contains it.
        operation: What was attempted, to follow "cannot".
        endpoint: The registry.

    Raises:
        ProtocolViolation: It is absent, not a URL, or elsewhere; following it could send credentials to another host.
    """
    server, status = str(endpoint), response.status
    if not target:
        raise ProtocolViolation(operation, server, f"{status} without a Location", status=status)
    try:
        url = urljoin(response.url, target)
        other = Endpoint.of(url)
    except ValueError as error:
        cause = f"invalid Location {printable(target)!r}"
        raise ProtocolViolation(operation, server, cause, status=status) from error
    if other != endpoint:
        raise ProtocolViolation(
            operation,
            server,
            f"points to {printable(str(other))}",
            # Distribution builds absolute URLs from http.host, or from a reverse proxy's headers.
            advice="fix its http.host or its proxy's Host/X-Forwarded-Proto, or use that URL as registryUrl",
            status=status,
        )
    return endpoint.url(url)


def with_query(url: str, addition: str) -> str:
    """Return ``url`` with ``addition`` appended to its query, which is kept unchanged (``_state``)."""
    return f"{url}{'&' if '?' in url else '?'}{addition}"
