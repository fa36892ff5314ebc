"""Credential files: the operator's user and password for a registry.

Files are read again when they change, so a rotated Secret needs no restart. Secrets appear in no ``repr``, message or
log line.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from controller.config import Credentials
from controller.errors import AuthenticationFailed
from controller.redaction import remember
from controller.registry.endpoint import Endpoint
from controller.registry.responses import parse_object

MAX_CREDENTIAL_FILE: Final = 1 << 20
"""Maximum bytes of a credential file; Kubernetes allows no larger Secret."""

_DOCKER_CONFIG_KEY = re.compile(r"(?:https?://)?([^/]+)(?:/(?:v[12]/?)?)?")


@dataclass(frozen=True)
class Login:
    """A user and a password."""

    username: str
    password: str = field(repr=False)

    @cached_property
    def header(self) -> str:
        """The Authorization header for them."""
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"


FileStamp = tuple[int, int, int]


def file_stamp(path: Path) -> FileStamp:
    """Return a value that changes when a file does, also when the kubelet swaps a mounted Secret's symbolic link.

    Raises:
        OSError: The file's metadata cannot be read.
    """
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


class CredentialFiles:
    """The login in a registry's credential files, read again whenever they change.

    Args:
        credentials: The registry's credentials in the configuration; None for anonymous access.
        endpoint: The registry, to find its entry in a ``.dockerconfigjson``.
    """

    def __init__(self, credentials: Credentials | None, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._basic = credentials.basic if credentials else None
        self._docker_config = credentials.docker_config_file if credentials else None
        basic = (self._basic.username_file, self._basic.password_file) if self._basic else ()
        self.paths: tuple[Path, ...] = basic or ((self._docker_config,) if self._docker_config else ())
        self._stamps: tuple[FileStamp, ...] = ()
        self._login: Login | None = None

    def login(self) -> Login | None:
        """Return the login; None where the configuration names no files.

        The files are small and local, so they are read in place, like the configuration.

        Raises:
            AuthenticationFailed: A file is missing, unreadable or invalid; the message names it.
        """
        if not self.paths:
            return None
        # Stamps are taken before reading, so that a change in between is noticed at the next call.
        stamps = tuple(self._stamp(path) for path in self.paths)
        if stamps != self._stamps:
            self._login = self._read()
            remember(self._login.password, self._login.header.partition(" ")[2])
            self._stamps = stamps
        return self._login

    def _stamp(self, path: Path) -> FileStamp:
        try:
            return file_stamp(path)
        except OSError as error:
            raise _unreadable(path, self._endpoint, error) from error

    def _read(self) -> Login:
        if self._docker_config:
            content = _content(self._docker_config, self._endpoint)
            return login_from_docker_config(content, self._endpoint, path=self._docker_config)
        username, password = (_text(path, self._endpoint) for path in self.paths)
        return _checked(Login(username, password), self._endpoint, self.paths[0])


def login_from_docker_config(content: bytes, endpoint: Endpoint, *, path: Path) -> Login:
    """Return a registry's login from the content of a ``.dockerconfigjson``.

    Args:
        content: The file's content.
        endpoint: The registry.
        path: The file, for messages.

    Raises:
        AuthenticationFailed: It is not such a file, or has no login for the registry; the message says which.
    """
    config = parse_object(content)
    entries = config.get("auths") if config is not None else None
    if not isinstance(entries, dict):
        raise _invalid(path, endpoint, "is not a .dockerconfigjson")
    entry = next((entry for key, entry in entries.items() if _names_endpoint(key, endpoint)), None)
    if not isinstance(entry, dict):
        raise _invalid(path, endpoint, f"has no entry for {endpoint.authority}")
    return _checked(_entry_login(entry, endpoint, path), endpoint, path)


def _names_endpoint(key: str, endpoint: Endpoint) -> bool:
    """Return whether a key of "auths" names the registry: with or without scheme, default port and ``/v2/``."""
    match = _DOCKER_CONFIG_KEY.fullmatch(key)
    if match is None:
        return False
    try:
        named = Endpoint.of(f"{endpoint.scheme}://{match[1].lower()}")
    except ValueError:
        return False
    return named == endpoint


def _entry_login(entry: Mapping[str, Any], endpoint: Endpoint, path: Path) -> Login:
    username, password, encoded = (entry.get(key) for key in ("username", "password", "auth"))
    if isinstance(encoded, str) and encoded:
        try:
            username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            # Not chained: the cause would contain the value itself.
            raise _invalid(path, endpoint, '"auth" is not base64 of user:password') from None
    if not isinstance(username, str) or not isinstance(password, str):
        raise _invalid(path, endpoint, 'entry has neither "auth" nor "username" and "password"')
    return Login(username, password)


def _checked(login: Login, endpoint: Endpoint, path: Path) -> Login:
    if not login.username or ":" in login.username:
        raise _invalid(path, endpoint, "user name is empty or contains a colon")
    return login


def _content(path: Path, endpoint: Endpoint) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CREDENTIAL_FILE + 1)
    except OSError as error:
        raise _unreadable(path, endpoint, error) from error
    if len(content) > MAX_CREDENTIAL_FILE:
        raise _invalid(path, endpoint, f"exceeds {MAX_CREDENTIAL_FILE} bytes")
    return content


def _text(path: Path, endpoint: Endpoint) -> str:
    try:
        # A trailing line break comes from an editor or from echo; no registry has such passwords.
        return _content(path, endpoint).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise _invalid(path, endpoint, "is not UTF-8 text") from None  # not chained: the cause contains the bytes


def _unreadable(path: Path, endpoint: Endpoint, error: OSError) -> AuthenticationFailed:
    problem = "is missing" if isinstance(error, FileNotFoundError) else (error.strerror or "unreadable").lower()
    return _invalid(path, endpoint, problem)


def _invalid(path: Path, endpoint: Endpoint, problem: str) -> AuthenticationFailed:
    return AuthenticationFailed("read credentials", str(endpoint), f"{path} {problem}", advice="fix its Secret")
