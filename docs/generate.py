"""Writes the parts of the documentation that code and manifests know best.

A page is written by hand and has blocks between two comments::

    <!-- begin reasons: written by make docs -->
    <!-- end reasons -->

``python -m docs.generate`` fills them, and writes Argo CD's ConfigMap; a test finds what is not up to date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import click
import yaml
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from controller.cli import main as command_line
from controller.config import OperatorConfig, Timings, format_duration
from controller.metrics import Metrics
from controller.references import RegistryAddresses
from controller.registry.protocol import Origin
from controller.resource import ArtifactRepository, ConditionType, Key, Reason
from controller.status import Failed, Outcome, Suspended, Verified, decide
from controller.target import Target
from devcluster.manifests import CHART, PERMISSIONS
from docs import argocd, chart
from tests.benchmark.report import Results
from tests.benchmark.report import table as benchmark_table

DOCS: Final = Path(__file__).parent
MANIFESTS: Final = DOCS.parent / "manifests"

ADVICE: Final[Mapping[Reason, str]] = {
    Reason.REPOSITORY_READY: "Nothing: push and pull with the names in `status.references`.",
    Reason.SUSPENDED: "Set `spec.suspend` to false when the registry may be asked again.",
    Reason.REGISTRY_UNAVAILABLE: (
        "Look whether the registry runs, and whether the operator's Pod reaches `registryUrl` (name, port, "
        "NetworkPolicy). It goes on by itself once the registry answers."
    ),
    Reason.TLS_VERIFICATION_FAILED: (
        "Read in the message what is wrong with the certificate; renew it, or name its CA in `tls.caFile`."
    ),
    Reason.AUTHENTICATION_FAILED: (
        "Check the Secret behind `credentials`, and `tokenRealms` where the message names a token service. Files are "
        "read again when they change."
    ),
    Reason.ACCESS_DENIED: "Let the operator's user pull and push this repository.",
    Reason.REGISTRY_READ_ONLY: "Switch off the registry's read-only mode, or push an image there by other means.",
    Reason.NAME_NOT_SUPPORTED: (
        "Use another `repositoryTemplate` (`{namespace}.{name}` where two levels are all), `pathPrefix` or registry."
    ),
    Reason.UNEXPECTED_ANSWER: "Check that `registryUrl` is a registry's, and not a proxy's or another web server's.",
    Reason.UNKNOWN_REGISTRY: "Correct `spec.registry`, or add the registry to the operator's configuration.",
    Reason.POLICY_VIOLATION: (
        "Change `spec.repositoryName` to a name that begins with the namespace, or create another object if "
        "`status.uri` exists; the message says which."
    ),
    Reason.INVALID_NAME: "Set a shorter `spec.repositoryName`, or create another object if `status.uri` exists.",
    Reason.PROGRESS_DEADLINE_EXCEEDED: "Look at the reason and the message of Ready: they say what is in the way.",
}
"""What a person does about each reason, in more words than a condition's message has."""

PURPOSES: Final[Mapping[str, str]] = {
    "artifactrepositories": "Watch the objects, list them for the resync, read one again after a conflict.",
    "artifactrepositories/status": "Write their status.",
    "events": "Tell what status does not keep, on the object or on the operator's own Pod; count repetitions up.",
    "leases": "Leader election.",
    "pods": "Find out whether the Pod that holds the Lease still exists.",
    "configmaps": "Follow what the cluster tells about its local registry (KEP-1755).",
}
"""What each permission is for."""

_BEGIN: Final = "<!-- begin {}: written by make docs -->"
_END: Final = "<!-- end {} -->"
_BLOCK: Final = re.compile(
    rf"(?P<begin>{_BEGIN.format('(?P<name>[a-z-]+)')}\n).*?(?P<end>{_END.format('(?P=name)')})", re.DOTALL
)


def fill(page: str) -> str:
    """Return a page with all its blocks written anew.

    Args:
        page: The page in Markdown.
    """
    return _BLOCK.sub(lambda found: f"{found['begin']}\n{BLOCKS[found['name']]()}\n\n{found['end']}", page)


