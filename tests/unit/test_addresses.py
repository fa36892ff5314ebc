"""Registry addresses: which source provides the address for which place.

The sources are the configuration (C), the cluster's advertisement by KEP-1755 (K) and registryUrl (U), in this order,
for each place; an address that no source has is absent.
"""

import contextlib
import itertools
import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.addresses import RegistryAddresses, RegistryHosting, resolve_addresses
from controller.configfile import parse_binding
from controller.errors import ConfigError, InvalidNameError

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
        ("", "must be a flat mapping"),
        ("- a", "must be a flat mapping"),
        ("a: [", "must be a flat mapping"),
        ("a: 'b", "not valid YAML"),
        ("[" * 600, "must be a flat mapping"),
        ("{" * 600, "must be a flat mapping"),
        ("#" * 1025, "has 1025 characters, at most 1024 are allowed"),
        ("a: &a x\nhost: *a", "must be a flat mapping"),
        ("<<: {host: a:1}", "must be a flat mapping"),
        ("1: a", "must have names as keys"),
        ("host: !!python/name:os.system a:1", "must be a flat mapping"),
        ("host: a:1\nhost: b:1", "has 'host' twice"),
        ("host: a:1\n---\nhost: b:1", "must be one document"),
    ],
)
def test_malformed_advertisements_are_rejected(text: str, complaint: str) -> None:
    """What is not a flat mapping of strings is rejected as a whole."""
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        RegistryHosting.parse(text)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("5001", "must be host or host:port"),
        ("2001-99-99", "must be host or host:port"),
        ("http://localhost:5001", "must be host or host:port"),
        ("r:5000/path", "must be host or host:port"),
        ("user:secret@r", "must be host or host:port"),
        ("ho\u017ft:5000", "must be host or host:port"),
        ("0.0.0.0:5000", "is 0.0.0.0:5000, where a server listens"),
        ("'[::]:5000'", "where a server listens"),
        ("0:5000", "where a server listens"),
    ],
)
def test_a_bad_field_does_not_void_the_others(value: str, problem: str) -> None:
    """An invalid address is left out with a message, and the other fields hold."""
    text = f"host: {value}\nhostFromContainerRuntime: good:5000"
    hosting = RegistryHosting.parse(text)
    assert (hosting.host, hosting.host_from_container_runtime) == (None, "good:5000")
    (told,) = hosting.problems
    assert told.startswith("host ")
    assert problem in told
    assert "secret" not in told
    assert RegistryHosting.parse(text, known=FULL).host == FULL.host


_LETTERS = "abcdefghijklmnopqrst"
BOMB = "a: &a {x: 1}\n" + "".join(f"{b}: &{b} {{<<: [*{a}, *{a}]}}\n" for a, b in itertools.pairwise(_LETTERS))


@pytest.mark.parametrize(
    "text", [BOMB, "[" * 8000, "{" * 8000, "? " * 500, "- " * 500, "a: " * 300, "&a " * 300, "!" * 1024]
)
def test_a_bomb_costs_nothing(text: str) -> None:
    """YAML that other readers take seconds for is rejected in a moment; measured in steps of the interpreter."""
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        with pytest.raises(ConfigError):
            RegistryHosting.parse(text)
    finally:
        sys.setprofile(None)
    assert steps < 200_000


@given(st.text(max_size=1100))
def test_any_advertisement_is_read_or_rejected(text: str) -> None:
    """Whatever the ConfigMap contains is an advertisement or a configuration error."""
    with contextlib.suppress(ConfigError):
        RegistryHosting.parse(text)


@pytest.mark.parametrize(
    ("url", "host", "uri"),
    [
        ("http://registry", None, "registry:80"),
        ("https://registry", None, "registry:443"),
        ("http://registry:5000", None, "registry:5000"),
        ("http://registry.corp", None, "registry.corp"),
        ("http://localhost", None, "localhost"),
        ("http://[::1]", None, "[::1]"),
        ("http://registry", "laptop", "laptop:80"),
    ],
)
def test_a_reference_names_a_host(url: str, host: str | None, uri: str) -> None:
    """A host of one word has its port in references, or clients would read it as a repository of Docker Hub."""
    references = {"references": {"host": host}} if host else {}
    assert resolve_addresses(parse_binding("b", {"registryUrl": url, **references}), None).uri == uri
    advertised = resolve_addresses(parse_binding("b", {"registryUrl": url}), RegistryHosting(host="word"))
    assert advertised.host in ("word:80", "word:443")


@pytest.mark.parametrize("address", ["0.0.0.0:5000", "[::]:5000", "0:5000", "0.0.0.0"])  # noqa: S104
def test_where_a_server_listens_is_no_address(address: str) -> None:
    """0.0.0.0 in the configuration is refused with what to write instead."""
    with pytest.raises(ConfigError, match="clients need its address: write for example localhost:5001"):
        parse_binding("b", {"registryUrl": f"http://{address}"})
    with pytest.raises(ConfigError, match="clients need its address"):
        parse_binding("b", {"registryUrl": "http://a", "references": {"host": address}})


def test_references_that_are_too_long() -> None:
    """A reference of more than 255 characters is an invalid name; it says how long it is."""
    addresses = RegistryAddresses("localhost:5001", "localhost:5001", None, None)
    assert len(addresses.references("a" * 240)["host"]) == 255
    with pytest.raises(InvalidNameError, match="has 256 characters, clients accept at most 255"):
        addresses.references("a" * 241)
