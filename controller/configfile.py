"""The configuration file: from YAML to the models of :mod:`controller.config`, and from errors to sentences."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.config import OperatorConfig, RegistryBinding
from controller.errors import BindingConfigInvalid, ConfigError

_MAX_SENTENCE: Final = 400
_MAX_MESSAGE: Final = 1200
"""Longest description of one wrong field, and of all, in characters: the kubelet keeps the last 2048 bytes of a log as
the message of a container that failed, and the message must not lose its beginning."""


def parse_binding(binding_name: str, binding: Mapping[str, Any] | RegistryBinding) -> RegistryBinding:
    """Return a validated registry binding.

    Args:
        binding_name: The binding's name, for the error.
        binding: The fields as in YAML, or a binding that is validated already.

    Raises:
        BindingConfigInvalid: It is not the local variant, or a field is invalid; the message names the field.
    """
    if isinstance(binding, RegistryBinding):
        return binding
    try:
        return RegistryBinding.model_validate(dict(binding))
    except ValidationError as error:
        raise BindingConfigInvalid(binding_name, _sentences(error)) from error


def read_yaml(text: str) -> Any:
    """Parse a YAML document.

    Args:
        text: The document.

    Raises:
        ConfigError: The text is not valid YAML.
    """
    try:
        return yaml.safe_load(text)
    except Exception as error:
        # PyYAML also raises built-in errors: for an invalid date, a wrong tag, deeply nested brackets.
        raise ConfigError(f"not valid YAML: {error}") from error


def parse_config(text: str) -> OperatorConfig:
    """Parse the configuration.

    Args:
        text: YAML.

    Raises:
        ConfigError: It is not YAML, or fields are invalid; the message names each by its path, and what is allowed.
    """
    data = read_yaml(text)
    if not isinstance(data, dict):
        raise ConfigError("the file must be a YAML mapping with defaultRegistry and registries")
    try:
        return OperatorConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_sentences(error)) from error


def load_config(path: Path) -> OperatorConfig:
    """Read the configuration from a file.

    Args:
        path: The file.

    Raises:
        ConfigError: The file cannot be read or is invalid; the message starts with its path.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        return parse_config(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _sentences(error: ValidationError) -> str:
    """Say what is wrong, as far as that fits where Kubernetes shows it."""
    sentences = [_shortened(_sentence(detail)) for detail in error.errors(include_url=False)]
    lengths = accumulate(len(sentence) for sentence in sentences)
    shown = max(1, sum(length <= _MAX_MESSAGE for length in lengths))
    more = [f"and {len(sentences) - shown} more"] if shown < len(sentences) else []
    return "; ".join([*sentences[:shown], *more])


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= _MAX_SENTENCE else f"{sentence[:_MAX_SENTENCE]}…"


def _sentence(detail: ErrorDetails) -> str:
    """Describe the error of one field, starting with its path; the value may be a secret and is left out."""
    path = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = "unknown field: check its spelling"
    elif detail["type"] == "missing":
        message = "required, but missing"
    elif detail["type"] == "literal_error":  # `service` is the only such field
        message = "expected the Local variant: write service: local"
    return f"{path}: {message}" if path else message
