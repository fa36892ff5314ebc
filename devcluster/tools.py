"""Where the binaries come from: ``KUBEBUILDER_ASSETS``, the per-user cache, or a build."""

import hashlib
import os
import platform
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from devcluster.cache import cache_root, make_once
from devcluster.gomodules import GoModules
from devcluster.gosource import GoSourceRecipe
from devcluster.progress import Progress, duration, to_stderr
from devcluster.recipes import CargoRecipe, DebianRecipe, DebianTreeRecipe, GoRecipe, Recipe


class Tool(StrEnum):
    """A program that the dev cluster, the tests or the demo run; the value is the binary's name."""

    ETCD = "etcd"
    KUBE_APISERVER = "kube-apiserver"
    KUBE_APISERVER_OLDEST = "kube-apiserver-oldest"
    """Of the oldest Kubernetes that the operator is tested on."""
    KUBE_CONTROLLER_MANAGER = "kube-controller-manager"
    KUBECTL = "kubectl"
    DISTRIBUTION = "registry"
    """Distribution 3, the registry that `registry:3` images run, without the storage of clouds."""
    DOCKER_REGISTRY = "docker-registry"
    """Distribution 2.8 as Debian ships it."""
    CRANE = "crane"
    """A registry client, and with `crane registry serve` a registry."""
    CONTAINER_REGISTRY = "container-registry"
    """The crate of the same name, the embedded registry that the seed was written for."""
    HELM = "helm"
    STATUSJUDGE = "statusjudge"
    """Ours: what kstatus and Argo CD make of an object, by the libraries that they use."""
    KUSTOMIZE_CONTROLLER = "kustomize-controller"
    """The part of Flux that applies, prunes and waits."""
    KUBELET = "kubelet"
    KUBE_SCHEDULER = "kube-scheduler"
    KUBE_PROXY = "kube-proxy"
    CONTAINERD = "containerd"
    CONTAINERD_SHIM = "containerd-shim-runc-v2"
    CTR = "ctr"
    CRICTL = "crictl"
    COREDNS = "coredns"
    """CoreDNS with few plugins."""
    PAUSE = "pause"
    """Ours: PID 1 of a Pod's sandbox, and of a node."""
    NODE_PACKAGES = "node-packages"
    """Not a program but a folder, to be laid over /usr: runc, network plugins and what else a node runs."""
    ACTIONLINT = "actionlint"
    KUBE_SCORE = "kube-score"
    PROMTOOL = "promtool"


NODE_ONLY = (
    Tool.KUBELET,
    Tool.KUBE_SCHEDULER,
    Tool.KUBE_PROXY,
    Tool.CONTAINERD,
    Tool.CONTAINERD_SHIM,
    Tool.CTR,
    Tool.CRICTL,
    Tool.COREDNS,
    Tool.PAUSE,
    Tool.NODE_PACKAGES,
)
"""What only a node needs, and few machines can run one (see `devcluster.node.support`)."""

LINTERS = (Tool.ACTIONLINT, Tool.KUBE_SCORE, Tool.PROMTOOL)
"""What only `make linters` runs."""


def version(tool: Tool) -> str:
    """Return the version that is pinned for a tool.

    Args:
        tool: Which one.
    """
    return _recipe(tool).version()


def provide(tool: Tool, *, progress: Progress = to_stderr) -> Path:
    """Return the path of a tool's binary, building it first where need be.

    ``KUBEBUILDER_ASSETS`` is the convention of controller-runtime's tests for a folder that holds a control plane:
    what is in there is used as it is, what it lacks is built.

    Args:
        tool: Which one.
        progress: Takes a line now and then while something is built.

    Raises:
        ToolUnavailable: This machine lacks what the tool is made with.
        BuildFailed: It does not, and the build failed.
    """
    recipe = _recipe(tool)
    binary = _where(tool, recipe)

    def build(scratch: Path) -> Path:
        begun = time.monotonic()
        told = f"{tool.value} {recipe.version()}"
        progress(f"building {told}, once; about {duration(recipe.expected_seconds)} on two cores")
        built = recipe.build(scratch, progress)
        progress(f"built {told} in {duration(time.monotonic() - begun)}: {binary}")
        return built

    make_once(binary, build, progress=progress)
    return binary


