"""Generated parts of docs/configuration.md: the fields of the configuration file, and the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import Enum
from inspect import cleandoc
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import click
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from controller.cli import main as command_line
from controller.config import OperatorConfig
from controller.durations import format_duration
from hack.markdown import code, table


def fields() -> str:
    """Return a section with a table of fields for each model of the configuration."""
    return "\n\n".join(_models(OperatorConfig, ""))


def _models(model: type[BaseModel], path: str) -> Iterator[str]:
    fields = model.model_fields.items()
    rows = [[code(str(f.alias)), _type(f.annotation), _default(f), f.description or ""] for _, f in fields]
    heading = f"### `{path}`" if path else "### The file"
    text = cleandoc(model.__doc__ or "").replace("``", "`")
    yield f"{heading}\n\n{text}\n\n{table(['Field', 'Type', 'Default', 'Meaning'], rows)}"
    for _, field in fields:
        below = f"{path}.{field.alias}" if path else str(field.alias)
        for inner in _models_in(field.annotation):
            yield from _models(inner, f"{below}.NAME" if get_origin(field.annotation) is dict else below)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


_TYPES: Final[Mapping[Any, str]] = {
    str: "string",
    bool: "true or false",
    int: "number",
    float: "number",
    Path: "path",
    SecretStr: "string",
    timedelta: "duration",
    dict: "mapping, see below",
}


def _type(annotation: Any) -> str:
    """Return the type of a field as a person writes it in YAML."""
    origin, arguments = get_origin(annotation), [a for a in get_args(annotation) if a not in (type(None), ...)]
    if origin is Literal:
        text = " or ".join(code(str(value)) for value in arguments)
    elif origin is tuple:
        text = f"list of {_type(arguments[0])}s"
    elif arguments and origin is not dict:
        text = _type(arguments[0])  # optional or annotated
    elif origin is None and issubclass(annotation, Enum):
        text = " or ".join(code(str(member.value)) for member in annotation)
    elif origin is None and issubclass(annotation, BaseModel):
        text = _TYPES[dict]
    else:
        text = _TYPES[origin or annotation]
    return text


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == () or isinstance(value, BaseModel):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return format_duration(value)
    return code(str(value))


def options() -> str:
    """Return a section with a table of options for each command."""
    sections = []
    for name, command in command_line.commands.items():
        parameters = [option for option in command.params if isinstance(option, click.Option)]
        rows = [[_option(option), option.help or "", _option_default(option)] for option in parameters]
        summary = (command.help or "").partition("\n")[0]
        heading = f"### `artifact-repository-controller {name}`"
        sections.append(f"{heading}\n\n{summary}\n\n{table(['Option', 'Meaning', 'Default'], rows)}")
    return "\n\n".join(sections)


def _option(option: click.Option) -> str:
    value = "" if option.is_flag else f" {_metavar(option)}"
    return ", ".join(code(f"{name}{value}") for name in (*option.opts, *option.secondary_opts))


def _metavar(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return "|".join(option.type.choices)
    return option.metavar or {"file": "FILE", "integer range": "N", "float range": "SECONDS"}.get(
        option.type.name, "TEXT"
    )


def _option_default(option: click.Option) -> str:
    if option.required:
        return "required"
    if option.default is True:
        return code(option.opts[0])
    # A default that is not a value is described in the help text.
    return code(str(option.default)) if option.show_default and option.default else "-"
