"""Grammar of the names of repositories, tags, digests and hosts; all are validated before use.

The grammar is that of the OCI distribution specification v1.1, section "Pulling manifests" (``<name>``,
``<reference>``), and of the OCI image specification v1.1, section "Digests". The CRD has the same pattern and length;
a test compares them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final, NewType

from controller.errors import InvalidNameError

_COMPONENT: Final = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"

REPOSITORY_NAME_PATTERN: Final = rf"^{_COMPONENT}(/{_COMPONENT})*$"
"""The pattern of ``spec.repositoryName``, as in the CRD; it means the same in RE2 and Python."""

MAX_REPOSITORY_NAME: Final = 200
"""Longest ``repositoryName`` in characters: with a path prefix, Docker's registry 2.8 fails beyond 245."""

MAX_REGISTRY_PATH: Final = 245
"""Longest path in a registry (prefix, slash, name) in characters, as measured on the strictest registry."""

BINDING_NAME_PATTERN: Final = rf"^{_COMPONENT}$"
"""A binding name is the first component of repository paths by default, so it follows the same grammar."""

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
"""Port of a URL that names none, by scheme."""

MAX_REFERENCE: Final = 255
"""Longest reference without tag in characters, host included: many clients accept no more (OCI distribution
specification v1.1, "Pulling manifests", note to implementers), among them the kubelet of Kubernetes 1.29."""

NAMESPACE_GLOB_PATTERN: Final = r"^[a-z0-9*]([-a-z0-9*]*[a-z0-9*])?$"
"""Name of a namespace, or a pattern of names in which ``*`` stands for any characters."""

_NAME = re.compile(REPOSITORY_NAME_PATTERN)
_TAG = re.compile(r"^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$")
_DIGEST = re.compile(r"^[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$")
_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(
    rf"(\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>{_LABEL}(\.{_LABEL})*))(:(?P<port>[0-9]{{1,5}}))?",
    re.ASCII | re.IGNORECASE,
)
_MAX_HOST: Final = 253
_MAX_PORT: Final = 65535
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

_GRAMMAR = "use lower-case letters and digits, separated by single '.', '_', '__' or '-', in components joined by '/'"
_HOW = f"{_GRAMMAR} (for example team-a/web)"


def validate_repository_name(name: str, *, max_length: int = MAX_REPOSITORY_NAME) -> str:
    """Return ``name`` if it is a repository name, and thus safe in a URL.

    Args:
        name: The name, without registry and tag.
        max_length: Maximum length in characters.

    Raises:
        InvalidNameError: The name is invalid; the message says what to write instead.
    """
    if len(name) > max_length:
        raise InvalidNameError(f"repository name has {len(name)} characters, at most {max_length} are allowed")
    # fullmatch, because `$` also matches before a trailing newline.
    if not _NAME.fullmatch(name):
        raise InvalidNameError(f"{name!r} is not a repository name: {_HOW}")
    return name


def is_repository_name(name: str) -> bool:
    """Return whether ``name`` is a valid repository name; every binding name is one, too."""
    return len(name) <= MAX_REPOSITORY_NAME and _NAME.fullmatch(name) is not None


def is_tag(text: str) -> bool:
    """Return whether ``text`` is a valid tag."""
    return _TAG.fullmatch(text) is not None


def validate_reference(reference: str) -> str:
    """Return ``reference`` if it is a tag or a digest.

    Raises:
        InvalidNameError: It is neither of them.
    """
    if not (is_tag(reference) or _DIGEST.fullmatch(reference)):
        raise InvalidNameError(f"{reference!r} is neither a tag nor a digest: write latest or sha256:<64 hex digits>")
    return reference


def validate_digest(digest: str) -> str:
    """Return ``digest`` if it has the form ``algorithm:encoded``.

    Raises:
        InvalidNameError: It has another form.
    """
    if not _DIGEST.fullmatch(digest):
        raise InvalidNameError(f"{digest!r} is not a digest: write sha256:<64 hex digits>")
    return digest


RepositoryPath = NewType("RepositoryPath", str)
"""A validated path of a repository in its registry, safe in a URL."""


def repository_path(path: str) -> RepositoryPath:
    """Validate a full path once, so that its users need not.

    Args:
        path: The path, with the binding's prefix.

    Raises:
        InvalidNameError: It is not a repository name, or is longer than registries accept.
    """
    return RepositoryPath(validate_repository_name(path, max_length=MAX_REGISTRY_PATH))


