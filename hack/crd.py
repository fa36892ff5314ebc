"""Generated parts of docs/api.md: fields, validation rules and printer columns of the CustomResourceDefinition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from devcluster.manifests import MANIFESTS
from hack.markdown import code, table


def _crd_version() -> dict[str, Any]:
    crd = yaml.safe_load((MANIFESTS / "crd.yaml").read_text(encoding="utf-8"))
    version: dict[str, Any] = crd["spec"]["versions"][0]
    return version


def fields() -> str:
    """Return tables of the fields of ``spec`` and ``status``."""
    schema = _crd_version()["schema"]["openAPIV3Schema"]["properties"]
    parts = []
    for name in ("spec", "status"):
        rows = [[code(path), _limits(field), field["description"]] for path, field in _fields(schema[name], name)]
        parts.append(f"### `{name}`\n\n{schema[name]['description']}\n\n{table(['Field', 'Type', 'Meaning'], rows)}")
    return "\n\n".join(parts)


def _fields(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        below = f"{path}.{name}"
        yield below, field
        yield from _fields(field, below)
        yield from _fields(field.get("items", {}), f"{below}[]")


def _limits(field: Mapping[str, Any]) -> str:
    parts = [" or ".join(code(str(value)) for value in field["enum"]) if "enum" in field else field["type"]]
    if field.get("maxLength", 1000) < 1000:  # noqa: PLR2004 - longer limits do not matter to a person
        parts.append(f"at most {field['maxLength']} characters")
    if "default" in field:
        parts.append(f"default {code(str(field['default']))}")
    return ", ".join(parts)


def validation_rules() -> str:
    """Return the messages with which the API server rejects an object."""
    schema = _crd_version()["schema"]["openAPIV3Schema"]["properties"]
    checked = [("spec", schema["spec"]), *_fields(schema["spec"], "spec")]
    return "\n".join(
        f"- {code(path)}: {' '.join(rule['message'].split())}"
        for path, field in checked
        for rule in field.get("x-kubernetes-validations", ())
    )


def columns() -> str:
    """Return a table of the columns that ``kubectl get`` shows."""
    rows = [
        [c["name"].upper(), code(c["jsonPath"]), "`-o wide`" if c.get("priority") else "always"]
        for c in _crd_version()["additionalPrinterColumns"]
    ]
    return table(["Column", "From", "Shown"], rows)
