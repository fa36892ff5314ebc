"""Identity of a Lease holder, and whether the Pod that it names still exists.

==================================  ============================================================================
where the process runs              identity
==================================  ============================================================================
in a Pod (downward API)             ``namespace/name/uid/process``
anywhere else                       ``hostname_process``
==================================  ============================================================================

``process`` is random, so that a restarted process differs from its predecessor. Only the first form allows another
candidate to find out that the holder has ended. Nothing is concluded from a host name: Pods with hostNetwork share it.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote

from controller.errors import KubernetesError, ObjectGone
from controller.kube.client import KubernetesClient

_ENDED_PHASES: Final = ("Succeeded", "Failed")
"""Phases of a Pod whose containers have all terminated and are not restarted."""


@dataclass(frozen=True, slots=True)
class HolderPod:
    """The Pod that a Lease holder runs in.

    Args:
        namespace: Its namespace.
        name: Its name.
        uid: Its uid, which distinguishes it from another Pod of the same name.
    """

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"Pod {self.namespace}/{self.name}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self | None:
        """Return the Pod named by POD_NAMESPACE, POD_NAME and POD_UID; None unless all three are set."""
        parts = [environment.get(name, "") for name in ("POD_NAMESPACE", "POD_NAME", "POD_UID")]
        return cls(*parts) if all(parts) else None

    @classmethod
    def from_identity(cls, identity: str) -> Self | None:
        """Return the Pod that an identity names; None where it names none."""
        parts = identity.split("/")
        return cls(*parts[:3]) if len(parts) == 4 and all(parts) else None  # noqa: PLR2004 - see the table above

    async def has_ended(self, api: KubernetesClient) -> bool:
        """Tell whether this Pod is known to have ended: deleted, replaced by another one of its name, or terminated.

        Args:
            api: The API server.

        Raises:
            KubernetesError: The API server gave no definite answer.
        """
        path = f"/api/v1/namespaces/{quote(self.namespace, safe='')}/pods/{quote(self.name, safe='')}"
        try:
            pod = await api.request("GET", path)
        except ObjectGone as error:
            # A proxy in front of the API server may answer 404 as well, but not with this sentence.
            if f'pods "{self.name}" not found' in str(error):
                return True
            raise
        uid, phase = _part(pod, "metadata").get("uid"), _part(pod, "status").get("phase")
        if pod.get("kind") != "Pod" or not uid:
            raise KubernetesError(f"GET {path} returned something other than a Pod")
        return uid != self.uid or phase in _ENDED_PHASES


def new_identity(environment: Mapping[str, str]) -> str:
    """Return an identity for this process that no other process has, nor this one after a restart.

    Args:
        environment: The process's environment variables.
    """
    process = uuid.uuid4()
    pod = HolderPod.from_environment(environment)
    if pod is None:
        return f"{socket.gethostname()}_{process}"
    return f"{pod.namespace}/{pod.name}/{pod.uid}/{process}"


def _part(object_: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = object_.get(name)
    return part if isinstance(part, Mapping) else {}
