"""The operator as `helm install` brings it into a cluster.

what                        | how it is shown
it works                    | Available; a new object is Ready at once, by the watch and not by a resync
what it may do              | the namespace enforces `restricted`; the process's user, capabilities, file system
who it is                   | the token that the kubelet projects; a rotated one is taken up
probes                      | ready, and stays so while the registry is down
permissions                 | without them it is not ready
memory                      | the working set that the kubelet measures, against the chart's limit
`helm test`                 | runs as a Pod
`check --connect`           | runs in the operator's Pod, by the command in docs/operations.md
"""

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devcluster.manifests import CHART, NAMESPACE
from devcluster.node.node import Node
from tests.charts.rendering import FULL_NAME, RELEASE
from tests.cluster.eventually import eventually
from tests.cluster.harness import ROOT, Api, Audit, AuditMark, Objects
from tests.node.release import DEPLOYMENT, REGISTRY, RESTRICTED, Release
from tests.settings import FULL

_USER = f"system:serviceaccount:{NAMESPACE}:{FULL_NAME}"
# In the image /var/run leads to /run.
_TOKEN = "/run/secrets/kubernetes.io/serviceaccount/token"
# Three readiness probes in a row; in full, also three liveness probes.
_OUTAGE = 40.0 if FULL else 16.0


def test_new_object(release: Release, objects: Objects) -> None:
    """An object that is created while the operator runs becomes Ready at once, with the names of kind's registry."""
    objects.create("web")
    references = objects.wait_ready("web", within=10, tell=release.log)["status"]["references"]
    path = f"artifacts/{objects.namespace}/web"
    assert references == {
        "host": f"localhost:5001/{path}",
        "containerRuntime": f"localhost:5001/{path}",
        "clusterNetwork": f"kind-registry:5000/{path}",
    }


def test_helm_test(release: Release) -> None:
    """`helm test` runs its Pod, which reaches the operator by its Service."""
    told = release.node.helm("test", RELEASE, "--namespace", NAMESPACE, "--timeout=60s")
    assert "Phase:          Succeeded" in told


def test_registries_are_checked(release: Release) -> None:
    """The documented command finds in the operator's Pod that its registry can be used."""
    page = (ROOT / "docs" / "operations.md").read_text()
    (command,) = (line for line in page.replace("\\\n", " ").splitlines() if line.startswith("kubectl exec"))
    words = [word.replace("deploy/artifact-repository-controller", DEPLOYMENT) for word in command.split()[1:]]
    assert [line.strip() for line in release.node.kubectl(*words).splitlines()[1:]] == [
        f"artifacts: {REGISTRY.partition('=')[2]} (default)",
        *(f"{question}: ok" for question in ("connection", "registry API", "list tags", "push")),
    ]


def test_restricted_namespace(release: Release) -> None:
    """The namespace enforces `restricted`, and no Pod in it violates that."""
    assert NAMESPACE in release.node.kubectl("get", "namespaces", "-l", RESTRICTED, "-o", "name")
    label = ("label", "namespace", NAMESPACE, RESTRICTED, "--overwrite", "--dry-run=server")
    told = release.node.kubectl(*label, check=False)
    assert "Warning" not in told


