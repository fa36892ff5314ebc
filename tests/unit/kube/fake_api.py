"""Fake API server for Leases, Pods and Events."""

import asyncio
import copy
from collections.abc import Mapping
from typing import Any

from controller.errors import Conflict, KubernetesError, ObjectGone
from controller.kube.access import ClusterAccess
from controller.kube.client import KubernetesClient
from controller.kube.kubeconfig import KubeconfigSource


class FakeApi(KubernetesClient):
    """Fake API client: stores objects by path, and rejects a PUT of an old version."""

    def __init__(self) -> None:
        super().__init__(ClusterAccess(KubeconfigSource()))
        self.objects: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.error: KubernetesError | None = None
        """Raised by every request."""
        self.errors: dict[str, KubernetesError] = {}
        """Raised by every request for a path."""
        self.nonsense: list[Any] = []
        """Returned by the next requests, one each."""
        self.hangs = False
        self.unanswered: set[str] = set()
        """Paths whose requests get no response."""
        self._version = 0

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Serve a request."""
        del query, content_type
        self.requests.append(f"{method} {path}")
        await asyncio.sleep(10_000 if self.hangs or path in self.unanswered else 0.001)
        if error := self.errors.get(path, self.error):
            raise error
        if self.nonsense:
            return copy.deepcopy(self.nonsense.pop(0))
        self._version += 1
        stored = self.objects.get(path)
        if method == "POST":
            assert body is not None
            metadata = dict(body["metadata"])
            name = metadata.get("name") or f"{metadata['generateName']}{self._version}"
            path = f"{path}/{name}"
            if path in self.objects:
                raise Conflict("exists", status=409)
            self.objects[path] = copy.deepcopy({**body, "metadata": metadata | {"name": name}})
        elif stored is None:
            resource, name = path.split("/")[-2:]
            raise ObjectGone(f'{resource} "{name}" not found', status=404)
        elif method == "PUT":
            assert body is not None
            if body["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"]:
                raise Conflict("changed", status=409)
            self.objects[path] = copy.deepcopy(dict(body))
        elif method == "PATCH":
            assert body is not None
            self.objects[path] |= body
        if method != "GET":
            self.objects[path]["metadata"]["resourceVersion"] = str(self._version)
        return copy.deepcopy(self.objects[path])
