"""Each registry starts as people run it, and can be configured as they do."""

import http.client
import json
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from devcluster.certificates import CertificateAuthority
from devcluster.errors import ServerFailed
from devcluster.process import Probe
from devcluster.registries import RegistryKind, _merged, start_registry

_DISTRIBUTIONS = [RegistryKind.DISTRIBUTION_3, RegistryKind.DISTRIBUTION_2]


def status(url: str, method: str = "GET") -> int:
    """Return the status of a request."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request(method, parts.path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("kind", list(RegistryKind))
def test_starts_on_loopback_and_ends(kind: RegistryKind, tmp_path: Path) -> None:
    """It answers the specification's first question, to anyone, and is gone after the block."""
    with start_registry(kind, directory=tmp_path / "registry") as registry:
        assert registry.url.startswith("http://127.0.0.1:")
        assert status(f"{registry.url}/v2/") == 200
        process = registry.process
    assert not process.running


@pytest.mark.parametrize("kind", _DISTRIBUTIONS)
def test_configured_by_environment(kind: RegistryKind, tmp_path: Path) -> None:
    """Distribution's own variables reach it."""
    readonly = {"REGISTRY_STORAGE_MAINTENANCE_READONLY": '{"enabled": true}'}
    with start_registry(kind, directory=tmp_path, environment=readonly) as registry:
        assert status(f"{registry.url}/v2/a/b/blobs/uploads/", "POST") == 405


@pytest.mark.parametrize("kind", _DISTRIBUTIONS)
def test_configured_by_file(kind: RegistryKind, tmp_path: Path) -> None:
    """What is passed is merged into its configuration; a registry that asks for credentials counts as ready."""
    token = {"realm": "http://127.0.0.1/token", "service": "s", "issuer": "i"}
    authority = CertificateAuthority(tmp_path / "ca")
    config = {"auth": {"token": {**token, "rootcertbundle": str(authority.ca_file)}}}
    with start_registry(kind, directory=tmp_path, config=config) as registry:
        assert status(f"{registry.url}/v2/") == 401


@pytest.mark.parametrize("kind", _DISTRIBUTIONS)
def test_serves_tls(kind: RegistryKind, tmp_path: Path) -> None:
    """With a certificate it speaks https, and is verified by its CA and by no other."""
    authority = CertificateAuthority(tmp_path / "ca")
    other = CertificateAuthority(tmp_path / "other")
    with start_registry(
        kind, directory=tmp_path, tls=authority.issue("registry"), ca_file=authority.ca_file
    ) as registry:
        url = urlsplit(registry.url)
        assert url.scheme == "https"
        assert Probe(f"{registry.url}/v2/", ca_file=authority.ca_file).succeeds()
        stranger = http.client.HTTPSConnection(
            "127.0.0.1", url.port, timeout=5, context=ssl.create_default_context(cafile=other.ca_file)
        )
        with pytest.raises(ssl.SSLCertVerificationError):
            stranger.connect()


@pytest.mark.parametrize("kind", _DISTRIBUTIONS)
def test_wrong_configuration_shows_the_log(kind: RegistryKind, tmp_path: Path) -> None:
    """A registry that refuses its configuration says why."""
    with (
        pytest.raises(ServerFailed, match="no access controller registered with name: nonsense"),
        start_registry(kind, directory=tmp_path, config={"auth": {"nonsense": {"a": "b"}}}),
    ):
        pass


@pytest.mark.parametrize("kind", _DISTRIBUTIONS)
def test_restart_keeps_what_was_pushed(kind: RegistryKind, tmp_path: Path) -> None:
    """Its data outlive the process: a restart is no loss."""
    with start_registry(kind, directory=tmp_path) as registry:
        marker = registry.storage / "marker"
        marker.touch()
        registry.process.restart()
        assert marker.exists()
        assert status(f"{registry.url}/v2/") == 200


def test_merged_configuration() -> None:
    """Changes go level by level, lists and values replace, None removes, and the base is left alone."""
    base = {"http": {"addr": "a", "tls": {"key": "k"}}, "log": {"level": "info"}}
    before = json.dumps(base)
    assert _merged(base, {"http": {"addr": "b", "tls": None}, "auth": {"silly": {}}}) == {
        "http": {"addr": "b"},
        "log": {"level": "info"},
        "auth": {"silly": {}},
    }
    assert json.dumps(base) == before
