"""What Helm makes of the chart."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from devcluster.manifests import CHART
from devcluster.tools import Tool, provide

CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
KIND_VALUES = CHART / "ci" / "kind-values.yaml"
PRODUCTION_VALUES = CHART / "ci" / "production-values.yaml"
NAMESPACES_VALUES = CHART / "ci" / "namespaces-values.yaml"
NAMESPACE = "artifact-repository-system"
RELEASE = "artifacts"
FULL_NAME = "artifacts-artifact-repository-controller"

Document = dict[str, Any]


def helm(*arguments: str | Path, kubeconfig: Path | None = None, check: bool = True) -> str:
    """Run helm and return what it printed; of a failure that is expected, what it said.

    Args:
        arguments: Its arguments.
        kubeconfig: Its access to a cluster; without one it reaches none.
        check: Whether it has to succeed; otherwise it has to fail.
    """
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "KUBECONFIG": str(kubeconfig or "/nonexistent")}
    answer = subprocess.run(
        [provide(Tool.HELM), *arguments], capture_output=True, text=True, check=False, timeout=90, env=environment
    )
    assert (answer.returncode == 0) == check, f"helm {arguments}: {answer.stdout}{answer.stderr}"
    return answer.stdout if check else answer.stderr


def render(*arguments: str | Path, namespace: str = NAMESPACE, release: str = RELEASE) -> list[Document]:
    """Return what a release would install.

    Args:
        arguments: Values, as helm's arguments.
        namespace: The release's namespace.
        release: Its name.
    """
    text = helm("template", release, CHART, "--namespace", namespace, *arguments)
    return [document for document in yaml.safe_load_all(text) if document]


def only(documents: Sequence[Document], kind: str, **metadata: str) -> Document:
    """Return the one document of a kind with such metadata."""
    found = [
        document
        for document in documents
        if document["kind"] == kind and metadata.items() <= document["metadata"].items()
    ]
    assert len(found) == 1, f"{kind} {metadata}: {len(found)}"
    return found[0]


def permissions(documents: Sequence[Document], account: Mapping[str, str]) -> set[tuple[str, ...]]:
    """Return what rendered roles allow a ServiceAccount: verb, group, resource, name and namespace (empty: all)."""
    roles = {
        (document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]): document
        for document in documents
        if document["kind"] in ("Role", "ClusterRole")
    }
    granted: set[tuple[str, ...]] = set()
    for binding in documents:
        if binding["kind"] in ("RoleBinding", "ClusterRoleBinding") and account in binding["subjects"]:
            namespace = binding["metadata"].get("namespace", "")
            reference = binding["roleRef"]
            for rule in roles[reference["kind"], namespace, reference["name"]]["rules"]:
                granted |= {
                    (verb, group, resource, name, namespace)
                    for verb in rule["verbs"]
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                    for name in rule.get("resourceNames", [""])
                }
    return granted
