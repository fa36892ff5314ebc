"""Client of the API server, on the transport of the ``kubernetes`` package.

Its generated models are not used: they would be built and taken apart again for each object.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from controller import NAME, USER_AGENT
from controller.api.v1alpha1 import API_VERSION, GROUP, KIND, PLURAL, VERSION, ArtifactRepository, Key
from controller.backoff import parse_retry_after
from controller.errors import Conflict, KubernetesError, KubernetesUnavailable, ListExpired, ObjectGone
from controller.kube.access import ClusterAccess
from controller.kube.paging import PageTooLarge, Paging
from controller.reconcile.interfaces import Page

T = TypeVar("T")

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=5)
_READERS: Final = 2
"""Maximum number of pages in memory, whatever the number of namespaces that are listed at the same time."""

MAX_RETRY_AFTER: Final = 60.0
"""Maximum ``Retry-After``, in seconds. The API server itself asks for one second; a proxy may ask for days."""

_MAX_MESSAGE: Final = 1000
"""Maximum length of the message of a ``Status`` object that is kept."""

_JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
_PATH: Final = f"/apis/{GROUP}/{VERSION}"


class KubernetesClient:
    """Client of the API server, with its own connection pool.

    Args:
        access: Address and credentials, which are shared with other clients.
        namespaces: The namespaces to list; empty for all.
        label_selector: Restricts the objects that are listed; empty for no restriction.
        connections: Maximum number of concurrent requests.
    """

    def __init__(
        self,
        access: ClusterAccess,
        *,
        namespaces: Sequence[str] = (),
        label_selector: str = "",
        connections: int = 32,
    ) -> None:
        self.access = access
        self._namespaces = tuple(namespaces)
        self._label_selector = label_selector
        self._connections = connections
        self._client: ApiClient | None = None
        self._readers = asyncio.Semaphore(_READERS)
        self._heaviest: dict[str, int] = {}
        """Bytes per object in the page where that was most, in the last list of each namespace."""

    async def connect(self) -> ApiClient:
        """Return the client of the package; the first call reads the credentials.

        Raises:
            KubernetesError: There are no credentials, or they cannot be read.
        """
        await self.access.open()
        if self._client is None:
            configuration = Configuration()
            configuration.host = self.access.server
            configuration.ca_cert_data = self.access.ca_certificates  # unused, but otherwise the system's are loaded
            configuration.client_session_kwargs = self.access.session_options(connections=self._connections)
            self._client = ApiClient(configuration)
        return self._client

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.close()
            await self._client.configuration.client_session_kwargs["connector"].close()  # the package leaves it open
            self._client = None

    async def get(self, key: Key) -> ArtifactRepository:
        """Return the newest version of an object (see :class:`controller.reconcile.interfaces.ObjectStore`)."""
        return _parsed(ArtifactRepository.from_body, await self.request("GET", _object_path(key)))

    async def patch_status(self, repository: ArtifactRepository, patch: Mapping[str, Any]) -> ArtifactRepository:
        """Merge ``patch`` into the status of exactly the version that was read; return the new version.

        The patch carries the resourceVersion, so the server rejects it if the object has changed, or was deleted and
        created again. A uid would not have this effect: the server replaces metadata by its own before it compares.
        """
        body = {"metadata": {"resourceVersion": repository.resource_version}, "status": patch}
        response = await self.request(
            "PATCH",
            f"{_object_path(repository.key)}/status",
            query={"fieldManager": NAME},
            body=body,
            content_type=MERGE_PATCH,
        )
        return _parsed(ArtifactRepository.from_body, response)

    @property
    def namespaces(self) -> Sequence[str]:
        """The namespaces to list (see :class:`controller.reconcile.interfaces.ObjectStore`)."""
        return self._namespaces or ("",)

    async def list_pages(self, namespace: str) -> AsyncIterator[Page]:
        """Yield the objects of a namespace, page by page (see :class:`controller.reconcile.interfaces.ObjectStore`).

        The API server forgets the state that a list began with after about five minutes, and offers to go on with the
        present one: https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
        """
        paging, token, has_expired = Paging(self._heaviest.get(namespace, 0)), "", False
        while True:
            try:
                objects, token = await self._read_page(namespace, token, paging)
            except PageTooLarge:
                paging.rejected()
                continue
            except ListExpired as error:
                if has_expired or not error.continue_token:
                    raise
                token, has_expired = error.continue_token, True
                continue
            has_expired = False
            yield Page(objects, is_last=not token)
            if not token:
                break
        self._heaviest[namespace] = paging.heaviest

    async def _read_page(self, namespace: str, token: str, paging: Paging) -> tuple[Sequence[ArtifactRepository], str]:
        """Return a page and the token of the next one; their bodies are dropped before anything else is read."""
        query = {"limit": str(paging.limit), "continue": token, "labelSelector": self._label_selector}
        path, query = _list_path(namespace), {name: value for name, value in query.items() if value}
        async with self._readers:
            text = await self._send("GET", path, query, max_bytes=paging.max_bytes)
            page, token = _parsed(_page, _json_object("GET", path, text))
        paging.received(len(page), len(text))
        return page, token

    async def check_access(self) -> None:
        """Check that the objects of at least one namespace can be read; the watches report the others.

        Raises:
            ObjectGone: The CustomResourceDefinition is not installed.
            KubernetesUnavailable: The API server cannot be reached or cannot serve the request now.
            KubernetesError: A permission is missing, or another error; the message says what to do.
        """
        checks = (self._check_access(namespace) for namespace in self.namespaces)
        errors = [error for error in await asyncio.gather(*checks) if error is not None]
        if len(errors) == len(self.namespaces):
            raise errors[0]

    async def _check_access(self, namespace: str) -> KubernetesError | None:
        try:
            await self.request("GET", _list_path(namespace), query={"limit": "1"})
        except ObjectGone as error:
            return ObjectGone(
                f"the API server does not know {PLURAL}.{GROUP}: install the CustomResourceDefinition "
                "(kubectl apply -f manifests/crd.yaml)",
                status=error.status,
            )
        except KubernetesError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                return error
            return KubernetesError(
                f"not allowed to read {PLURAL}.{GROUP}: {error}. Grant the operator's ServiceAccount the "
                "permissions in manifests/rbac.yaml",
                status=error.status,
            )
        return None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
    ) -> dict[str, Any]:
        """Send a request.

        Args:
            method: The HTTP method.
            path: The path, quoted.
            query: Query parameters.
            body: Sent as JSON.
            content_type: Media type of the body.

        Returns:
            The JSON object in the response.

        Raises:
            ObjectGone: 404.
            Conflict: 409.
            KubernetesUnavailable: No response, 429 or 5xx.
            KubernetesError: Any other response that is not 2xx.
        """
        return _json_object(method, path, await self._send(method, path, query, body, content_type))

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
        *,
        max_bytes: int | None = None,
    ) -> bytes:
        """Send a request; return the body of a response that is 2xx."""
        client = await self.connect()
        url = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": _JSON, "Content-Type": content_type, "User-Agent": USER_AGENT}
        if max_bytes is not None:
            headers["Accept-Encoding"] = "identity"  # labels of one letter shrink to a thousandth
        try:
            response = await client.call_api(
                method, client.configuration.host + url, header_params=headers, body=body, _request_timeout=_TIMEOUT
            )
            text = await _body(response.response, max_bytes)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a response that is not HTTP
            raise KubernetesUnavailable(
                f"the API server at {client.configuration.host} does not answer: {str(error) or type(error).__name__}"
            ) from error
        if response.status >= HTTPStatus.BAD_REQUEST:
            message = _message(text) or f"{method} {path} returned status {response.status}"
            if response.status == HTTPStatus.GONE:
                raise ListExpired(message, status=response.status, continue_token=_continue_token(text))
            raise _error(response.status, message, retry_after(response.status, response.headers) or 0.0)
        return text


def involved_object(repository: ArtifactRepository) -> dict[str, str]:
    """Return the reference to an object for ``involvedObject`` of an Event."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "namespace": repository.key.namespace,
        "name": repository.key.name,
        "uid": repository.uid,
        "resourceVersion": repository.resource_version,
    }


