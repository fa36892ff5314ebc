"""The marker: the smallest image that makes a repository exist.

A registry creates a repository with its first manifest. The marker is that manifest: an image without layers,
distinguished from a user's by one annotation. Its bytes are canonical (sorted keys, no spaces), so its digest is the
same on every machine and in every release, and a marker pushed twice changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

CONFIG_MEDIA_TYPE: Final = "application/vnd.oci.image.config.v1+json"
MANIFEST_MEDIA_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"

MARKER_ANNOTATION: Final = "dev.alien.marker"
MARKER_VALUE: Final = "empty-repository-created-by-alien"


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Return the canonical serialisation of ``value``: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256_digest(content: bytes) -> str:
    """Return the digest of ``content`` in the format of registries."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


EXPLANATION: Final = (
    "No image has been pushed to this repository yet. Push one; with imagePullPolicy Always this Pod then starts."
)
"""Shown by ``kubectl describe pod`` for a Pod that runs the marker: the container runtime's error names the entrypoint
that it did not find. Without line breaks and double quotes, which runtimes escape."""

CONFIG: Final = canonical_json(
    {
        "architecture": "amd64",
        "config": {"Entrypoint": [EXPLANATION]},
        "os": "linux",
        "rootfs": {"diff_ids": [], "type": "layers"},
    }
)
"""The marker's config blob: the seed's fields, and an entrypoint that is an explanation."""

CONFIG_DIGEST: Final = sha256_digest(CONFIG)

MANIFEST: Final = canonical_json(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "config": {"mediaType": CONFIG_MEDIA_TYPE, "digest": CONFIG_DIGEST, "size": len(CONFIG)},
        "layers": [],
        "annotations": {
            MARKER_ANNOTATION: MARKER_VALUE,
            "org.opencontainers.image.title": "Empty repository",
            "org.opencontainers.image.description": "Makes this repository exist until an image is pushed to it.",
        },
    }
)
"""The marker manifest."""

MANIFEST_DIGEST: Final = sha256_digest(MANIFEST)

EMPTY_LAYER: Final = bytes.fromhex("1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000")
"""An empty tar archive, compressed; the bytes that Docker has used for empty layers since its first manifests."""

EMPTY_LAYER_DIGEST: Final = sha256_digest(EMPTY_LAYER)
_EMPTY_LAYER_DIFF_ID: Final = sha256_digest(bytes(1024))


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker as it is pushed.

    Args:
        manifest: The manifest.
        blobs: The blobs that it refers to, by digest.
    """

    manifest: bytes
    blobs: Mapping[str, bytes]


def _layered() -> Marker:
    config = canonical_json(
        {**json.loads(CONFIG), "rootfs": {"diff_ids": [_EMPTY_LAYER_DIFF_ID], "type": "layers"}},
    )
    digest = sha256_digest(config)
    layer = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": EMPTY_LAYER_DIGEST,
        "size": len(EMPTY_LAYER),
    }
    manifest = {
        **json.loads(MANIFEST),
        "config": {"mediaType": CONFIG_MEDIA_TYPE, "digest": digest, "size": len(config)},
        "layers": [layer],
    }
    return Marker(canonical_json(manifest), {digest: config, EMPTY_LAYER_DIGEST: EMPTY_LAYER})


PLAIN: Final = Marker(MANIFEST, {CONFIG_DIGEST: CONFIG})
"""The marker."""

LAYERED: Final = _layered()
"""The same with one empty layer, for registries that refuse an image without layers.

OCI's empty descriptor as a layer would break podman, skopeo and containerd.
"""

_MAX_MARKER: Final = 64 << 10
"""Maximum bytes of a marker, including additions by other clients; larger manifests are not parsed."""


def is_marker(manifest: bytes | Mapping[str, Any]) -> bool:
    """Return whether ``manifest`` is a marker, by its annotation.

    The digest does not matter: the seed and other clients serialise the same marker differently.

    Args:
        manifest: A manifest, as fetched or parsed. Anything but a JSON object is not a marker.
    """
    if isinstance(manifest, bytes):
        if len(manifest) > _MAX_MARKER:
            return False
        try:
            manifest = json.loads(manifest)
        except (ValueError, RecursionError):  # the latter: nested too deep for the parser
            return False
    if not isinstance(manifest, Mapping):
        return False
    annotations = manifest.get("annotations")
    return isinstance(annotations, Mapping) and annotations.get(MARKER_ANNOTATION) == MARKER_VALUE
