"""Generated parts of the chart.

====================  ======================================================================
values.schema.json    from values.yaml, the models of the configuration and the command line
README.md             the table of values, from values.yaml and its comments
====================  ======================================================================
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

import click
import yaml
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from controller.api.selector import NAMESPACE_PATTERN
from controller.cli import run
from controller.config import OperatorConfig
from controller.logs import LEVELS, LogFormat
from devcluster.manifests import CHART
from hack.markdown import code, table

_TEXT: Final[JsonSchemaValue] = {"type": "string"}
_TEXTS: Final[JsonSchemaValue] = {"type": "object", "additionalProperties": _TEXT}
_OBJECTS: Final[JsonSchemaValue] = {"type": "array", "items": {"type": "object"}}
_ANYTHING: Final[JsonSchemaValue] = {"type": "object"}
_NAMED: Final[JsonSchemaValue] = {
    "type": "array",
    "items": {"type": "object", "required": ["name"], "properties": {"name": _TEXT}},
}
# Each name becomes a directory and a volume. Not propertyNames: Helm would report another value as wrong.
_MOUNTS: Final[JsonSchemaValue] = {
    "type": "object",
    "patternProperties": {"^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$": _TEXT},
    "additionalProperties": False,
}

_REGISTRY_URL: Final = r"^(https?://)?[^/?#@\s]+/?$"
"""A host, perhaps with a scheme and a port: neither a user nor a path."""
_LABEL_SELECTOR: Final = (
    r"^(\s*!?\s*[A-Za-z0-9][-A-Za-z0-9_./]*"
    r"(\s*(=|==|!=|<|>)\s*[-A-Za-z0-9_.]*|\s+(in|notin)\s*\([^()]*\))?\s*(,|$))*$"
)
"""The forms of requirements; the operator checks keys and values."""
_PROMETHEUS_DURATION: Final = "^(0|([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$"

_EXPLICIT: Final[Mapping[str, JsonSchemaValue]] = {
    "affinity": _ANYTHING,
    "commonLabels": _TEXTS,
    "deploymentAnnotations": _TEXTS,
    "dnsConfig": _ANYTHING,
    "extraArgs": {"type": "array", "items": _TEXT},
    "extraEnv": _NAMED,
    "extraObjects": _OBJECTS,
    "hostAliases": _OBJECTS,
    "image.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "imagePullSecrets": {**_NAMED, "items": {**_NAMED["items"], "additionalProperties": False}},
    "metrics.dashboard.annotations": _TEXTS,
    "metrics.dashboard.labels": _TEXTS,
    "metrics.prometheusRule.labels": _TEXTS,
    "metrics.prometheusRule.runbookUrl": {"type": "string", "pattern": r"^(https?://[^#\s]+)?$"},
    "metrics.serviceMonitor.interval": {"type": "string", "pattern": _PROMETHEUS_DURATION},
    "metrics.serviceMonitor.labels": _TEXTS,
    "metrics.serviceMonitor.scrapeTimeout": {"type": "string", "pattern": _PROMETHEUS_DURATION},
    "networkPolicy.dns": {**_OBJECTS, "minItems": 1},
    "networkPolicy.egress": {**_OBJECTS, "minItems": 1},
    "networkPolicy.ingressFrom": _OBJECTS,
    "nodeSelector": _TEXTS,
    "podAnnotations": _TEXTS,
    "podDisruptionBudget.maxUnavailable": {"type": ["integer", "string"]},
    "podLabels": _TEXTS,
    "podSecurityContext": _ANYTHING,
    "registryConfigMaps": _MOUNTS,
    "registrySecrets": _MOUNTS,
    "registrySecretsMode": {"type": "integer", "minimum": 0, "maximum": 0o777},
    "replicaCount": {"type": "integer", "minimum": 0},
    "resources": _ANYTHING,
    "revisionHistoryLimit": {"type": "integer", "minimum": 0},
    "securityContext": _ANYTHING,
    "service.annotations": _TEXTS,
    "serviceAccount.annotations": _TEXTS,
    "strategy": _ANYTHING,
    "tolerations": _OBJECTS,
    "topologySpreadConstraints": _OBJECTS,
    "volumeMounts": _NAMED,
    "volumes": _NAMED,
    "watch.labelSelector": {"type": "string", "pattern": _LABEL_SELECTOR},
    "watch.namespaces": {
        "type": "array",
        "items": {"type": "string", "pattern": NAMESPACE_PATTERN},
        "uniqueItems": True,
    },
}
"""Schemas of values that cannot be inferred from the default."""


def schema() -> str:
    """Return values.schema.json."""
    config = OperatorConfig.model_json_schema(schema_generator=_ConfigSchema)
    definitions = config.pop("$defs")
    # The template has a better message for a missing registry than Helm's.
    del config["properties"]["registries"]["minProperties"]
    definitions["RegistryBinding"]["properties"]["registryUrl"]["pattern"] = _REGISTRY_URL
    config["description"] = "The operator's configuration file (docs/configuration.md)."
    options = {option.name: option for option in run.params}
    concurrent = options["concurrent"].type
    assert isinstance(concurrent, click.IntRange)  # noqa: S101 - for the type checker
    known = {
        **_EXPLICIT,
        "concurrent": {"type": "integer", "minimum": concurrent.min, "maximum": concurrent.max},
        "config": config,
        "logFormat": {"enum": [format_.value for format_ in LogFormat]},
        "logLevel": {"enum": list(LEVELS)},
        # Helm passes `global` to every subchart.
        "global": _ANYTHING,
        # The former name of replicaCount; the template names the new one.
        "replicas": {"type": "integer", "deprecated": True},
    }
    values = {**_values(), "global": {}, "replicas": 1}
    document = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart artifact-repository-controller",
        **_inferred(values, "", known),
        "$defs": definitions,
    }
    return f"{json.dumps(document, indent=2)}\n"


class _ConfigSchema(GenerateJsonSchema):
    """JSON schema of the configuration as it is written in YAML."""

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        """Return the schema of a duration."""
        del schema
        return {"type": "string", "pattern": "^([0-9.]+h)?([0-9.]+m)?([0-9.]+s)?([0-9]+ms)?$", "minLength": 2}

    def encode_default(self, dft: Any) -> Any:
        """Return a default; None for a duration, whose written form differs."""
        return None if isinstance(dft, timedelta) else super().encode_default(dft)

    def get_title_from_name(self, name: str) -> str:
        """Return the name of the field as its title."""
        return name


def _values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return values


def _inferred(value: Any, path: str, known: Mapping[str, JsonSchemaValue]) -> JsonSchemaValue:
    """Return the schema that a default implies; a mapping accepts no other keys."""
    if path in known:
        return known[path]
    if isinstance(value, dict) and value:
        below = {key: _inferred(inner, f"{path}.{key}".lstrip("."), known) for key, inner in value.items()}
        return {"type": "object", "additionalProperties": False, "properties": below}
    types: Mapping[type, str] = {bool: "boolean", str: "string"}
    return {"type": types[type(value)]}


_LINE: Final = re.compile(r"^(?P<indent> *)(?:# -- (?P<text>.*)|# (?P<more>.*)|(?P<key>\w+):.*)$")


def values() -> Iterator[tuple[str, str, str]]:
    """Yield each value that can be set: its path, its default as JSON and the comment above it."""
    defaults = _values()
    path: list[str] = []
    text = ""
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        found = _LINE.match(line)
        if found is None:
            text = ""
        elif found["text"] is not None:
            text = found["text"]
        elif found["more"] is not None:
            text = f"{text} {found['more']}"
        else:
            path = [*path[: len(found["indent"]) // 2], found["key"]]
            value, whole = _at(defaults, path)
            if whole:
                yield ".".join(path), json.dumps(value), text
            text = ""


def _at(defaults: Mapping[str, Any], path: list[str]) -> tuple[Any, bool]:
    """Return a value, and whether it is documented as one: not a group of values, and not part of another value."""
    value: Any = defaults
    whole = False
    for depth, key in enumerate(path, 1):
        if whole:
            return None, False
        value = value[key]
        whole = ".".join(path[:depth]) in (*_EXPLICIT, "config") or not isinstance(value, dict)
    return value, whole


def values_table() -> str:
    """Return a table of the chart's values."""
    rows = ([code(path), code(default), text] for path, default, text in values())
    return table(["Value", "Default", "Meaning"], rows)
