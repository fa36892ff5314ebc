"""Metrics server: ``/metrics``, with TLS and authentication if it is secure."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from controller.errors import ConfigError, KubernetesError
from controller.metrics import Metrics

Authorize = Callable[[str], Awaitable[HTTPStatus]]
"""Returns 200 if the bearer of a token may read the metrics, or 401 or 403."""


def metrics_application(metrics: Metrics, authorize: Authorize | None = None) -> web.Application:
    """Return the application that serves the metrics.

    Args:
        metrics: The metrics.
        authorize: Decides about each request by its bearer token; None to serve everybody.
    """

    async def show_metrics(request: web.Request) -> web.Response:
        if authorize is not None:
            refusal = await _refusal(request, authorize)
            if refusal is not None:
                return refusal
        return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    application = web.Application()
    application.router.add_get("/metrics", show_metrics)
    return application


async def _refusal(request: web.Request, authorize: Authorize) -> web.Response | None:
    """Return the response to a request that is not authorized; None if it is."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return web.Response(text="a bearer token is required\n", status=401, headers={"WWW-Authenticate": "Bearer"})
    try:
        status = await authorize(token.strip())
    except KubernetesError as error:
        return web.Response(text=f"the token cannot be reviewed: {error}\n", status=503)
    if status == HTTPStatus.OK:
        return None
    text = "the token is not valid" if status == HTTPStatus.UNAUTHORIZED else "get on the URL /metrics is not allowed"
    return web.Response(text=f"{text}\n", status=status)


def server_certificate(folder: Path) -> ssl.SSLContext:
    """Return TLS settings with the certificate and key of a folder, such as a mounted Secret of type TLS.

    Args:
        folder: Contains ``tls.crt`` and ``tls.key``.

    Raises:
        ConfigError: They cannot be read, or do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot read a certificate for the metrics server from tls.crt and tls.key in '{folder}': {error}"
        ) from error
    return context
