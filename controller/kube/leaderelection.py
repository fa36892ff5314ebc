"""Leader election by a ``coordination.k8s.io/v1`` Lease: one of several replicas is active.

The rules are client-go's. A candidate takes a Lease over when it has not seen it change for the lease's duration on
its own monotonic clock: clocks of different machines are never compared. A leader that has not managed to renew by
the renew deadline, which is shorter, is no longer the leader, and its work is cancelled before another replica can
start. The deadline is watched in the event loop that does the work: if the loop hangs, nothing renews.

Beyond client-go's rules, a candidate does not wait for the Lease of a holder that has ended: its identity names its Pod
(:mod:`controller.kube.holder`), and the API server tells whether that Pod still exists. Anything but a definite answer
leaves the Lease to expire. So a leader that finds the Lease held by another stops at once, without waiting for the
renew deadline.

The elector in the ``kubernetes`` package is not used: it ends with the first connection error and does not release the
Lease on a clean stop.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any, Final
from urllib.parse import quote

from controller.errors import Conflict, KubernetesError, KubernetesUnavailable, LeadershipLost, ObjectGone
from controller.kube.client import KubernetesClient
from controller.kube.holder import HolderPod
from controller.logs import Throttled
from controller.reconcile.interfaces import Clock

logger = logging.getLogger(__name__)

_TRIES: Final = 3
"""Attempts without a response that fit into the renew deadline: one dead connection must not cost leadership."""

_MARGIN: Final = 0.05
"""Added to the wait for the Lease of another candidate to expire, in seconds, to absorb rounding errors."""

_FIELDS: Final[Mapping[str, type]] = {"holderIdentity": str, "leaseDurationSeconds": int, "leaseTransitions": int}
"""Types of the fields of a Lease's spec that are used."""

_RELEASED_DURATION: Final = 1
"""leaseDurationSeconds of a released Lease, as in client-go."""


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """Durations in seconds; the defaults are client-go's.

    Args:
        duration: Time after which a Lease that is not renewed may be taken over.
        renew_deadline: Time after which a leader that cannot renew gives up; shorter than ``duration``.
        retry_period: Mean interval between two attempts.
    """

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0


