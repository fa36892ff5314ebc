"""Whom the client believes, and what it says when it does not.

=======================================  ======================================================
certificate                              outcome
=======================================  ======================================================
signed by the CA in tls.caFile           believed
the same, without tls.caFile             TLSVerificationFailed: unknown CA, name it in tls.caFile
signed by another CA                     TLSVerificationFailed: unknown CA, add it to the file
expired, or not valid yet                TLSVerificationFailed: says so
for another host name or address         TLSVerificationFailed: says so
any, with insecureSkipVerify             believed, with a warning at start
=======================================  ======================================================
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import trustme

from controller.config import TLS, RegistryBinding
from controller.errors import BindingConfigInvalid, ProtocolViolation, RegistryUnavailable, TLSVerificationFailed
from controller.registry.client import RegistryClient
from tests.fakes.raw_server import RawServer, Writer, raw_server

NOW = datetime.now(UTC)


def authority() -> trustme.CA:
    """Return a CA that nobody else knows."""
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def server_context(
    ca: trustme.CA,
    *names: str,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> ssl.SSLContext:
    """Return a server's context with a certificate for these names."""
    certificate = ca.issue_cert(
        *(names or ("127.0.0.1", "localhost")),
        key_type=trustme.KeyType.ECDSA,
        not_before=not_before,
        not_after=not_after,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """The CA of these tests."""
    return authority()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    """Its certificate as a file."""
    path = tmp_path / "ca.crt"
    ca.cert_pem.write_to_path(str(path))
    return path


@asynccontextmanager
async def served(context: ssl.SSLContext | None) -> AsyncIterator[RawServer]:
    """Run a registry that answers 200 to everything."""

    async def answer(_: str, writer: Writer) -> None:
        await writer.answer("200 OK", b"{}")

    async with raw_server(answer, tls=context) as server:
        yield server


async def ping(url: str, tls: TLS | None) -> None:
    """Ask a registry whether it is there."""
    client = RegistryClient("test", RegistryBinding(registry_url=url, tls=tls))
    try:
        await client.ping()
    finally:
        await client.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_believed(ca: trustme.CA, ca_file: Path, host: str) -> None:
    """A certificate of the CA in the file, for the host in the URL."""
    async with served(server_context(ca)) as server:
        await ping(server.url.replace("127.0.0.1", host), TLS(ca_file=ca_file))


async def test_http_reads_no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the system's CAs takes the event loop longer than all requests for ten objects."""
    monkeypatch.setattr(ssl, "create_default_context", None)
    async with served(None) as server:
        await ping(server.url, None)


async def test_without_the_ca(ca: trustme.CA) -> None:
    """Without a CA file the system's CAs are asked, who do not know ours; the message says what to do."""
    async with served(server_context(ca)) as server:
        with pytest.raises(TLSVerificationFailed, match=r"signed by an unknown CA: name its CA in tls\.caFile"):
            await ping(server.url, None)
        assert server.heads == []


async def test_another_ca(ca_file: Path) -> None:
    """A certificate of another CA: the message names the file to add it to."""
    async with served(server_context(authority())) as server:
        with pytest.raises(TLSVerificationFailed, match=rf"unknown CA: add its CA to {ca_file}"):
            await ping(server.url, TLS(ca_file=ca_file))
        assert server.heads == []


@pytest.mark.parametrize(
    ("begins", "ends", "why"),
    [(-2, -1, "its certificate has expired"), (1, 2, "its certificate is not valid yet")],
)
async def test_out_of_time(ca: trustme.CA, ca_file: Path, begins: int, ends: int, why: str) -> None:
    """A certificate whose time is over, or has not come."""
    context = server_context(ca, not_before=NOW + timedelta(days=begins), not_after=NOW + timedelta(days=ends))
    async with served(context) as server:
        with pytest.raises(TLSVerificationFailed, match=why):
            await ping(server.url, TLS(ca_file=ca_file))


@pytest.mark.parametrize(
    ("host", "why"),
    [("localhost", "its certificate is for another host name"), ("127.0.0.1", "is for another IP address")],
)
async def test_wrong_host(ca: trustme.CA, ca_file: Path, host: str, why: str) -> None:
    """A certificate of somebody else."""
    async with served(server_context(ca, "registry.example.com", "10.0.0.1")) as server:
        with pytest.raises(TLSVerificationFailed, match=why):
            await ping(server.url.replace("127.0.0.1", host), TLS(ca_file=ca_file))


async def test_insecure(caplog: pytest.LogCaptureFixture) -> None:
    """With insecureSkipVerify everything is believed, and the log warns of it."""
    async with served(server_context(authority(), "registry.example.com")) as server:
        with caplog.at_level(logging.WARNING):
            await ping(server.url, TLS(insecure_skip_verify=True))
    assert "any TLS certificate is accepted" in caplog.text


async def test_https_to_a_plain_registry() -> None:
    """An https URL of a registry without TLS: the message says what to write."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RegistryUnavailable, match="does not speak TLS on this port: write http://") as raised:
            await ping(f"https://127.0.0.1:{port}", None)
    assert type(raised.value) is RegistryUnavailable


async def test_http_to_a_tls_registry(ca: trustme.CA) -> None:
    """An http URL of a registry with TLS is an error of ours, whatever comes back."""
    async with served(server_context(ca)) as server:
        with pytest.raises((ProtocolViolation, RegistryUnavailable)):
            await ping(server.url.replace("https://", "http://"), None)


async def test_reset_in_the_handshake(ca_file: Path) -> None:
    """A connection that breaks while TLS is negotiated is an outage, not a matter of trust."""

    async def break_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with await asyncio.start_server(break_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RegistryUnavailable) as raised:
            await ping(f"https://127.0.0.1:{port}", TLS(ca_file=ca_file))
    assert type(raised.value) is RegistryUnavailable


async def test_reset_in_the_body(ca: trustme.CA, ca_file: Path) -> None:
    """A TLS connection that breaks in the middle of an answer is an outage, too; no half answer is believed."""

    async def answer(_: str, writer: Writer) -> None:
        await writer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        writer.reset()

    async with raw_server(answer, tls=server_context(ca)) as server:
        with pytest.raises(RegistryUnavailable, match="closed before the answer was complete") as raised:
            await ping(server.url, TLS(ca_file=ca_file))
    assert type(raised.value) is RegistryUnavailable


async def test_ca_is_renewed(ca: trustme.CA, ca_file: Path) -> None:
    """A CA that is added to the file while the operator runs is believed without a restart, also when the file goes."""
    renewed = authority()
    replace = partial(ca_file.write_bytes, ca.cert_pem.bytes() + renewed.cert_pem.bytes())
    async with served(server_context(renewed)) as server:
        binding = RegistryBinding(registry_url=server.url, tls=TLS(ca_file=ca_file))
        client = RegistryClient("test", binding)
        try:
            with pytest.raises(TLSVerificationFailed):
                await client.ping()
            for change in (replace, ca_file.unlink):
                change()
                await client.ping()
        finally:
            await client.close()


@pytest.mark.parametrize("content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nx\n"])
def test_unusable_ca_file(tmp_path: Path, content: str | None) -> None:
    """A CA file that is missing or holds no certificate is refused when the binding is read, by the field's name."""
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_text(content)
    binding = RegistryBinding(registry_url="https://registry", tls=TLS(ca_file=path))
    with pytest.raises(BindingConfigInvalid, match=r"'test' is invalid: tls\.caFile: .*/ca\.crt cannot be used"):
        RegistryClient("test", binding)
