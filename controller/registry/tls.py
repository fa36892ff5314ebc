"""TLS: which certificates are trusted, and why one was rejected."""

from __future__ import annotations

import logging
import ssl
from functools import cached_property
from typing import Final

from controller.binding import TLS
from controller.errors import BindingConfigInvalid
from controller.registry.credentials import FileStamp, file_stamp

_CAUSES: Final = {
    9: "certificate is not valid yet",
    10: "certificate has expired",
    18: "self-signed certificate",
    19: "certificate from an unknown CA",
    20: "certificate from an unknown CA",
    21: "certificate from an unknown CA",
    62: "certificate is for another host",
    64: "certificate is for another IP",
}
"""Causes by OpenSSL's numbers (X509_V_ERR_…)."""

_UNKNOWN_CA: Final = frozenset({18, 19, 20, 21})
_WRONG_NAME: Final = frozenset({62, 64})

_log = logging.getLogger(__name__)


class Trust:
    """Trusted certificates of one registry, read again when the CA bundle changes.

    Args:
        binding_name: The binding's name, for errors.
        tls: Its TLS configuration; None for the default.

    Raises:
        BindingConfigInvalid: The CA bundle is invalid.
    """

    def __init__(self, binding_name: str, tls: TLS | None) -> None:
        self._tls = tls or TLS()
        self._ca_file = self._tls.ca_file
        self._stamp: FileStamp | None = None
        if self._ca_file is not None:
            try:
                self._stamp = file_stamp(self._ca_file)
                self.context  # noqa: B018 - read now: an invalid bundle is an error of the configuration
            except OSError as error:  # ssl.SSLError is one
                reason = f"tls.caFile: cannot load {self._ca_file}: {error.strerror or error}"
                raise BindingConfigInvalid(binding_name, reason) from error
        if self._tls.insecure_skip_verify:
            _log.warning("Registry binding '%s' accepts any TLS certificate (insecureSkipVerify)", binding_name)

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Context of TLS connections. Created at first use: it is slow, and http:// does not need it."""
        if not self._tls.insecure_skip_verify:
            return self.verifying_context
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    @cached_property
    def verifying_context(self) -> ssl.SSLContext:
        """The same, but never without verification: for a token service on another endpoint.

        Python 3.13 verifies strictly by default: it rejects certificates without key identifiers, as older versions
        of openssl create them, which containerd and curl accept. It also trusts an intermediate or server certificate
        in the CA bundle, as they do.
        """
        context = ssl.create_default_context(cafile=self._ca_file)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def refresh(self) -> None:
        """Trust what has been added to the CA bundle; what has been removed stays trusted until a restart."""
        if self._ca_file is None:
            return
        try:
            stamp = file_stamp(self._ca_file)
            if stamp != self._stamp:
                self._stamp = stamp
                self.context.load_verify_locations(cafile=self._ca_file)
        except OSError as error:
            _log.warning("Failed to reload the CA bundle %s, keeping the last valid one: %s", self._ca_file, error)

    def explain(self, error: ssl.SSLCertVerificationError) -> tuple[str, str | None]:
        """Return why a certificate was rejected, and what to do where that is known."""
        cause = _CAUSES.get(error.verify_code, f"certificate rejected ({error.verify_message})")
        if error.verify_code in _WRONG_NAME:
            return cause, "its subjectAltName must name the host of registryUrl"
        if error.verify_code not in _UNKNOWN_CA:
            return cause, None
        return cause, "add its CA to tls.caFile" if self._ca_file else "set tls.caFile to its CA"
