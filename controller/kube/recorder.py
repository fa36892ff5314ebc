"""Event recorder: Kubernetes events for facts that are not in status. Aggregated and rate-limited; never blocks.

An event that repeats within ten minutes increases the count of the first one. Events beyond the rate limit are dropped;
metrics and logs have all of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from controller.api.v1alpha1 import ArtifactRepository
from controller.errors import KubernetesError, ObjectGone
from controller.kube.client import MERGE_PATCH, KubernetesClient, involved_object
from controller.reconcile.interfaces import Clock, EventType
from controller.redaction import redact

logger = logging.getLogger(__name__)

COMPONENT: Final = "artifact-repository-controller"

_AGGREGATED_FOR: Final = 600.0
_REMEMBERED: Final = 1000
_QUEUED: Final = 200
_BURST: Final = 50.0
_PER_SECOND: Final = 1.0


class NoEventRecorder:
    """Drops all events (``--no-events``)."""

    def event(self, regarding: ArtifactRepository | None, type_: EventType, reason: str, message: str) -> None:
        """Drop the event."""


@dataclass(slots=True)
class _Recorded:
    path: str
    count: int
    since: float


class KubernetesEventRecorder:
    """Records events in the API server, one at a time.

    Args:
        api: The API server.
        clock: The time.
    """

    def __init__(self, api: KubernetesClient, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._queue: asyncio.Queue[tuple[Mapping[str, str], EventType, str, str]] = asyncio.Queue(_QUEUED)
        self._recorded: OrderedDict[tuple[str, ...], _Recorded] = OrderedDict()
        self._allowance, self._allowed_at = _BURST, clock.monotonic()

    def event(self, regarding: ArtifactRepository | None, type_: EventType, reason: str, message: str) -> None:
        """Record an event (see :class:`controller.reconcile.interfaces.EventRecorder`).

        Events about the operator regard its Pod, known by the downward API, and are dropped outside of a Pod.
        """
        about = involved_object(regarding) if regarding is not None else _own_pod()
        if about is not None:
            self._put(about, type_, reason, redact(message))

    async def run(self) -> None:
        """Write recorded events until cancelled."""
        while True:
            about, type_, reason, message = await self._queue.get()
            try:
                await self._write(about, type_, reason, message)
            except KubernetesError as error:
                logger.warning("Failed to record event %s about %s: %s", reason, about["name"], error)

    def _put(self, about: Mapping[str, str], type_: EventType, reason: str, message: str) -> None:
        now = self._clock.monotonic()
        self._allowance = min(_BURST, self._allowance + (now - self._allowed_at) * _PER_SECOND)
        self._allowed_at = now
        if self._allowance < 1 or self._queue.full():
            logger.debug("Too many events; dropped %s about %s", reason, about["name"])
            return
        self._allowance -= 1
        self._queue.put_nowait((about, type_, reason, message))

    async def _write(self, about: Mapping[str, str], type_: EventType, reason: str, message: str) -> None:
        key = (about["kind"], about["namespace"], about["name"], about["uid"], reason, message)
        known = self._recorded.get(key)
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        if known is not None and self._clock.monotonic() - known.since < _AGGREGATED_FOR:
            try:
                body = {"count": known.count + 1, "lastTimestamp": now}
                await self._api.request("PATCH", known.path, body=body, content_type=MERGE_PATCH)
            except ObjectGone:
                pass  # it has expired on the server; create a new one
            else:
                known.count += 1
                return
        path = f"/api/v1/namespaces/{quote(about['namespace'], safe='')}/events"
        created = await self._api.request("POST", path, body=_event(about, type_, reason, message, now))
        self._recorded[key] = _Recorded(f"{path}/{created['metadata']['name']}", 1, self._clock.monotonic())
        self._recorded.move_to_end(key)
        if len(self._recorded) > _REMEMBERED:
            self._recorded.popitem(last=False)


def _own_pod() -> dict[str, str] | None:
    """Return the reference to the operator's own Pod; None outside of a Pod."""
    name, namespace = os.environ.get("POD_NAME"), os.environ.get("POD_NAMESPACE")
    if not name or not namespace:
        return None
    uid = os.environ.get("POD_UID", "")
    return {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid}


def _event(about: Mapping[str, str], type_: EventType, reason: str, message: str, now: str) -> dict[str, Any]:
    """Return an Event (core/v1)."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{about['name'][:200]}.", "namespace": about["namespace"]},
        "involvedObject": dict(about),
        "type": str(type_),
        "reason": reason,
        "message": message[:1024],
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
