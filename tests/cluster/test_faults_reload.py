"""The configuration changes while the operator runs.

the file                          | what happens
changed references                | status is rewritten, in every object; Ready's time stays
another registry in it            | objects that wait for it go on
a mistake in it                   | said in log, metric and event; the last valid one stays in use
gone                              | the same
mended                            | taken over
"""

import functools
from pathlib import Path

import pytest

from devcluster.cluster import DevCluster
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import Audit, Object, Objects, condition, is_ready, operator_config, ready

pytestmark = pytest.mark.cluster

INVALID = 'artifact_repository_config_loads_total{result="invalid"}'
GOOD = 'artifact_repository_config_loads_total{result="good"}'


def test_changed_references_are_rewritten(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, audit: Audit
) -> None:
    """Each object gets one write, with the new addresses; nothing else changes."""
    operator = start_operator()
    names = [f"web-{number}" for number in range(10)]
    for name in names:
        objects.create(name)
    before = {name: objects.wait_ready(name, tell=operator.log)["status"] for name in names}
    mark = audit.mark()
    config = operator_config(cluster.registry_url)
    config["registries"]["artifacts"]["references"] = {"host": "localhost:5001", "clusterNetwork": "registry:5000"}
    operator.configure(config)
    for name in names:
        path = before[name]["uri"].partition("/")[2]
        uri = f"localhost:5001/{path}"
        after = objects.wait(name, functools.partial(_has_uri, uri), tell=operator.log)
        assert after["status"]["references"] == {
            "host": uri,
            "containerRuntime": uri,
            "clusterNetwork": f"registry:5000/{path}",
        }
        assert condition(after, "Ready")["lastTransitionTime"] == before[name]["conditions"][0]["lastTransitionTime"]
    assert len(audit.writes(mark)) == len(names)


def test_a_mistake_costs_nothing(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, audit: Audit
) -> None:
    """The last valid configuration stays in use, and log, metric and event say what is wrong."""
    operator = start_operator()
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    mark = audit.mark()
    operator.config.write_text("defaultRegistry: artifacts\nregistries: {artifacts: {registryUrl: 'ftp://r'}}")
    eventually(lambda: operator.metrics().get(INVALID) == 1, tell=operator.log)
    assert "registries.artifacts.registryUrl: scheme 'ftp' is not supported" in operator.log()
    operator.config.unlink()
    eventually(lambda: operator.metrics().get(INVALID) == 2, tell=operator.log)
    objects.create("later")
    objects.wait_ready("later", tell=operator.log)
    assert [write for write in audit.writes(mark) if write.endswith("/web")] == []
    operator.configure(operator_config(cluster.registry_url, timings={"probeInterval": "1s"}))
    eventually(lambda: operator.metrics().get(GOOD) == 1, tell=operator.log)


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("timings: {resyncInterval: 99999999999h}", "timings.resyncInterval: must be between 1s and 168h"),
        ("timings: {probeInterval: 1ms}", "timings.probeInterval: must be between 100ms and 1h"),
        ("defaultRegistry: artifacts", "duplicate key 'defaultRegistry' in line 3, first in 1"),
    ],
    ids=["overflow", "flood", "duplicate"],
)
def test_a_mistake_that_yaml_allows(
    mistake: str, said: str, cluster: DevCluster, objects: Objects, start_operator: StartOperator
) -> None:
    """The same process keeps its configuration, and says what is wrong with the new one."""
    operator = start_operator()
    registries = f"registries: {{artifacts: {{registryUrl: '{cluster.registry_url}'}}}}"
    operator.config.write_text(f"defaultRegistry: artifacts\n{registries}\n{mistake}\n")
    eventually(lambda: operator.metrics().get(INVALID) == 1, tell=operator.log)
    assert said in operator.log()
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)


def test_a_ca_bundle_that_is_not_there_yet(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, tmp_path: Path
) -> None:
    """A file that the configuration names belongs to it: told once, and taken over when it is there."""
    operator = start_operator()
    config = operator_config(cluster.registry_url)
    bundle = tmp_path / "ca.crt"
    config["registries"]["secure"] = {"registryUrl": "https://127.0.0.1:1", "tls": {"caFile": str(bundle)}}
    operator.configure(config)
    eventually(lambda: operator.metrics().get(INVALID) == 1, tell=operator.log)
    assert str(bundle) in operator.log()
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    bundle.write_bytes(cluster.ca_file.read_bytes())
    eventually(lambda: operator.metrics().get(GOOD) == 1, tell=operator.log)
    assert operator.metrics().get(INVALID) == 1


def test_another_registry_needs_no_restart(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator
) -> None:
    """An object that named it too early goes on by itself."""
    operator = start_operator()
    objects.create("early", {"registry": "later"})
    objects.wait("early", lambda o: ready(o) == ("False", "UnknownRegistry"), tell=operator.log)
    config = operator_config(cluster.registry_url)
    config["registries"]["later"] = {"registryUrl": cluster.registry_url}
    operator.configure(config)
    objects.wait("early", is_ready, tell=operator.log)


def _has_uri(uri: str, object_: Object) -> bool:
    return bool(object_["status"]["uri"] == uri)