def join_path(prefix: str, name: str) -> RepositoryPath:
    """Return the path of repository ``name`` in its registry.

    Args:
        prefix: The binding's path prefix; empty for the registry's root.
        name: The repository's name.

    Raises:
        InvalidNameError: The name or the path is not a repository name, or is longer than registries accept.
    """
    validate_repository_name(name)
    return repository_path(f"{prefix}/{name}" if prefix else name)


def validate_template(template: str) -> str:
    """Return ``template`` if it is a valid template of repository names.

    Args:
        template: Text with the placeholders ``{namespace}`` and ``{name}``. ``{name}`` is required, so that two
            objects of a namespace do not share a repository by accident.

    Raises:
        InvalidNameError: A placeholder is unknown or missing, or the result is not a repository name.
    """
    unknown = [p for p in _PLACEHOLDER.findall(template) if p not in ("namespace", "name")]
    if unknown:
        raise InvalidNameError(f"unknown placeholder {{{unknown[0]}}} in {template!r}: use {{namespace}} and {{name}}")
    if "{name}" not in template:
        raise InvalidNameError(f"{template!r} lacks {{name}}: write for example {{namespace}}/{{name}}")
    if not is_repository_name(_expand(template, namespace="ns", name="n")):
        raise InvalidNameError(f"{template!r} makes no repository names: around {{namespace}} and {{name}}, {_GRAMMAR}")
    return template


def expand_template(template: str, *, namespace: str, name: str) -> str:
    """Return the repository name that ``template`` yields for an object.

    Args:
        template: A template that passed :func:`validate_template`.
        namespace: The object's namespace.
        name: The object's name.

    Raises:
        InvalidNameError: The result is too long (names in Kubernetes have up to 253 characters) or not a repository
            name.
    """
    return validate_repository_name(_expand(template, namespace=namespace, name=name))


def _expand(template: str, *, namespace: str, name: str) -> str:
    values = {"namespace": namespace, "name": name}
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def is_within_namespace(repository_name: str, namespace: str) -> bool:
    """Return whether policy ``Namespaced`` allows ``repository_name`` to objects in ``namespace``."""
    return repository_name.startswith((f"{namespace}/", f"{namespace}."))


def is_namespace_in(namespace: str, patterns: Iterable[str]) -> bool:
    """Return whether a namespace matches one of some patterns (see :data:`NAMESPACE_GLOB_PATTERN`)."""
    return any(fnmatchcase(namespace, pattern) for pattern in patterns)


def is_nested(prefix: str, other: str) -> bool:
    """Return whether one of two path prefixes contains the other, or they are equal."""
    shorter, longer = sorted((f"{prefix}/".lstrip("/"), f"{other}/".lstrip("/")), key=len)
    return longer.startswith(shorter)


def is_host(value: str) -> bool:
    """Return whether ``value`` is exactly ``host`` or ``host:port``, the first part of an image reference."""
    match = _HOST.fullmatch(value)
    if match is None or not 0 < int(match["port"] or 1) <= _MAX_PORT:
        return False
    if match["ipv6"] is not None:
        return _is_address(match["ipv6"], ipaddress.IPv6Address)
    name = match["name"]
    is_ipv4 = re.fullmatch(r"[0-9]+(\.[0-9]+){3}", name) is not None
    return len(name) <= _MAX_HOST and (not is_ipv4 or _is_address(name, ipaddress.IPv4Address))


def is_unspecified(value: str) -> bool:
    """Return whether the host in ``host[:port]`` is 0.0.0.0 or ::, on which a server listens but nobody connects to."""
    host = value if value.endswith("]") else value.rpartition(":")[0] or value
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return re.fullmatch(r"0+(\.0+)*", host) is not None  # short forms, which the resolver accepts


def reference_host(value: str, *, default_port: int) -> str:
    """Return ``host[:port]`` with a port where an image reference would lack a host without it.

    Docker's reference grammar reads the first part of a reference as a host only if it contains a dot or a colon or is
    ``localhost``; ``registry/web`` is ``docker.io/registry/web``.

    Args:
        value: ``host`` or ``host:port``.
        default_port: The port that a connection to the host without a port uses.
    """
    is_clear = "." in value or ":" in value or value == "localhost"
    return value if is_clear else f"{value}:{default_port}"


def _is_address(text: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