def is_provided(tool: Tool) -> bool:
    """Return whether a tool's binary is there already.

    Args:
        tool: Which one.
    """
    return _where(tool, _recipe(tool)).exists()


def provide_all(tools: Sequence[Tool], *, progress: Progress = to_stderr) -> dict[Tool, Path]:
    """Return the paths of several tools, and say at the start how long that will take.

    Args:
        tools: Which ones.
        progress: See `provide`.

    Raises:
        ToolUnavailable: This machine lacks what one of them is made with.
        BuildFailed: It does not, and a build failed.
    """
    announce(tools, progress)
    return {tool: provide(tool, progress=progress) for tool in tools}


def announce(tools: Sequence[Tool], progress: Progress) -> None:
    """Tell how many of some tools have to be built, and how long that will take; nothing if all are there.

    Args:
        tools: Which ones.
        progress: Takes the line.
    """
    missing = [_recipe(tool) for tool in tools if not is_provided(tool)]
    if missing:
        seconds = sum(recipe.expected_seconds for recipe in missing)
        progress(f"{len(missing)} tools are built first, once: about {duration(seconds)} on two cores in all")


def from_assets(tool: Tool) -> Path | None:
    """Return a tool's binary in ``KUBEBUILDER_ASSETS``; None if it has none.

    Args:
        tool: Which one.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and os.access(asset := Path(assets).absolute() / tool.value, os.X_OK):
        return asset
    return None


def _where(tool: Tool, recipe: Recipe) -> Path:
    """Return where a tool's binary is, or will be."""
    return from_assets(tool) or cache_root() / "tools" / f"{tool.value}-{recipe.version()}-{_key(recipe)}" / tool.value


def _key(recipe: Recipe) -> str:
    """Return what tells this build from another one: its sources, flags and platform."""
    return hashlib.sha256(f"{recipe.fingerprint()} {sys.platform} {platform.machine()}".encode()).hexdigest()[:12]


def _recipe(tool: Tool) -> Recipe:
    recipes: dict[Tool, Recipe] = {
        Tool.ETCD: _go("etcd", "go.etcd.io/etcd/server/v3", expected_seconds=40),
        Tool.KUBE_APISERVER: _kubernetes("kube-apiserver", expected_seconds=240),
        Tool.KUBE_APISERVER_OLDEST: _kubernetes(
            # Without the clouds' clients that it once had built in, which are a third of the work.
            "kube-apiserver",
            module="kubernetes-oldest",
            tags=("providerless",),
            expected_seconds=190,
        ),
        Tool.KUBE_CONTROLLER_MANAGER: _kubernetes("kube-controller-manager", expected_seconds=110),
        Tool.KUBECTL: _kubernetes("kubectl", expected_seconds=20),
        Tool.DISTRIBUTION: GoRecipe(
            "distribution",
            "devcluster/distribution",
            source="github.com/distribution/distribution/v3",
            stamps={"github.com/distribution/distribution/v3/version.version": "{version}"},
            expected_seconds=15,
        ),
        Tool.DOCKER_REGISTRY: DebianRecipe("docker-registry", expected_version="2.8", expected_seconds=5),
        Tool.CRANE: _go("crane", "github.com/google/go-containerregistry", "/cmd/crane", expected_seconds=20),
        Tool.CONTAINER_REGISTRY: CargoRecipe("container-registry", expected_seconds=60),
        Tool.HELM: _go(
            "helm", "helm.sh/helm/v4", "/cmd/helm", version_variable="internal/version.version", expected_seconds=120
        ),
        Tool.STATUSJUDGE: GoRecipe(
            "statusjudge", "devcluster/statusjudge", source="sigs.k8s.io/cli-utils", expected_seconds=40
        ),
        Tool.KUSTOMIZE_CONTROLLER: GoSourceRecipe(
            GoModules("gitops"),
            "github.com/fluxcd/kustomize-controller",
            nested={"api": "github.com/fluxcd/kustomize-controller/api"},
            expected_seconds=390,
        ),
        **_node_recipes(),
        Tool.ACTIONLINT: _go("actionlint", "github.com/rhysd/actionlint", "/cmd/actionlint", expected_seconds=20),
        Tool.KUBE_SCORE: _go("kube-score", "github.com/zegl/kube-score", "/cmd/kube-score", expected_seconds=60),
        Tool.PROMTOOL: GoRecipe(
            "promtool",
            "github.com/prometheus/prometheus/cmd/promtool",
            source="github.com/prometheus/prometheus",
            # Without service discovery, whose clients of clouds are most of the work.
            tags=("remove_all_sd",),
            expected_seconds=120,
        ),
    }
    return recipes[tool]


