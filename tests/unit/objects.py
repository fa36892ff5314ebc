"""Objects and configurations for tests."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from controller.api.v1alpha1 import ArtifactRepository
from controller.config import OperatorConfig

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_object(
    name: str = "web",
    *,
    namespace: str = "team",
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    generation: int = 1,
    version: int = 10,
    annotations: Mapping[str, str] | None = None,
    deleting: bool = False,
) -> ArtifactRepository:
    """Return an object as the API server would send it; without status it is new."""
    metadata: dict[str, Any] = {
        "namespace": namespace,
        "name": name,
        "uid": f"uid-of-{name}",
        "resourceVersion": str(version),
        "generation": generation,
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return ArtifactRepository.from_body(
        {
            "metadata": metadata,
            "spec": dict(spec or {}),
            "status": {"observedGeneration": -1} if status is None else dict(status),
        }
    )


def make_config(registries: Mapping[str, Any] | None = None, **fields: Any) -> OperatorConfig:
    """Return a configuration; by default with one registry, ``artifacts`` at registry:5000."""
    return OperatorConfig.model_validate(
        {
            "defaultRegistry": "artifacts",
            "registries": registries or {"artifacts": {"registryUrl": "http://registry:5000"}},
            **fields,
        }
    )
