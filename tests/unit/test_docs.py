"""The documentation is correct.

=======================  ==========================================================================
part of a page           is compared with
=======================  ==========================================================================
a generated block        the generator, and with it models, enums, CRD, RBAC, metrics, command line
a link                   existing files and headings
a configuration          ``controller.config.parse_config``
an ArtifactRepository    the CRD's schema and the grammar of names
a command line           the operator's options, the Makefile's targets, existing files
a metric, a log line     the operator's metrics, its sources
=======================  ==========================================================================
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from controller import cli
from controller.api.conditions import ConditionType
from controller.api.reasons import Reason
from controller.api.v1alpha1 import API_VERSION, KIND
from controller.configfile import parse_config
from controller.metrics import Metrics
from controller.names import validate_repository_name
from controller.reconcile.reports import RECREATED
from devcluster.cluster import Kubernetes
from devcluster.demo_terminal import next_steps
from devcluster.manifests import CHART
from devcluster.tools import version
from hack import generate

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path for glob in ("*.md", "docs/*.md", "charts/*/README.md", "examples/*.md") for path in ROOT.glob(glob)
)
SAMPLES = sorted([*(ROOT / "manifests").rglob("*.yaml"), *(ROOT / "examples" / "objects").glob("*.yaml")])
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
CONFIGURATIONS = [path for path in EXAMPLES if path.parent.name == "registries"]
CRD = yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text())
SCHEMA: Mapping[str, Any] = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

_CODE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    return [block["text"] for block in _CODE.finditer(page.read_text()) if block["language"] == language]


def documents(page: Path) -> Iterator[Any]:
    """Yield each YAML document on a page."""
    for text in code(page, "yaml"):
        yield from yaml.safe_load_all(text)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page."""
    text = page.read_text()
    headings = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(text)}
    return headings | set(re.findall(r'<a id="([^"]+)">', text))


