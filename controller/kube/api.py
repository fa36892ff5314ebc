"""Calls to the API server, with the ``kubernetes`` package's asynchronous client.

Responses stay JSON: the generated models would be made and taken apart again for each object.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client import ApiClient

from controller.errors import Conflict, KubernetesError, KubernetesUnavailable, ObjectGone
from controller.kube.access import load_configuration
from controller.resource import API_VERSION, GROUP, KIND, PLURAL, VERSION, ArtifactRepository, Key

T = TypeVar("T")

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=5)
_WATCH_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=70)
"""The API server sends a bookmark about once a minute: after more silence than that the connection is dead."""

_PAGE: Final = 500
"""Objects per page of a list: what kubectl asks for, too."""

MERGE_PATCH: Final = "application/merge-patch+json"
_PATH: Final = f"/apis/{GROUP}/{VERSION}"


class KubernetesApi:
    """One connection pool to the API server.

    Args:
        namespaces: The namespaces that are watched; empty: all.
        label_selector: Restricts the objects that are watched; empty: none.
        connections: How many requests may run at the same time.
    """

    def __init__(self, *, namespaces: Sequence[str] = (), label_selector: str = "", connections: int = 32) -> None:
        self._namespaces = tuple(namespaces)
        self._label_selector = label_selector
        self._connections = connections
        self._client: ApiClient | None = None

    async def connect(self) -> ApiClient:
        """Return the client; the first call reads how the API server is reached and as whom.

        Raises:
            KubernetesError: Nothing tells that, or it cannot be read.
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
        """Return the newest state of an object (see :class:`controller.engine.ports.ObjectStore`)."""
        return _parsed(ArtifactRepository.from_body, await self.request("GET", _object_path(key)))

    async def patch_status(self, repository: ArtifactRepository, patch: Mapping[str, Any]) -> ArtifactRepository:
        """Merge ``patch`` into the status of exactly the version that was read; return the new version.

        The resourceVersion is the guard: the server refuses the patch when the object is another one by now, even a
        namesake that was deleted and created again. A uid would not guard: the server takes metadata from its own copy
        before it compares.
        """
        body = {"metadata": {"resourceVersion": repository.resource_version}, "status": patch}
        answer = await self.request(
            "PATCH", f"{_object_path(repository.key)}/status", body=body, content_type=MERGE_PATCH
        )
        return _parsed(ArtifactRepository.from_body, answer)

    async def list_pages(self) -> AsyncIterator[Sequence[ArtifactRepository]]:
        """Return all objects that this operator watches, page by page."""
        for path in self._list_paths():
            token = ""
            while True:
                query = {"limit": str(_PAGE), "continue": token, "labelSelector": self._label_selector}
                answer = await self.request("GET", path, query={k: v for k, v in query.items() if v})
                page, token = _parsed(_page, answer)
                yield page
                if not token:
                    break

    async def check_access(self) -> None:
        """Find out whether the objects can be read at all.

        Raises:
            ObjectGone: The CustomResourceDefinition is not installed.
            KubernetesUnavailable: The API server cannot be reached or cannot answer now.
            KubernetesError: Reading is not allowed, or something else is wrong; the message says what to do.
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
                        f"reading {PLURAL}.{GROUP} is not allowed: {error}. Give the operator's ServiceAccount the "
                        "rules in manifests/rbac.yaml",
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
        """Make one request; after a 401 once more with credentials that are read anew (they may have been rotated).

        Args:
            method: The HTTP method.
            path: The path, each part of it quoted already.
            query: Parameters of the URL.
            body: Sent as JSON.
            content_type: What kind of JSON it is.

        Returns:
            The JSON object that was answered.

        Raises:
            ObjectGone: 404.
            Conflict: 409.
            KubernetesUnavailable: No answer, 429 or 5xx.
            KubernetesError: Any other answer but 2xx.
        """
        url = f"{path}?{urlencode(query)}" if query else path
        status, text = await self._send(method, url, body, content_type)
        if status == HTTPStatus.UNAUTHORIZED:
            await self._renew_token()
            status, text = await self._send(method, url, body, content_type)
        if status >= HTTPStatus.BAD_REQUEST:
            raise _error(status, _message(text) or f"{method} {path} was answered with status {status}")
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise KubernetesUnavailable(f"{method} {path} was answered with what is no JSON", status=status) from error
        if not isinstance(answer, dict):
            raise KubernetesUnavailable(f"{method} {path} was answered with what is no JSON object", status=status)
        return answer

    async def watch(self, path: str, *, query: Mapping[str, str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Return what happens to a collection, event by event, until the API server ends the watch.

        Args:
            path: The collection's path.
            query: Parameters of the URL, the resourceVersion to begin at among them.

        Raises:
            KubernetesError: The watch was refused, or ended with an error.
        """
        client = await self.connect()
        headers = {"Accept": "application/json"}
        url = f"{path}?{urlencode({**query, 'watch': 'true', 'allowWatchBookmarks': 'true'})}"
        await client.update_params_for_auth(headers, [], ["BearerToken"], url, "GET", None)
        try:
            answer = await client.call_api(
                "GET", client.configuration.host + url, header_params=headers, _request_timeout=_WATCH_TIMEOUT
            )
            async with answer.response:
                if answer.status >= HTTPStatus.BAD_REQUEST:
                    raise _error(answer.status, _message(await answer.read()) or f"watching {path} was refused")
                async for line in answer.response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _error(int(event["object"].get("code") or 500), str(event["object"].get("message")))
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise KubernetesUnavailable(f"the watch of {path} broke off: {error}") from error

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
        """Take the token that lies on the disk now, for all requests from here on."""
        client, fresh = await self.connect(), await load_configuration()
        client.configuration.api_key = fresh.api_key
        client.configuration.refresh_api_key_hook = fresh.refresh_api_key_hook

    def _list_paths(self) -> list[str]:
        if not self._namespaces:
            return [f"{_PATH}/{PLURAL}"]
        return [f"{_PATH}/namespaces/{quote(namespace, safe='')}/{PLURAL}" for namespace in self._namespaces]


def involved_object(repository: ArtifactRepository) -> dict[str, str]:
    """Return what an Event says of the object that it is about."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "namespace": repository.key.namespace,
        "name": repository.key.name,
        "uid": repository.uid,
        "resourceVersion": repository.resource_version,
    }


def _page(answer: Mapping[str, Any]) -> tuple[Sequence[ArtifactRepository], str]:
    """Return the objects of one page of a list, and what leads to the next one; items have no kind and apiVersion."""
    return [ArtifactRepository.from_body(item) for item in answer["items"]], answer["metadata"].get("continue", "")


def _parsed(parse: Callable[[Mapping[str, Any]], T], answer: Mapping[str, Any]) -> T:
    """Return what an answer means; it may come from something else than an API server."""
    try:
        return parse(answer)
    except (AttributeError, KeyError, TypeError) as error:
        raise KubernetesUnavailable("what was answered is no object of the API server") from error


def _object_path(key: Key) -> str:
    return f"{_PATH}/namespaces/{quote(key.namespace, safe='')}/{PLURAL}/{quote(key.name, safe='')}"


def _message(text: bytes) -> str:
    """Return the sentence in a ``Status`` object; empty where there is none."""
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
