"""Who gets the Lease, and when, on the real API server and with the chart's permissions.

what happens to the Pod that holds it                | when the next one leads
`helm uninstall`, which takes its permissions first  | at once, once the Pod is gone
its process is killed, and the Pod exists            | not yet
the Pod is deleted then                              | within a retry period
its process hangs, is killed and started again       | at once
"""

import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from devcluster.cluster import DevCluster
from devcluster.manifests import CHART
from tests.charts.pod import OperatorPod
from tests.charts.rendering import FULL_NAME, NAMESPACE, RELEASE, Document, helm, only, render
from tests.cluster.eventually import eventually
from tests.cluster.harness import Api, Audit

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("uninstalled")]

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{FULL_NAME}"
RETRY_PERIOD = 2.0


def install(cluster: DevCluster) -> list[Document]:
    """Install the chart; return what it renders."""
    values = ("--set", f"config.registries.artifacts.registryUrl={cluster.registry_url}")
    helm("install", RELEASE, CHART, "--namespace", NAMESPACE, *values, kubeconfig=cluster.kubeconfig)
    cluster.wait_established()
    return render(*values)


@pytest.fixture
def documents(cluster: DevCluster, api: Api) -> Sequence[Document]:
    """Install the chart where nobody held its Lease; return what it renders."""
    api.request("DELETE", LEASE)
    return install(cluster)


def holder(api: Api) -> str:
    """Return who holds the Lease."""
    return str(api.must("GET", LEASE)["spec"]["holderIdentity"])


def leads(operator: OperatorPod, api: Api) -> bool:
    """Tell whether a Pod holds the Lease."""
    metadata = operator.pod["metadata"]
    return holder(api).startswith(f"{NAMESPACE}/{metadata['name']}/{metadata['uid']}/")


def waited(operator: OperatorPod) -> float:
    """Return how long an operator that leads waited for the Lease when it was started last, by its own log."""
    entries = [json.loads(line) for line in operator.log().splitlines() if line.startswith("{")]
    times = {
        beginning: datetime.fromisoformat(entry["time"])
        for entry in entries
        for beginning in ("Waiting for the Lease", "Leading as")
        if entry["message"].startswith(beginning)
    }
    return (times["Leading as"] - times["Waiting for the Lease"]).total_seconds()


def test_installed_again_after_an_uninstall(
    cluster: DevCluster, api: Api, documents: Sequence[Document], tmp_path: Path
) -> None:
    """The old Pod could not release the Lease; the new one asks for that Pod, and does not wait for the Lease."""
    with OperatorPod(documents, cluster, tmp_path / "old") as old:
        eventually(lambda: leads(old, api), tell=old.log)
        first = holder(api)
        helm("uninstall", RELEASE, "--namespace", NAMESPACE, kubeconfig=cluster.kubeconfig)
    assert "Failed to release the Lease" in old.process.log.read_text()
    assert holder(api) == first
    with OperatorPod(install(cluster), cluster, tmp_path / "new") as new:
        eventually(lambda: leads(new, api), tell=new.log)
        assert waited(new) < RETRY_PERIOD


def test_a_pod_that_exists_is_waited_for(
    cluster: DevCluster, api: Api, audit: Audit, documents: Sequence[Document], tmp_path: Path
) -> None:
    """Its process was killed, which the API server cannot tell; when the Pod is deleted, it can."""
    user = f"system:serviceaccount:{NAMESPACE}:{FULL_NAME}"
    mark = audit.mark()
    with OperatorPod(documents, cluster, tmp_path / "old") as old:
        eventually(lambda: leads(old, api), tell=old.log)
        old.process.kill()
        next_one = OperatorPod(documents, cluster, tmp_path / "next")
        next_one.process.start()

        def questions() -> int:
            path = f"/api/v1/namespaces/{NAMESPACE}/pods/{old.pod['metadata']['name']}"
            return [event["requestURI"] for event in audit.since(mark, user=user)].count(path)

        try:
            eventually(lambda: questions() >= 3, tell=next_one.log)
            assert leads(old, api)
            old.delete()
            deleted = time.monotonic()
            eventually(lambda: leads(next_one, api), tell=next_one.log)
            assert time.monotonic() - deleted < 1.5 * RETRY_PERIOD
            assert "has ended" in next_one.log()
        finally:
            next_one.__exit__()


def test_a_process_that_hangs_is_replaced_in_its_pod(
    cluster: DevCluster, api: Api, documents: Sequence[Document], tmp_path: Path
) -> None:
    """Its liveness probe fails; after the kill, the next process of the Pod takes the Lease of the one before."""
    (container,) = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    probe = container["livenessProbe"]
    with OperatorPod(documents, cluster, tmp_path / "pod") as operator:
        eventually(lambda: leads(operator, api), tell=operator.log)
        first = holder(api)
        url = f"http://{operator.address}{probe['httpGet']['path']}"
        assert httpx.get(url, timeout=probe["timeoutSeconds"], trust_env=False).status_code == 200
        operator.process.suspend()
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(url, timeout=probe["timeoutSeconds"], trust_env=False)
        operator.process.kill()
        operator.process.start()
        eventually(lambda: holder(api) != first, tell=operator.log)
        assert leads(operator, api)
        eventually(lambda: operator.log().count("Leading as") == 2, tell=operator.log)
        assert waited(operator) < RETRY_PERIOD
