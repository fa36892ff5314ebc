"""Flux's kustomize-controller on the dev cluster, with a source that tests write themselves."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import yaml

from devcluster.cluster import DevCluster
from devcluster.gitops import Crds, provide_crds
from devcluster.process import Probe, ServerProcess, free_port
from devcluster.tools import Tool, provide
from tests.cluster.eventually import eventually
from tests.cluster.flux_source import ArtifactServer, GitRepository
from tests.cluster.harness import Api, Object, condition

_KUSTOMIZATIONS = "/apis/kustomize.toolkit.fluxcd.io/v1"
# What the controller reads; the kinds of sources that no test has are watched all the same.
_CRDS = {
    Crds.KUSTOMIZE: ("kustomize.toolkit.fluxcd.io_kustomizations.yaml",),
    Crds.SOURCE: tuple(
        f"source.toolkit.fluxcd.io_{kind}.yaml" for kind in ("gitrepositories", "ocirepositories", "buckets")
    ),
}
FLUX_NAMESPACE = "flux-system"
_ACCOUNT = "kustomize-controller"
FLUX_USER = f"system:serviceaccount:{FLUX_NAMESPACE}:{_ACCOUNT}"
# As Flux installs it.
_PERMISSIONS: Sequence[Object] = (
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": FLUX_NAMESPACE}},
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _ACCOUNT, "namespace": FLUX_NAMESPACE}},
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": _ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": FLUX_NAMESPACE}],
    },
)
_REQUESTED_AT = "reconcile.fluxcd.io/requestedAt"


def install_crds(cluster: DevCluster, paths: Sequence[Path]) -> None:
    """Install CustomResourceDefinitions and wait until the API server serves them.

    Args:
        cluster: The cluster.
        paths: Their files.
    """
    files = [argument for path in paths for argument in ("-f", path)]
    # Some are too large for the annotation of a client-side apply.
    names = cluster.kubectl("apply", "--server-side", "-o", "name", *files).split()
    assert len(names) == len(paths)
    for name in names:
        cluster.wait_established(name.partition("/")[2])


class KustomizeController:
    """kustomize-controller for all namespaces, in a ``with`` block.

    Args:
        cluster: The cluster that it reconciles.
        directory: For its log and its temporary files.
    """

    def __init__(self, cluster: DevCluster, directory: Path) -> None:
        install_crds(cluster, [provide_crds(crds) / name for crds, names in _CRDS.items() for name in names])
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(_PERMISSIONS))
        kubeconfig = cluster.service_account_kubeconfig(FLUX_NAMESPACE, _ACCOUNT, timedelta(hours=2))
        health = f"127.0.0.1:{free_port()}"
        temporary = directory / "tmp"
        temporary.mkdir(parents=True)
        command: list[str | Path] = [
            provide(Tool.KUSTOMIZE_CONTROLLER),
            "--watch-all-namespaces",
            "--events-addr=",
            f"--metrics-addr=127.0.0.1:{free_port()}",
            f"--health-addr={health}",
            "--requeue-dependency=1s",
            "--interval-jitter-percentage=0",
            "--http-retry=1",
        ]
        self.process = ServerProcess(
            "kustomize-controller",
            command,
            probes=[Probe(f"http://{health}/readyz")],
            log=directory / "kustomize-controller.log",
            directory=directory,
            # It removes left-over folders from there when it starts, those of other controllers too.
            environment={"KUBECONFIG": str(kubeconfig), "TMPDIR": str(temporary)},
        )

    def __enter__(self) -> Self:
        self.process.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def log(self) -> str:
        """Return the end of its log."""
        return self.process.log_tail(25)


class Kustomization:
    """A Kustomization of Flux.

    Args:
        api: The API server.
        controller: The controller, for its log.
        manifest: The object.
    """

    def __init__(self, api: Api, controller: KustomizeController, manifest: Object) -> None:
        self._api = api
        self._controller = controller
        self.name = manifest["metadata"]["name"]
        path = f"{_KUSTOMIZATIONS}/namespaces/{manifest['metadata']['namespace']}/kustomizations"
        self._path = f"{path}/{self.name}"
        api.must("POST", path, manifest)

    def get(self) -> Object:
        """Return it as it is now."""
        return self._api.request("GET", self._path)

    def patch(self, patch: Mapping[str, Any]) -> None:
        """Merge a patch into it."""
        self._api.must("PATCH", self._path, patch, content_type="application/merge-patch+json")

    def delete(self, *, within: float = 60.0) -> None:
        """Delete it and wait until it is gone, and with it what it prunes."""
        self._api.must("DELETE", self._path)
        eventually(
            lambda: self.get().get("code") == 404, within=within, tell=self._tell, what=f"deletion of {self.name}"
        )

    def reconcile(self, *, within: float = 60.0) -> Object:
        """Have it reconciled now, as ``flux reconcile kustomization`` does; return it when that is over."""
        token = uuid.uuid4().hex
        self.patch({"metadata": {"annotations": {_REQUESTED_AT: token}}})

        def look() -> Object | None:
            seen = self.get()
            over = seen["status"].get("lastHandledReconcileAt") == token and not condition(seen, "Reconciling")
            return seen if over else None

        return eventually(look, within=within, tell=self._tell, what=f"reconciliation of {self.name}")

    def wait(self, status: str, message: str = "", *, revision: str | None = None, within: float = 60.0) -> Object:
        """Wait for its Ready condition; return it.

        Args:
            status: The condition's status.
            message: What the condition's message contains.
            revision: The revision that was attempted last.
            within: For how many seconds.
        """

        def look() -> Object | None:
            seen = self.get()
            ready = condition(seen, "Ready")
            current = ready.get("observedGeneration") == seen["metadata"]["generation"]
            attempted = revision in (None, seen.get("status", {}).get("lastAttemptedRevision"))
            is_so = ready.get("status") == status and message in ready.get("message", "")
            return seen if current and attempted and is_so else None

        return eventually(look, within=within, tell=self._tell, what=f"{self.name}: Ready {status} {message}")

    def _tell(self) -> str:
        return f"{yaml.safe_dump(self.get().get('status'))}\n{self._controller.log()}"


@dataclass(frozen=True)
class Flux:
    """Flux on a cluster.

    Args:
        api: The API server.
        controller: The controller.
        server: Where it downloads sources.
    """

    api: Api
    controller: KustomizeController
    server: ArtifactServer

    def repository(self, namespace: str, name: str = "source") -> GitRepository:
        """Create a GitRepository without any revision."""
        return GitRepository(self.api, self.server, namespace, name)

    def apply(self, manifest: Object) -> Kustomization:
        """Create a Kustomization from its manifest."""
        return Kustomization(self.api, self.controller, manifest)

    def deploy(self, namespace: str, **spec: Any) -> Kustomization:
        """Create a Kustomization of ``source`` that is reconciled only when something happens, and waits.

        Args:
            namespace: Its namespace.
            spec: What differs.
        """
        return self.apply(
            {
                "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
                "kind": "Kustomization",
                "metadata": {"name": "manifests", "namespace": namespace},
                "spec": {
                    "interval": "1h",
                    "timeout": "30s",
                    "path": "./",
                    "prune": True,
                    "wait": True,
                    "sourceRef": {"kind": "GitRepository", "name": "source"},
                    **spec,
                },
            }
        )


def provide_flux() -> None:
    """Make sure that Flux, and the CustomResourceDefinitions of other tools, are in the cache.

    Raises:
        ToolUnavailable: This machine cannot build or download them.
    """
    for crds in Crds:
        provide_crds(crds)
    provide(Tool.KUSTOMIZE_CONTROLLER)


@contextmanager
def run_flux(cluster: DevCluster, api: Api, directory: Path) -> Iterator[Flux]:
    """Run Flux on a cluster.

    Args:
        cluster: The cluster.
        api: Its API server.
        directory: For logs.

    Raises:
        ToolUnavailable: This machine cannot build or download it.
    """
    with ArtifactServer() as server, KustomizeController(cluster, directory) as controller:
        yield Flux(api, controller, server)
