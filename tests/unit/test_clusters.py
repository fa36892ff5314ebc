"""docs/clusters.md: the addresses that follow from each cluster's advertisement and the configuration on the page."""

import re
from pathlib import Path

import pytest

from controller.addresses import RegistryHosting, resolve_addresses
from controller.configfile import parse_binding, parse_config

PAGE = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()

ADVERTISED = {
    # k3d 5.9, for: k3d cluster create dev --registry-create artifacts-registry:localhost:5001
    "k3d": """\
help: https://k3d.io/stable/usage/registries/#using-a-local-registry
host: localhost:5001
hostFromClusterNetwork: artifacts-registry:5000
hostFromContainerRuntime: artifacts-registry:5000
""",
    "minikube with ctlptl": """\
host: localhost:5001
hostFromClusterNetwork: artifacts-registry:5000
hostFromContainerRuntime: artifacts-registry:5000
help: https://github.com/tilt-dev/ctlptl
""",
    "MicroK8s": """\
help: "https://microk8s.io/docs/registry-built-in"
host: "localhost:32000"
""",
}
"""What clusters write to kube-public/local-registry-hosting."""

WRITTEN = re.compile(r"^\| \[(?P<name>[^]]+)\]\(#[a-z0-9-]+\) \| `(.+)` \| `(.+)` \| `(.+)` \|$", re.MULTILINE)
TABLE = {row["name"]: row.groups()[1:] for row in WRITTEN.finditer(PAGE)}


def section(name: str) -> str:
    """Return the section of a cluster."""
    return PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_every_advertisement_is_on_the_page() -> None:
    """The table has every cluster whose advertisement is known, and those that advertise nothing."""
    assert TABLE.keys() - ADVERTISED.keys() == {"minikube", "Docker Desktop, Rancher Desktop, Colima"}
    assert ADVERTISED.keys() <= TABLE.keys()


@pytest.mark.parametrize("name", TABLE)
def test_references_are_those_of_the_table(name: str) -> None:
    """The configuration on the page and the cluster's advertisement result in the addresses in the table."""
    found = re.search(r"```yaml\n(.+?)```", section(name), re.DOTALL)
    assert found, name
    config = parse_config(found[1])
    binding = config.registries[config.default_registry]
    hosting = RegistryHosting.parse(ADVERTISED[name]) if name in ADVERTISED else None
    assert hosting is None or (hosting.is_about(binding) and not hosting.problems)
    addresses = resolve_addresses(binding, hosting)
    assert (addresses.host, addresses.container_runtime, addresses.cluster_network) == TABLE[name]
    assert addresses.uri == addresses.container_runtime


@pytest.mark.parametrize(
    ("text", "by_cluster"),
    [
        ("host: localhost:5001\nhostFromClusterNetwork: kind-registry:5000\nhelp: https://github.com/tilt-dev", False),
        ('host: "localhost:5001"\nhelp: "https://kind.sigs.k8s.io/docs/user/local-registry/"', True),
    ],
    ids=["ctlptl", "kind's own script"],
)
def test_kind(text: str, *, by_cluster: bool) -> None:
    """What others advertise for kind leads to the addresses that docs/kind.md names."""
    binding = parse_binding(
        "artifacts", {"registryUrl": "http://kind-registry:5000", "advertisedByCluster": by_cluster}
    )
    hosting = RegistryHosting.parse(text)
    assert hosting.is_about(binding)
    addresses = resolve_addresses(binding, hosting)
    assert addresses.host == addresses.container_runtime == addresses.uri == "localhost:5001"
    assert addresses.cluster_network == "kind-registry:5000"
