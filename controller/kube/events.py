"""Kubernetes events, for what happened and is not kept in status."""

from __future__ import annotations

from controller.engine.ports import EventType
from controller.resource import ArtifactRepository


class NoEvents:
    """Records nothing."""

    def about_object(self, repository: ArtifactRepository, type_: EventType, reason: str, message: str) -> None:
        """Drop it."""

    def about_operator(self, type_: EventType, reason: str, message: str) -> None:
        """Drop it."""
