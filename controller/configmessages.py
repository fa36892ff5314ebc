"""Sentences about invalid fields of the configuration file: where, what is wrong, and what to write instead."""

from __future__ import annotations

import re
from difflib import get_close_matches
from itertools import accumulate
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.binding import MAX_PATH_PREFIX
from controller.config import field_names
from controller.names import is_repository_name

_MAX_SENTENCE: Final = 400
_MAX_MESSAGE: Final = 1200
"""Longest description of one wrong field, and of all, in characters: the kubelet keeps the last 2048 bytes of a log as
the message of a container that failed, and the message must not lose its beginning."""

_EXPECTED: Final = {
    "tuple_type": "expected a list: write [one, two]",
    "int_type": "expected a whole number, such as 10",
    "int_parsing": "expected a whole number, such as 10",
    "int_from_float": "expected a whole number, such as 10",
    "int_parsing_size": "the number is too large",
    "float_type": "expected a number, such as 10 or 0.5",
    "float_parsing": "expected a number, such as 10 or 0.5",
    "finite_number": "expected a number, such as 10 or 0.5",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "literal_error": "expected the Local variant: write service: local",  # `service` is the only such field
    "missing": "required, but missing",
}
"""Sentences by pydantic's type of error."""

_LIMITS: Final = {
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le:.0f}",
}


def describe(error: ValidationError) -> str:
    """Say what is wrong, as far as that fits where Kubernetes shows it.

    Args:
        error: The errors of one file; their values may be secrets and are left out.
    """
    sentences = [_shortened(_sentence(detail)) for detail in error.errors(include_url=False)]
    lengths = accumulate(len(sentence) for sentence in sentences)
    shown = max(1, sum(length <= _MAX_MESSAGE for length in lengths))
    more = [f"and {len(sentences) - shown} more"] if shown < len(sentences) else []
    return "; ".join([*sentences[:shown], *more])


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= _MAX_SENTENCE else f"{sentence[:_MAX_SENTENCE]}..."


def _sentence(detail: ErrorDetails) -> str:
    path = ".".join(_printable(str(part)) for part in detail["loc"] if part != "[key]")
    message = _message(detail)
    return f"{path}: {message}" if path else message


def _message(detail: ErrorDetails) -> str:
    """Say what is wrong with one field, without its path."""
    value = detail["input"]
    match detail["type"], detail["loc"]:
        case _, (*_, "[key]"):
            message = _invalid_name(value)
        case "extra_forbidden", (*_, name):
            message = _unknown_field(str(name))
        case ("too_short", _) | ("dict_type", ("registries",)) if not value:  # `registries` has the only such limit
            message = "configure at least one registry, such as artifacts: {registryUrl: http://registry:5000}"
        case _ if value is None:
            message = "empty: write a value, or remove the field"
        case "dict_type" | "model_type", _:
            no_dash = ", without a leading '-'" if isinstance(value, list) else ""
            message = f"expected a mapping: write its fields as 'name: value'{no_dash}"
        case "string_type" | "path_type", _:
            is_text = not isinstance(value, list | dict)
            message = "expected text: put it in quotes" if is_text else "expected text, not a list or a mapping"
        case kind, _ if kind in _LIMITS:
            message = _LIMITS[kind].format(**detail["ctx"])
        case "enum", _:
            message = f"expected {detail['ctx']['expected']}"
        case _:
            message = _EXPECTED.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    return message


def _invalid_name(name: Any) -> str:
    """Say which name of a registry to write instead."""
    if not isinstance(name, str):
        return "the name is not text: put it in quotes"
    better = name.lower() if name != name.lower() and is_repository_name(name.lower()) else "artifacts"
    return (
        "invalid name: use lower-case letters and digits, with single '.', '_' or '-' between them, at most "
        f"{MAX_PATH_PREFIX} characters, such as {better}"
    )


def _unknown_field(name: str) -> str:
    """Say which field to write instead of one that does not exist, or not at this place."""
    fields = {field.lower(): field for field in field_names()}
    if name in fields.values():
        return "not a field at this place: check the indentation"
    similar = get_close_matches(re.sub("[-_]", "", name).lower(), fields, n=1, cutoff=0.75)
    if similar:
        return f"unknown field: write {fields[similar[0]]} instead of {_printable(name)}"
    return "unknown field: docs/configuration.md lists all fields"


def _printable(text: str) -> str:
    return text if text and text.isprintable() else repr(text)
