"""Advertisements: to which registry they apply, and what reports a change of known addresses."""

import logging
import random
from dataclasses import replace

import pytest

from controller.addresses import RegistryHosting
from controller.advertisements import Advertisements
from controller.configfile import parse_binding
from controller.metrics import Metrics
from controller.reconcile.registries import RegistryPool
from tests.unit.objects import make_config
from tests.unit.reconcile.world import ListEvents, LoopClock, MemoryRegistry

KIND = RegistryHosting(host="localhost:5001", host_from_cluster_network="registry:5000")


class Reported:
    """A pool whose advertisements are applied and reported."""

    def __init__(self) -> None:
        self.events, self.metrics = ListEvents(), Metrics()
        self.pool = RegistryPool(
            make_config(), connect=lambda *_: MemoryRegistry(), clock=LoopClock(), rng=random.Random(1)
        )
        self.subject = Advertisements(self.pool, events=self.events, metrics=self.metrics)

    @property
    def uri_host(self) -> str:
        """The address in status.uri."""
        return self.pool["artifacts"].addresses.uri

    @property
    def changes(self) -> float | None:
        """The metric."""
        return self.metrics.registry.get_sample_value("artifact_repository_advertisement_changes_total")


@pytest.fixture
def reported() -> Reported:
    """Return a pool before the first read of the ConfigMap."""
    return Reported()


def test_the_first_advertisement_is_no_change(reported: Reported) -> None:
    """At a start the addresses become known; nobody is warned."""
    reported.subject.apply(KIND)
    assert reported.uri_host == "localhost:5001"
    assert (reported.changes, reported.events.seen) == (0, [])


def test_each_change_of_known_addresses_is_reported(reported: Reported, caplog: pytest.LogCaptureFixture) -> None:
    """Appeared, changed, gone: a warning, the metric and an event on the operator each; none without a change."""
    for hosting in (None, KIND, KIND, replace(KIND, host="evil.example"), None):
        reported.subject.apply(hosting)
    assert reported.changes == 3
    assert len(reported.events.seen) == 3
    assert {reason for _, reason in reported.events.seen} == {"RegistryAddressesChanged"}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert "from host localhost:5001" in warnings[1]
    assert "to host evil.example" in warnings[1]


def test_an_advertisement_of_another_registry_is_not_applied(
    reported: Reported, caplog: pytest.LogCaptureFixture
) -> None:
    """The addresses stay, and one sentence says what to do."""
    reported.subject.apply(None)
    reported.subject.apply(RegistryHosting(host="evil.example:5001"))
    assert reported.uri_host == "registry:5000"
    assert reported.changes == 0
    assert "set its advertisedByCluster to true" in caplog.text


def test_an_advertisement_is_not_followed(reported: Reported) -> None:
    """With followLocalRegistryHosting false, addresses are known at once and are those of the configuration."""
    registries = {"artifacts": {"registryUrl": "http://registry:5000"}}
    reported.pool.configure(make_config(registries, followLocalRegistryHosting=False))
    assert reported.pool.are_addresses_known("artifacts")
    reported.pool.advertise(KIND)
    assert reported.uri_host == "registry:5000"


@pytest.mark.parametrize(
    ("url", "hosting", "expected"),
    [
        ("http://registry:5000", KIND, True),
        ("http://registry:5001", KIND, False),
        ("http://localhost:5001", KIND, True),
        ("http://127.0.0.1:5001", KIND, True),
        ("http://[::1]:5001", KIND, True),
        ("http://localhost:5000", KIND, False),
        ("https://registry.example", RegistryHosting(host="Registry.Example"), True),
        ("https://registry.example", RegistryHosting(host="registry.example:443"), True),
        ("http://registry.example", RegistryHosting(host="registry.example:443"), False),
        ("http://registry:5000", RegistryHosting(host_from_container_runtime="registry:5000"), False),
        ("http://registry:5000", RegistryHosting(), False),
    ],
)
def test_which_registry_is_advertised(url: str, hosting: RegistryHosting, expected: bool) -> None:
    """The one whose registryUrl has the advertised host and port, from inside the cluster or outside."""
    assert hosting.is_about(parse_binding("b", {"registryUrl": url})) is expected
    assert hosting.is_about(parse_binding("b", {"registryUrl": url, "advertisedByCluster": True}))
