"""Authorization of metrics requests by the API server: TokenReview, then SubjectAccessReview."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol

from controller.reconcile.interfaces import Clock

_PATH: Final = "/metrics"
_REMEMBER: Final = 60.0
"""Seconds for which a decision is remembered, as in controller-runtime."""
_MAX_DECISIONS: Final = 256
"""Maximum number of decisions remembered: anybody can send tokens."""
_CONCURRENT: Final = 2
"""Maximum concurrent reviews, so that bad tokens cannot use up the operator's requests."""


class Api(Protocol):
    """The part of the API server's client that reviews need."""

    async def request(self, method: str, path: str, *, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request; return the JSON object in the response."""
        ...


class TokenReviewer:
    """Decides who may read the metrics; remembers decisions for a minute.

    Args:
        api: The API server.
        clock: The time.
    """

    def __init__(self, api: Api, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._decisions: OrderedDict[bytes, tuple[float, HTTPStatus]] = OrderedDict()
        self._reviews = asyncio.Semaphore(_CONCURRENT)

    async def authorize(self, token: str) -> HTTPStatus:
        """Return 200 if the bearer may ``get`` the URL ``/metrics``, 403 if not, and 401 for an invalid token.

        Args:
            token: The bearer token.

        Raises:
            KubernetesError: The API server does not review it.
        """
        digest = hashlib.sha256(token.encode()).digest()
        async with self._reviews:
            known = self._decisions.get(digest)
            if known is not None and known[0] > self._clock.monotonic():
                return known[1]
            decision = await self._review(token)
            self._decisions[digest] = (self._clock.monotonic() + _REMEMBER, decision)
            self._decisions.move_to_end(digest)
            if len(self._decisions) > _MAX_DECISIONS:
                self._decisions.popitem(last=False)
            return decision

    async def _review(self, token: str) -> HTTPStatus:
        review = await self._create("authentication.k8s.io/v1", "TokenReview", {"token": token})
        user = review.get("user")
        if review.get("authenticated") is not True or not isinstance(user, dict):
            return HTTPStatus.UNAUTHORIZED
        spec = {
            "user": user.get("username"),
            "uid": user.get("uid"),
            "groups": user.get("groups"),
            "extra": user.get("extra"),
            "nonResourceAttributes": {"path": _PATH, "verb": "get"},
        }
        spec = {name: value for name, value in spec.items() if value}
        access = await self._create("authorization.k8s.io/v1", "SubjectAccessReview", spec)
        return HTTPStatus.OK if access.get("allowed") is True else HTTPStatus.FORBIDDEN

    async def _create(self, version: str, kind: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create a review; return its status."""
        body = {"apiVersion": version, "kind": kind, "spec": spec}
        review = await self._api.request("POST", f"/apis/{version}/{kind.lower()}s", body=body)
        status = review.get("status")
        return status if isinstance(status, dict) else {}
