"""Registry addresses: which source provides the address for which place.

The sources are the configuration (C), the cluster's advertisement by KEP-1755 (K) and registryUrl (U), in this order,
for each place; an address that no source has is absent.
"""

import re
from typing import Any

import pytest

from controller.addresses import RegistryAddresses, RegistryHosting, resolve_addresses
from controller.configfile import parse_binding
from controller.errors import ConfigError

REMOTE = "http://kind-registry:5000"
LOOPBACK = "http://localhost:5001"
KIND = RegistryHosting(host="localhost:5001")  # what kind's documented script advertises
FULL = RegistryHosting("localhost:5001", "localhost:5002", "ctlptl-registry:5000")


@pytest.mark.parametrize(
    ("url", "configured", "advertised", "uri", "host", "runtime", "pod"),
    [
        # U alone
        (REMOTE, None, None, "kind-registry:5000", None, None, "kind-registry:5000"),
        (LOOPBACK, None, None, "localhost:5001", "localhost:5001", "localhost:5001", None),
        ("http://127.0.0.1:5000", None, None, "127.0.0.1:5000", "127.0.0.1:5000", "127.0.0.1:5000", None),
        ("http://[::1]:5000", None, None, "[::1]:5000", "[::1]:5000", "[::1]:5000", None),
        (
            "https://registry.localhost",
            None,
            None,
            "registry.localhost",
            "registry.localhost",
            "registry.localhost",
            None,
        ),
        # K over U
        (REMOTE, None, KIND, "localhost:5001", "localhost:5001", "localhost:5001", "kind-registry:5000"),
        (REMOTE, None, FULL, "localhost:5002", "localhost:5001", "localhost:5002", "ctlptl-registry:5000"),
        (REMOTE, None, RegistryHosting(), "kind-registry:5000", None, None, "kind-registry:5000"),
        (
            REMOTE,
            None,
            RegistryHosting(host_from_cluster_network="r:5000"),
            "kind-registry:5000",
            None,
            None,
            "r:5000",
        ),
        # C over K over U
        (
            REMOTE,
            {"host": "a:1", "containerRuntime": "b:2", "clusterNetwork": "c:3"},
            FULL,
            "b:2",
            "a:1",
            "b:2",
            "c:3",
        ),
        (REMOTE, {"host": "a:1"}, None, "a:1", "a:1", "a:1", "kind-registry:5000"),
        (REMOTE, {"host": "a:1"}, FULL, "a:1", "a:1", "a:1", "ctlptl-registry:5000"),
        (REMOTE, {"containerRuntime": "b:2"}, None, "b:2", None, "b:2", "kind-registry:5000"),
        (LOOPBACK, {"clusterNetwork": "c:3"}, None, "localhost:5001", "localhost:5001", "localhost:5001", "c:3"),
    ],
)
def test_each_address_comes_from_the_first_source_that_has_it(
    url: str,
    configured: dict[str, str] | None,
    advertised: RegistryHosting | None,
    uri: str,
    host: str | None,
    runtime: str | None,
    pod: str | None,
) -> None:
    """The order of the sources holds for each place."""
    fields: dict[str, Any] = {"registryUrl": url}
    if configured is not None:
        fields["references"] = configured
    assert resolve_addresses(parse_binding("b", fields), advertised) == RegistryAddresses(uri, host, runtime, pod)


def test_unknown_references_are_absent() -> None:
    """status.references has no key for a place whose address is unknown."""
    addresses = RegistryAddresses("r:5000", None, None, "r:5000")
    assert addresses.references("artifacts/team/web") == {"clusterNetwork": "r:5000/artifacts/team/web"}


@pytest.mark.parametrize(
    ("text", "hosting"),
    [
        ('host: "localhost:5001"\nhelp: "https://kind.sigs.k8s.io"', KIND),
        ("host: ''", RegistryHosting()),
        ("{}", RegistryHosting()),
        ("unknown: 1", RegistryHosting()),
        (
            """{host: "localhost:5001", hostFromContainerRuntime: "localhost:5002",
            hostFromClusterNetwork: "ctlptl-registry:5000"}""",
            FULL,
        ),
    ],
)
def test_advertisements_are_read(text: str, hosting: RegistryHosting) -> None:
    """The formats of kind, ctlptl and k3d are accepted; an empty value counts as absent."""
    assert RegistryHosting.parse(text) == hosting


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must be a mapping"),
        ("- a", "must be a mapping"),
        ("a: [", "not valid YAML"),
        ("host: 2001-99-99", "not valid YAML"),
        ("[" * 600, "not valid YAML"),
        ("#" * 8193, "has 8193 characters, at most 8192 are allowed"),
        ("host: 5001", "host must be host or host:port"),
        ("host: http://localhost:5001", "host must be host or host:port"),
        ("hostFromClusterNetwork: 'r:5000/path'", "hostFromClusterNetwork must be host or host:port"),
        ("host: 'user:secret@r'", "host must be host or host:port"),
    ],
)
def test_malformed_advertisements_are_rejected(text: str, complaint: str) -> None:
    """An invalid address does not get into image references."""
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        RegistryHosting.parse(text)
    assert "secret" not in str(caught.value)
