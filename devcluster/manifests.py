"""Writes manifests/, the operator without Helm, from the chart."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from devcluster.errors import CommandFailed
from devcluster.tools import Tool, provide

ROOT: Final = Path(__file__).parents[1]
CHART: Final = ROOT / "charts" / "artifact-repository-controller"
MANIFESTS: Final = ROOT / "manifests"
NAMESPACE: Final = "artifact-repository-system"

LOCAL_REGISTRY_HOSTING: Final = "local-registry-hosting/rbac.yaml"
PERMISSIONS: Final = ("rbac.yaml", LOCAL_REGISTRY_HOSTING)
"""Files with what the operator may do."""

_FILES: Final[Mapping[str, str]] = {
    "CustomResourceDefinition": "crd.yaml",
    **dict.fromkeys(("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"), "rbac.yaml"),
    **dict.fromkeys(("ConfigMap", "Service", "Deployment", "NetworkPolicy"), "operator.yaml"),
}
"""The file that each kind of object is in; what is in kube-public is in a component, whose namespace never changes."""

_HEADER: Final = "# Written by `make manifests`; change charts/artifact-repository-controller instead.\n"
_OF_HELM: Final = re.compile(r"^(# Source: .*| +(helm\.sh/[a-z-]+|app\.kubernetes\.io/managed-by): .*)\n", re.MULTILINE)


def render() -> dict[str, str]:
    """Return the manifests by their files' names, relative to manifests/.

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
    files: dict[str, list[str]] = {}
    for document in documents:
        files.setdefault(_file(document), []).append(document)
    return {name: _HEADER + "---\n".join(parts) for name, parts in files.items()}


def _file(document: str) -> str:
    """Return the file that a document belongs in."""
    parsed = yaml.safe_load(document)
    if parsed["metadata"].get("namespace") == "kube-public":
        return LOCAL_REGISTRY_HOSTING
    if parsed["kind"] not in _FILES:
        raise CommandFailed(f"no file of manifests/ is for objects of kind {parsed['kind']}")
    return _FILES[parsed["kind"]]
