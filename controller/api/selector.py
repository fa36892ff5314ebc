"""Names of namespaces and label selectors, checked as the API server does.

The API server rejects each list and watch with an invalid one, without end; a bad option is refused at start instead.
"""

from __future__ import annotations

import re
from typing import Final

from controller.errors import ConfigError

NAMESPACE_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
"""A name of a namespace: a DNS label (RFC 1123)."""

_NAMESPACE: Final = re.compile(NAMESPACE_PATTERN)
_MAX_NAME: Final = 63
_MAX_PREFIX: Final = 253
_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PREFIX: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KEY: Final = r"(?P<key>[^\s,!=<>()]+)"
_EQUALITY: Final = re.compile(rf"{_KEY}\s*(?:=|==|!=)\s*(?P<value>[^\s,!=<>()]*)")
_SET: Final = re.compile(rf"{_KEY}\s+(?:in|notin)\s*\((?P<values>[^()]*)\)")
_COMPARISON: Final = re.compile(rf"{_KEY}\s*[<>]\s*[0-9]{{1,18}}")
_EXISTENCE: Final = re.compile(rf"!?\s*{_KEY}")
_FORMS: Final = "key=value, key!=value, key in (a, b), key notin (a, b), key or !key"
_SEPARATOR: Final = re.compile(r",(?![^(]*\))")
"""A comma that is not within brackets."""


def check_namespace(name: str) -> None:
    """Check the name of a namespace.

    Args:
        name: The name.

    Raises:
        ConfigError: It is not one; a pattern for several is none.
    """
    if not _NAMESPACE.fullmatch(name):
        raise ConfigError(
            f"'{name}' is not the name of a namespace: use at most 63 lower-case letters, digits and '-'. Patterns are "
            "not supported: name each namespace, or none for all"
        )


def check_label_selector(selector: str) -> None:
    """Check a label selector, such as ``shard=a,tier in (dev, test),!legacy``.

    Args:
        selector: The selector; empty for none.

    Raises:
        ConfigError: The API server would reject it; the message has the part that is wrong.
    """
    if not selector.strip():
        return
    for requirement in _SEPARATOR.split(selector):
        _check_requirement(requirement.strip(), selector)


def _check_requirement(requirement: str, selector: str) -> None:
    where = f"'{requirement}' in label selector '{selector}'"
    found = next(
        filter(None, (form.fullmatch(requirement) for form in (_SET, _EQUALITY, _COMPARISON, _EXISTENCE))), None
    )
    if found is None:
        raise ConfigError(f"{where} is invalid: use {_FORMS}")
    if not _is_key(found["key"]):
        raise ConfigError(f"{where} is invalid: '{found['key']}' is not the key of a label")
    groups = found.groupdict()
    values = [value.strip() for value in (groups.get("values") or groups.get("value") or "").split(",")]
    for value in values:
        if value and not _is_name(value):
            raise ConfigError(f"{where} is invalid: '{value}' is not the value of a label")


def _is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= _MAX_PREFIX and _PREFIX.fullmatch(prefix)):
        return False
    return _is_name(name)


def _is_name(name: str) -> bool:
    return len(name) <= _MAX_NAME and _NAME.fullmatch(name) is not None
