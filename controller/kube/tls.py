"""TLS to the API server, as lenient and as strict as client-go."""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Final

from controller.errors import KubernetesError

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What a TLS context is made from.

    Args:
        ca: CA certificates in PEM; None for those of the system.
        certificate: The client's certificate chain in PEM; None if it has none.
        key: Its private key.
        verify: Whether to verify the server's certificate.
        server_name: The name to verify it against and to request by SNI; empty for the host of the URL.
    """

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    verify: bool = True
    server_name: str = ""

    def context(self) -> ssl.SSLContext:
        """Return a new context.

        Raises:
            KubernetesError: A certificate or the key is invalid.
        """
        context = ssl.create_default_context() if self.ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # As Go: a CA needs no key identifiers (Python 3.13 requires them), and an intermediate CA can be trusted.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.ca is not None:
            _trust(context, self.ca)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None and self.key is not None:
            _load_client_certificate(context, self.certificate, self.key)
        return context


def _trust(context: ssl.SSLContext, bundle: bytes) -> None:
    """Trust the certificates of a bundle; skip its other content and certificates that OpenSSL cannot parse."""
    trusted = 0
    for block in _CERTIFICATE.findall(bundle):
        try:
            context.load_verify_locations(cadata=block.decode("ascii"))
        except (ssl.SSLError, ValueError):
            continue
        trusted += 1
    if not trusted:
        raise KubernetesError("the certificate authority contains no valid certificate in PEM form")


def _load_client_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a certificate and its key.

    The ssl module reads them from files. These have no name, so they disappear with the process however it ends.
    """
    with ExitStack() as stack:
        chain, key_file = (_path(stack.enter_context(_nameless_file(content))) for content in (certificate, key))
        try:
            # Without a password, OpenSSL would ask for that of an encrypted key on the terminal.
            context.load_cert_chain(chain, key_file, password="")
        except (ssl.SSLError, ValueError) as error:
            raise KubernetesError(
                "the client certificate cannot be used: it or its key is not valid PEM, the key is encrypted, "
                f"or they do not belong together ({error})"
            ) from error


def _nameless_file(content: bytes) -> IO[bytes]:
    if hasattr(os, "memfd_create"):  # Linux: in memory, also where no directory can be written
        file: IO[bytes] = os.fdopen(os.memfd_create("client-certificate"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller
    file.write(content)
    file.flush()
    file.seek(0)
    return file


def _path(file: IO[bytes]) -> str:
    return f"/dev/fd/{file.fileno()}"
