"""Writes manifests/, the operator without Helm, from the chart."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from devcluster.errors import CommandFailed
from devcluster.tools import Tool, provide

ROOT: Final = Path(__file__).parents[1]
CHART: Final = ROOT / "charts" / "artifact-repository-controller"
MANIFESTS: Final = ROOT / "manifests"
NAMESPACE: Final = "artifact-repository-system"

_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "crd.yaml": ("CustomResourceDefinition",),
    "rbac.yaml": ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
    "operator.yaml": ("ConfigMap", "Service", "Deployment"),
}
_HEADER: Final = "# Written by `make manifests`; change charts/artifact-repository-controller instead.\n"
_OF_HELM: Final = re.compile(r"^(# Source: .*| +(helm\.sh/[a-z-]+|app\.kubernetes\.io/managed-by): .*)\n", re.MULTILINE)


def render() -> dict[str, str]:
    """Return the manifests by their files' names.

    Raises:
        ToolUnavailable: Helm cannot be built here.
        CommandFailed: The chart cannot be rendered.
    """
    command: list[str | Path] = [provide(Tool.HELM), "template", "artifact-repository-controller", CHART]
    command += ["--namespace", NAMESPACE, "--values", CHART / "ci" / "kind-values.yaml"]
    command += ["--skip-tests"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - helm is ours
    if answer.returncode != 0:
        raise CommandFailed(f"helm template: {answer.stderr}")
    parts = _OF_HELM.sub("", answer.stdout).split("---\n")
    documents = [f"{part.strip()}\n" for part in parts if part.strip()]
    files = {
        name: _HEADER + "---\n".join(document for document in documents if _kind(document) in kinds)
        for name, kinds in _KINDS.items()
    }
    if lost := {_kind(document) for document in documents} - {kind for kinds in _KINDS.values() for kind in kinds}:
        raise CommandFailed(f"no file of manifests/ takes a {' or a '.join(sorted(lost))}")
    return files


def _kind(document: str) -> str:
    found = re.search(r"^kind: (\w+)$", document, re.MULTILINE)
    return found[1] if found else ""
