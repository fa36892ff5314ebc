"""HTTP server for health and metrics, on one port.

``/healthz`` is served by the event loop that reconciles, so a response proves that the loop runs. ``/readyz`` returns
200 if the operator reconciles, or stands by for a live leader.
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
        why_not_ready: Returns why the operator is not ready; None if it is ready.
        metrics: Served by ``/metrics``.

    Raises:
        ConfigError: The server cannot listen on the address.
    """
    host, _, port = address.rpartition(":")

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = why_not_ready()
        return web.Response(text="ok\n") if reason is None else web.Response(text=f"{reason}\n", status=503)

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
            raise ConfigError(f"cannot serve health and metrics on '{address}': {error}") from error
        yield
    finally:
        await runner.cleanup()
