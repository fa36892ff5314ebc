"""Event recorder: writes Kubernetes events one after another at a limited rate, and never blocks.

An event that repeats within ten minutes increases the count of the first one. Namespaces take turns, so that an outage
with thousands of objects in one does not delay the events of another. Where too many wait, further ones are dropped.
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

from controller import NAME
from controller.api.v1alpha1 import ArtifactRepository
from controller.errors import KubernetesError, KubernetesUnavailable, ObjectGone
from controller.kube.client import MERGE_PATCH, KubernetesClient, involved_object
from controller.logs import Throttled
from controller.reconcile.interfaces import Clock, EventType
from controller.reconcile.turns import Turns
from controller.redaction import redact

logger = logging.getLogger(__name__)

_AGGREGATED_FOR: Final = 600.0
_REMEMBERED: Final = 10_000
_MAX_WAITING: Final = 10_000
_INTERVAL: Final = 0.01
"""Minimum time between two writes, in seconds: the rate at which failures are written to status."""


class NoEventRecorder:
    """Drops all events (``--no-events``)."""

    def event(self, regarding: ArtifactRepository | None, type_: EventType, reason: str, message: str) -> None:
        """Drop the event."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """An event that is to be written."""

    about: Mapping[str, str]
    type: EventType
    reason: str
    message: str


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
        self._log = Throttled(logger, clock=clock.monotonic)
        self._waiting: Turns[_Waiting] = Turns(lambda event: event.about["namespace"])
        self._any_waits = asyncio.Event()
        self._recorded: OrderedDict[tuple[str, ...], _Recorded] = OrderedDict()

    def event(self, regarding: ArtifactRepository | None, type_: EventType, reason: str, message: str) -> None:
        """Record an event (see :class:`controller.reconcile.interfaces.EventRecorder`).

        Events about the operator regard its Pod, known by the downward API, and are dropped outside of a Pod.
        """
        about = involved_object(regarding) if regarding is not None else _own_pod()
        if about is None:
            return
        if len(self._waiting) >= _MAX_WAITING:
            logger.debug("Too many events; dropped %s about %s", reason, about["name"])
            return
        self._waiting.add(_Waiting(about, type_, reason, redact(message)))
        self._any_waits.set()

    async def run(self) -> None:
        """Write recorded events until cancelled."""
        while True:
            await self._any_waits.wait()
            event = self._waiting.pop()
            if not self._waiting:
                self._any_waits.clear()
            pause = _INTERVAL
            try:
                await self._write(event)
            except KubernetesError as error:
                problem, name = (type(error), error.status), event.about["name"]
                self._log.log(
                    logging.WARNING, problem, "Failed to record event %s about %s: %s", event.reason, name, error
                )
                pause = max(pause, error.retry_after)
            await asyncio.sleep(pause)

    async def _write(self, event: _Waiting) -> None:
        about = event.about
        key = (about["kind"], about["namespace"], about["name"], about["uid"], event.reason, event.message)
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
        created = await self._api.request("POST", path, body=_body(event, now))
        self._recorded[key] = _Recorded(f"{path}/{_name(created)}", 1, self._clock.monotonic())
        self._recorded.move_to_end(key)
        if len(self._recorded) > _REMEMBERED:
            self._recorded.popitem(last=False)


def _name(created: Mapping[str, Any]) -> str:
    """Return the name of an Event that was created; it was generated by the API server.

    Raises:
        KubernetesUnavailable: It is not an Event, but the response of a proxy, for example.
    """
    metadata = created.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or created.get("kind") != "Event":
        raise KubernetesUnavailable("the API server returned something other than the Event")
    return quote(name, safe="")


def _own_pod() -> dict[str, str] | None:
    """Return the reference to the operator's own Pod; None outside of a Pod."""
    name, namespace = os.environ.get("POD_NAME"), os.environ.get("POD_NAMESPACE")
    if not name or not namespace:
        return None
    uid = os.environ.get("POD_UID", "")
    return {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid}


def _body(event: _Waiting, now: str) -> dict[str, Any]:
    """Return an Event (core/v1)."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{event.about['name'][:200]}.", "namespace": event.about["namespace"]},
        "involvedObject": dict(event.about),
        "type": str(event.type),
        "reason": event.reason,
        "message": event.message[:1024],
        "source": {"component": NAME},
        "reportingComponent": NAME,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
