"""The marker: its bytes are fixed for all time, and it is recognised whoever wrote it."""

from __future__ import annotations

import json

import pytest

from controller.registry import marker


def test_config_bytes() -> None:
    """The config blob is the one that was measured on real registries."""
    assert marker.CONFIG == (
        b'{"architecture":"amd64","config":{},"os":"linux","rootfs":{"diff_ids":[],"type":"layers"}}'
    )
    assert len(marker.CONFIG) == 90
    assert marker.CONFIG_DIGEST == "sha256:067c4dd72da4d166811c210f3d96a24e0f1c7ed7f02f905f6f78e03d500f7c59"


def test_manifest_bytes() -> None:
    """The manifest is the one that was measured, with the seed's media types, no layers and the annotation."""
    assert len(marker.MANIFEST) == 318
    assert marker.MANIFEST_DIGEST == "sha256:9f5f4f4904cbeb24f3dee5b2525e7c2819cfaaa8635c5c85920233fa17ce3248"
    assert json.loads(marker.MANIFEST) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": marker.CONFIG_DIGEST,
            "size": 90,
        },
        "layers": [],
        "annotations": {"dev.alien.marker": "empty-repository-created-by-alien"},
    }


@pytest.mark.parametrize(
    "manifest",
    [
        marker.MANIFEST,
        json.loads(marker.MANIFEST),
        json.dumps(json.loads(marker.MANIFEST), indent=4).encode(),
        b'{"annotations": {"x": "y", "dev.alien.marker": "empty-repository-created-by-alien"}}',
    ],
)
def test_is_marker(manifest: bytes | dict[str, object]) -> None:
    """The annotation makes the marker, in whatever bytes it stands."""
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
def test_is_no_marker(manifest: bytes | dict[str, object]) -> None:
    """Everything else is somebody's image or garbage, and none of it fails."""
    assert not marker.is_marker(manifest)
