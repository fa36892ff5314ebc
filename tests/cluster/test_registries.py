"""Several registries, their doors and their moods, through to what a person reads in status.

registry                                     | status
htpasswd, right login                        | Ready
htpasswd, wrong login, then the right one    | AuthenticationFailed, naming the file; Ready without a restart
https, our CA                                | Ready
https, without the CA                        | TLSVerificationFailed, saying unknown CA
read-only                                    | RegistryReadOnly; what is there is adopted
two path levels only                         | NameNotSupported; Ready by another template
repositoryPolicy Namespaced                  | PolicyViolation, Stalled, no request
a name that nobody configured                | UnknownRegistry, naming those that there are
for other namespaces only                    | RegistryNotAllowed, Stalled; Ready once the configuration allows it
pathPrefix ""                                | what lies at the root is adopted untouched
a damaged repository                         | Unknown, naming its path; others are served as ever
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from controller.api.v1alpha1 import REQUESTED_AT_ANNOTATION
from controller.reconcile.breaker import FAILURES_TO_OPEN
from devcluster.certificates import CertificateAuthority
from devcluster.cluster import DevCluster
from devcluster.registries import Registry, RegistryKind, start_registry
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import Object, Objects, condition, is_ready, ready
from tests.cluster.test_lifecycle import fetch, put_image
from tests.contract.test_authentication import HTPASSWD, PASSWORD, basic

pytestmark = pytest.mark.cluster

StartRegistry = Callable[..., Registry]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartRegistry]:
    """Return what starts a registry for one test."""
    with ExitStack() as stack:

        def start(kind: RegistryKind = RegistryKind.DISTRIBUTION_3, **options: Any) -> Registry:
            return stack.enter_context(start_registry(kind, directory=tmp_path / kind, **options))

        yield start


def only(name: str, binding: Object) -> Object:
    """Return a configuration with one registry."""
    return {"defaultRegistry": name, "registries": {name: binding}}


def message(object_: Object) -> str:
    """Return what Ready says."""
    return str(condition(object_, "Ready")["message"])


@pytest.fixture
def guarded(start: StartRegistry, tmp_path: Path) -> Registry:
    """Run a registry that lets only robot in."""
    users = tmp_path / "htpasswd"
    users.write_text(HTPASSWD)
    return start(config={"auth": {"htpasswd": {"realm": "test", "path": str(users)}}})


def test_credentials(guarded: Registry, objects: Objects, start_operator: StartOperator, tmp_path: Path) -> None:
    """A wrong password is reported; once it is fixed, the object becomes Ready; no secret is logged."""
    credentials = basic(tmp_path, password="wr0ng-s3cret")
    operator = start_operator(
        only("guarded", {"registryUrl": guarded.url, "credentials": credentials}), "--log-level", "debug"
    )
    objects.create("web")
    seen = objects.wait("web", lambda o: ready(o) == ("False", "AuthenticationFailed"), tell=operator.log)
    assert condition(seen, "Reconciling")["status"] == "True"
    assert message(seen).startswith(f"{guarded.url}: 401 (UNAUTHORIZED")
    assert message(seen).endswith(f"; check {tmp_path / 'password'}")
    basic(tmp_path)
    objects.wait_ready("web", within=60, tell=operator.log)
    written = operator.process.log.read_text() + str(objects.list())
    assert PASSWORD not in written
    assert "wr0ng-s3cret" not in written


@pytest.mark.parametrize("trusted", [True, False])
def test_tls(
    start: StartRegistry, objects: Objects, start_operator: StartOperator, tmp_path: Path, trusted: bool
) -> None:
    """With its CA a registry is used; without, the reason names what is wrong with the certificate."""
    authority = CertificateAuthority(tmp_path / "ca")
    registry = start(tls=authority.issue("registry"), ca_file=authority.ca_file)
    binding: Object = {"registryUrl": registry.url}
    if trusted:
        binding["tls"] = {"caFile": str(authority.ca_file)}
    operator = start_operator(only("secure", binding))
    objects.create("web")
    if trusted:
        objects.wait_ready("web", tell=operator.log)
    else:
        seen = objects.wait("web", lambda o: ready(o) == ("False", "TLSVerificationFailed"), tell=operator.log)
        assert "caFile" in message(seen)
        assert "unknown CA" in message(seen) or "self-signed" in message(seen)


def test_a_read_only_registry(start: StartRegistry, objects: Objects, start_operator: StartOperator) -> None:
    """Nothing can be made there, and that is said; what was pushed before is adopted."""
    registry = start()
    put_image(registry.url, f"artifacts/{objects.namespace}/old", "v1")
    registry.process.stop()
    closed = start(config={"storage": {"maintenance": {"readonly": {"enabled": True}}}})
    operator = start_operator(only("artifacts", {"registryUrl": closed.url}))
    objects.create("new")
    seen = objects.wait("new", lambda o: ready(o) == ("False", "RegistryReadOnly"), tell=operator.log)
    assert "turn off the registry's read-only mode" in message(seen)
    objects.create("old")
    assert objects.wait_ready("old", tell=operator.log)["status"]["origin"] == "Adopted"


def test_a_registry_with_two_path_levels(start: StartRegistry, objects: Objects, start_operator: StartOperator) -> None:
    """The crate that the seed was written for takes prefix and name, no more: said, and mended by a template."""
    registry = start(RegistryKind.CONTAINER_REGISTRY)
    flat = {"registryUrl": registry.url, "repositoryTemplate": "{namespace}.{name}"}
    operator = start_operator(
        {"defaultRegistry": "deep", "registries": {"deep": {"registryUrl": registry.url}, "flat": flat}}
    )
    objects.create("web")
    seen = objects.wait("web", lambda o: ready(o) == ("False", "NameNotSupported"), tell=operator.log)
    assert "{namespace}.{name}" in message(seen)
    objects.patch("web", {"spec": {"registry": "flat"}})
    seen = objects.wait_ready("web", tell=operator.log)
    assert seen["status"]["repositoryName"] == f"{objects.namespace}.web"


def test_policy_and_unknown_registries(cluster: DevCluster, objects: Objects, start_operator: StartOperator) -> None:
    """What an object may not name is refused by its reason: for good by policy, until configured otherwise."""
    shared = {"registryUrl": cluster.registry_url, "repositoryPolicy": "Namespaced"}
    operator = start_operator(only("shared", shared))
    objects.create("thief", {"repositoryName": "other/secret"})
    seen = objects.wait("thief", lambda o: ready(o) == ("False", "PolicyViolation"), tell=operator.log)
    assert condition(seen, "Stalled")["reason"] == "PolicyViolation"
    assert f"'{objects.namespace}/'" in message(seen)
    assert fetch(cluster.registry_url, "shared/other/secret", "tags/list").status_code == 404
    objects.create("honest", {"repositoryName": f"{objects.namespace}/web"})
    objects.wait_ready("honest", tell=operator.log)
    objects.create("lost", {"registry": "nowhere"})
    seen = objects.wait("lost", lambda o: ready(o) == ("False", "UnknownRegistry"), tell=operator.log)
    assert "set spec.registry to one of: shared" in message(seen)
    assert condition(seen, "Reconciling")["status"] == "True"


def test_a_registry_for_some_namespaces(cluster: DevCluster, objects: Objects, start_operator: StartOperator) -> None:
    """Another namespace is refused without a request; a change of the configuration applies without a restart."""
    closed = {"registryUrl": cluster.registry_url, "namespaces": ["platform-*"]}
    operator = start_operator(only("closed", closed))
    objects.create("web")
    seen = objects.wait("web", lambda o: ready(o) == ("False", "RegistryNotAllowed"), tell=operator.log)
    assert condition(seen, "Stalled")["reason"] == "RegistryNotAllowed"
    assert message(seen) == (
        f"Namespace '{objects.namespace}' may not use registry 'closed'; no registry is configured for this namespace"
    )
    assert fetch(cluster.registry_url, f"closed/{objects.namespace}/web", "tags/list").status_code == 404
    operator.configure(only("closed", closed | {"namespaces": [f"{objects.namespace[:-1]}*"]}))
    objects.wait_ready("web", tell=operator.log)
    operator.configure(only("closed", closed))
    objects.wait("web", lambda o: ready(o) == ("False", "RegistryNotAllowed"), tell=operator.log)


def test_the_root_of_a_registry(cluster: DevCluster, objects: Objects, start_operator: StartOperator) -> None:
    """With an empty pathPrefix an object finds what was there before there was an operator."""
    name = f"{objects.namespace}/legacy"
    pushed = put_image(cluster.registry_url, name, "latest")
    operator = start_operator(only("root", {"registryUrl": cluster.registry_url, "pathPrefix": ""}))
    objects.create("legacy", {"repositoryName": name})
    status = objects.wait_ready("legacy", tell=operator.log)["status"]
    assert status["origin"] == "Adopted"
    assert status["uri"] == f"{cluster.registry_url.removeprefix('http://')}/{name}"
    assert fetch(cluster.registry_url, name, "manifests/latest").content == pushed


def test_a_damaged_repository(start: StartRegistry, objects: Objects, start_operator: StartOperator) -> None:
    """An empty link file (power cut, full disk): 500 for one repository is no outage, and delays no other object."""
    registry = start()
    config = {**only("artifacts", {"registryUrl": registry.url}), "timings": {"unavailableAfter": "1s"}}
    operator = start_operator(config)
    objects.create_many(["web", "api", "bad"])
    objects.wait_all(is_ready, tell=operator.log)
    (link,) = registry.storage.glob("**/bad/_manifests/tags/latest/current/link")
    digest = link.read_text()
    link.write_text("")
    objects.patch("bad", {"metadata": {"annotations": {REQUESTED_AT_ANNOTATION: "now"}}})
    eventually(lambda: operator.metrics()["artifact_repository_retries_total"] >= FAILURES_TO_OPEN + 1, within=30)
    for number in range(3):
        objects.create(f"new-{number}")
        objects.wait_ready(f"new-{number}", within=2, tell=operator.log)
    unavailable = ("Unknown", "RegistryUnavailable")
    seen = objects.wait("bad", lambda bad: ready(bad) == unavailable, tell=operator.log)
    path = seen["status"]["uri"].partition("/")[2]
    assert message(seen).startswith(f"{registry.url}: {path}: 500 ")
    assert operator.metrics()['artifact_repository_registry_up{registry="artifacts"}'] == 1
    assert "is unavailable" not in operator.log()
    link.write_text(digest)
    objects.wait_ready("bad", within=70, tell=operator.log)
