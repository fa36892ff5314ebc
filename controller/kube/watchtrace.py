"""Trace of kopf's HTTP requests: reports the state of the watch, which kopf does not, and limits its rate."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import aiohttp

from controller.backoff import OPERATOR_BACKOFF
from controller.kube.client import retry_after
from controller.supervision import STEADY
from controller.watchmonitor import WatchMonitor


class AskedToWait(aiohttp.ClientConnectionError):
    """The API server rejected a request with ``Retry-After``; kopf retries it as after any failed connection."""


class Patience:
    """Client middleware: no request before the time that the API server asked for.

    kopf obeys ``Retry-After`` of a 429 itself, but without a limit, not of a 503, and it fails on a date.
    """

    def __init__(self) -> None:
        self._until = -inf

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send a request.

        Raises:
            AskedToWait: The API server asks to wait.
        """
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._until - loop.time())
        response = await handler(request)
        seconds = retry_after(response.status, response.headers)
        if seconds is None:
            return response
        self._until = loop.time() + seconds
        response.release()
        raise AskedToWait(f"the API server returned {response.status} and asks to wait {seconds:.0f} s")


class EmptyLists:
    """Client middleware: has kopf's lists return no object, and reports each list.

    kopf starts a task for each object that it lists, reads about one per turn of the event loop, and keeps a record of
    each. The operator lists the objects itself, in pages limited by bytes: kopf watches from the resourceVersion of its
    empty list, so a list that is started after it misses nothing.

    Args:
        plural: Last part of the path of the listed collections.
        on_listed: Called when a list was accepted: the watch begins anew, and the objects must be listed.
    """

    def __init__(self, plural: str, on_listed: Callable[[], None]) -> None:
        self._plural = plural
        self._on_listed = on_listed

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send a request."""
        if not request.url.path.endswith(self._plural) or "watch" in request.url.query:
            return await handler(request)
        request.url = request.url.update_query(fieldSelector="metadata.name=")
        response = await handler(request)
        if response.ok:
            self._on_listed()
        return response


class WatchTrace:
    """Observes the requests of one client session.

    Args:
        plural: Last part of the path of the watched collections.
        monitor: Notified of the state of the watch.
        on_accepted: Called after each successful request for such a collection.
    """

    def __init__(self, plural: str, *, monitor: WatchMonitor, on_accepted: Callable[[], None]) -> None:
        self._plural = plural
        self._monitor = monitor
        self._on_accepted = on_accepted
        self._established_at: dict[str, float] = {}
        self._delays: dict[str, Iterator[float]] = {}
        self.config = aiohttp.TraceConfig()
        self.config.on_request_start.append(self._on_start)
        self.config.on_request_end.append(self._on_end)
        self.config.on_request_exception.append(self._on_exception)

    async def _on_start(self, _session: Any, _context: Any, params: aiohttp.TraceRequestStartParams) -> None:
        """Delay a watch whose predecessor was accepted but ended early; kopf backs off only after failures."""
        if params.url.path.endswith(self._plural):
            self._monitor.requested = True
        if "watch" not in params.url.query:
            return
        path = params.url.path
        since = self._established_at.pop(path, None)
        if since is None:
            return
        if asyncio.get_running_loop().time() - since >= STEADY:
            self._delays.pop(path, None)
        else:
            delays = self._delays.setdefault(path, OPERATOR_BACKOFF.delays(random.Random()))  # noqa: S311 - jitter
            await asyncio.sleep(next(delays))

    async def _on_end(self, _session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        if not params.url.path.endswith(self._plural):
            return
        if not params.response.ok:
            self._monitor.failed(f"the API server returned {params.response.status} ({params.response.reason})")
            return
        self._on_accepted()
        if "watch" in params.url.query:
            self._established_at[params.url.path] = asyncio.get_running_loop().time()
            self._monitor.established()

    async def _on_exception(self, _session: Any, _context: Any, params: aiohttp.TraceRequestExceptionParams) -> None:
        if params.url.path.endswith(self._plural):
            problem = str(params.exception) or type(params.exception).__name__
            asked = isinstance(params.exception, AskedToWait)
            self._monitor.failed(problem if asked else f"the API server does not answer: {problem}")