def _node_recipes() -> dict[Tool, Recipe]:
    def containerd(program: str, expected_seconds: int) -> GoRecipe:
        source = "github.com/containerd/containerd/v2"
        return GoRecipe(
            module="containerd",
            package=f"{source}/cmd/{program}",
            source=source,
            expected_seconds=expected_seconds,
            stamps={f"{source}/version.Version": "{version}"},
            # Snapshots are overlays; btrfs would need a C compiler.
            tags=("no_btrfs", "no_devmapper", "no_zfs"),
        )

    return {
        Tool.KUBELET: _kubernetes("kubelet", expected_seconds=150),
        Tool.KUBE_SCHEDULER: _kubernetes("kube-scheduler", expected_seconds=20),
        Tool.KUBE_PROXY: _kubernetes("kube-proxy", expected_seconds=20),
        Tool.CONTAINERD: containerd("containerd", expected_seconds=110),
        Tool.CONTAINERD_SHIM: containerd("containerd-shim-runc-v2", expected_seconds=15),
        Tool.CTR: containerd("ctr", expected_seconds=15),
        Tool.CRICTL: _go("crictl", "sigs.k8s.io/cri-tools", "/cmd/crictl", expected_seconds=25),
        Tool.COREDNS: GoRecipe(
            "coredns", "devcluster/coredns", source="github.com/coredns/coredns", expected_seconds=75
        ),
        Tool.PAUSE: GoRecipe("pause", "devcluster/pause", source="", expected_seconds=3),
        Tool.NODE_PACKAGES: DebianTreeRecipe(
            ("busybox-static", "conntrack", "containernetworking-plugins", "iproute2", "iptables", "procps", "runc"),
            # Alternatives, which a package chooses when it is installed.
            links={
                f"usr/sbin/{program}{action}": "xtables-nft-multi"
                for program in ("iptables", "ip6tables")
                for action in ("", "-save", "-restore")
            },
            expected_seconds=10,
        ),
    }


def _go(
    module: str, source: str, program: str = "", *, expected_seconds: int, version_variable: str | None = None
) -> GoRecipe:
    """Return the recipe of a program that lies in the Go module whose version it has."""
    stamps = {f"{source}/{version_variable}": "{version}"} if version_variable else {}
    return GoRecipe(module, f"{source}{program}", source=source, expected_seconds=expected_seconds, stamps=stamps)


def _kubernetes(
    program: str, *, module: str = "kubernetes", tags: tuple[str, ...] = (), expected_seconds: int
) -> GoRecipe:
    variables = "k8s.io/component-base/version"
    return GoRecipe(
        module=module,
        package=f"k8s.io/kubernetes/cmd/{program}",
        source="k8s.io/kubernetes",
        expected_seconds=expected_seconds,
        # Without these a server says v0.0.0-master, and clients decide by its version what it can do.
        stamps={
            f"{variables}.gitVersion": "{version}",
            f"{variables}.gitMajor": "{major}",
            f"{variables}.gitMinor": "{minor}",
        },
        tags=tags,
    )
