"""Credential files: the operator's user and password for a registry.

Files are read again when they change, so a rotated Secret needs no restart. Secrets appear in no ``repr``, message or
log line.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from controller.binding import Credentials
from controller.errors import AuthenticationFailed
from controller.files import stat_regular
from controller.redaction import remember
from controller.registry.dockerconfig import InvalidDockerConfig, find_login
from controller.registry.endpoint import Endpoint
from controller.registry.responses import parse_object

MAX_CREDENTIAL_FILE: Final = 1 << 20
"""Maximum bytes of a credential file; Kubernetes allows no larger Secret."""


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
        OSError: The file's metadata cannot be read, or it is no regular file.
    """
    status = stat_regular(path)
    return status.st_mtime_ns, status.st_ino, status.st_size


class CredentialFiles:
    """The login in a registry's credential files, read again whenever they change.

    Args:
        credentials: The registry's credentials in the configuration; None for anonymous access.
        endpoint: The registry, to find its entry in a ``.dockerconfigjson``.
        prefix: The path of its repositories, for the same; empty for none.
    """

    def __init__(self, credentials: Credentials | None, endpoint: Endpoint, prefix: str = "") -> None:
        self._endpoint = endpoint
        self._prefix = prefix
        self._basic = credentials.basic if credentials else None
        self._docker_config = credentials.docker_config_file if credentials else None
        basic = (self._basic.username_file, self._basic.password_file) if self._basic else ()
        self.paths: tuple[Path, ...] = basic or ((self._docker_config,) if self._docker_config else ())
        self.version = 0
        """How often the files have been read."""
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
            self.version += 1
        return self._login

    def _stamp(self, path: Path) -> FileStamp:
        try:
            return file_stamp(path)
        except OSError as error:
            raise _unreadable(path, self._endpoint, error) from error

    def _read(self) -> Login:
        if self._docker_config:
            content = parse_object(_content(self._docker_config, self._endpoint))
            try:
                username, password = find_login(content, self._endpoint, self._prefix)
            except InvalidDockerConfig as error:
                raise _invalid(self._docker_config, self._endpoint, str(error)) from None  # its cause may quote it
            return _checked(Login(username, password), self._endpoint, self._docker_config)
        username, password = (_text(path, self._endpoint) for path in self.paths)
        return _checked(Login(username, password), self._endpoint, self.paths[0])


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
