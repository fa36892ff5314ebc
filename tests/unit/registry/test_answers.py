"""What a registry's answers mean: the not-found rule, the other errors, and addresses that must not be followed.

======================================================  =====================
answer to a read                                        error
======================================================  =====================
4xx with BLOB/MANIFEST/NAME_UNKNOWN, but not 401        ResourceNotFound
404 without an error body of the specification          ResourceNotFound
404 NAME_INVALID                                        NameRefused
401                                                     AuthenticationFailed
403, DENIED                                             AccessDenied
408, 429, 5xx, whatever the body says                   RegistryUnavailable
other 4xx                                               RegistryError
1xx, 2xx, 3xx that were not expected                    ProtocolViolation
======================================================  =====================
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from controller.registry.answers import (
    Answer,
    Endpoint,
    error_codes,
    error_for,
    next_page,
    parse_retry_after,
    printable,
    resolve,
    with_query,
)

REGISTRY = Endpoint("http", "registry", 5000)
NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def answer(
    status: int, body: object = b"", *, method: str = "GET", url: str = "http://registry:5000/v2/a/x", **headers: str
) -> Answer:
    """Return an answer; a body that is no bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(method, url, status, httpx.Headers({k.replace("_", "-"): v for k, v in headers.items()}), content)


def errors(*codes: str) -> dict[str, object]:
    """Return an error body of the specification."""
    return {"errors": [{"code": code, "message": f"about {code}"} for code in codes]}


def error(got: Answer) -> RegistryError:
    """Return the error for an answer."""
    return error_for(got, doing="look up latest of a/x", resource="a/x:latest", endpoint=REGISTRY)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, errors("MANIFEST_UNKNOWN"), ResourceNotFound),
        (404, errors("NAME_UNKNOWN"), ResourceNotFound),
        (404, errors("BLOB_UNKNOWN"), ResourceNotFound),
        (404, errors("SOMETHING_ELSE", "NAME_UNKNOWN"), ResourceNotFound),
        (400, errors("MANIFEST_UNKNOWN"), ResourceNotFound),
        (404, b"", ResourceNotFound),
        (404, b"404 page not found\n", ResourceNotFound),
        (404, b"<html>not found</html>", ResourceNotFound),
        (404, {"errors": []}, ResourceNotFound),
        (404, errors("NAME_INVALID"), NameRefused),
        (400, errors("NAME_INVALID"), NameRefused),
        (404, errors("UNSUPPORTED"), RegistryError),
        (401, b"", AuthenticationFailed),
        (401, errors("NAME_UNKNOWN"), AuthenticationFailed),
        (403, b"", AccessDenied),
        (403, errors("DENIED"), AccessDenied),
        (404, errors("DENIED"), AccessDenied),
        (408, b"", RegistryUnavailable),
        (429, errors("TOOMANYREQUESTS"), RegistryUnavailable),
        (429, errors("NAME_UNKNOWN"), RegistryUnavailable),
        (500, errors("NAME_UNKNOWN"), RegistryUnavailable),
        (503, b"<html>", RegistryUnavailable),
        (400, b"", RegistryError),
        (405, b"Method not allowed", RegistryError),
        (416, b"", RegistryError),
        (200, b"<html>", ProtocolViolation),
        (204, b"", ProtocolViolation),
        (101, b"", ProtocolViolation),
        (304, b"", ProtocolViolation),
    ],
)
def test_read(status: int, body: object, expected: type[RegistryError]) -> None:
    """Each answer to a read stands for exactly one error, which carries the status."""
    got = error(answer(status, body))
    assert type(got) is expected
    assert got.status == status


