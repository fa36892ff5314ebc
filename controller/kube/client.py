"""Client of the API server, on the transport of the ``kubernetes`` package.

Its generated models are not used: they would be built and taken apart again for each object.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client import ApiClient

from controller.api.v1alpha1 import API_VERSION, GROUP, KIND, PLURAL, VERSION, ArtifactRepository, Key
from controller.errors import Conflict, KubernetesError, KubernetesUnavailable, ObjectGone
from controller.kube.credentials import load_configuration

T = TypeVar("T")

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=5)
_PAGE: Final = 500
"""Objects per page of a list, as in kubectl."""

MERGE_PATCH: Final = "application/merge-patch+json"
_PATH: Final = f"/apis/{GROUP}/{VERSION}"


class KubernetesClient:
    """Client of the API server, with its own connection pool.

    Args:
        namespaces: The namespaces to list; empty for all.
        label_selector: Restricts the objects that are listed; empty for no restriction.
        connections: Maximum number of concurrent requests.
    """

    def __init__(self, *, namespaces: Sequence[str] = (), label_selector: str = "", connections: int = 32) -> None:
        self._namespaces = tuple(namespaces)
        self._label_selector = label_selector
        self._connections = connections
        self._client: ApiClient | None = None

    async def connect(self) -> ApiClient:
        """Return the client of the package; the first call reads the credentials.

        Raises:
            KubernetesError: There are no credentials, or they cannot be read.
        """
        if self._client is None:
            configuration = await load_configuration()
            configuration.connection_pool_maxsize = self._connections
            if self._client is None:
                self._client = ApiClient(configuration)
        return self._client

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.close()
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
            "PATCH", f"{_object_path(repository.key)}/status", body=body, content_type=MERGE_PATCH
        )
        return _parsed(ArtifactRepository.from_body, response)

    async def list_pages(self) -> AsyncIterator[Sequence[ArtifactRepository]]:
        """Yield all objects that this operator watches, page by page."""
        for path in self._list_paths():
            token = ""
            while True:
                query = {"limit": str(_PAGE), "continue": token, "labelSelector": self._label_selector}
                response = await self.request("GET", path, query={k: v for k, v in query.items() if v})
                page, token = _parsed(_page, response)
                yield page
                if not token:
                    break

    async def check_access(self) -> None:
        """Check that the objects can be read.

        Raises:
            ObjectGone: The CustomResourceDefinition is not installed.
            KubernetesUnavailable: The API server cannot be reached or cannot serve the request now.
            KubernetesError: A permission is missing, or another error; the message says what to do.
        """
        for path in self._list_paths():
            try:
                await self.request("GET", path, query={"limit": "1"})
            except ObjectGone as error:
                raise ObjectGone(
                    f"the API server does not know {PLURAL}.{GROUP}: install the CustomResourceDefinition "
                    "(kubectl apply -f manifests/crd.yaml)",
                    status=error.status,
                ) from error
            except KubernetesError as error:
                if error.status == HTTPStatus.FORBIDDEN:
                    raise KubernetesError(
                        f"not allowed to read {PLURAL}.{GROUP}: {error}. Grant the operator's ServiceAccount the "
                        "permissions in manifests/rbac.yaml",
                        status=error.status,
                    ) from error
                raise

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Send a request; after a 401, read the credentials again, which may have been rotated, and retry once.

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
        url = f"{path}?{urlencode(query)}" if query else path
        status, text = await self._send(method, url, body, content_type)
        if status == HTTPStatus.UNAUTHORIZED:
            await self._renew_token()
            status, text = await self._send(method, url, body, content_type)
        if status >= HTTPStatus.BAD_REQUEST:
            raise _error(status, _message(text) or f"{method} {path} returned status {status}")
        try:
            content = json.loads(text)
        except ValueError as error:
            raise KubernetesUnavailable(f"{method} {path} returned a body that is not JSON", status=status) from error
        if not isinstance(content, dict):
            raise KubernetesUnavailable(f"{method} {path} returned a body that is not a JSON object", status=status)
        return content

    async def _send(
        self, method: str, url: str, body: Mapping[str, Any] | None, content_type: str
    ) -> tuple[int, bytes]:
        client = await self.connect()
        headers = {"Accept": "application/json", "Content-Type": content_type}
        await client.update_params_for_auth(headers, [], ["BearerToken"], url, method, body)
        try:
            response = await client.call_api(
                method, client.configuration.host + url, header_params=headers, body=body, _request_timeout=_TIMEOUT
            )
            return response.status, await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise KubernetesUnavailable(
                f"the API server at {client.configuration.host} does not answer: {str(error) or type(error).__name__}"
            ) from error

    async def _renew_token(self) -> None:
        """Read the token from disk again, for all further requests."""
        client, fresh = await self.connect(), await load_configuration()
        client.configuration.api_key = fresh.api_key
        client.configuration.refresh_api_key_hook = fresh.refresh_api_key_hook

    def _list_paths(self) -> list[str]:
        if not self._namespaces:
            return [f"{_PATH}/{PLURAL}"]
        return [f"{_PATH}/namespaces/{quote(namespace, safe='')}/{PLURAL}" for namespace in self._namespaces]


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


def _page(response: Mapping[str, Any]) -> tuple[Sequence[ArtifactRepository], str]:
    """Return the objects of a page, and the token of the next page; empty at the end."""
    return [ArtifactRepository.from_body(item) for item in response["items"]], response["metadata"].get("continue", "")


def _parsed(parse: Callable[[Mapping[str, Any]], T], response: Mapping[str, Any]) -> T:
    """Parse a response, which may come from a proxy instead of the API server."""
    try:
        return parse(response)
    except (AttributeError, KeyError, TypeError) as error:
        raise KubernetesUnavailable("the API server returned an unexpected object") from error


def _object_path(key: Key) -> str:
    return f"{_PATH}/namespaces/{quote(key.namespace, safe='')}/{PLURAL}/{quote(key.name, safe='')}"


def _message(text: bytes) -> str:
    """Return the message of a ``Status`` object; empty if there is none."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def _error(status: int, message: str) -> KubernetesError:
    if status == HTTPStatus.NOT_FOUND:
        return ObjectGone(message, status=status)
    if status == HTTPStatus.CONFLICT:
        return Conflict(message, status=status)
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return KubernetesUnavailable(message, status=status)
    return KubernetesError(message, status=status)
