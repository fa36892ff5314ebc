"""The demo's command for its registry, on a real one."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from devcluster.demo_registry import CommandError, main, run
from devcluster.process import free_port
from devcluster.registries import Registry, RegistryKind, start_registry

REPOSITORY = "default/web"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Yield a registry where a demo has its own."""
    with start_registry(RegistryKind.DISTRIBUTION_3, directory=tmp_path / "registry") as started:
        yield started


@pytest.mark.cluster
def test_push_makes_an_image(registry: Registry, tmp_path: Path) -> None:
    """What is pushed is a whole image: the manifest has the printed digest, and each blob is there."""
    host = registry.url.removeprefix("http://")
    told = main(str(tmp_path), registry.url, "push", f"{host}/{REPOSITORY}:v1")
    base = f"{registry.url}/v2/{REPOSITORY}"
    with httpx.Client(trust_env=False) as client:
        answer = client.get(f"{base}/manifests/v1", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
        assert told == f"v1: digest: sha256:{hashlib.sha256(answer.content).hexdigest()} size: {len(answer.content)}"
        manifest = answer.json()
        for blob in (manifest["config"], *manifest["layers"]):
            content = client.get(f"{base}/blobs/{blob['digest']}").content
            assert blob["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
            assert blob["size"] == len(content)
    listed = json.loads(main(str(tmp_path), registry.url, "tags", f"{host}/{REPOSITORY}"))
    assert listed == {"name": REPOSITORY, "tags": ["v1"]}


@pytest.mark.cluster
def test_forgotten_repository_is_gone(registry: Registry, tmp_path: Path) -> None:
    """A forgotten repository is unknown to the registry, and others stay."""
    for name in (REPOSITORY, "default/other"):
        main(str(tmp_path), registry.url, "push", f"h/{name}:v1")
    assert main(str(tmp_path), registry.url, "forget", f"h/{REPOSITORY}") == f"h/{REPOSITORY} is gone"
    with pytest.raises(CommandError, match="HTTP 404"):
        main(str(tmp_path), registry.url, "tags", f"h/{REPOSITORY}")
    assert "v1" in main(str(tmp_path), registry.url, "tags", "h/default/other")


@pytest.mark.cluster
@pytest.mark.parametrize("path", ["h/default/none", "h/..", "h/../../../../../..", "h//etc", "h", ""])
def test_nothing_else_can_be_forgotten(registry: Registry, tmp_path: Path, path: str) -> None:
    """Only a repository of this registry is removed, whatever the argument says."""
    main(str(tmp_path), registry.url, "push", f"h/{REPOSITORY}:v1")
    with pytest.raises(CommandError, match="there is no repository"):
        main(str(tmp_path), registry.url, "forget", path)
    assert "v1" in main(str(tmp_path), registry.url, "tags", f"h/{REPOSITORY}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "registry stop"),
        (["restart"], "registry stop"),
        (["stop", "it"], "registry stop"),
        (["push"], "registry stop"),
        (["push", "h/default/web"], "has no tag"),
        (["tags", "h/default/web"], "the registry does not answer"),
    ],
)
def test_failures_are_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    """Wrong use and a registry that does not answer end with exit code 1 and a sentence."""
    assert run([str(tmp_path), f"http://127.0.0.1:{free_port()}", *arguments]) == 1
    told = capsys.readouterr()
    assert says in told.err
    assert told.out == ""
