"""manifests/argocd/argocd-cm.yaml, from the Lua files next to it (which have Argo CD's own layout)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Final

from controller.api.v1alpha1 import GROUP, KIND

FOLDER: Final = Path(__file__).parents[1] / "manifests" / "argocd"
CUSTOMIZATIONS: Final = FOLDER / "resource_customizations" / GROUP / KIND
CONFIG_MAP: Final = FOLDER / "argocd-cm.yaml"


_HEAD: Final = """\
# Written by `make docs` from the files in resource_customizations/. Apply it as a patch, which keeps all other keys:
# kubectl patch configmap argocd-cm --namespace argocd --patch-file manifests/argocd/argocd-cm.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
  namespace: argocd
data:
"""


def config_map() -> str:
    """Return a patch of Argo CD's ConfigMap that adds the health check and the actions."""
    health = _block(f"resource.customizations.health.{GROUP}_{KIND}", _lua("health.lua"))
    actions = _block(f"resource.customizations.actions.{GROUP}_{KIND}", "".join(_actions()))
    return _HEAD + indent(health + actions, "  ")


def _actions() -> Iterator[str]:
    yield _block("discovery.lua", _lua("actions/discovery.lua"))
    yield "definitions:\n"
    for script in sorted(CUSTOMIZATIONS.glob("actions/*/action.lua")):
        yield f"  - name: {script.parent.name}\n"
        yield indent(_block("action.lua", _lua(f"actions/{script.parent.name}/action.lua")), "    ")


def _lua(name: str) -> str:
    return (CUSTOMIZATIONS / name).read_text(encoding="utf-8")


def _block(key: str, text: str) -> str:
    """Return a YAML key with a multi-line text as its value."""
    return f"{key}: |\n{indent(text, '  ')}"
