"""Generated parts of docs/operations.md and docs/security.md: alerts, metrics and permissions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import yaml
from prometheus_client.metrics import MetricWrapperBase

from controller.metrics import Metrics
from devcluster.manifests import CHART, MANIFESTS, PERMISSIONS
from hack.markdown import code, table

PURPOSES: Final[Mapping[str, str]] = {
    "artifactrepositories": "Watch the objects, list them for the resync, read one after a conflict.",
    "artifactrepositories/status": "Write the status of objects.",
    "events": "Record events about objects and about the operator's own Pod; increase the count of repeated ones.",
    "leases": "Leader election.",
    "pods": "Check whether the Pod that holds the Lease still exists.",
    "configmaps": "Read the cluster's advertisement of its local registry (KEP-1755).",
}
"""Purpose of each permission."""

_EITHER: Final = re.compile(r"\{\{ with .*?\}\}(.*?)\{\{ else \}\}(.*?)\{\{ end \}\}")
"""An alternative in a template of Prometheus."""


def alerts() -> str:
    """Return a table of the chart's alerts, with links to their runbooks on the same page."""
    rows = []
    for rule in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]:
        summary = _EITHER.sub(r"\1 or \2", rule["annotations"]["summary"])
        summary = re.sub(r"\{\{.*?\}\}", "…", summary)
        link = f"[{code(rule['alert'])}](#{rule['alert'].lower()})"
        rows.append([link, rule["labels"]["severity"], rule.get("for", "-"), summary])
    return table(["Alert", "Severity", "After", "Meaning"], rows)


def metrics() -> str:
    """Return a table of the operator's metrics."""
    collected = Metrics()
    collected.observe_registries(lambda: {"artifacts": None})
    collected.observe_watches(lambda: {"team": True})
    labels = {
        wrapper._name: wrapper._labelnames  # noqa: SLF001 - the only place for the labels of a metric without values
        for wrapper in vars(collected).values()
        if isinstance(wrapper, MetricWrapperBase)
    }
    rows = []
    for family in collected.registry.collect():
        if family.name.startswith("process_"):
            continue  # on Linux only
        names = labels.get(family.name) or tuple(family.samples[0].labels if family.samples else ())
        shown = [code(name) for name in names if name != "le"]
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append([code(name), family.type, ", ".join(shown) or "-", family.documentation])
    return table(["Metric", "Type", "Labels", "Meaning"], rows)


def permissions() -> str:
    """Return a table of the permissions of the operator's ServiceAccount."""
    texts = [(MANIFESTS / name).read_text(encoding="utf-8") for name in PERMISSIONS]
    documents = [document for text in texts for document in yaml.safe_load_all(text)]
    bound = {document["roleRef"]["name"] for document in documents if "roleRef" in document}
    rows = []
    for role in documents:
        if role["metadata"]["name"] not in bound:  # an aggregated role
            continue
        where = role["metadata"].get("namespace")
        for rule in role.get("rules", ()):
            for resource in rule["resources"]:
                named = "".join(f" named {code(name)}" for name in rule.get("resourceNames", ()))
                scope = f"namespace `{where}`" if where else "cluster"
                rows.append([f"{code(resource)}{named}", ", ".join(rule["verbs"]), scope, PURPOSES[resource]])
    return table(["Resource", "Verbs", "Where", "Purpose"], rows)
