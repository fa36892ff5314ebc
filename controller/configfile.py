"""The configuration file: from YAML to the models of :mod:`controller.config`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import yaml
from pydantic import ValidationError
from yaml.parser import ParserError
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

from controller.binding import RegistryBinding
from controller.config import OperatorConfig
from controller.configmessages import describe
from controller.errors import BindingConfigInvalid, ConfigError
from controller.files import NotRegularError, stat_regular

_MAX_SIZE: Final = 1 << 20
"""Largest file, in bytes. A ConfigMap has no more, and PyYAML takes half a minute for this much."""

_MAX_DEPTH: Final = 20
"""Deepest nesting; a valid file has six levels."""

_MAX_REPEATED: Final = 10_000
"""Most nodes that aliases may add to a file; without a limit, a few lines of aliases and merge keys exhaust memory."""


_HINT: Final = "; indent with spaces, and put text with '{' or ': ' in quotes"


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
        raise BindingConfigInvalid(binding_name, describe(error)) from error


class _StrictLoader(yaml.SafeLoader):
    """Loader that limits nesting and aliases, and rejects a mapping with two equal keys.

    YAML would silently use the last one of them.

    Args:
        text: YAML.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0
        self._sizes: dict[yaml.Node, int] = {}
        self._repeated = 0

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 - the name in PyYAML
        """Read a ``[`` or ``{``; the scanner reads many ahead, in quadratic time."""
        self._check_depth(self.flow_level, self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node; refuse aliases that would repeat too much, counting aliases in what they repeat."""
        is_alias, mark = self.check_event(yaml.AliasEvent), self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self._check_depth(self._depth, mark)
        self._depth += 1
        before = self._nodes
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if not is_alias:
            self._nodes += 1
            self._sizes[node] = self._nodes - before
            return node
        if node not in self._sizes:
            raise yaml.MarkedYAMLError(problem="an alias in the node that it repeats", problem_mark=mark)
        self._nodes += self._sizes[node]
        self._repeated += self._sizes[node]
        if self._repeated > _MAX_REPEATED:
            raise yaml.MarkedYAMLError(problem=f"aliases repeat more than {_MAX_REPEATED} nodes", problem_mark=mark)
        return node

    @staticmethod
    def _check_depth(depth: int, mark: yaml.Mark) -> None:
        if depth >= _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {_MAX_DEPTH} levels", problem_mark=mark)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping, before merge keys (``<<``) add fields that the mapping may override."""
        mapping: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in mapping.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # cannot be the name of a field
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise yaml.MarkedYAMLError(
                    problem=f"duplicate key {key.value!r} in line {line}, first in {lines[name]}"
                )
            lines[name] = line
        return mapping


def read_yaml(text: str) -> Any:
    """Parse a YAML document.

    Args:
        text: The document.

    Raises:
        ConfigError: The text is not valid YAML, has duplicate keys, or is nested or repeated by aliases too much.
    """
    try:
        loader = _StrictLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        # Not its str, and not chained: both contain the line, which may contain a password.
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = ": ".join(filter(None, (error.context, error.problem)))
        hint = _HINT if isinstance(error, ScannerError | ParserError) else ""
        raise ConfigError(f"not valid YAML: {problem}{where}{hint}") from None
    except ReaderError as error:
        raise ConfigError(f"not valid YAML: character {error.position + 1} cannot be printed: remove it") from None
    except Exception as error:
        # Built-in errors: of an invalid date, or of a number that is too long. Their text may contain the value.
        raise ConfigError("not valid YAML: an invalid number or date: put it in quotes if it is text") from error


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
    if "registries" not in data:
        match data:
            case {"kind": _, "metadata": _}:
                raise ConfigError("this is a Kubernetes object: give the configuration itself, as in its config.yaml")
            case {"config": dict()}:
                raise ConfigError("these are Helm values: give the configuration itself, the content of config")
    try:
        return OperatorConfig.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ConfigError(describe(error)) from error


def load_config(path: Path, *, again: bool = True) -> OperatorConfig:
    """Read the configuration from a file.

    Args:
        path: The file.
        again: Whether it is read more than once, which is not possible with a pipe.

    Raises:
        ConfigError: The file cannot be read or is invalid; the message starts with its path.
    """
    try:
        if again:
            stat_regular(path)
        with path.open("rb") as file:
            return read_config(file, name=str(path))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file: write it there, or name another one with --config") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: a directory: name the configuration file in it") from error
    except NotRegularError as error:
        raise ConfigError(f"{path}: a pipe or device, which cannot be read again: save it as a file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_config(file: BinaryIO, *, name: str) -> OperatorConfig:
    """Read the configuration from an open file.

    Args:
        file: The file.
        name: Its name, for errors.

    Raises:
        ConfigError: The content is invalid; the message starts with the name.
        OSError: The file cannot be read.
    """
    content = file.read(_MAX_SIZE + 1)
    if len(content) > _MAX_SIZE:
        raise ConfigError(f"{name}: larger than {_MAX_SIZE} bytes, the limit of a ConfigMap")
    try:
        return parse_config(content.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: cannot be read: save it as UTF-8 (byte {error.start + 1} is not)") from error
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
