"""Access to the API server, shared by kopf's watch and the operator's own clients: one set of credentials for all."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from controller.backoff import OPERATOR_BACKOFF
from controller.kube.credentials import Credentials, read_credentials
from controller.kube.kubeconfig import KubeconfigSource
from controller.kube.proxy import proxy_for

logger = logging.getLogger(__name__)

_CHECK_INTERVAL: Final = 60.0
"""Seconds after which files are read again, as in client-go for tokens."""
_UNAUTHORIZED: Final = 401


class ClusterAccess:
    """Address and credentials of the API server.

    Credentials are renewed regularly, before those of an exec plugin expire, and when the API server or a TLS handshake
    rejects them. Whoever notices starts the renewal, and all others wait for it. If it fails, the old ones stay in use,
    and the next attempt waits for a backoff.

    Args:
        source: Where they come from.
        observe: Called with the method and the status of each request; with ``error`` where there was no response.
    """

    def __init__(
        self, source: KubeconfigSource, *, observe: Callable[[str, str], None] = lambda _method, _code: None
    ) -> None:
        self._source = source
        self._observe = observe
        self._opening = asyncio.Lock()
        self._current: Credentials | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._failures = 0
        self._problem = ""
        """Why the last renewal failed; empty if it succeeded."""
        self._not_before = 0.0
        self._checked_at = 0.0
        self._proxy: str | None = None
        self._origin: object = None
        """Scheme, host and port of the first request, which cannot follow a redirect."""
        self.server = ""
        """URL of the API server, once :meth:`open` has returned."""
        self.context: ssl.SSLContext | None = None
        """TLS context for new connections; another object after a change."""

    async def open(self) -> None:
        """Read the credentials, unless that has been done.

        Raises:
            KubernetesError: There are no credentials, or they cannot be read.
        """
        async with self._opening:
            if self._current is None:
                credentials = await read_credentials(self._source, None)
                self.server = credentials.server
                self._proxy = proxy_for(
                    self.server, proxy_url=credentials.entry.cluster.proxy_url, environment=os.environ
                )
                await self._use(credentials)

    @property
    def ca_certificates(self) -> bytes | None:
        """The CA certificates of the API server in DER; None without TLS."""
        return b"".join(self.context.get_ca_certs(binary_form=True)) or None if self.context else None

    async def close(self) -> None:
        """Stop a renewal that is in progress."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait({self._renewal})

    def session_options(self, *, connections: int) -> dict[str, Any]:
        """Return the arguments of an ``aiohttp.ClientSession`` for requests to the API server.

        Args:
            connections: Maximum number of connections; 0 for no limit.
        """
        return {
            "connector": _Connector(self, connections),
            "middlewares": (self._authorize,),
            "proxy": self._proxy,
            "trust_env": False,
        }

    async def _authorize(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send a request; if the credentials are rejected and can be renewed, once more. An aiohttp middleware."""
        used = await self._usable()
        self._sign(request, used)
        try:
            response = await self._send(request, handler)
        except aiohttp.ClientError as error:
            if not isinstance(error, aiohttp.ClientSSLError) and not isinstance(error.__cause__, ssl.SSLError):
                raise
            fresh = await self._renewed(used)
            if fresh.tls == used.tls:
                raise
        else:
            if response.status != _UNAUTHORIZED:
                if not self._problem:
                    self._failures = 0
                return response
            fresh = await self._renewed(used)
            if fresh is used:
                return response
            response.release()
        self._sign(request, fresh, instead_of=used)
        return await self._send(request, handler)

    async def _send(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send a request as it is, and count it."""
        code = "error"
        try:
            response = await handler(request)
            code = str(response.status)
        finally:
            self._observe(request.method, code)
        return response

    def _sign(self, request: ClientRequest, credentials: Credentials, *, instead_of: Credentials | None = None) -> None:
        """Add credentials to a request, unless it follows a redirect to another server."""
        origin = request.url.origin()
        self._origin = self._origin or origin
        if origin != self._origin:
            return
        for name, _ in instead_of.headers if instead_of else ():
            request.headers.popall(name, None)
        request.headers.extend(credentials.headers)
        request.server_hostname = credentials.tls.server_name or None

    async def _usable(self) -> Credentials:
        """Return the current credentials; start a renewal if one is due, and wait for it if they have expired."""
        current = cast(Credentials, self._current)
        expired = current.are_expired
        if expired or current.are_due or asyncio.get_running_loop().time() >= self._checked_at + _CHECK_INTERVAL:
            renewal = self._start_renewal(rejected=False)
            if expired and renewal is not None:
                await asyncio.wait({renewal})
        return cast(Credentials, self._current)

    async def _renewed(self, rejected: Credentials) -> Credentials:
        """Return the credentials that replace rejected ones; the same if there are no others."""
        if self._current is rejected:
            renewal = self._start_renewal(rejected=True)
            if renewal is not None:
                await asyncio.wait({renewal})
        return cast(Credentials, self._current)

    def _start_renewal(self, *, rejected: bool) -> asyncio.Task[None] | None:
        """Return the renewal in progress or a new one; None while the backoff lasts."""
        if self._renewal is None or self._renewal.done():
            if asyncio.get_running_loop().time() < self._not_before:
                return None
            self._renewal = asyncio.create_task(self._renew(rejected=rejected))
        return self._renewal

    async def _renew(self, *, rejected: bool) -> None:
        previous, problem = self._current, ""
        try:
            credentials = await read_credentials(self._source, previous, rejected=rejected)
            if credentials != previous:
                await self._use(credentials)
                logger.info("The credentials for the API server have been renewed")
        except Exception as error:  # noqa: BLE001 - whatever is wrong now may be right at the next attempt
            problem = str(error) or type(error).__name__
            if problem != self._problem:
                logger.error("The credentials for the API server cannot be renewed, retrying: %s", problem)  # noqa: TRY400
        self._problem = problem
        self._checked_at = asyncio.get_running_loop().time()
        if rejected or problem:
            self._failures += 1
            delay = OPERATOR_BACKOFF.delay(self._failures, random.Random())  # noqa: S311 - jitter, not a secret
            self._not_before = self._checked_at + delay

    async def _use(self, credentials: Credentials) -> None:
        if self._current is None or credentials.tls != self._current.tls:
            self.context = await asyncio.to_thread(credentials.tls.context)
        self._current = credentials
        self._checked_at = asyncio.get_running_loop().time()


class _Connector(aiohttp.TCPConnector):
    """Connection pool that starts over when the TLS context changes: an open connection keeps its client certificate.

    Args:
        access: Has the context.
        connections: Maximum number of connections; 0 for no limit.
    """

    def __init__(self, access: ClusterAccess, connections: int) -> None:
        super().__init__(limit=connections)
        self._access = access
        self._connections = connections
        self._pools: list[tuple[ssl.SSLContext | None, aiohttp.TCPConnector]] = []
        """The pools, newest first. The previous one is kept for its requests and watches in progress."""

    async def connect(
        self,
        req: ClientRequest,
        traces: Any,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature of the base class
    ) -> Any:
        """Return a connection (see :class:`aiohttp.BaseConnector`)."""
        context = self._access.context
        if not self._pools or self._pools[0][0] is not context:
            pool = aiohttp.TCPConnector(limit=self._connections, ssl=context or True)
            self._pools.insert(0, (context, pool))
            await self._close_pools(keep=2)
        return await self._pools[0][1].connect(req, traces, timeout)

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close all connections."""
        await self._close_pools(keep=0)
        await super().close(abort_ssl=abort_ssl)

    async def _close_pools(self, *, keep: int) -> None:
        while len(self._pools) > keep:
            await self._pools.pop()[1].close()
