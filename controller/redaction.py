"""Redaction: removes secrets from every text that leaves the process in a status, an event or a log entry.

Whoever reads or receives a secret calls :func:`remember`; whoever shows a text calls :func:`redact`. That a registry
repeats what it was sent, in its own words and encoding, is not an exception: some put the request's headers into their
errors.
"""

from __future__ import annotations

import base64
import html
import re
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote, unquote_plus

REDACTED: Final = "[redacted]"

_MIN_LENGTH: Final = 4
"""A shorter secret is not redacted: it occurs in texts by chance, and can be guessed anyway."""

_MAX_SECRETS: Final = 4096
"""Maximum number of secrets remembered, the newest; tokens are replaced all the time."""

_DECODINGS: Final = 3
"""How often a text may have been encoded."""

_ENCODED: Final = re.compile(r"[\\%&+]")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)

_secrets: OrderedDict[str, None] = OrderedDict()
"""In lower case: host names lose theirs."""


def remember(*secrets: str) -> None:
    """Redact these secrets from now on, plain and in base64.

    Args:
        secrets: Passwords, tokens, or the base64 of a user and a password.
    """
    for secret in secrets:
        if len(secret) >= _MIN_LENGTH:
            for form in (secret, base64.b64encode(secret.encode()).decode().rstrip("=")):
                _secrets[form.lower()] = None
                _secrets.move_to_end(form.lower())
    while len(_secrets) > _MAX_SECRETS:
        _secrets.popitem(last=False)


def redact(text: str) -> str:
    """Return a text without secrets.

    A text that contains one in another encoding (URL, JSON, HTML) is replaced as a whole.

    Args:
        text: The text, before it is cut: half of a secret would not be found.
    """
    lowered = text.lower()
    for secret in _secrets:
        if secret in lowered:
            text = re.sub(re.escape(secret), REDACTED, text, flags=re.IGNORECASE)
            lowered = text.lower()
    if _ENCODED.search(text) and any(
        secret in decoded for decoded in map(str.lower, _decodings(text)) for secret in _secrets
    ):
        return REDACTED
    return text


def _decodings(text: str) -> Iterator[str]:
    """Yield what a text may be the encoding of."""
    for _ in range(_DECODINGS):
        for decode in (_unescape, html.unescape, unquote_plus, unquote):
            yield decode(text)
        text = unquote(html.unescape(_unescape(text)))


def _unescape(text: str) -> str:
    """Return a text without the escapes of JSON strings and of ``repr``."""

    def character(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        return chr(int(code, 16)) if code else match[3]

    return _ESCAPE.sub(character, text)