_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def misfits(value: Any, schema: Mapping[str, Any], path: str = "object") -> Iterator[str]:
    """Yield the errors of a value by a schema of the kind that CRDs have."""
    if not isinstance(value, _TYPES[schema["type"]]):
        yield f"{path} is no {schema['type']}"
    elif isinstance(value, dict) and "properties" in schema:
        yield from (f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value)
        yield from (f"{path}.{name} is unknown" for name in value if name not in schema["properties"])
        for name in value.keys() & schema["properties"].keys():
            yield from misfits(value[name], schema["properties"][name], f"{path}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from misfits(inner, schema["items"], f"{path}[{number}]")
    elif isinstance(value, str):
        yield from misfits_of_text(value, schema, path)


def misfits_of_text(value: str, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the errors of a string."""
    if value not in schema.get("enum", [value]):
        yield f"{path} is none of {schema['enum']}"
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{path} is too short or too long"
    if not re.search(schema.get("pattern", ""), value):
        yield f"{path} does not match {schema['pattern']}"


def check_object(document: Mapping[str, Any]) -> None:
    """Fail unless the API server would accept an ArtifactRepository."""
    assert document["apiVersion"] == API_VERSION
    assert list(misfits(document, SCHEMA)) == []
    for name in ("repositoryName", "registry"):
        if name in document["spec"]:
            validate_repository_name(document["spec"][name])


@pytest.mark.parametrize("name", generate.BLOCKS)
def test_every_block_is_on_one_page(name: str) -> None:
    """Each generated block is used exactly once."""
    marker = f"<!-- begin {name}: written by make docs -->"
    assert sum(page.read_text().count(marker) for page in PAGES) == 1


@pages
def test_generated_blocks_are_up_to_date(page: Path) -> None:
    """No generated block is stale; if one is, run `make docs`."""
    text = page.read_text()
    assert generate.fill(text) == text
    assert text.count("<!-- begin ") == text.count("<!-- end ")


def test_every_condition_type_is_documented() -> None:
    """The hand-written table of condition types is complete."""
    text = (ROOT / "docs" / "status.md").read_text()
    assert [type_ for type_ in ConditionType if f"| `{type_}` |" not in text] == []


@pages
def test_links_resolve(page: Path) -> None:
    """Each relative link leads to an existing file, and to a heading in it."""
    for link in _LINK.finditer(page.read_text()):
        target, _, anchor = link["target"].partition("#")
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link["target"]
        assert ROOT in path.parents, link["target"]
        assert not anchor or anchor in anchors(path), link["target"]


@pages
def test_yaml(page: Path) -> None:
    """Each block is a configuration that the operator takes, a Kubernetes object, or part of a kustomization.yaml.

    Ours fit the CRD.
    """
    for document in documents(page):
        if "registries" in document:
            parse_config(yaml.safe_dump(document))
            continue
        if document.keys() <= {"apiVersion", "kind", "namespace", "resources", "transformers", "patches", "images"}:
            continue  # tests/charts/test_kustomize.py and tests/cluster/test_gitops_page.py
        assert document["apiVersion"]
        assert document["kind"]
        assert document["metadata"]["name"]
        if document["kind"] == KIND:
            check_object(document)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_samples(path: Path) -> None:
    """Each ArtifactRepository in manifests/ and examples/ fits the CRD, including Argo CD's test data."""
    for document in yaml.safe_load_all(path.read_text()):
        if document.get("kind") == KIND:
            check_object(document)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_example_configurations(path: Path) -> None:
    """Each example of a configuration is one that `check` accepts."""
    answer = CliRunner().invoke(cli.main, ["check", "--config", str(path)])
    assert answer.exit_code == 0, answer.output
    assert ": valid; registries: " in answer.output


def test_every_example_is_listed() -> None:
    """The examples' page links to each of them."""
    page = ROOT / "examples" / "README.md"
    linked = {link["target"] for link in _LINK.finditer(page.read_text())}
    assert [path for path in EXAMPLES if str(path.relative_to(page.parent)) not in linked] == []
    assert CONFIGURATIONS


def test_a_misfit_is_found() -> None:
    """The check of objects against the CRD detects errors."""
    wrong = {"spec": {"registry": 5, "repositoryname": "x"}, "status": {"origin": "Found", "uri": ""}}
    assert set(misfits(wrong, SCHEMA)) == {
        "object.spec.registry is no string",
        "object.spec.repositoryname is unknown",
        "object.status.origin is none of ['Created', 'Adopted']",
        "object.status.uri is too short or too long",
    }


def commands() -> Iterator[list[str]]:
    """Yield each command in the shell blocks of all pages, without comments."""
    for page in PAGES:
        for text in code(page, "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield words


def test_commands_are_found() -> None:
    """The tests of commands below have input."""
    programs = {words[0] for words in commands()}
    assert {"make", "kubectl", ".venv/bin/artifact-repository-controller"} <= programs


def test_make_targets_exist() -> None:
    """Each make target in the documentation is in the Makefile, also those in text."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for words in commands() if words[0] == "make" for word in words[1:] if "=" not in word}
    for page in PAGES:
        named |= {w for found in re.findall(r"`make ([^`]+)`", page.read_text()) for w in found.split() if "=" not in w}
    assert {"demo", "unit", "test", "install", "docs", "image", "kind-load"} <= named
    assert named - targets == set()


def test_options_exist() -> None:
    """Each command line of the operator uses an existing command and existing options."""
    seen = 0
    for words in commands():
        if Path(words[0]).name != "artifact-repository-controller":
            continue
        command = cli.main.commands[words[1]]
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        assert {word.partition("=")[0] for word in words[2:] if word.startswith("-")} <= known, words
        seen += 1
    assert seen


@pages
def test_flags_in_text_are_known(page: Path) -> None:
    """Each flag in the text belongs to the operator, or to a tool that is named next to it."""
    ours = {
        name
        for command in cli.main.commands.values()
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    others = {"--wait", "--for", "--take-ownership", "--force-conflicts", "--no-cov"}  # of helm, kubectl and pytest
    text = _CODE.sub("", page.read_text())
    assert {found.partition("=")[0] for found in re.findall(r"`(--[a-z-]+)", text)} - ours - others == set()


def test_pushes_go_to_the_name_for_laptops() -> None:
    """Whatever is pushed by a command on a page or in the demo goes to references.host; status.uri is for `image:`."""
    scripts = [text for page in PAGES for text in code(page, "sh")] + [next_steps()]
    pushes = 0
    for text in scripts:
        for name in re.findall(r'(?:docker|podman|registry|crane) push .*?"\$\{?(\w+)', text):
            assert re.search(rf"^{name}=.*\.status\.references\.host", text, re.MULTILINE), text
            pushes += 1
    assert pushes > 1


def test_help_names_an_existing_page() -> None:
    """The operator's help refers to an existing page."""
    answer = CliRunner().invoke(cli.main, ["run", "--help"])
    assert answer.exit_code == 0
    for name in re.findall(r"docs/[a-z-]+\.md", answer.output):
        assert (ROOT / name).exists()
    assert "docs/configuration.md" in answer.output


def test_files_in_commands_exist() -> None:
    """Each file of this repository in a command exists."""
    folders = ("manifests/", "docs/", "requirements/", "tests/")
    named = {word for words in commands() for word in words if word.startswith(folders)}
    assert "manifests/crd.yaml" in named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pages
def test_metrics_exist(page: Path) -> None:
    """Each metric on a page is a metric of the operator."""
    metrics = Metrics()
    metrics.observe_registries(lambda: {"artifacts": None})
    metrics.observe_watches(lambda: {"team": True})
    known = {family.name for family in metrics.registry.collect()}
    known |= {f"{name}{suffix}" for name in known for suffix in ("_total", "_bucket")}
    assert set(re.findall(r"\bartifact_repository_\w+", page.read_text())) - known == set()


def test_log_lines_exist() -> None:
    """The log messages in operations.md are in the sources."""
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition("\n## Log\n")[2].partition("\n## ")[0]
    phrases = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    sources = " ".join(path.read_text() for path in (ROOT / "controller").rglob("*.py"))
    assert len(phrases) > 5
    assert [phrase for phrase in phrases if phrase not in sources] == []


def test_events_exist() -> None:
    """The events in operations.md are those that the operator records."""
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition("\n## Events\n")[2]
    told = {
        name for cell in re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE) for name in re.findall("`(.+?)`", cell)
    }
    sources = " ".join(path.read_text() for path in (ROOT / "controller").rglob("*.py"))
    recorded = re.findall(r'EventType\.(?:NORMAL|WARNING),\s*"(\w+)"', sources)
    assert told == {*recorded, RECREATED, Reason.REPOSITORY_READY}


def test_kubernetes_versions() -> None:
    """Only README names the oldest and newest tested Kubernetes; the chart rejects older ones."""
    versions = [version(one.apiserver) for one in (Kubernetes.OLDEST, Kubernetes.NEWEST)]
    oldest, newest = (one.removeprefix("v").rpartition(".")[0] for one in versions)
    assert (
        f"Kubernetes {oldest} or newer; it is tested on {oldest} and on {newest}." in (ROOT / "README.md").read_text()
    )
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["kubeVersion"] == f">={oldest}.0-0"
    telling = [page.name for page in PAGES if re.search(r"Kubernetes v?1\.\d", page.read_text())]
    assert telling == ["CHANGELOG.md", "README.md"]


@pages
def test_no_path_of_a_machine(page: Path) -> None:
    """No page contains a path of the machine of its author."""
    assert re.findall(r"/work/|/root/|/tmp/", page.read_text()) == []
