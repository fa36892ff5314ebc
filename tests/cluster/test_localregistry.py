"""KEP-1755 on the real API server: how the cluster's own advertisement reaches status.references.

ConfigMap kube-public/local-registry-hosting | references of the default registry
absent                                       | from registryUrl
created, changed                             | follow it
partly filled                                | the rest from registryUrl
malformed                                    | the last valid one stays
without its key, deleted                     | the last valid one stays for five minutes
may not be read                              | from registryUrl, and a sentence in the log
of another registry, or not followed         | from registryUrl; a sentence in the log, or no request
"""

from collections.abc import Iterator

import pytest

from devcluster.cluster import DevCluster
from devcluster.manifests import LOCAL_REGISTRY_HOSTING
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import MANIFESTS, Api, Audit, Object, Objects, OperatorProcess

pytestmark = pytest.mark.cluster

PATH = "/api/v1/namespaces/kube-public/configmaps"
NAME = "local-registry-hosting"
CHANGES = "artifact_repository_advertisement_changes_total"


class Hosting:
    """The ConfigMap."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def put(self, **data: str) -> None:
        """Create or change it."""
        body = {"metadata": {"name": NAME}, "data": data}
        if "uid" in self._api.request("GET", f"{PATH}/{NAME}").get("metadata", {}):
            self._api.must("PUT", f"{PATH}/{NAME}", body)
        else:
            self._api.must("POST", PATH, body)

    def advertise(self, text: str) -> None:
        """Write the advertisement."""
        self.put(**{"localRegistryHosting.v1": text})

    def advertise_registry(self, cluster: DevCluster, host: str) -> None:
        """Advertise the cluster's registry as this host."""
        self.advertise(f"host: {host}\nhostFromClusterNetwork: {cluster.registry_url.removeprefix('http://')}")

    def delete(self) -> None:
        """Delete it, if it is there."""
        self._api.request("DELETE", f"{PATH}/{NAME}")


@pytest.fixture
def hosting(api: Api) -> Iterator[Hosting]:
    """Return the ConfigMap, absent before and after the test."""
    hosting = Hosting(api)
    hosting.delete()
    yield hosting
    hosting.delete()


def host(object_: Object) -> str:
    """Return the address at which a laptop pushes, without the path."""
    return str(object_["status"]["references"]["host"]).partition("/")[0]


def test_references_follow_the_advertisement(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, hosting: Hosting
) -> None:
    """Absent, created, changed: the references of an object that is Ready follow within the interval of discovery."""
    called = cluster.registry_url.removeprefix("http://")
    binding = {"registryUrl": cluster.registry_url, "advertisedByCluster": True}
    operator = start_operator({"defaultRegistry": "artifacts", "registries": {"artifacts": binding}})
    objects.create("web")
    seen = objects.wait_ready("web", tell=operator.log)
    assert host(seen) == called

    hosting.advertise('host: "localhost:5001"\nhelp: "https://kind.sigs.k8s.io"')
    seen = objects.wait("web", lambda o: host(o) == "localhost:5001", within=60, tell=operator.log)
    path = seen["status"]["uri"].partition("/")[2]
    assert seen["status"]["uri"] == f"localhost:5001/{path}"
    assert seen["status"]["references"]["containerRuntime"] == f"localhost:5001/{path}"
    assert seen["status"]["conditions"][0]["message"] == "Push and pull URI:TAG"

    hosting.advertise(
        "{host: 'localhost:5002', hostFromContainerRuntime: 'registry:5000', hostFromClusterNetwork: 'registry:6000'}"
    )
    seen = objects.wait("web", lambda o: host(o) == "localhost:5002", within=60, tell=operator.log)
    assert seen["status"]["uri"] == f"registry:5000/{path}"
    assert seen["status"]["references"]["clusterNetwork"] == f"registry:6000/{path}"
    assert operator.metrics()[CHANGES] == 2
    warnings = [line for line in operator.log().splitlines() if "has changed the addresses of registry" in line]
    assert len(warnings) == 2
    assert all("WARNING" in line.upper() for line in warnings)


def test_an_advertisement_of_another_registry(
    cluster: DevCluster, objects: Objects, operator: OperatorProcess, hosting: Hosting
) -> None:
    """It is not applied as long as it does not name the host of registryUrl; no address has changed."""
    objects.create("web")
    before = objects.wait_ready("web", tell=operator.log)
    hosting.advertise("host: evil.example:5001\nhostFromClusterNetwork: evil.example:5001")
    eventually(lambda: "is not applied" in operator.log(), within=60, tell=operator.log)
    assert operator.metrics()[CHANGES] == 0
    assert objects.get("web") == before
    hosting.advertise_registry(cluster, "localhost:5001")
    objects.wait("web", lambda o: host(o) == "localhost:5001", within=60, tell=operator.log)


def test_an_advertisement_that_is_not_followed(
    objects: Objects, start_operator: StartOperator, hosting: Hosting, audit: Audit, cluster: DevCluster
) -> None:
    """With followLocalRegistryHosting false the ConfigMap is not even read."""
    hosting.advertise_registry(cluster, "localhost:5001")
    mark = audit.mark()
    operator = start_operator(followLocalRegistryHosting=False)
    objects.create("web")
    assert host(objects.wait_ready("web", tell=operator.log)) == cluster.registry_url.removeprefix("http://")
    asked = [event["requestURI"] for event in audit.since(mark)]
    assert [uri for uri in asked if "configmaps" in uri] == []
    assert asked


def test_a_restart_waits_for_the_advertisement(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, hosting: Hosting, audit: Audit
) -> None:
    """The operator knows what is advertised before it looks at the first object: a restart costs not one write."""
    hosting.advertise_registry(cluster, "localhost:5001")
    operator = start_operator()
    for number in range(10):
        objects.create(f"web-{number}")
    for number in range(10):
        assert host(objects.wait_ready(f"web-{number}", tell=operator.log)) == "localhost:5001"
    operator.process.stop()
    mark = audit.mark()
    operator = start_operator()
    verified = 'artifact_repository_reconciles_total{result="verified"}'
    eventually(lambda: operator.metrics().get(verified, 0) >= 10, tell=operator.log)
    assert audit.writes(mark) == []


def test_other_registries_do_not_follow_it(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, hosting: Hosting
) -> None:
    """The ConfigMap speaks of the cluster's one local registry, which is the operator's default one."""
    hosting.advertise_registry(cluster, "localhost:5001")
    url = {"registryUrl": cluster.registry_url}
    operator = start_operator({"defaultRegistry": "local", "registries": {"local": url, "other": url}})
    objects.create("web", {"registry": "other"})
    objects.create("local")
    objects.wait("local", lambda o: "references" in o["status"] and host(o) == "localhost:5001", tell=operator.log)
    assert host(objects.wait_ready("web")) == cluster.registry_url.removeprefix("http://")


def test_without_the_right_to_read_it(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, hosting: Hosting
) -> None:
    """It says so, and goes on without; given the right, it follows."""
    hosting.advertise_registry(cluster, "localhost:5001")
    cluster.kubectl("delete", "-f", MANIFESTS / LOCAL_REGISTRY_HOSTING)
    try:
        operator = start_operator()
        objects.create("web")
        assert host(objects.wait_ready("web", tell=operator.log)) == cluster.registry_url.removeprefix("http://")
        eventually(lambda: "Not allowed to read ConfigMap" in operator.log(), tell=operator.log)
    finally:
        cluster.kubectl("apply", "-f", MANIFESTS / LOCAL_REGISTRY_HOSTING)
    objects.wait("web", lambda o: host(o) == "localhost:5001", within=60, tell=operator.log)
