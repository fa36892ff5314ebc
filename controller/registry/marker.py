"""The marker: the smallest image that makes a repository exist.

A registry has no call "create a repository"; one comes into being with its first manifest. The marker is that manifest:
an image without layers, told from a user's by one annotation. Its bytes are canonical (sorted keys, no spaces), so its
digest is the same on every machine and in every release, and a marker pushed twice changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

CONFIG_MEDIA_TYPE: Final = "application/vnd.oci.image.config.v1+json"
MANIFEST_MEDIA_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"

MARKER_ANNOTATION: Final = "dev.alien.marker"
MARKER_VALUE: Final = "empty-repository-created-by-alien"


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Return the one serialisation of ``value``: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256_digest(content: bytes) -> str:
    """Return the digest of ``content`` as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


EXPLANATION: Final = (
    "No image has been pushed to this repository yet. Push one; with imagePullPolicy Always this Pod then starts."
)
"""Shown by ``kubectl describe pod`` for a Pod that runs the marker: a container runtime names the entrypoint that it
cannot find. It has no line breaks and no double quotes, which runtimes escape."""

CONFIG: Final = canonical_json(
    {
        "architecture": "amd64",
        "config": {"Entrypoint": [EXPLANATION]},
        "os": "linux",
        "rootfs": {"diff_ids": [], "type": "layers"},
    }
)
"""The config blob that the marker refers to. Its fields are the seed's, and an entrypoint that explains itself."""

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

_MAX_MARKER: Final = 64 << 10
"""Bytes of a marker, with whatever another client adds to it; larger manifests are not parsed."""


def is_marker(manifest: bytes | Mapping[str, Any]) -> bool:
    """Tell whether ``manifest`` is a marker, whoever serialised it.

    The annotation decides, not the digest: the seed and other clients write the same marker in other bytes.

    Args:
        manifest: A manifest as fetched, or as parsed already. What is not a JSON object is no marker.
    """
    if isinstance(manifest, bytes):
        if len(manifest) > _MAX_MARKER:
            return False
        try:
            manifest = json.loads(manifest)
        except (ValueError, RecursionError):  # the latter: nested deeper than the parser goes
            return False
    if not isinstance(manifest, Mapping):
        return False
    annotations = manifest.get("annotations")
    return isinstance(annotations, Mapping) and annotations.get(MARKER_ANNOTATION) == MARKER_VALUE
