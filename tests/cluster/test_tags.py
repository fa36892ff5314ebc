"""``status.tags`` and the condition Populated on the real API server: waiting for the first push."""

import pytest

from devcluster.cluster import DevCluster
from tests.cluster.conftest import StartOperator
from tests.cluster.harness import Audit, Objects, condition, operator_config
from tests.cluster.test_lifecycle import put_image

pytestmark = pytest.mark.cluster


def test_waiting_for_the_first_push(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, audit: Audit
) -> None:
    """Populated is False with the marker alone; a push makes it True, and ``kubectl wait`` returns."""
    config = operator_config(cluster.registry_url, timings={"resyncInterval": "1s"})
    config["registries"]["artifacts"]["reportTags"] = 2
    mark = audit.mark()
    operator = start_operator(config)
    objects.create("web")
    web = objects.wait_ready("web", tell=operator.log)
    assert web["status"]["tags"] == {"count": 0, "names": []}
    assert condition(web, "Populated")["reason"] == "NoImage"
    assert len(audit.writes(mark, but=("leases", "events"))) == 1
    path = web["status"]["uri"].partition("/")[2]
    for tag in ("v1.9", "v1.10", "latest"):
        put_image(cluster.registry_url, path, tag)
    cluster.kubectl("wait", "artrepo/web", "--for=condition=Populated", "--timeout=30s", "-n", objects.namespace)
    objects.wait("web", lambda o: o["status"]["tags"]["count"] == 3, tell=operator.log)
    assert objects.get("web")["status"]["tags"]["names"] == ["v1.10", "v1.9"]
    assert cluster.kubectl("get", "artrepo", "web", "-n", objects.namespace, "-o", "wide").split().count("3") == 1
    config["registries"]["artifacts"]["reportTags"] = 0
    operator.configure(config)
    gone = objects.wait("web", lambda o: "tags" not in o["status"], within=30, tell=operator.log)
    assert condition(gone, "Populated") == {}
