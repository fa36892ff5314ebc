"""Responses: which are a not-found, which are other errors, and which addresses must not be followed.

======================================================  =====================
response to a read                                      error
======================================================  =====================
4xx with BLOB/MANIFEST/NAME_UNKNOWN, but not 401        ResourceNotFound
404 without an error body of the specification          ResourceNotFound
404 NAME_INVALID                                        NameRefused
401                                                     AuthenticationFailed
403, DENIED                                             AccessDenied
408, 429, 5xx, with any body                            RegistryUnavailable
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

from controller.backoff import parse_retry_after
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
from controller.registry.endpoint import Endpoint
from controller.registry.responses import (
    MAX_RETRY_AFTER,
    Response,
    error_codes,
    error_for,
    next_page,
    printable,
    resolve,
    with_query,
)

REGISTRY = Endpoint("http", "registry", 5000)
NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def response(
    status: int, body: object = b"", *, method: str = "GET", url: str = "http://registry:5000/v2/a/x", **headers: str
) -> Response:
    """Return a response; a body other than bytes is encoded as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(method, url, status, httpx.Headers({k.replace("_", "-"): v for k, v in headers.items()}), content)


def errors(*codes: str) -> dict[str, object]:
    """Return an error body of the specification."""
    return {"errors": [{"code": code, "message": f"about {code}"} for code in codes]}


def error(got: Response) -> RegistryError:
    """Return the error for a response."""
    return error_for(got, operation="look up latest of a/x", resource="a/x:latest", endpoint=REGISTRY)


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
        (404, errors("NOT_FOUND"), ResourceNotFound),
        (404, errors("TAG_EXPIRED"), ResourceNotFound),
        (404, {"errors": [{"status": 404, "message": "Not Found"}]}, ResourceNotFound),
        (404, errors("NOT_FOUND", "DENIED"), AccessDenied),
        (404, errors("MANIFEST_UNKNOWN", "UNAUTHORIZED"), AccessDenied),
        (404, errors("denied"), AccessDenied),
        (404, errors("TOOMANYREQUESTS"), RegistryUnavailable),
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
def test_error_of_a_read(status: int, body: object, expected: type[RegistryError]) -> None:
    """Each response to a read is exactly one error, which has the status."""
    got = error(response(status, body))
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
        ("POST", 400, errors("UNSUPPORTED"), RegistryReadOnly),
        ("PUT", 400, errors("UNSUPPORTED"), RegistryError),
        ("POST", 404, errors("DENIED"), AccessDenied),
        ("PUT", 404, errors("BLOB_UPLOAD_UNKNOWN"), RegistryError),
        ("PUT", 400, errors("MANIFEST_BLOB_UNKNOWN"), RegistryError),
        ("PATCH", 404, b"", RegistryError),
        ("PUT", 403, errors("DENIED"), AccessDenied),
        ("PUT", 401, b"", AuthenticationFailed),
        ("PUT", 507, b"", RegistryUnavailable),
        ("PUT", 200, b"", ProtocolViolation),
    ],
)
def test_error_of_a_write(method: str, status: int, body: object, expected: type[RegistryError]) -> None:
    """A rejected write is never "not found": that would be a reason to create."""
    got = error(response(status, body, method=method))
    assert type(got) is expected
    assert got.status == status


def test_message_has_operation_endpoint_and_cause() -> None:
    """A message has the operation, the endpoint and the cause, but no advice."""
    assert str(error(response(403, errors("DENIED")))) == (
        "cannot look up latest of a/x: http://registry:5000: 403 (DENIED: about DENIED)"
    )
    text = "Client sent an HTTP request to an HTTPS server.\n"
    assert "400 (Client sent an HTTP request to an HTTPS server.)" in str(
        error(response(400, text.encode(), content_type="text/plain; charset=utf-8"))
    )


def test_message_cannot_forge_lines() -> None:
    """A registry's text cannot start another line, and is cut."""
    hostile = {"errors": [{"code": "DENIED", "message": "x\r\nERROR forged\x1b[2J\u202e\u2028" + "y" * 10_000}]}
    message = str(error(response(403, hostile)))
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (errors("DENIED", "NAME_UNKNOWN"), ("DENIED", "NAME_UNKNOWN")),
        ({"errors": [{"code": "DENIED"}, {"code": 7}, "x", {"code": "lower"}]}, ("DENIED", "LOWER")),
        ({"errors": [{"code": "A" * 100}]}, None),
        ({"errors": {"code": "DENIED"}}, None),
        ([], None),
        (b"[" * 100_000, None),
        (b"{", None),
        (b"\xff\xfe", None),
    ],
)
def test_error_codes(body: object, codes: tuple[str, ...] | None) -> None:
    """Codes come from well-formed entries only; a body without any is not an error body."""
    assert error_codes(response(400, body).body) == codes


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
def test_retry_after_is_bounded(value: str | None, seconds: float | None) -> None:
    """Seconds and dates are accepted, both within bounds."""
    assert parse_retry_after(value, now=NOW, limit=MAX_RETRY_AFTER) == seconds


def test_retry_after_reaches_the_error() -> None:
    """The error has the registry's Retry-After."""
    got = error(response(429, b"", retry_after="7"))
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
def test_next_page_among_other_links(header: str | None, target: str | None) -> None:
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
def test_resolve_on_the_registry(target: str, url: str) -> None:
    """Relative and absolute addresses on the registry are resolved, with an unchanged query."""
    assert resolve(target, response=response(202), operation="push", endpoint=REGISTRY) == url


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
def test_resolve_rejects_other_hosts(target: str | None) -> None:
    """Addresses on, or possibly on, another host, port or scheme are rejected with a printable message."""
    with pytest.raises(ProtocolViolation) as raised:
        resolve(target, response=response(202), operation="push", endpoint=REGISTRY)
    assert str(raised.value).isprintable()


def test_foreign_location_has_advice() -> None:
    """The usual cause of a foreign Location is a setting of Distribution: the advice names it."""
    with pytest.raises(ProtocolViolation, match="points to http://other:5000") as raised:
        resolve("http://other:5000/u", response=response(202), operation="push", endpoint=REGISTRY)
    assert raised.value.advice == (
        "fix its http.host or its proxy's Host/X-Forwarded-Proto, or use that URL as registryUrl"
    )


@given(st.text(max_size=60))
def test_resolve_never_leaves(target: str) -> None:
    """Any text is resolved on the registry or rejected."""
    try:
        url = resolve(target, response=response(202), operation="push", endpoint=REGISTRY)
    except ProtocolViolation:
        return
    assert url.startswith("http://registry:5000/")
    assert httpx.URL(url).host == "registry"


def test_with_query_keeps_the_query() -> None:
    """An existing query is kept unchanged, in front."""
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
def test_endpoint_is_normalised(url: str, shown: str) -> None:
    """Two spellings of an endpoint are equal; the scheme's default port is omitted."""
    assert str(Endpoint.of(url)) == shown
    assert Endpoint.of(shown) == Endpoint.of(url)


def test_printable() -> None:
    """Short printable text is kept; other text is cut and sanitised."""
    assert printable("Größe 5 ✓") == "Größe 5 ✓"
    assert printable("a\nb") == "a b"
    assert printable("x" * 201) == "x" * 200 + "..."
