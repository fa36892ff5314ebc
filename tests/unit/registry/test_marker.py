"""Marker: its bytes never change, and it is recognised whoever serialised it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from controller.registry import marker

_FIRST_RELEASE = (
    b'{"annotations":{"dev.alien.marker":"empty-repository-created-by-alien"},"config":{"digest":'
    b'"sha256:067c4dd72da4d166811c210f3d96a24e0f1c7ed7f02f905f6f78e03d500f7c59","mediaType":'
    b'"application/vnd.oci.image.config.v1+json","size":90},"layers":[],"mediaType":'
    b'"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}'
)
"""The marker of version 0.1, with a config without an explanation."""


def test_config_bytes() -> None:
    """The config has the seed's fields, and an entrypoint that is a sentence in `kubectl describe pod`."""
    assert json.loads(marker.CONFIG) == {
        "architecture": "amd64",
        "config": {"Entrypoint": [marker.EXPLANATION]},
        "os": "linux",
        "rootfs": {"diff_ids": [], "type": "layers"},
    }
    assert '"' not in marker.EXPLANATION  # runtimes would escape it
    assert marker.CONFIG_DIGEST == "sha256:1029482a66b38bd9345665d89c9222e1fcb6cd5aced5072a1943b777b4c2c312"


def test_manifest_bytes() -> None:
    """The manifest has the seed's media types, no layers, the annotation, and a description."""
    assert marker.MANIFEST_DIGEST == "sha256:ad4f5f442bfba9676e5e6fd5f5f4c420a5f409b14d03bc86a6cb8857f6651f30"
    assert json.loads(marker.MANIFEST) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": marker.CONFIG_DIGEST,
            "size": len(marker.CONFIG),
        },
        "layers": [],
        "annotations": {
            "dev.alien.marker": "empty-repository-created-by-alien",
            "org.opencontainers.image.title": "Empty repository",
            "org.opencontainers.image.description": "Makes this repository exist until an image is pushed to it.",
        },
    }


@pytest.mark.parametrize(
    "manifest",
    [
        marker.MANIFEST,
        _FIRST_RELEASE,
        json.loads(marker.MANIFEST),
        json.dumps(json.loads(marker.MANIFEST), indent=4).encode(),
        b'{"annotations": {"x": "y", "dev.alien.marker": "empty-repository-created-by-alien"}}',
    ],
)
def test_is_marker(manifest: bytes | dict[str, object]) -> None:
    """A marker is recognised by its annotation, however it is serialised."""
    assert marker.is_marker(manifest)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b'{"annotations": null}',
        b'{"annotations": ["dev.alien.marker"]}',
        b'{"annotations": {"dev.alien.marker": true}}',
        b'{"annotations": {"dev.alien.marker": "something else"}}',
        b'{"config": {"annotations": {"dev.alien.marker": "empty-repository-created-by-alien"}}}',
        b'{"annotations": {"dev.alien.marker": "empty-repository-created-by-alien"}, "x": "%s"}' % (b"x" * 70_000),
        {"layers": []},
    ],
)
def test_is_not_a_marker(manifest: bytes | dict[str, object]) -> None:
    """Images and garbage are not markers, and none of them raises."""
    assert not marker.is_marker(manifest)


def test_layered_marker() -> None:
    """The marker for registries that refuse an image without layers has one empty layer, and is a marker, too."""
    manifest = json.loads(marker.LAYERED.manifest)
    [layer] = manifest["layers"]
    config = json.loads(marker.LAYERED.blobs[manifest["config"]["digest"]])
    archive = gzip.decompress(marker.LAYERED.blobs[layer["digest"]])
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        assert members.getnames() == []
    assert config["rootfs"]["diff_ids"] == [marker.sha256_digest(archive)]
    assert layer["size"] == len(marker.LAYERED.blobs[layer["digest"]])
    assert config["config"]["Entrypoint"] == [marker.EXPLANATION]
    assert marker.is_marker(marker.LAYERED.manifest)