@pytest.mark.parametrize(
    ("method", "status", "body", "expected"),
    [
        ("PUT", 405, b"Method not allowed", RegistryReadOnly),
        ("POST", 405, errors("UNSUPPORTED"), RegistryReadOnly),
        ("POST", 404, b"", NameRefused),
        ("POST", 404, errors("NAME_UNKNOWN"), NameRefused),
        ("PUT", 400, errors("NAME_INVALID"), NameRefused),
        ("PUT", 404, errors("NAME_UNKNOWN"), RegistryError),
        ("PUT", 404, errors("BLOB_UPLOAD_UNKNOWN"), RegistryError),
        ("PUT", 400, errors("MANIFEST_BLOB_UNKNOWN"), RegistryError),
        ("PATCH", 404, b"", RegistryError),
        ("PUT", 403, errors("DENIED"), AccessDenied),
        ("PUT", 401, b"", AuthenticationFailed),
        ("PUT", 507, b"", RegistryUnavailable),
        ("PUT", 200, b"", ProtocolViolation),
    ],
)
def test_write(method: str, status: int, body: object, expected: type[RegistryError]) -> None:
    """A refused write is never "not found": that would be read as a reason to create."""
    got = error(answer(status, body, method=method))
    assert type(got) is expected
    assert got.status == status


def test_message_tells_all() -> None:
    """A message says what was asked, of whom, what came back, and what to do."""
    assert str(error(answer(403, errors("DENIED")))) == (
        "cannot look up latest of a/x: http://registry:5000 answered 403 (DENIED: about DENIED): "
        "the credentials do not allow it: grant them pull and push on this repository"
    )
    told = "Client sent an HTTP request to an HTTPS server.\n"
    assert "answered 400 (Client sent an HTTP request to an HTTPS server.)" in str(
        error(answer(400, told.encode(), content_type="text/plain; charset=utf-8"))
    )


