"""Images pushed and read by an independent client, as Docker would."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import httpx

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Pushed:
    """A pushed image."""

    content: bytes
    media_type: str
    digest: str


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def push_blob(client: httpx.AsyncClient, path: str, content: bytes) -> dict[str, Any]:
    """Push a blob by POST, PATCH and PUT, which every registry supports; return digest and size."""
    opened = await client.post(f"/v2/{path}/blobs/uploads/")
    assert opened.status_code == 202, opened.text
    patched = await client.patch(opened.headers["location"], content=content)
    assert patched.status_code == 202, patched.text
    url = patched.headers["location"]
    done = await client.put(f"{url}{'&' if '?' in url else '?'}digest={_digest(content)}")
    assert done.status_code == 201, done.text
    return {"digest": _digest(content), "size": len(content)}


async def push_image(
    client: httpx.AsyncClient, path: str, reference: str | None = None, *, layer: bytes = b"a layer"
) -> Pushed:
    """Push an image with one layer, by a tag or by its digest."""
    config = await push_blob(client, path, b'{"architecture":"amd64","os":"linux"}')
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": _CONFIG, **config},
        "layers": [{"mediaType": _LAYER, **await push_blob(client, path, layer)}],
    }
    return await _push(client, path, reference, manifest)


async def push_index(client: httpx.AsyncClient, path: str, reference: str) -> Pushed:
    """Push an index of one image under a tag."""
    image = await push_image(client, path)
    entry = {"mediaType": MANIFEST, "digest": image.digest, "size": len(image.content)}
    return await _push(client, path, reference, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})


async def _push(client: httpx.AsyncClient, path: str, reference: str | None, manifest: dict[str, Any]) -> Pushed:
    # Indented, so that a registry that returns a canonical form instead of the pushed bytes is noticed.
    content = json.dumps(manifest, indent=3).encode()
    pushed = Pushed(content, manifest["mediaType"], _digest(content))
    response = await client.put(
        f"/v2/{path}/manifests/{reference or pushed.digest}",
        content=content,
        headers={"content-type": pushed.media_type},
    )
    assert response.status_code == 201, response.text
    return pushed


async def fetch(client: httpx.AsyncClient, path: str, reference: str) -> tuple[bytes, str] | None:
    """Return a manifest's bytes and media type; None if there is none."""
    response = await client.get(f"/v2/{path}/manifests/{reference}", headers={"accept": f"{MANIFEST}, {INDEX}"})
    if response.status_code == 404:
        return None
    assert response.status_code == 200, response.text
    return response.content, response.headers["content-type"]


async def tags(client: httpx.AsyncClient, path: str) -> list[str]:
    """Return all tags of a repository; none if it does not exist."""
    response = await client.get(f"/v2/{path}/tags/list")
    return [] if response.status_code == 404 else sorted(response.json()["tags"] or [])
