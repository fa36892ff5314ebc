"""The floor: what the requests alone cost in this language, with the same HTTP clients and as many at once.

It lists the objects and makes for each the operator's requests, one after the other. It decides nothing, checks no
answer beyond its status, and retries nothing; so no operator that makes the same requests can be faster. It stays until
it is stopped, as an operator does.
"""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import uvloop

from controller.api.v1alpha1 import GROUP, PLURAL, VERSION
from controller.registry import marker
from controller.registry.transport import NetworkTransport, Timeouts

_PATH = f"/apis/{GROUP}/{VERSION}"
_ACCEPTED = f"{marker.MANIFEST_MEDIA_TYPE}, application/vnd.oci.image.index.v1+json"


class Floor:
    """The requests of one pass over all objects.

    Args:
        registry: The registry's URL.
        api: The API server's URL.
        session: Speaks to the API server.
    """

    def __init__(self, registry: str, api: str, session: aiohttp.ClientSession) -> None:
        self._registry, self._api, self._session = registry, api, session
        self._origin = httpx.URL(registry)
        self._transport = NetworkTransport(lambda _: ssl.create_default_context(), Timeouts())
        self._mount_from = ""

    async def run(self, do: Callable[[Any], Awaitable[None]], at_once: int) -> None:
        """Do something with each object, so many at once."""
        async with self._session.get(f"{self._api}{_PATH}/{PLURAL}") as answer:
            objects = iter((await answer.json())["items"])
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(self._work(objects, do))

    async def verify(self, object_: Any) -> None:
        """Ask for ``latest``."""
        await self._ask("HEAD", f"{_repository(object_)}/manifests/latest", 200)

    async def create(self, object_: Any) -> None:
        """Push the marker and write the status."""
        repository = _repository(object_)
        await self._ask("GET", f"{repository}/tags/list?n=2", 404)
        if self._mount_from:
            mount = f"mount={marker.CONFIG_DIGEST}&from={self._mount_from}"
            await self._ask("POST", f"{repository}/blobs/uploads/?{mount}", 201)
        else:
            location = await self._ask("POST", f"{repository}/blobs/uploads/", 202)
            upload = location.removeprefix(f"{self._registry}/v2/")
            await self._ask("PUT", f"{upload}&digest={marker.CONFIG_DIGEST}", 201, marker.CONFIG)
        await self._ask("PUT", f"{repository}/manifests/latest", 201, marker.MANIFEST)
        self._mount_from = repository
        metadata = object_["metadata"]
        path = f"{_PATH}/namespaces/{metadata['namespace']}/{PLURAL}/{metadata['name']}/status"
        body = json.dumps({"status": _status(metadata["generation"], repository)})
        async with self._session.patch(f"{self._api}{path}", data=body) as answer:
            await answer.read()
            assert answer.status == 200, answer.status

    async def _work(self, objects: Iterator[Any], do: Callable[[Any], Awaitable[None]]) -> None:
        for object_ in objects:
            await do(object_)

    async def _ask(self, method: str, target: str, expected: int, content: bytes | None = None) -> str:
        headers = {"User-Agent": "floor", "Accept": _ACCEPTED, "Accept-Encoding": "identity"}
        if content is not None:
            headers["Content-Type"] = marker.MANIFEST_MEDIA_TYPE
        extensions = {"target": f"/v2/{target}".encode()}
        request = httpx.Request(method, self._origin, headers=headers, content=content, extensions=extensions)
        response = await self._transport.handle_async_request(request)
        await response.aread()
        assert response.status_code == expected, (method, target, response.status_code)
        return str(response.headers.get("location", ""))


def _repository(object_: Any) -> str:
    return f"artifacts/{object_['metadata']['namespace']}/{object_['metadata']['name']}"


def _status(generation: int, repository: str) -> dict[str, Any]:
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "RepositoryReady",
        "message": "Push and pull URI:TAG",
        "observedGeneration": generation,
        "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {"observedGeneration": generation, "uri": repository, "origin": "Created", "conditions": [ready]}


async def main(registry: str, what: str, at_once: str) -> None:
    """Make all requests once, then wait to be stopped."""
    config = json.loads(Path(os.environ["KUBECONFIG"]).read_text())  # noqa: ASYNC240 - before anything else runs
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    headers = {"Authorization": f"Bearer {user['token']}", "Content-Type": "application/merge-patch+json"}
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), headers=headers) as session:
        floor = Floor(registry, cluster["server"], session)
        await floor.run(floor.verify if what == "verify" else floor.create, int(at_once))
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
