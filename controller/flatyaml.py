"""Reader for YAML that anybody in the cluster may write: one flat mapping of short strings.

Aliases, merge keys and nesting are what makes a YAML parser slow (575 characters of merge keys take minutes), and no
advertisement of a registry needs them. The parser's events are read only up to the first one that is not allowed.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import yaml

from controller.errors import ConfigError

MAX_LENGTH: Final = 1024
"""Maximum length in characters."""

_NULL: Final = "tag:yaml.org,2002:null"
_STRING: Final = "tag:yaml.org,2002:str"


class NotText(NamedTuple):
    """A scalar that is no string, such as a number or a date.

    Args:
        written: As it is written.
    """

    written: str


Value = str | NotText | None
"""A scalar; None for null."""


def read_flat_mapping(text: str) -> dict[str, Value]:
    """Return a mapping of scalars.

    Args:
        text: YAML.

    Raises:
        ConfigError: It is too long, no YAML, or no flat mapping; the message is to follow the text's name.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"has {len(text)} characters, at most {MAX_LENGTH} are allowed")
    try:
        return _mapping(text)
    except yaml.YAMLError as error:
        raise ConfigError("is not valid YAML") from error


def _mapping(text: str) -> dict[str, Value]:
    loader = yaml.SafeLoader(text)
    try:
        scalars: list[Value] = []
        opened = False
        while loader.check_event():
            match loader.get_event():  # type: ignore[no-untyped-call]
                case yaml.StreamStartEvent() | yaml.StreamEndEvent() | yaml.DocumentStartEvent():
                    pass
                case yaml.MappingStartEvent(anchor=None, tag=None) if not opened:
                    opened = True
                case yaml.MappingEndEvent():
                    break
                case yaml.ScalarEvent(anchor=None, tag=None) as scalar if opened:
                    scalars.append(_value(loader, scalar))
                case _:
                    raise ConfigError("must be a flat mapping such as 'host: localhost:5001'")
        if not opened:
            raise ConfigError("must be a flat mapping such as 'host: localhost:5001'")
        while loader.check_event():
            if isinstance(loader.get_event(), yaml.DocumentStartEvent):  # type: ignore[no-untyped-call]
                raise ConfigError("must be one document")
    finally:
        loader.dispose()
    return _pairs(scalars)


def _pairs(scalars: list[Value]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, value in zip(scalars[::2], scalars[1::2], strict=True):
        if not isinstance(key, str):
            raise ConfigError("must have names as keys")
        if key in found:
            raise ConfigError(f"must have each key once, and has {key!r} twice")
        found[key] = value
    return found


def _value(loader: yaml.SafeLoader, scalar: yaml.ScalarEvent) -> Value:
    tag = loader.resolve(yaml.ScalarNode, scalar.value, scalar.implicit)  # type: ignore[no-untyped-call]
    if tag == _NULL:
        return None
    return scalar.value if tag == _STRING else NotText(scalar.value)
