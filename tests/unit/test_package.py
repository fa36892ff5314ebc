"""What is published: one address, and a package whose description works outside of the repository."""

import email
import re
import tarfile
import tomllib
from pathlib import Path

import hatchling.build
import pytest
import yaml

from controller import __version__
from devcluster.manifests import CHART, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS: str = PROJECT["urls"]["Homepage"]
RAW = ADDRESS.replace("https://github.com/", "https://raw.githubusercontent.com/")

ALSO = ("*.md", "docs/*.md", "examples/**/*", "charts/**/*", "mkdocs.yml", "pyproject.toml", ".github/**/*")
"""Files that may state the repository's address."""


def test_one_address() -> None:
    """Every address of this repository or of its owner is that of pyproject.toml, and the chart has it."""
    owner, _, name = ADDRESS.removeprefix("https://github.com/").partition("/")
    ours = re.compile(rf"https://[\w.]+/(?:{owner}\b|[\w-]+/{name}\b)[^\s)'\"`]*")
    found = {
        (path.name, address)
        for glob in ALSO
        for path in ROOT.glob(glob)
        if path.is_file()
        for address in ours.findall(path.read_text())
    }
    assert [(place, address) for place, address in found if not re.match(rf"({ADDRESS}|{RAW})(/|$)", address)] == []
    assert {place for place, _ in found} >= {"Chart.yaml", "mkdocs.yml", "pyproject.toml", "config.yml"}
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["home"] == ADDRESS
    assert about["sources"] == [ADDRESS]
    icon = about["icon"].removeprefix(f"{RAW}/main/")
    assert (ROOT / icon).read_text().startswith("<svg ")
    assert (ROOT / ".github" / "CODEOWNERS").read_text().splitlines()[-1] == f"* @{owner}/maintainers"


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what PyPI shows: the description in the package's metadata."""
    folder = tmp_path_factory.mktemp("metadata")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        made = hatchling.build.prepare_metadata_for_build_wheel(str(folder))
    metadata = email.message_from_string((folder / made / "METADATA").read_text())
    assert metadata["Description-Content-Type"] == "text/markdown"
    return str(metadata.get_payload())


def test_links_work_on_pypi(description: str) -> None:
    """Each link and image is absolute, and leads to an existing file of the same version, or to another site."""
    targets = re.findall(r'\]\(([^)\s]+)\)|\b(?:href|src|srcset)="([^"]+)"', description)
    links = ["".join(target) for target in targets]
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    places = {f"{ADDRESS}/blob/v{__version__}/", f"{RAW}/v{__version__}/"}
    ours = [(place, link) for place in places for link in links if link.startswith(place)]
    assert len(ours) > 10
    for place, link in ours:
        assert (ROOT / link.removeprefix(place).partition("#")[0]).exists(), link


def test_images_are_files_not_pages(description: str) -> None:
    """An image is loaded from where a code host serves the file itself."""
    images = re.findall(r'!\[[^\]]*\]\(([^)\s]+)\)|\b(?:src|srcset)="([^"]+)"', description)
    assert [image for image in map("".join, images) if image.startswith(f"{ADDRESS}/blob")] == []


def test_source_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source distribution contains the operator, the tests and the locks as files, and no link."""
    monkeypatch.chdir(ROOT)
    with tarfile.open(tmp_path / hatchling.build.build_sdist(str(tmp_path))) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    assert {"controller/crd.yaml", "README.md", "tests/unit/test_package.py", "requirements/dev.txt"} <= members.keys()
    assert [name for name, member in members.items() if not member.isfile()] == []


def test_supported_pythons() -> None:
    """The classifiers name the versions that the workflow tests, from `requires-python` on."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())
    tested = workflow["jobs"]["unit"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: 3."
    stated = [entry.rpartition(" ")[2] for entry in PROJECT["classifiers"] if entry.startswith(prefix)]
    assert stated == tested
    assert PROJECT["requires-python"] == f">={tested[0]}"


@pytest.mark.parametrize("name", ["ci", "release"])
def test_workflows_run_what_exists(name: str) -> None:
    """Each make target and each folder of tests that a workflow names exists."""
    text = (ROOT / ".github" / "workflows" / f"{name}.yaml").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for line in re.findall(r"run: make (.+)", text) for word in line.split() if "=" not in word}
    assert named
    assert named <= targets
    assert [folder for folder in re.findall(r"\btests/[a-z]+", text) if not (ROOT / folder).is_dir()] == []


@pytest.mark.parametrize("name", ["ci", "release"])
def test_workflows_have_least_permissions(name: str) -> None:
    """A workflow may only read; each job that may do more says what, and only the release workflow has such jobs."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yaml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    more = {
        (job, scope)
        for job, about in workflow["jobs"].items()
        for scope, access in about.get("permissions", {}).items()
        if access == "write"
    }
    signing = {(job, "id-token") for job in ("packages", "image", "chart", "pypi")}
    attesting = {(job, "attestations") for job in ("packages", "image")}
    pushing = {("image", "packages"), ("chart", "packages"), ("release", "contents")}
    assert more == (signing | attesting | pushing if name == "release" else set())


def test_the_icon_is_small() -> None:
    """The icon is a drawing of a few lines, without scripts or references."""
    text = Path(ROOT / "docs" / "icon.svg").read_text()
    assert len(text) < 1000
    assert not re.search(r"script|href|url\(", text)