async def _body(response: aiohttp.ClientResponse, max_bytes: int | None) -> bytes:
    """Return the body.

    Raises:
        PageTooLarge: It is larger than the maximum, and was not read to the end.
    """
    if max_bytes is None:
        return await response.read()
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            response.close()
            raise PageTooLarge
    return bytes(body)


def _json_object(method: str, path: str, text: bytes) -> dict[str, Any]:
    """Parse a response."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KubernetesUnavailable(f"{method} {path} returned a body that is not JSON") from error
    if not isinstance(content, dict):
        raise KubernetesUnavailable(f"{method} {path} returned a body that is not a JSON object")
    return content


def _page(response: Mapping[str, Any]) -> tuple[Sequence[ArtifactRepository], str]:
    """Return the objects of a page, and the token of the next page; empty at the end."""
    token = response["metadata"].get("continue") or ""
    if response["kind"] != f"{KIND}List" or not isinstance(token, str):
        raise TypeError("not a list of these objects")
    return [ArtifactRepository.from_body(item) for item in response["items"]], token


def _parsed(parse: Callable[[Mapping[str, Any]], T], response: Mapping[str, Any]) -> T:
    """Parse a response, which may come from a proxy instead of the API server."""
    try:
        return parse(response)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise KubernetesUnavailable("the API server returned an unexpected object") from error


def _list_path(namespace: str) -> str:
    return f"{_PATH}/namespaces/{quote(namespace, safe='')}/{PLURAL}" if namespace else f"{_PATH}/{PLURAL}"


def _object_path(key: Key) -> str:
    return f"{_PATH}/namespaces/{quote(key.namespace, safe='')}/{PLURAL}/{quote(key.name, safe='')}"


def _message(text: bytes) -> str:
    """Return the message of a ``Status`` object; empty if there is none."""
    try:
        return str(json.loads(text)["message"])[:_MAX_MESSAGE]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _continue_token(text: bytes) -> str:
    """Return the token in a ``Status`` object with which an expired list goes on; empty if there is none."""
    try:
        token = json.loads(text)["metadata"]["continue"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return token if isinstance(token, str) else ""


def retry_after(status: int, headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the API server asks to wait; None where it does not.

    As in client-go, ``Retry-After`` counts for 429 and for any 5xx.

    Args:
        status: HTTP status of the response.
        headers: Its headers.
    """
    if status != HTTPStatus.TOO_MANY_REQUESTS and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return None
    return parse_retry_after(headers.get("Retry-After"), now=datetime.now(UTC), limit=MAX_RETRY_AFTER)


def _error(status: int, message: str, retry_after: float) -> KubernetesError:
    if status == HTTPStatus.NOT_FOUND:
        return ObjectGone(message, status=status)
    if status == HTTPStatus.CONFLICT:
        return Conflict(message, status=status)
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return KubernetesUnavailable(message, status=status, retry_after=retry_after)
    return KubernetesError(message, status=status)
