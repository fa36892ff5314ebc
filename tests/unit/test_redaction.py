"""Redaction: no secret leaves the process, whatever a registry makes of it."""

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import ProtocolViolation
from controller.reconcile.explanations import explain
from controller.redaction import REDACTED, redact, remember
from controller.registry.endpoint import Endpoint
from controller.registry.responses import Response, error_for, printable, resolve

PASSWORD = 'p"ä ss/wörd+%41\\&x'
ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper case": str.upper,
    "URL": lambda text: quote(text, safe=""),
    "URL, partly": quote,
    "form": quote_plus,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON, not ASCII": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON, every character": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "HTML": html.escape,
    "repr": lambda text: repr(text)[1:-1],
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "URL, twice": lambda text: quote(quote(text, safe=""), safe=""),
    "JSON in a URL": lambda text: quote(json.dumps(text)[1:-1], safe=""),
}

secrets = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=8, max_size=40)


def leaks(text: str, secret: str) -> bool:
    """Return whether a text shows a secret, or most of it, in any encoding."""
    return any(
        encode(secret)[: max(6, len(encode(secret)) - 2)].lower() in text.lower() for encode in ENCODINGS.values()
    )


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_each_encoding(encode: Callable[[str], str]) -> None:
    """A secret is removed from a text in each encoding."""
    remember(PASSWORD)
    shown = redact(f"login {encode(PASSWORD)} failed")
    assert REDACTED in shown
    assert not leaks(shown, PASSWORD)


@given(
    secret=secrets,
    encode=st.sampled_from(list(ENCODINGS.values())),
    before=st.text(max_size=300),
    after=st.text(max_size=50),
)
def test_whatever_a_registry_repeats(secret: str, encode: Callable[[str], str], before: str, after: str) -> None:
    """A password that a registry repeats in a body, a header or a realm is in no status message."""
    remember(secret)
    told = f"{before} {encode(secret)} {after}"
    endpoint = Endpoint.of("http://registry:5000")
    bodies = (json.dumps({"errors": [{"code": "UNKNOWN", "message": told}]}), json.dumps({"message": told}), told)
    for body in bodies:
        headers = httpx.Headers({"content-type": "text/plain"})
        response = Response("GET", "http://registry:5000/v2/", 500, headers, body.encode(errors="replace"))
        error = error_for(response, operation="look up a", resource="a", endpoint=endpoint)
        explanation = explain(error)
        assert not leaks(f"{explanation.subject}{explanation.detail}", secret)
        assert not leaks(redact(str(error)), secret)


@pytest.mark.parametrize("encoding", ["plain", "URL", "base64"])
def test_a_location_with_a_password(encoding: str) -> None:
    """A foreign Location that contains a password is reported without it."""
    password, encode = "Secret-of-the-registry", ENCODINGS[encoding]
    remember(password)
    response = Response("POST", "http://registry:5000/v2/a/blobs/uploads/", 202, httpx.Headers(), b"")
    endpoint = Endpoint.of("http://registry:5000")
    with pytest.raises(ProtocolViolation) as raised:
        resolve(
            f"http://{encode(password).rstrip('=')}.evil.example/x", response=response, operation="x", endpoint=endpoint
        )
    assert not leaks(explain(raised.value).detail, password)


@given(st.text())
def test_other_texts_stay_as_they_are(text: str) -> None:
    """A text without a secret is not changed."""
    remember("a secret that nobody writes by chance")
    assert redact(text) == text or REDACTED in redact(text)


def test_half_a_secret_at_the_end() -> None:
    """A text that is cut in the middle of a secret does not show its first half."""
    secret = "t0ken" * 300
    remember(secret)
    assert "t0ken" not in printable(secret * 20)


def test_short_secrets_stay() -> None:
    """A secret of three characters would make every message unreadable."""
    remember("the")
    assert redact("the registry") == "the registry"
