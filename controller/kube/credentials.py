"""Credentials for the API server: read from the files that a kubeconfig names and from its exec plugin."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from controller.errors import KubernetesError
from controller.kube.execplugin import ExecStatus, run_plugin
from controller.kube.kubeconfig import Entry, KubeconfigSource, User
from controller.kube.tls import TlsMaterial

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HEADER_NAME: Final = "!#$&'*+-.^_`|~"
_EARLY: Final = 30.0
"""Seconds before their end at which credentials are renewed, while they can still be used."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to authenticate to the API server, at one time.

    Args:
        entry: The cluster and the user.
        headers: Headers of each request; a name may occur more than once.
        tls: CA and client certificate.
        status: What the exec plugin returned, if there is one.
        renew_at: When to run the plugin again, in seconds since the epoch.
    """

    entry: Entry = field(repr=False)
    headers: Sequence[tuple[str, str]] = field(repr=False)
    tls: TlsMaterial = field(repr=False)
    status: ExecStatus | None = field(default=None, repr=False)
    renew_at: float = field(default=float("inf"), compare=False)

    @property
    def are_expired(self) -> bool:
        """Whether the exec plugin has said that they cannot be used any longer."""
        expires_at = self.status.expiration_timestamp if self.status else None
        return expires_at is not None and expires_at.timestamp() <= time.time()

    @property
    def are_due(self) -> bool:
        """Whether it is time to run the exec plugin again."""
        return time.time() >= self.renew_at

    @property
    def server(self) -> str:
        """URL of the API server; without a scheme it is http, as for kubectl."""
        given = self.entry.cluster.server
        server = (given if "://" in given else f"http://{given}").rstrip("/")
        try:
            parts = urlsplit(server)
            is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_valid = False
        if not is_valid:
            raise KubernetesError(f"the server of the kubeconfig is not an http:// or https:// URL: {given}")
        return server


async def read_credentials(
    source: KubeconfigSource, previous: Credentials | None, *, rejected: bool = False
) -> Credentials:
    """Read everything again.

    Args:
        source: Where to read.
        previous: The credentials used so far. Their context and API server are kept; those of another one must not be
            sent to it.
        rejected: Whether the API server rejected them. If not, the exec plugin runs only if they end soon.

    Raises:
        KubernetesError: Something cannot be read or is invalid, or the plugin failed.
    """
    entry = await asyncio.to_thread(source.load, previous.entry.context if previous else None)
    if previous and entry.cluster.server != previous.entry.cluster.server:
        raise KubernetesError(
            f"the kubeconfig now names another API server ({entry.cluster.server}): restart to use it"
        )
    headers, tls = await asyncio.to_thread(_read_files, entry)
    status, renew_at = None, float("inf")
    if entry.user.exec is not None:
        if previous and previous.status and not rejected and time.time() < previous.renew_at:
            status, renew_at = previous.status, previous.renew_at
        else:
            status = await run_plugin(entry.user.exec, entry.cluster, ca=tls.ca)
            renew_at = _renewal_time(status)
        headers, tls = _with_plugin(headers, tls, status)
    if any(_CONTROL.search(value) for _, value in headers):
        raise KubernetesError("the token, or a name to impersonate, contains a line break or control character")
    return Credentials(entry, headers, tls, status, renew_at)


def _renewal_time(status: ExecStatus) -> float:
    if status.expiration_timestamp is None:
        return float("inf")
    end, now = status.expiration_timestamp.timestamp(), time.time()
    return end - min(_EARLY, (end - now) / 5)


def _with_plugin(
    headers: Sequence[tuple[str, str]], tls: TlsMaterial, status: ExecStatus
) -> tuple[Sequence[tuple[str, str]], TlsMaterial]:
    if status.token:
        headers = [_bearer(status.token), *headers]
    if status.client_certificate_data and status.client_key_data:
        certificate, key = status.client_certificate_data.encode(), status.client_key_data.encode()
        tls = TlsMaterial(tls.ca, certificate, key, verify=tls.verify, server_name=tls.server_name)
    return headers, tls


def _read_files(entry: Entry) -> tuple[Sequence[tuple[str, str]], TlsMaterial]:
    cluster, user = entry.cluster, entry.user
    tls = TlsMaterial(
        ca=_content(cluster.certificate_authority_data, cluster.certificate_authority),
        certificate=_content(user.client_certificate_data, user.client_certificate),
        key=_content(user.client_key_data, user.client_key),
        verify=not cluster.insecure_skip_tls_verify,
        server_name=cluster.tls_server_name,
    )
    return [*_authorization(user), *_impersonation(user)], tls


def _authorization(user: User) -> Sequence[tuple[str, str]]:
    if user.token_file:
        try:
            token = _read(user.token_file).decode().strip()
        except UnicodeDecodeError:
            raise KubernetesError(f"the token file {user.token_file} contains no token") from None
        if not token:
            raise KubernetesError(f"the token file {user.token_file} is empty")
        return [_bearer(token)]
    if user.token:
        return [_bearer(user.token)]
    if user.username:
        pair = base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
        return [("Authorization", f"Basic {pair}")]
    return []


def _bearer(token: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {token.strip()}"


def _impersonation(user: User) -> Sequence[tuple[str, str]]:
    headers = [("Impersonate-User", user.impersonate)] if user.impersonate else []
    headers += [("Impersonate-Uid", user.as_uid)] if user.as_uid else []
    headers += [("Impersonate-Group", group) for group in user.as_groups]
    for key, values in user.as_user_extra.items():
        headers += [(f"Impersonate-Extra-{quote(key, safe=_HEADER_NAME)}", value) for value in values]
    return headers


def _content(data: bytes, path: str) -> bytes | None:
    """Return what is given by value or by the name of a file; None if neither."""
    return data or (_read(path) if path else None)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise KubernetesError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
