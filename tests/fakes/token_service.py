"""Token service for Distribution: it signs with a key whose certificate the registry trusts.

Written from the specification ("Token Authentication Specification" and "… Implementation" of Distribution): a JSON web
token with the granted access as a claim, and the signing certificate in its header.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from tests.fakes.raw_server import Writer, raw_server

SERVICE: Final = "test registry"
ISSUER: Final = "test tokens"

Grant = Callable[[str, list[str]], list[str]]
"""Returns which of the requested actions on a repository are granted."""


def grant_all(_: str, actions: list[str]) -> list[str]:
    """Grant all requested actions."""
    return actions


@dataclass
class TokenService:
    """A running token service.

    Attributes:
        url: Where tokens are requested.
        bundle: File with the certificates that the registry must trust.
        authorization: Required Authorization header; None for anonymous access.
        grant: Returns the granted actions.
        scopes: The scopes of each request, in order.
    """

    url: str
    bundle: Path
    authorization: str | None = None
    grant: Grant = grant_all
    scopes: list[list[str]] = field(default_factory=list)

    def registry_config(self) -> dict[str, object]:
        """Return the configuration with which Distribution uses it."""
        token = {"realm": self.url, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(self.bundle)}
        return {"auth": {"token": token}}


@asynccontextmanager
async def token_service(directory: Path) -> AsyncIterator[TokenService]:
    """Run a token service on a free loopback port.

    Args:
        directory: Directory for the certificates.
    """
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issued = ca.issue_cert("tokens", key_type=trustme.KeyType.ECDSA)
    bundle = directory / "bundle.pem"
    ca.cert_pem.write_to_path(str(bundle))
    service = TokenService("", bundle)

    async def respond(head: str, writer: Writer) -> None:
        lines = head.split("\r\n")
        query = parse_qs(urlsplit(lines[0].split(" ")[1]).query)
        service.scopes.append(query.get("scope", []))
        sent = next((line.partition(": ")[2] for line in lines if line.startswith("authorization: ")), None)
        if sent != service.authorization or query.get("service") != [SERVICE]:
            await writer.respond("401 Unauthorized", WWW_Authenticate='Basic realm="tokens"')
            return
        token = _sign(issued, [_access(scope, service.grant) for scope in query.get("scope", [])])
        await writer.respond("200 OK", json.dumps({"token": token, "expires_in": 300}).encode())

    async with raw_server(respond) as server:
        service.url = f"{server.url}/token"
        yield service


def _access(scope: str, grant: Grant) -> dict[str, object]:
    kind, name, actions = scope.split(":")
    return {"type": kind, "name": name, "actions": grant(name, actions.split(","))}


def _sign(issued: trustme.LeafCert, access: list[dict[str, object]]) -> str:
    """Return a token, signed with ES256."""
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    header = {
        "typ": "JWT",
        "alg": "ES256",
        "x5c": [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()],
    }
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": SERVICE,
        "sub": "robot",
        "iat": now,
        "nbf": now - 10,
        "exp": now + 300,
        "jti": uuid.uuid4().hex,
        "access": access,
    }
    signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
    r, s = utils.decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(SHA256())))
    return f"{signed}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