def test_message_cannot_forge_lines() -> None:
    """What a registry writes stays on its line, and is cut."""
    hostile = {"errors": [{"code": "DENIED", "message": "x\r\nERROR forged\x1b[2J\u202e\u2028" + "y" * 10_000}]}
    message = str(error(answer(403, hostile)))
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (errors("DENIED", "NAME_UNKNOWN"), ("DENIED", "NAME_UNKNOWN")),
        ({"errors": [{"code": "DENIED"}, {"code": 7}, "x", {"code": "lower"}]}, ("DENIED",)),
        ({"errors": [{"code": "A" * 100}]}, None),
        ({"errors": {"code": "DENIED"}}, None),
        ([], None),
        (b"[" * 100_000, None),
        (b"{", None),
        (b"\xff\xfe", None),
    ],
)
def test_error_codes(body: object, codes: tuple[str, ...] | None) -> None:
    """Codes come from well-formed entries only; a body without any is no error body."""
    assert error_codes(answer(400, body).body) == codes


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("17", 17.0),
        ("999999999", 600.0),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2099 12:00:30 GMT", 600.0),
        ("Tue, 24 Nov 2026 12:00:30 -0000", 30.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Tue, 24 Nov 99999 12:00:30 GMT", None),
        ("1" * 5000, None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Both forms are read, and neither is believed without bounds."""
    assert parse_retry_after(value, now=NOW) == seconds


def test_retry_after_reaches_the_error() -> None:
    """The one who retries learns how long the registry wants to be left alone."""
    got = error(answer(429, b"", retry_after="7"))
    assert isinstance(got, RegistryUnavailable)
    assert got.retry_after == 7.0


@pytest.mark.parametrize(
    ("header", "target"),
    [
        (None, None),
        ('</v2/a/tags/list?last=b&n=2>; rel="next"', "/v2/a/tags/list?last=b&n=2"),
        ("</x>; rel=next", "/x"),
        ('</p>; rel="prev", </n>; title="t"; rel="next"', "/n"),
        ('</p>; rel="prev"', None),
        ('</p>; rel="nextish"', None),
        ("garbage", None),
        ("<" * 10_000, None),
    ],
)
def test_next_page(header: str | None, target: str | None) -> None:
    """The link to the next page is found among others."""
    assert next_page(header) == target


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("/v2/a/blobs/uploads/1?_state=x%3D%3D", "http://registry:5000/v2/a/blobs/uploads/1?_state=x%3D%3D"),
        ("http://registry:5000/u/1", "http://registry:5000/u/1"),
        ("HTTP://REGISTRY:5000/u/1", "http://registry:5000/u/1"),
        ("//registry:5000/u/1", "http://registry:5000/u/1"),
        ("http://registry:5000", "http://registry:5000/"),
        ("http:///u/1", "http://registry:5000/u/1"),
        ("uploads/1#fragment", "http://registry:5000/v2/a/uploads/1"),
        ("?q=1", "http://registry:5000/v2/a/x?q=1"),
    ],
)
def test_resolve(target: str, url: str) -> None:
    """Relative and absolute addresses on the registry are followed, with their query as it is."""
    assert resolve(target, answer=answer(202), doing="push", endpoint=REGISTRY) == url


FOREIGN = [
    "http://169.254.169.254/latest/meta-data/",
    "http://elsewhere:5000/u/1",
    "http://registry:5001/u/1",
    "http://registry/u/1",
    "https://registry:5000/u/1",
    "//elsewhere:5000/u/1",
    "http://registry.elsewhere:5000/u",
]
UNUSABLE = [
    None,
    "",
    "http://registry:5000@elsewhere/u/1",
    "http://user:password@registry:5000/u/1",
    "http://registry:5000\\@elsewhere/u",
    "\\\\elsewhere\\u",
    "file:///etc/passwd",
    "ftp://registry:5000/u",
    "gopher://registry:5000/",
    "http://[::1",
    "http://registry:port/",
    "http://registry:0/",
    "http://registry:99999/",
    "/u/1\r\nHost: elsewhere",
    "/u 1",
    "\t//elsewhere/",
    "/ü",
]


@pytest.mark.parametrize("target", [*FOREIGN, *UNUSABLE])
def test_resolve_refuses(target: str | None) -> None:
    """Whatever leads, or might lead, to another host, port or scheme is refused, in printable words."""
    with pytest.raises(ProtocolViolation) as raised:
        resolve(target, answer=answer(202), doing="push", endpoint=REGISTRY)
    assert str(raised.value).isprintable()


def test_resolve_says_what_to_mend() -> None:
    """The usual cause of a foreign Location is a setting of Distribution: the message names it."""
    with pytest.raises(ProtocolViolation, match=r"http\.host.*registryUrl"):
        resolve("http://other:5000/u", answer=answer(202), doing="push", endpoint=REGISTRY)


@given(st.text(max_size=60))
def test_resolve_never_leaves(target: str) -> None:
    """Any text leads to the registry or is refused."""
    try:
        url = resolve(target, answer=answer(202), doing="push", endpoint=REGISTRY)
    except ProtocolViolation:
        return
    assert url.startswith("http://registry:5000/")
    assert httpx.URL(url).host == "registry"


def test_with_query() -> None:
    """A query that is there already stays in front, untouched."""
    assert with_query("http://r/u", "digest=sha256:0") == "http://r/u?digest=sha256:0"
    assert with_query("http://r/u?_state=a%3D", "digest=sha256:0") == "http://r/u?_state=a%3D&digest=sha256:0"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://registry:5000", "http://registry:5000"),
        ("http://registry:80/x", "http://registry"),
        ("https://Registry:443", "https://registry"),
        ("https://registry:80", "https://registry:80"),
        ("http://[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_endpoint(url: str, shown: str) -> None:
    """Two spellings of one endpoint are the same; the scheme's own port is left out."""
    assert str(Endpoint.of(url)) == shown
    assert Endpoint.of(shown) == Endpoint.of(url)


def test_printable() -> None:
    """Short printable text is kept; the rest is cut and cleaned."""
    assert printable("Größe 5 ✓") == "Größe 5 ✓"
    assert printable("a\nb") == "a b"
    assert printable("x" * 201) == "x" * 200 + "…"