class LeaderElector:
    """One candidate for a Lease.

    Args:
        api: The API server.
        namespace: Namespace of the Lease.
        name: Its name.
        identity: Distinguishes this process from all others, its own predecessors included
            (:func:`controller.kube.holder.new_identity`).
        timings: Durations.
        rng: Source of jitter.
        clock: The time. The clock of the event loop does not advance within an iteration, and would hide that the
            process was frozen.
    """

    def __init__(
        self,
        api: KubernetesClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        rng: random.Random,
        clock: Clock,
        timings: LeaseTimings | None = None,
    ) -> None:
        self._api = api
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace, safe='')}/leases"
        self._name = name
        self._identity = identity
        self._timings = timings or LeaseTimings()
        self._rng = rng
        self._clock = clock
        self._written: dict[str, Any] | None = None
        """The Lease as this candidate last wrote it; None if it may have changed since."""
        self._seen: tuple[object, float] | None = None
        """The spec of the Lease when it last changed, and the time of that on our clock."""
        self._expires_at: float | None = None
        """When the Lease of another candidate expires on our clock; None if no other candidate holds it."""
        self._leader_alive_until = -inf
        """When a Lease that another candidate was seen to renew expires on our clock."""
        self._renewed = self._held_until = 0.0
        self._predecessor: str | None = None
        """Holder in the first Lease read, where it ran in the Pod of this process; empty: another holder, or none."""
        self._log = Throttled(logger, clock=clock.monotonic)
        self._retry_after = 0.0
        """Seconds that the API server asked to wait at the last attempt."""
        self._reported = ""
        """Why it was last unknown whether the holder's Pod exists."""
        self.is_leader = False

    async def acquire(self) -> None:
        """Return once this candidate holds the Lease."""
        while not await self._try("acquire"):
            pause = self._pause()
            if self._expires_at is not None:
                pause = min(pause, max(0.0, self._expires_at - asyncio.get_running_loop().time()) + _MARGIN)
            await asyncio.sleep(pause)

    @property
    def stands_by(self) -> bool:
        """Whether another candidate was seen to renew the Lease, which has not expired since.

        Reading a Lease once proves little: its holder may have ended, and this candidate may lack the permission to
        take it over.
        """
        return asyncio.get_running_loop().time() < self._leader_alive_until

    def check(self) -> None:
        """Check that the Lease is certainly held at this moment.

        A process that was frozen continues with the responses in its sockets before any timer fires. So this is called
        before each request that only the leader may make.

        Raises:
            LeadershipLost: The Lease may have expired.
        """
        if not (self.is_leader and self._clock.monotonic() < self._held_until):
            raise LeadershipLost("this process no longer holds the Lease for certain")

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` while the acquired Lease is held; release it when the work ends.

        Args:
            work: Cancelled when the Lease cannot be renewed in time.
        """
        logger.info("Leading as %s", self._identity)
        self.is_leader = True
        working = asyncio.ensure_future(work())
        renewing = asyncio.create_task(self._renew())
        try:
            await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.is_leader = False
            lost = renewing.done()
            for task in (working, renewing):
                task.cancel()
            await asyncio.gather(working, renewing, return_exceptions=True)
            if lost:
                why = "could not be renewed in time" if self._expires_at is None else "is held by another candidate"
                logger.warning("Leadership was lost: the Lease %s; standing by", why)
            else:
                await self._release()
        if not working.cancelled():
            working.result()

    async def _renew(self) -> None:
        """Renew until it is too late, or until another candidate holds the Lease."""
        loop = asyncio.get_running_loop()
        while True:
            deadline = self._renewed + self._timings.renew_deadline
            try:
                async with asyncio.timeout_at(deadline):
                    await asyncio.sleep(self._pause())
                    while not await self._try("renew"):
                        if self._expires_at is not None:
                            return
                        await asyncio.sleep(max(min(self._pause(), 1.0), self._retry_after))
            except TimeoutError:
                return
            if loop.time() > deadline:
                return

    async def _try(self, action: str) -> bool:
        """Try once to acquire or renew the Lease; return whether it is held."""
        started, held_until = (
            asyncio.get_running_loop().time(),
            self._clock.monotonic() + self._timings.renew_deadline,
        )
        self._retry_after = 0.0
        try:
            async with asyncio.timeout(self._timings.renew_deadline / _TRIES):
                if not await self._try_acquire_or_renew(started):
                    return False
        except Conflict:
            return False
        except TimeoutError:
            self._report(action, "no response in time")
            return False
        except KubernetesError as error:
            # One more attempt has to fit into the renew deadline.
            self._retry_after = min(error.retry_after, self._timings.renew_deadline / 2)
            self._report(action, str(error))
            return False
        except Exception as error:  # noqa: BLE001 - whatever a response causes, the Lease is not held for certain
            self._report(action, f"{type(error).__name__}: {error}")
            return False
        # The time before the request counts: others count from when they see its result.
        self._renewed, self._held_until = started, held_until
        return True

    def _report(self, action: str, problem: str) -> None:
        message = "Failed to %s the Lease %s: %s"
        self._log.log(logging.WARNING, (action, problem), message, action, self._name, problem)

    async def _try_acquire_or_renew(self, now: float) -> bool:
        """Write the Lease unless another candidate holds it; return whether it was written."""
        lease, self._written = self._written, None
        if lease is not None:
            # Most often nobody else has written it: one request, not two. Its resourceVersion proves that.
            with suppress(Conflict, ObjectGone):
                return await self._write(lease, now)
        try:
            lease = await self._api.request("GET", f"{self._collection}/{self._name}")
        except ObjectGone:
            self._expires_at = None
            self._note_predecessor("")
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name},
                "spec": self._spec({}),
            }
            return self._note_written(await self._api.request("POST", self._collection, body=body), now)
        spec = _spec_of(lease)
        renewed = self._seen is not None and self._seen[0] != spec
        if self._seen is None or renewed:
            self._seen = (spec, now)
        self._expires_at = None
        holder = spec.get("holderIdentity")
        self._note_predecessor(holder or "")
        if holder and holder != self._identity:
            expires = self._seen[1] + float(spec.get("leaseDurationSeconds") or 0)
            if now < expires and (renewed or not await self._has_ended(holder)):
                self._expires_at = expires
                if renewed:
                    self._leader_alive_until = expires
                return False
        return await self._write(lease, now)

    async def _write(self, lease: dict[str, Any], now: float) -> bool:
        body = lease | {"spec": self._spec(_spec_of(lease))}
        return self._note_written(await self._api.request("PUT", f"{self._collection}/{self._name}", body=body), now)

    def _note_written(self, lease: dict[str, Any], now: float) -> bool:
        """Remember the Lease as written: any other spec that is read from now on was written by another holder."""
        self._seen = (_spec_of(lease), now)
        self._written = lease
        return True

    def _note_predecessor(self, holder: str) -> None:
        """Remember the previous process of this Pod, if the first Lease that is read names it.

        A Pod runs one operator at a time, so that process has ended. One that turns up later is not a predecessor.
        """
        if self._predecessor is None:
            pod = HolderPod.from_identity(holder)
            ours = pod is not None and pod == HolderPod.from_identity(self._identity)
            self._predecessor = holder if ours else ""

    async def _has_ended(self, holder: str) -> bool:
        """Tell whether the holder of the Lease is known to have ended."""
        if holder == self._predecessor:
            return True
        pod = HolderPod.from_identity(holder)
        if pod is None:
            return False
        try:
            async with asyncio.timeout(self._timings.retry_period):
                ended = await pod.has_ended(self._api)
        except (KubernetesError, TimeoutError) as error:
            ended, why = False, str(error) or "no answer in time"
            if why != self._reported:
                self._reported = why
                logger.info("Waiting for the Lease to expire: it is unknown whether %s still exists: %s", pod, why)
        if ended:
            logger.info("Not waiting for the Lease to expire: %s, which holds it, has ended", pod)
        return ended

    async def _release(self) -> None:
        """Release the Lease, so that another replica need not wait for it to expire."""
        self._written = None
        try:
            async with asyncio.timeout(self._timings.retry_period):
                lease = await self._api.request("GET", f"{self._collection}/{self._name}")
                spec = _spec_of(lease)
                if spec.get("holderIdentity") == self._identity:
                    lease["spec"] = spec | {"holderIdentity": "", "leaseDurationSeconds": _RELEASED_DURATION}
                    await self._api.request("PUT", f"{self._collection}/{self._name}", body=lease)
        except (KubernetesError, TimeoutError) as error:
            logger.warning("Failed to release the Lease; it will expire: %s", error)

    def _spec(self, before: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = before.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._timings.duration)),
            "acquireTime": before.get("acquireTime") if ours else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if ours else 1),
        }

    def _pause(self) -> float:
        return max(self._timings.retry_period * self._rng.uniform(0.8, 1.2), self._retry_after)


def _spec_of(lease: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec of a Lease.

    Raises:
        KubernetesUnavailable: It is not a Lease, but the response of a proxy, for example.
    """
    metadata, spec = lease.get("metadata"), lease.get("spec", {})
    # Without a resourceVersion, an update would overwrite whatever another candidate wrote.
    versioned = isinstance(metadata, dict) and isinstance(metadata.get("resourceVersion"), str)
    if (
        lease.get("kind") == "Lease"
        and versioned
        and isinstance(spec, dict)
        and all(isinstance(spec[name], type_) for name, type_ in _FIELDS.items() if spec.get(name) is not None)
    ):
        return spec
    raise KubernetesUnavailable("the API server returned something other than a Lease")
