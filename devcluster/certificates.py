"""Certificates for servers that live as long as one test run."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class CertificateAuthority:
    """A CA that nothing else trusts.

    Args:
        directory: Where its files go; made if need be.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.ca_file = directory / "ca.crt"
        self._authority.cert_pem.write_to_path(str(self.ca_file))

    def issue(self, name: str, *hosts: str, organization: str | None = None) -> Certificate:
        """Issue a certificate for servers and clients alike.

        Args:
            name: Its common name (to Kubernetes the user), and how the files are called.
            hosts: Host names and addresses that it is good for as a server's; ``127.0.0.1`` and ``localhost`` if none.
            organization: To Kubernetes, the user's group.
        """
        issued = self._authority.issue_cert(
            *(hosts or ("127.0.0.1", "localhost")),
            common_name=name,
            organization_name=organization,
            key_type=trustme.KeyType.ECDSA,
        )
        certificate = Certificate(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(str(certificate.certificate))
        certificate.key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(str(certificate.key))
        return certificate