def main() -> None:
    """Write all that is generated anew, and say what has changed."""
    pages = sorted([*DOCS.glob("*.md"), CHART / "README.md"])
    texts = {path: fill(path.read_text(encoding="utf-8")) for path in pages}
    texts |= {argocd.CONFIG_MAP: argocd.config_map(), CHART / "values.schema.json": chart.schema()}
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path.name} has changed\n")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown.

    Args:
        header: The columns' names.
        rows: The cells.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`"


# --- configuration.md


def configuration() -> str:
    """Return a section for each model of the configuration."""
    return "\n\n".join(_models(OperatorConfig, ""))


def _models(model: type[BaseModel], path: str) -> Iterator[str]:
    fields = model.model_fields.items()
    rows = [[_code(str(f.alias)), _type(f.annotation), _default(f), f.description or ""] for _, f in fields]
    heading = f"### `{path}`" if path else "### The file"
    text = (model.__doc__ or "").replace("``", "`")
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
    Path: "path of a file",
    timedelta: "duration",
    dict: "mapping, see below",
}


def _type(annotation: Any) -> str:
    """Return what a person has to write for a field."""
    origin, arguments = get_origin(annotation), [a for a in get_args(annotation) if a not in (type(None), ...)]
    if origin is Literal:
        text = " or ".join(_code(str(value)) for value in arguments)
    elif origin is tuple:
        text = f"list of {_type(arguments[0])}s"
    elif arguments and origin is not dict:
        text = _type(arguments[0])  # optional or annotated
    elif origin is None and issubclass(annotation, Enum):
        text = " or ".join(_code(str(member.value)) for member in annotation)
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
    return _code(str(value))


def options() -> str:
    """Return the command line's options."""
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
    return ", ".join(_code(f"{name}{value}") for name in (*option.opts, *option.secondary_opts))


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
        return _code(option.opts[0])
    # What has to be said in words is said in the help.
    return _code(str(option.default)) if option.show_default and option.default else "-"


# --- status.md


def reasons() -> str:
    """Return all reasons, what they mean and what to do."""
    rows = [[f'<a id="{reason.lower()}"></a>`{reason}`', reason.meaning, ADVICE[reason]] for reason in Reason]
    return table(["Reason", "Meaning", "What to do"], rows)


@dataclass(frozen=True, slots=True)
class Situation:
    """One row of the state table.

    Args:
        text: The situation in words.
        before: The object when the operator looks at it.
        outcome: What the operator finds.
        after: How long after the first look that is.
    """

    text: str
    before: ArtifactRepository
    outcome: Outcome
    after: timedelta = timedelta(0)


_BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
_TIMINGS: Final = Timings()
_TARGET: Final = Target("artifacts", "default/web", "artifacts/default/web")
_ADDRESSES: Final = RegistryAddresses("localhost:5001", "localhost:5001", "localhost:5001", "kind-registry:5000")
_VERIFIED: Final = Verified(_TARGET, _ADDRESSES, Origin.CREATED)
_NEW: Final = ArtifactRepository(
    Key("default", "web"), uid="1", resource_version="1", generation=1, status={"observedGeneration": -1}
)


def _failure(reason: Reason, failing_for: timedelta = timedelta(hours=1)) -> Failed:
    return Failed(reason, "", "", _TARGET.registry, _TARGET.repository_name, failing_for)


def _seen(before: ArtifactRepository, outcome: Outcome, after: timedelta = timedelta(0)) -> ArtifactRepository:
    """Return the object with the status that it has after a look at it."""
    decision = decide(before, outcome, now=_BEGINNING + after, timings=_TIMINGS)
    return ArtifactRepository(
        before.key, uid="1", resource_version="1", generation=before.generation, status=decision.status
    )


def _changed(before: ArtifactRepository) -> ArtifactRepository:
    """Return the object after somebody has changed its spec."""
    return ArtifactRepository(
        before.key, uid="1", resource_version="1", generation=before.generation + 1, status=before.status
    )


