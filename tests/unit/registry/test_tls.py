"""TLS: which certificates are trusted, and what is reported for the others.

=======================================  ======================================================
certificate                              outcome
=======================================  ======================================================
signed by the CA in tls.caFile           trusted
the same, without tls.caFile             TLSVerificationFailed: unknown CA; set tls.caFile
signed by another CA                     TLSVerificationFailed: unknown CA; add it to tls.caFile
expired, or not valid yet                TLSVerificationFailed
for another host name or address         TLSVerificationFailed
any, with insecureSkipVerify             trusted, with a warning at start; not for a token service elsewhere
without key identifiers                  trusted on every Python, as by curl and containerd
without subjectAltName                   by its common name if that is a host name, not an address; with advice
itself in tls.caFile                     trusted
=======================================  ======================================================
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from controller.binding import TLS, Credentials, RegistryBinding
from controller.errors import BindingConfigInvalid, ProtocolViolation, RegistryUnavailable, TLSVerificationFailed
from controller.names import RepositoryPath
from controller.registry.client import RegistryClient
from tests.fakes.raw_server import RawServer, Writer, raw_server

NOW = datetime.now(UTC)


def authority() -> trustme.CA:
    """Return a new CA."""
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


def home_made(ca: trustme.CA, directory: Path, *, names: list[x509.GeneralName]) -> tuple[Path, Path]:
    """Return a certificate for the common name localhost, without key identifiers, as openssl 1.1 makes them."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    authority_key = load_pem_private_key(ca.private_key_pem.bytes(), password=None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    paths = directory / "server.crt", directory / "server.key"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def context_of(paths: tuple[Path, Path]) -> ssl.SSLContext:
    """Return a server's context with a certificate and key from files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*paths)
    return context


@pytest.fixture
def strict_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts verify as strictly as by default in Python 3.13."""
    create = ssl.create_default_context

    def create_strict(*args: Any, **options: Any) -> ssl.SSLContext:
        context = create(*args, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", create_strict)


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
    """Run a registry that responds 200 to everything."""

    async def respond(_: str, writer: Writer) -> None:
        await writer.respond("200 OK", b"{}")

    async with raw_server(respond, tls=context) as server:
        yield server


async def ping(url: str, tls: TLS | None) -> None:
    """Ping a registry."""
    client = RegistryClient("test", RegistryBinding(registry_url=url, tls=tls))
    try:
        await client.ping()
    finally:
        await client.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_certificate_of_the_configured_ca(ca: trustme.CA, ca_file: Path, host: str) -> None:
    """A certificate of the CA in tls.caFile, for the URL's host, is trusted."""
    async with served(server_context(ca)) as server:
        await ping(server.url.replace("127.0.0.1", host), TLS(ca_file=ca_file))


async def test_http_loads_no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS no CAs are loaded, which would take longer than all requests for ten objects."""
    monkeypatch.setattr(ssl, "create_default_context", None)
    async with served(None) as server:
        await ping(server.url, None)


async def test_unknown_ca_without_ca_file(ca: trustme.CA) -> None:
    """Without tls.caFile, a certificate of an unknown CA is rejected, with the advice to set it."""
    async with served(server_context(ca)) as server:
        with pytest.raises(TLSVerificationFailed, match="certificate from an unknown CA") as raised:
            await ping(server.url, None)
        assert raised.value.advice == "set tls.caFile to its CA"
        assert server.heads == []


async def test_unknown_ca_with_ca_file(ca_file: Path) -> None:
    """With tls.caFile, a certificate of another CA is rejected, with the advice to add it there."""
    async with served(server_context(authority())) as server:
        with pytest.raises(TLSVerificationFailed, match="certificate from an unknown CA") as raised:
            await ping(server.url, TLS(ca_file=ca_file))
        assert raised.value.advice == "add its CA to tls.caFile"
        assert server.heads == []


@pytest.mark.parametrize(
    ("begins", "ends", "why"),
    [(-2, -1, "certificate has expired"), (1, 2, "certificate is not valid yet")],
)
async def test_expired_or_not_yet_valid(ca: trustme.CA, ca_file: Path, begins: int, ends: int, why: str) -> None:
    """A certificate that has expired or is not valid yet is rejected."""
    context = server_context(ca, not_before=NOW + timedelta(days=begins), not_after=NOW + timedelta(days=ends))
    async with served(context) as server:
        with pytest.raises(TLSVerificationFailed, match=why):
            await ping(server.url, TLS(ca_file=ca_file))


@pytest.mark.parametrize(
    ("host", "why"),
    [("localhost", "certificate is for another host"), ("127.0.0.1", "certificate is for another IP")],
)
async def test_wrong_host(ca: trustme.CA, ca_file: Path, host: str, why: str) -> None:
    """A certificate for another host is rejected."""
    async with served(server_context(ca, "registry.example.com", "10.0.0.1")) as server:
        with pytest.raises(TLSVerificationFailed, match=why):
            await ping(server.url.replace("127.0.0.1", host), TLS(ca_file=ca_file))


async def test_insecure_skip_verify(caplog: pytest.LogCaptureFixture) -> None:
    """With insecureSkipVerify every certificate is trusted, and the log has a warning."""
    async with served(server_context(authority(), "registry.example.com")) as server:
        with caplog.at_level(logging.WARNING):
            await ping(server.url, TLS(insecure_skip_verify=True))
    assert "accepts any TLS certificate" in caplog.text


async def test_insecure_skip_verify_is_for_the_registry_alone(ca: trustme.CA) -> None:
    """A token service on another endpoint is verified: it receives the credentials."""
    async with served(server_context(ca)) as service:

        async def respond(_: str, writer: Writer) -> None:
            await writer.respond("401 Unauthorized", WWW_Authenticate=f'Bearer realm="{service.url}/token"')

        async with raw_server(respond, tls=server_context(ca)) as server:
            binding = RegistryBinding(
                registry_url=server.url,
                tls=TLS(insecure_skip_verify=True),
                credentials=Credentials(token_realms=(f"{service.url}/token",)),
            )
            client = RegistryClient("test", binding)
            with pytest.raises(TLSVerificationFailed, match="cannot get a token"):
                await client.get_manifest(RepositoryPath("a/b"), "latest")
            await client.close()
        assert service.heads == []


@pytest.mark.usefixtures("strict_python")
async def test_certificate_without_key_identifiers(ca: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """A certificate without key identifiers, as home-made ones are, is trusted on every Python."""
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    async with served(context_of(home_made(ca, tmp_path, names=names))) as server:
        await ping(server.url, TLS(ca_file=ca_file))


async def test_certificate_with_common_name_only(ca: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """The common name is sufficient for a host name; otherwise the advice names subjectAltName."""
    async with served(context_of(home_made(ca, tmp_path, names=[]))) as server:
        await ping(server.url.replace("127.0.0.1", "localhost"), TLS(ca_file=ca_file))
        with pytest.raises(TLSVerificationFailed) as raised:
            await ping(server.url, TLS(ca_file=ca_file))
        assert raised.value.advice == "its subjectAltName must name the host of registryUrl"


async def test_ca_file_with_the_certificate_itself(ca: trustme.CA, tmp_path: Path) -> None:
    """As with curl and containerd, tls.caFile may contain the server's certificate instead of its CA's."""
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    paths = home_made(ca, tmp_path, names=names)
    async with served(context_of(paths)) as server:
        await ping(server.url.replace("127.0.0.1", "localhost"), TLS(ca_file=paths[0]))


async def test_https_to_a_plain_registry() -> None:
    """An https URL of a registry without TLS is reported, with the advice to use http://."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RegistryUnavailable, match="no TLS on this port") as raised:
            await ping(f"https://127.0.0.1:{port}", None)
    assert type(raised.value) is RegistryUnavailable
    assert raised.value.advice == "use http:// in registryUrl"


async def test_http_to_a_tls_registry(ca: trustme.CA) -> None:
    """An http URL of a registry with TLS is a registry error."""
    async with served(server_context(ca)) as server:
        with pytest.raises((ProtocolViolation, RegistryUnavailable)):
            await ping(server.url.replace("https://", "http://"), None)


async def test_reset_in_the_handshake(ca_file: Path) -> None:
    """A reset during the handshake is an outage, not a verification failure."""

    async def break_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with await asyncio.start_server(break_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RegistryUnavailable) as raised:
            await ping(f"https://127.0.0.1:{port}", TLS(ca_file=ca_file))
    assert type(raised.value) is RegistryUnavailable


async def test_reset_in_the_body(ca: trustme.CA, ca_file: Path) -> None:
    """A reset in the middle of a response is an outage; a partial response is not used."""

    async def respond(_: str, writer: Writer) -> None:
        await writer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        writer.reset()

    async with raw_server(respond, tls=server_context(ca)) as server:
        with pytest.raises(RegistryUnavailable, match="connection closed early") as raised:
            await ping(server.url, TLS(ca_file=ca_file))
    assert type(raised.value) is RegistryUnavailable


async def test_added_ca_is_trusted_without_restart(ca: trustme.CA, ca_file: Path) -> None:
    """A CA added to the file is trusted without a restart, also after the file is removed."""
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


def test_a_pipe_as_a_ca_file_is_rejected(tmp_path: Path) -> None:
    """At once: reading it would wait for somebody to write to it."""
    path = tmp_path / "ca.crt"
    os.mkfifo(path)
    binding = RegistryBinding(registry_url="https://registry", tls=TLS(ca_file=path))
    with pytest.raises(BindingConfigInvalid, match=r"cannot load .*/ca\.crt: Not a regular file"):
        RegistryClient("test", binding)


@pytest.mark.parametrize("content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nx\n"])
def test_invalid_ca_file_is_rejected(tmp_path: Path, content: str | None) -> None:
    """A CA file that is missing or contains no certificate is rejected at construction, with the field's name."""
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_text(content)
    binding = RegistryBinding(registry_url="https://registry", tls=TLS(ca_file=path))
    with pytest.raises(BindingConfigInvalid, match=r"'test' is invalid: tls\.caFile: cannot load .*/ca\.crt"):
        RegistryClient("test", binding)
