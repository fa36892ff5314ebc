"""Health and metrics over HTTP, all on one port.

``/healthz`` is answered by the event loop that does the work: that it answers is the proof. ``/readyz`` tells whether
the operator does what it is there for, or stands by to do it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from controller.errors import ConfigError
from controller.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def serve_health(
    address: str, *, why_not_ready: Callable[[], str | None], metrics: Metrics
) -> AsyncIterator[None]:
    """Serve ``/healthz``, ``/readyz`` and ``/metrics`` for as long as the context lasts.

    Args:
        address: ``host:port`` or ``:port`` (all addresses).
        why_not_ready: Returns what is missing; None when ready.
        metrics: What ``/metrics`` shows.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    host, _, port = address.rpartition(":")

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        missing = why_not_ready()
        return web.Response(text="ok\n") if missing is None else web.Response(text=f"{missing}\n", status=503)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", show_metrics)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        except (OSError, OverflowError, ValueError) as error:
            raise ConfigError(f"health and metrics cannot be served on '{address}': {error}") from error
        yield
    finally:
        await runner.cleanup()