def situations() -> list[tuple[str, ArtifactRepository]]:
    """Return each situation in words, and the object in it: what the operator's own code makes of it."""
    seen = [(s.text, _seen(s.before, s.outcome, s.after)) for s in _situations()]
    return [("Not seen by the operator yet", _NEW), *seen]


def _situations() -> list[Situation]:
    ready = _seen(_NEW, _VERIFIED)
    down = _failure(Reason.REGISTRY_UNAVAILABLE)
    blip = _failure(Reason.REGISTRY_UNAVAILABLE, _TIMINGS.unavailable_after / 2)
    denied = _failure(Reason.ACCESS_DENIED)
    deadline = format_duration(_TIMINGS.progress_deadline)
    patience = format_duration(_TIMINGS.unavailable_after)
    elsewhere = Suspended("another", None)
    suspended = Suspended(_TARGET.registry, _TARGET.repository_name)
    return [
        Situation("Created or verified", _NEW, _VERIFIED),
        Situation("Registry down or failing, never ready", _NEW, down),
        Situation(f"The same, was ready, for less than {patience}", ready, blip),
        Situation("The same, was ready, for longer", ready, down),
        Situation("A person has to act (credentials, configuration, registry), never ready", _NEW, denied),
        Situation("The same, was ready", ready, denied),
        Situation(f"Any of these for longer than {deadline}", _seen(ready, down), down, _TIMINGS.progress_deadline),
        Situation("Only a change of the object can help", _NEW, _failure(Reason.POLICY_VIOLATION)),
        Situation("Suspended, never ready", _changed(_NEW), suspended),
        Situation("Suspended while ready", _changed(ready), suspended),
        Situation("Suspended while failing", _changed(_seen(ready, down)), suspended),
        Situation("Suspended, and `spec` means another repository now", _changed(ready), elsewhere),
    ]


_ONE_OF_MANY: Final = frozenset({Reason.ACCESS_DENIED, Reason.POLICY_VIOLATION})


def states() -> str:
    """Return the state table."""
    rows = []
    for text, seen in situations():
        row = [text, _shown(seen, ConditionType.READY)]
        row.append(", ".join(_shown(seen, t) for t in list(ConditionType)[1:] if seen.condition(t)) or "-")
        row += ["there" if seen.status.get("uri") else "-", kstatus(seen.generation, seen.status)]
        rows.append(row)
    return table(["Situation", "Ready", "Beside it", "`uri`", "kstatus"], rows)


def _shown(repository: ArtifactRepository, type_: ConditionType) -> str:
    condition = repository.condition(type_)
    if not condition:
        return "-"
    reason = "a reason of its own" if condition["reason"] in _ONE_OF_MANY else _code(condition["reason"])
    return f"{'' if type_ is ConditionType.READY else f'{type_}='}{condition['status']}, {reason}"


def kstatus(generation: int, status: Mapping[str, Any]) -> str:
    """Return what kstatus, which Flux and Helm go by, computes from a status.

    Args:
        generation: The object's generation.
        status: Its status.
    """
    if status.get("observedGeneration", generation) != generation:
        return "InProgress"
    found = {condition["type"]: condition["status"] for condition in status.get("conditions", ())}
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    return "Current" if found.get("Ready", "True") == "True" else "InProgress"


# --- api.md


def _crd_version() -> dict[str, Any]:
    crd = yaml.safe_load((MANIFESTS / "crd.yaml").read_text(encoding="utf-8"))
    version: dict[str, Any] = crd["spec"]["versions"][0]
    return version


def fields() -> str:
    """Return the API's fields as the CRD describes them."""
    schema = _crd_version()["schema"]["openAPIV3Schema"]["properties"]
    parts = []
    for name in ("spec", "status"):
        rows = [[_code(path), _limits(field), field["description"]] for path, field in _fields(schema[name], name)]
        parts.append(f"### `{name}`\n\n{schema[name]['description']}\n\n{table(['Field', 'Type', 'Meaning'], rows)}")
    return "\n\n".join(parts)


