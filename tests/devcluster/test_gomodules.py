"""Sources of Go modules: only what go.sum pins is used, and a program is built inside its own source."""

import os
import stat
from pathlib import Path

import pytest

from devcluster import gomodules
from devcluster.errors import BuildFailed, ToolUnavailable
from devcluster.gitops import GITOPS_MODULES, Crds, provide_crds
from devcluster.gomodules import GoModules
from devcluster.gosource import GoSourceRecipe
from tests.devcluster.test_tools import program

MODULE, NESTED = "example.com/tool", "example.com/tool/api"

FAKE_GO = """
case "$1 $2" in
"env GOVERSION") echo go1.26.8 ;;
"mod download")
    test -z "$REFUSED" || { echo "$REFUSED" >&2; exit 1; }
    echo "go: downloading $4" >&2
    printf '{\\n\\t"Version": "v1.0.0",\\n\\t"Sum": "h1:%s=",\\n\\t"Dir": "%s"\\n}\\n' "${4##*/}" "$SOURCES/${4##*/}" ;;
"build -v")
    echo "$CGO_ENABLED" > api/built-here
    while [ "$1" != -o ]; do shift; done
    cat main.go api/api.go > "$2" ;;
esac
"""


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GoModules:
    """Return a family of two pinned modules; a fake go command has their sources, in read-only folders."""
    program(tmp_path / "bin" / "go", FAKE_GO)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SOURCES", str(tmp_path / "sources"))
    for module, name in ((MODULE, "main.go"), (NESTED, "api.go")):
        folder = tmp_path / "sources" / module.rpartition("/")[2]
        folder.mkdir(parents=True)
        (folder / name).write_text(f"// {name}\n")
        folder.chmod(0o555)
    pins = tmp_path / "go" / "family"
    pins.mkdir(parents=True)
    (pins / "go.mod").write_text("module family\n\ngo 1.26.0\n")
    lines = (f"{module} v1.0.0{of}" for module in (MODULE, NESTED) for of in ("/go.mod h1:x=", hash_of(module)))
    (pins / "go.sum").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(gomodules, "_FOLDER", tmp_path / "go")
    return GoModules("family")


def hash_of(module: str) -> str:
    """Return the end of the line in go.sum that pins a module."""
    return f" h1:{module.rpartition('/')[2]}="


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Return an empty folder."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_download(modules: GoModules, scratch: Path, tmp_path: Path) -> None:
    """The folder that the go command tells is returned for each module."""
    folders = modules.download([MODULE, NESTED], scratch=scratch, progress=print)
    assert folders == {MODULE: tmp_path / "sources" / "tool", NESTED: tmp_path / "sources" / "api"}


@pytest.mark.parametrize("change", ["h1:tool=", "v1.0.0 "])
def test_another_download_is_refused(modules: GoModules, scratch: Path, tmp_path: Path, change: str) -> None:
    """What has another hash or another version than go.sum is not used, even where the go command accepts it."""
    pins = tmp_path / "go" / "family" / "go.sum"
    pins.write_text(pins.read_text().replace(change, change.replace("1", "2")))
    with pytest.raises(BuildFailed, match=r"go\.sum pins"):
        modules.download([MODULE], scratch=scratch, progress=print)


def test_a_module_without_a_hash_is_refused(modules: GoModules, scratch: Path) -> None:
    """What go.sum does not have is not downloaded, although the go command would add it."""
    with pytest.raises(BuildFailed, match=r"0 hashes of example\.com/unknown"):
        modules.download(["example.com/unknown"], scratch=scratch, progress=print)


@pytest.mark.parametrize(
    ("refused", "error"),
    [("dial tcp: no route to host", ToolUnavailable), ("verifying module: checksum mismatch", BuildFailed)],
)
def test_a_download_that_fails(
    modules: GoModules, scratch: Path, monkeypatch: pytest.MonkeyPatch, refused: str, error: type[Exception]
) -> None:
    """Without a network the tool is unavailable; a source that was changed is an error on every machine."""
    monkeypatch.setenv("REFUSED", refused)
    with pytest.raises(error, match=refused):
        modules.download([MODULE], scratch=scratch, progress=print)


def test_build_in_the_source(modules: GoModules, scratch: Path, tmp_path: Path) -> None:
    """The program is built in a writable copy of its source, with the nested module in its place, without cgo."""
    recipe = GoSourceRecipe(modules, MODULE, expected_seconds=1, nested={"api": NESTED})
    assert recipe.version() == "v1.0.0"
    assert recipe.build(scratch, print).read_text() == "// main.go\n// api.go\n"
    assert (scratch / "source" / "api" / "built-here").read_text() == "0\n"
    assert stat.S_IMODE((tmp_path / "sources" / "api").stat().st_mode) == 0o555


def test_the_key_follows_the_pins(modules: GoModules, tmp_path: Path) -> None:
    """Another hash of the source or of what is nested in it is another build; other modules do not matter."""
    recipe = GoSourceRecipe(modules, MODULE, expected_seconds=1, nested={"api": NESTED})
    fingerprints = [recipe.fingerprint()]
    pins = tmp_path / "go" / "family" / "go.sum"
    pins.write_text(pins.read_text() + "example.com/other v1.0.0 h1:x=\n")
    assert recipe.fingerprint() == fingerprints[0]
    for module in (MODULE, NESTED):
        pins.write_text(pins.read_text().replace(hash_of(module), f"{hash_of(module)[:-1]}2="))
        fingerprints.append(recipe.fingerprint())
    assert len(set(fingerprints)) == 3


def test_the_pins_of_gitops_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """go.mod and go.sum of the GitOps tools name the same versions, and each has its hash."""
    monkeypatch.undo()
    go_mod = (gomodules._FOLDER / "gitops" / "go.mod").read_text()
    required = dict(line.split() for line in go_mod.partition("(\n")[2].partition(")")[0].splitlines())
    assert {module: GITOPS_MODULES.pin(module).version for module in required} == required
    assert {crds.value for crds in Crds} <= required.keys()


def test_crds_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CustomResourceDefinitions are downloaded once; later the cache is enough."""
    source = tmp_path / "sources" / "kustomize-controller" / "config" / "crd" / "bases"
    source.mkdir(parents=True)
    (source / "kustomizations.yaml").write_text("kind: CustomResourceDefinition\n")
    pins = tmp_path / "go" / "gitops"
    pins.mkdir()
    (pins / "go.mod").write_text("module gitops\n\ngo 1.26.0\n")
    (pins / "go.sum").write_text(f"{Crds.KUSTOMIZE} v1.0.0 h1:kustomize-controller=\n")
    folder = provide_crds(Crds.KUSTOMIZE, progress=print)
    assert [path.name for path in folder.iterdir()] == ["kustomizations.yaml"]
    monkeypatch.setenv("REFUSED", "no route to host")
    assert provide_crds(Crds.KUSTOMIZE, progress=print) == folder
