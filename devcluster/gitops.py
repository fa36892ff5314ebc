"""CustomResourceDefinitions of GitOps tools and of External Secrets Operator, from their own sources."""

import hashlib
import shutil
from enum import StrEnum
from pathlib import Path

from devcluster.cache import cache_root, make_once
from devcluster.gomodules import GoModules
from devcluster.progress import Progress, to_stderr

GITOPS_MODULES = GoModules("gitops")
"""The sources of Flux's controllers, of Argo CD and of External Secrets Operator."""


class Crds(StrEnum):
    """A group of CustomResourceDefinitions; the value is the Go module that has them."""

    KUSTOMIZE = "github.com/fluxcd/kustomize-controller"
    """Kustomization of Flux."""
    SOURCE = "github.com/fluxcd/source-controller"
    """GitRepository, OCIRepository, Bucket, HelmRepository, HelmChart and ExternalArtifact of Flux."""
    HELM = "github.com/fluxcd/helm-controller"
    """HelmRelease of Flux."""
    ARGO = "github.com/argoproj/argo-cd/v3"
    """Application of Argo CD."""
    EXTERNAL_SECRETS = "github.com/external-secrets/external-secrets"
    """ClusterExternalSecret, ClusterSecretStore and others of External Secrets Operator."""

    @property
    def files(self) -> str:
        """Where the module has them: a pattern."""
        patterns = {
            Crds.ARGO: "manifests/crds/application-crd.yaml",
            Crds.EXTERNAL_SECRETS: "config/crds/bases/external-secrets.io_cluster*.yaml",
        }
        return patterns.get(self, "config/crd/bases/*.yaml")


def provide_crds(crds: Crds, *, progress: Progress = to_stderr) -> Path:
    """Return a folder of CustomResourceDefinitions, downloading their source first where need be.

    Args:
        crds: Which ones.
        progress: Takes a line now and then while it takes long.

    Raises:
        ToolUnavailable: There is no Go, or the source cannot be downloaded.
        BuildFailed: What was downloaded is not what is pinned.
    """
    pin = GITOPS_MODULES.pin(crds.value)
    key = hashlib.sha256(f"{crds.value} {pin.sum}".encode()).hexdigest()[:12]
    folder = cache_root() / "crds" / f"{crds.name.lower()}-{pin.version}-{key}"

    def make(scratch: Path) -> Path:
        source = GITOPS_MODULES.download([crds.value], scratch=scratch, progress=progress)[crds.value]
        target = scratch / "crds"
        target.mkdir()
        for path in source.glob(crds.files):
            shutil.copyfile(path, target / path.name)
        return target

    make_once(folder, make, progress=progress)
    return folder