def _fields(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        below = f"{path}.{name}"
        yield below, field
        yield from _fields(field, below)
        yield from _fields(field.get("items", {}), f"{below}[]")


def _limits(field: Mapping[str, Any]) -> str:
    parts = [" or ".join(_code(str(value)) for value in field["enum"]) if "enum" in field else field["type"]]
    if field.get("maxLength", 1000) < 1000:  # noqa: PLR2004 - more is no limit to a person
        parts.append(f"at most {field['maxLength']} characters")
    if "default" in field:
        parts.append(f"default {_code(str(field['default']))}")
    return ", ".join(parts)


def refusals() -> str:
    """Return the sentences with which the API server refuses an object."""
    schema = _crd_version()["schema"]["openAPIV3Schema"]["properties"]
    checked = [("spec", schema["spec"]), *_fields(schema["spec"], "spec")]
    return "\n".join(
        f"- {_code(path)}: {' '.join(rule['message'].split())}"
        for path, field in checked
        for rule in field.get("x-kubernetes-validations", ())
    )


def columns() -> str:
    """Return what ``kubectl get`` shows."""
    rows = [
        [c["name"].upper(), _code(c["jsonPath"]), "`-o wide`" if c.get("priority") else "always"]
        for c in _crd_version()["additionalPrinterColumns"]
    ]
    return table(["Column", "From", "Shown"], rows)


# --- the chart's README


def values() -> str:
    """Return the chart's values."""
    rows = ([_code(path), _code(default), text] for path, default, text in chart.values())
    return table(["Value", "Default", "Meaning"], rows)


# --- operations.md and security.md


def alerts() -> str:
    """Return the alerts in the chart, and what to do about each."""
    rows = []
    for rule in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]:
        told = {name: re.sub(r"\{\{.*?\}\}", "…", text) for name, text in rule["annotations"].items()}
        rows.append([_code(rule["alert"]), rule.get("for", "-"), told["summary"], told["description"]])
    return table(["Alert", "After", "Means", "What to do"], rows)


def metrics() -> str:
    """Return all metrics that the operator has."""
    kept = Metrics()
    kept.observe_registries(lambda: {"artifacts": None})
    labels = {
        wrapper._name: wrapper._labelnames  # noqa: SLF001 - a metric without values shows its labels nowhere else
        for wrapper in vars(kept).values()
        if isinstance(wrapper, MetricWrapperBase)
    }
    rows = []
    for family in kept.registry.collect():
        names = labels.get(family.name) or tuple(family.samples[0].labels if family.samples else ())
        shown = [_code(name) for name in names if name != "le"]
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append([_code(name), family.type, ", ".join(shown) or "-", family.documentation])
    return table(["Metric", "Type", "Labels", "Meaning"], rows)


def permissions() -> str:
    """Return what the operator's ServiceAccount may do."""
    texts = [(MANIFESTS / name).read_text(encoding="utf-8") for name in PERMISSIONS]
    documents = [document for text in texts for document in yaml.safe_load_all(text)]
    bound = {document["roleRef"]["name"] for document in documents if "roleRef" in document}
    rows = []
    for role in documents:
        if role["metadata"]["name"] not in bound:  # a role for people
            continue
        where = role["metadata"].get("namespace")
        for rule in role.get("rules", ()):
            for resource in rule["resources"]:
                named = "".join(f" named {_code(name)}" for name in rule.get("resourceNames", ()))
                scope = f"namespace `{where}`" if where else "cluster"
                rows.append([f"{_code(resource)}{named}", ", ".join(rule["verbs"]), scope, PURPOSES[resource]])
    return table(["Resource", "Verbs", "Where", "What for"], rows)


# --- benchmarks.md


def benchmarks() -> str:
    """Return the results that were recorded last, and what they were measured on."""
    results = Results.load(DOCS / "benchmarks.json")
    return f"{benchmark_table(results)}\n\n{', '.join(f'{name} {value}' for name, value in results.machine.items())}"


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "alerts": alerts,
    "benchmarks": benchmarks,
    "columns": columns,
    "configuration": configuration,
    "fields": fields,
    "metrics": metrics,
    "options": options,
    "permissions": permissions,
    "reasons": reasons,
    "refusals": refusals,
    "states": states,
    "values": values,
}
"""All blocks by their names."""

if __name__ == "__main__":
    main()
