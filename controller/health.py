"""Probes: ``/healthz`` and ``/readyz``.

``/healthz`` is served by the event loop that reconciles, so a response proves that the loop runs. ``/readyz`` returns
200 if the operator reconciles, or stands by for a live leader.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web


def probes(why_not_ready: Callable[[], str | None]) -> web.Application:
    """Return the application that serves the probes.

    Args:
        why_not_ready: Returns why the operator is not ready; None if it is ready.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = why_not_ready()
        return web.Response(text="ok\n") if reason is None else web.Response(text=f"{reason}\n", status=503)

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    return application