def test_process(release: Release) -> None:
    """The process has a user without a name, no capability, a filter of system calls and a read-only file system."""
    process = f"/proc/{release.pid(release.pod())}"
    status = release.node.run("cat", f"{process}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["Uid"].split() == ["65532"] * 4
    assert fields["CapEff"] == fields["CapBnd"] == "0000000000000000"
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    (root,) = (line for line in release.node.run("cat", f"{process}/mountinfo").splitlines() if line.split()[4] == "/")
    assert root.split()[5].split(",")[0] == "ro"
    assert "65532" not in release.node.run("cat", f"{process}/root/etc/passwd")


def token(release: Release) -> dict[str, Any]:
    """Return the claims of the token that the kubelet has projected into the operator's Pod."""
    text = release.node.run("cat", f"/proc/{release.pid(release.pod())}/root{_TOKEN}")
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
    return claims


@pytest.fixture(scope="module", autouse=True)
def rotated(only_release: Release) -> tuple[str, str]:
    """Rotate the token before the other tests, which take the time until the new one is used; return both ids."""
    only_release.ensure()
    first = token(only_release)
    assert first["kubernetes.io"]["pod"]["name"] == only_release.pod()["metadata"]["name"]
    # The kubelet keeps tokens in memory only: started anew, it asks for another one.
    only_release.node.servers.kubelet.restart()

    def another() -> str | None:
        found: str = token(only_release)["jti"]
        return found if found != first["jti"] else None

    return first["jti"], eventually(another, within=30, what="another token")


def test_probes_during_an_outage(release: Release, objects: Objects) -> None:
    """While the registry is down the kubelet sees a ready and live operator; afterwards its objects become Ready."""
    before = release.pod()
    release.node.servers.registry.stop()
    try:
        objects.create("during-outage")
        objects.wait("during-outage", lambda seen: "RegistryUnavailable" in json.dumps(seen), tell=release.log)
        begun = time.monotonic()
        while time.monotonic() - begun < _OUTAGE:
            assert release.get("/readyz") == "ok\n"
            assert release.get("/healthz") == "ok\n"
    finally:
        release.node.servers.registry.restart()
    objects.wait_ready("during-outage", within=30, tell=release.log)
    after = release.pod()
    assert after["metadata"]["name"] == before["metadata"]["name"]
    assert (
        after["status"]["containerStatuses"][0]["restartCount"]
        == before["status"]["containerStatuses"][0]["restartCount"]
    )
    changed = [
        (one["type"], one["lastTransitionTime"]) for pod in (before, after) for one in pod["status"]["conditions"]
    ]
    assert changed[: len(changed) // 2] == changed[len(changed) // 2 :]


@pytest.fixture
def powerless(node: Node, only_release: Release) -> Iterator[str]:
    """Install another release, without permissions; return its namespace."""
    only_release.ensure()
    values = ("--set", REGISTRY, "--set", "rbac.create=false", "--set", "crds.enabled=false")
    node.helm("install", "powerless", CHART, "--namespace", "powerless", "--create-namespace", *values)
    yield "powerless"
    node.helm("uninstall", "powerless", "--namespace", "powerless")
    node.kubectl("delete", "namespace", "powerless", "--wait=false")


def test_without_permissions(node: Node, powerless: str) -> None:
    """An operator that may do nothing is not Ready, and `kubectl describe` shows why."""

    def described() -> str:
        return node.kubectl("describe", "pods", "-n", powerless)

    eventually(lambda: "Readiness probe failed: HTTP probe failed with statuscode: 503" in described(), within=40)
    deployment = f"deploy/powerless-{FULL_NAME.partition('-')[2]}"
    ready = node.kubectl("get", deployment, "-n", powerless, "-o", "jsonpath={.status.readyReplicas}")
    assert ready == ""
    assert "forbidden" in node.kubectl("logs", deployment, "-n", powerless)


def test_memory(release: Release, api: Api, objects: Objects, record_property: Callable[[str, object], None]) -> None:
    """With some hundred objects, the working set is far from the limit that the chart sets."""
    names = [f"object-{number}" for number in range(300)]
    objects.create_many(names)
    objects.wait_all(lambda seen: seen.get("status", {}).get("uri"), within=60, tell=release.log)
    pod = release.pod()
    limit = pod["spec"]["containers"][0]["resources"]["limits"]["memory"]
    assert limit.endswith("Mi")

    def measured() -> int | None:
        stats = api.must("GET", "/api/v1/nodes/node1/proxy/stats/summary")
        (found,) = (one for one in stats["pods"] if one["podRef"]["uid"] == pod["metadata"]["uid"])
        used: int | None = found.get("containers", [{}])[0].get("memory", {}).get("workingSetBytes")
        return used

    used = eventually(measured, within=40, what="the kubelet's measurement") / 2**20
    record_property("memory working set on the node with 300 objects (MiB)", round(used, 1))
    assert used < 0.6 * int(limit.removesuffix("Mi"))


def test_log_is_in_the_cluster(release: Release) -> None:
    """`kubectl logs` shows that it watches, and no warning of its own start."""
    log = release.node.kubectl("logs", "-n", NAMESPACE, DEPLOYMENT)
    assert "Watching ArtifactRepository objects" in log


def test_rotated_token(release: Release, objects: Objects, rotated: tuple[str, str]) -> None:
    """The operator's requests carry the token of its Pod, and at most a minute after a rotation only the new one."""
    audit = Audit(release.node.servers.audit_log)
    first, second = (f"JTI={one}" for one in rotated)

    def used(mark: AuditMark | None = None) -> str:
        return str([event["user"].get("extra") for event in audit.since(mark, user=_USER)])

    assert first in used()
    eventually(lambda: second in used(), within=90, tell=release.log, what="a request with the new token")
    mark = audit.mark()
    objects.create("after-rotation")
    objects.wait_ready("after-rotation", within=10, tell=release.log)
    eventually(lambda: second in used(mark))
    assert first not in used(mark)
