"""Logins in ``.dockerconfigjson`` files, as docker, podman and the kubelet read them.

An entry's key is a host with an optional scheme, port and path; ``*`` stands for a part of the host name, as for the
kubelet. The longest path that matches wins (containers-auth.json(5)). What such a file may have besides passwords is
not supported, and the message says so: credential helpers are programs on the machine that wrote the file, and
identity tokens expire within hours.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from controller.names import DEFAULT_PORTS
from controller.registry.endpoint import Endpoint

_KEY: Final = re.compile(r"(?:https?://)?(?P<host>\[[^\]]*\]|[^/:]+)(?::(?P<port>[0-9]+))?(?P<path>/.*)?")
_API_PATH: Final = re.compile(r"/v[12]/?")
"""Path that docker writes after the host; it is not the path of a repository."""

_DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_INSTEAD: Final = "use a user name and password, such as those of a robot account"


class InvalidDockerConfig(ValueError):
    """The file has no usable login for the registry; the message says why, to follow the file's name."""


def find_login(config: Mapping[str, Any] | None, endpoint: Endpoint, prefix: str) -> tuple[str, str]:
    """Return user and password for a registry.

    Args:
        config: The parsed file; None if it is not a JSON object.
        endpoint: The registry.
        prefix: The path of the repositories in the registry; empty for none.

    Raises:
        InvalidDockerConfig: There is no such login.
    """
    if config is None:
        raise InvalidDockerConfig("is not a .dockerconfigjson")
    host = endpoint.authority
    entries = _entries(config)
    helper = _helper(config, endpoint)
    if entries is None:
        raise InvalidDockerConfig(
            f'has no "auths"{f", only {helper}" if helper else ""}: it is not a .dockerconfigjson with logins'
        )
    matching = {key: length for key in entries if (length := _match(key, endpoint, prefix)) is not None}
    if not matching:
        elsewhere = f": its login is in {helper}, which the operator cannot run; {_INSTEAD}" if helper else ""
        raise InvalidDockerConfig(f"has no entry for {host}{elsewhere}")
    entry = entries[max(matching, key=lambda key: matching[key])]
    if not isinstance(entry, dict):
        raise InvalidDockerConfig(f"has no entry for {host}")
    return _login(entry, helper)


def _entries(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the logins by key; those of the legacy ``.dockercfg`` are at the top."""
    entries = config.get("auths")
    if isinstance(entries, dict):
        return entries
    legacy = {
        key: value for key, value in config.items() if isinstance(value, dict) and {"auth", "username"} & {*value}
    }
    return legacy or None


def _helper(config: Mapping[str, Any], endpoint: Endpoint) -> str | None:
    """Return how the file names the credential helper that has a registry's login; None for none."""
    helpers = config.get("credHelpers")
    if isinstance(helpers, dict):
        for key, name in helpers.items():
            if _match(key, endpoint, "") is not None:
                return f'credHelpers ("{key}": "{name}")'
    store = config.get("credsStore")
    return f'credsStore ("{store}")' if store else None


def _match(key: str, endpoint: Endpoint, prefix: str) -> int | None:
    """Return the length of the path in a key that names a registry; None for another registry or path."""
    match = _KEY.fullmatch(key.strip())
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS[endpoint.scheme]
    if port != endpoint.port or not _names_host(match["host"].lower().strip("[]"), endpoint.host):
        return None
    path = match["path"] or ""
    if path.strip("/") == "" or _API_PATH.fullmatch(path):
        return 0
    wanted = path.strip("/")
    return len(wanted) if f"{prefix}/".startswith(f"{wanted}/") else None


def _names_host(pattern: str, host: str) -> bool:
    if {pattern, host} <= _DOCKER_HUB:
        return True
    labels, names = pattern.split("."), host.split(".")
    return len(labels) == len(names) and all(map(fnmatchcase, names, labels))


def _login(entry: Mapping[str, Any], helper: str | None) -> tuple[str, str]:
    username, password, encoded = (entry.get(key) for key in ("username", "password", "auth"))
    if isinstance(encoded, str) and encoded.strip():
        username, password = _decoded(encoded)
    if not isinstance(username, str) or not isinstance(password, str) or not password:
        for token in ("identitytoken", "registrytoken"):
            if entry.get(token):
                raise InvalidDockerConfig(f"has {token} instead of a password, which is not supported; {_INSTEAD}")
        if helper:
            raise InvalidDockerConfig(f"keeps its login in {helper}, which the operator cannot run; {_INSTEAD}")
        raise InvalidDockerConfig('entry has neither "auth" nor "username" and "password"')
    return username, password


def _decoded(encoded: str) -> tuple[str, str]:
    try:
        text = base64.b64decode("".join(encoded.split()), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        # Not chained: the cause would contain the value itself.
        raise InvalidDockerConfig('"auth" is not base64 of user:password') from None
    username, colon, password = text.partition(":")
    if not colon:
        raise InvalidDockerConfig('"auth" is not base64 of user:password: it has no colon')
    # Docker pads with zeros; a trailing line break comes from echo.
    return username, password.strip("\0").rstrip("\r\n")
