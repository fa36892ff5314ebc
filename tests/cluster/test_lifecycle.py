"""The main job, from kubectl apply to status, and what it costs.

what happens                     | what is expected
apply                            | Ready, with a uri; one PATCH, at most four registry requests; no event
apply again, label, annotation   | nothing is written
a spec change                    | the new generation is observed
requestedAt                      | verified now, and echoed
suspend                          | no registry request; Ready stays
delete                           | gone at once, also without an operator; the repository stays
restart                          | not one write
somebody's latest, other tags    | adopted, byte-identical
"""

import json

import httpx
import pytest

from controller.registry import marker
from devcluster.cluster import DevCluster
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import AccessLog, Api, Audit, Objects, OperatorProcess, condition, is_ready, ready

pytestmark = pytest.mark.cluster

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def put_image(registry_url: str, path: str, tag: str) -> bytes:
    """Push a small image as a user would; return its manifest's bytes."""
    config = json.dumps({"made by": "a user", "tag": tag}).encode()
    digest = marker.sha256_digest(config)
    with httpx.Client(base_url=registry_url, trust_env=False) as client:
        upload = client.post(f"/v2/{path}/blobs/uploads/")
        location = upload.headers["location"]
        client.put(f"{location}&digest={digest}", content=config).raise_for_status()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": digest,
                    "size": len(config),
                },
                "layers": [],
            },
            indent=3,
        ).encode()
        headers = {"Content-Type": OCI_MANIFEST}
        client.put(f"/v2/{path}/manifests/{tag}", content=manifest, headers=headers).raise_for_status()
    return manifest


def fetch(registry_url: str, path: str, what: str) -> httpx.Response:
    """Ask the registry with another client than ours."""
    return httpx.get(f"{registry_url}/v2/{path}/{what}", headers={"Accept": OCI_MANIFEST}, trust_env=False)


def test_apply_gives_a_repository(
    cluster: DevCluster, objects: Objects, operator: OperatorProcess, namespace: str
) -> None:
    """``kubectl apply`` of the smallest object: Ready within seconds, its uri in status, the marker in the registry."""
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(objects.manifest("web")))
    host = cluster.registry_url.removeprefix("http://")
    status = objects.wait_ready("web", tell=operator.log)["status"]
    assert status["uri"] == f"{host}/artifacts/{namespace}/web"
    assert status["references"] == dict.fromkeys(("host", "containerRuntime"), status["uri"])
    assert (status["registry"], status["repositoryName"]) == ("artifacts", f"{namespace}/web")
    assert status["origin"] == "Created"
    fetched = fetch(cluster.registry_url, f"artifacts/{namespace}/web", "manifests/latest")
    assert fetched.content == marker.MANIFEST
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=5s", "-n", namespace, "artrepo/web")


def test_a_create_costs_one_patch_and_no_event(
    objects: Objects,
    start_operator: StartOperator,
    audit: Audit,
    access_log: AccessLog,
    api: Api,
    namespace: str,
) -> None:
    """On the wire: one PATCH of status a create, and once warm no more than three requests to the registry."""
    operator = start_operator()
    objects.create("first")
    objects.wait_ready("first", tell=operator.log)
    mark, seen = audit.mark(), access_log.mark()
    for number in range(10):
        objects.create(f"repo-{number}")
        objects.wait_ready(f"repo-{number}", tell=operator.log)
    expected = [f"patch artifactrepositories/status {namespace}/repo-{number}" for number in range(10)]
    eventually(lambda: audit.writes(mark) == expected, tell=lambda: str(audit.writes(mark)))
    for number in range(10):
        path = f"/v2/artifacts/{namespace}/repo-{number}/"
        methods = [entry.split()[0] for entry in access_log.since(seen, path=path)]
        assert methods == ["GET", "POST", "PUT"]
    assert api.must("GET", f"/api/v1/namespaces/{namespace}/events")["items"] == []


def test_what_is_no_change_of_spec_costs_nothing(
    cluster: DevCluster, objects: Objects, operator: OperatorProcess, audit: Audit
) -> None:
    """Applying again, a label and an annotation of somebody else: not one write of ours."""
    manifest = objects.manifest("web")
    before = audit.mark()
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    objects.wait_ready("web", tell=operator.log)
    eventually(lambda: audit.writes(before))  # a request is logged a moment after what it does can be seen
    mark = audit.mark()
    assert "unchanged" in cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    objects.patch("web", {"metadata": {"labels": {"team": "a"}, "annotations": {"example.com/note": "x"}}})
    objects.create("other")
    objects.wait_ready("other", tell=operator.log)
    assert [write for write in audit.writes(mark) if write.endswith("/web")] == []


def test_nothing_but_status_is_touched(objects: Objects, operator: OperatorProcess) -> None:
    """No finalizer, no annotation, no label: what GitOps compares is what the user wrote."""
    written = objects.create("web")
    seen = objects.wait_ready("web", tell=operator.log)
    assert seen["spec"] == written["spec"]
    changing = ("resourceVersion", "managedFields")
    assert {k: v for k, v in seen["metadata"].items() if k not in changing} == {
        k: v for k, v in written["metadata"].items() if k not in changing
    }


def test_a_spec_change_is_observed(objects: Objects, start_operator: StartOperator, cluster: DevCluster) -> None:
    """An object that is moved to another registry gets its repository there, and keeps the old one."""
    both = {
        "artifacts": {"registryUrl": cluster.registry_url},
        "other": {"registryUrl": cluster.registry_url, "pathPrefix": "elsewhere"},
    }
    operator = start_operator({"defaultRegistry": "artifacts", "registries": both})
    objects.create("web")
    old = objects.wait_ready("web", tell=operator.log)["status"]
    objects.patch("web", {"spec": {"registry": "other"}})
    new = objects.wait("web", lambda o: is_ready(o) and o["status"]["registry"] == "other", tell=operator.log)["status"]
    assert new["observedGeneration"] == old["observedGeneration"] + 1
    for status in (old, new):
        path = status["uri"].partition("/")[2]
        assert fetch(cluster.registry_url, path, "manifests/latest").status_code == 200
    assert new["uri"] != old["uri"]


def test_requested_at_has_the_object_verified_now(
    objects: Objects, operator: OperatorProcess, access_log: AccessLog, namespace: str
) -> None:
    """The annotation is acted on and echoed; the repository is asked for."""
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    seen = access_log.mark()
    objects.patch("web", {"metadata": {"annotations": {"artifacts.alien.dev/requestedAt": "2026-01-01T00:00:00Z"}}})
    objects.wait(
        "web", lambda o: o["status"].get("lastHandledReconcileAt") == "2026-01-01T00:00:00Z", tell=operator.log
    )
    assert access_log.since(seen) == [f"HEAD /v2/artifacts/{namespace}/web/manifests/latest 200"]


def test_suspend(objects: Objects, operator: OperatorProcess, access_log: AccessLog) -> None:
    """A suspended object is not asked for; resumed, it is made."""
    seen = access_log.mark()
    objects.create("web", {"suspend": True})
    objects.wait("web", lambda o: ready(o) == ("False", "Suspended"), tell=operator.log)
    assert access_log.since(seen) == []
    objects.patch("web", {"spec": {"suspend": False}})
    objects.wait_ready("web", tell=operator.log)
    objects.patch("web", {"spec": {"suspend": True}})
    suspended = objects.wait("web", lambda o: o["status"]["observedGeneration"] == 3, tell=operator.log)
    assert ready(suspended) == ("True", "RepositoryReady")
    assert "spec.suspend" in condition(suspended, "Ready")["message"]


@pytest.mark.parametrize("operator_runs", [True, False])
def test_delete_needs_no_operator_and_leaves_the_repository(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, namespace: str, operator_runs: bool
) -> None:
    """The object goes at once, whether or not an operator is there; the repository stays as it was."""
    operator = start_operator()
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    if not operator_runs:
        operator.process.stop()
    objects.delete("web")
    assert not objects.exists("web")
    fetched = fetch(cluster.registry_url, f"artifacts/{namespace}/web", "manifests/latest")
    assert fetched.content == marker.MANIFEST


def test_a_restart_costs_not_one_write(
    objects: Objects, start_operator: StartOperator, audit: Audit, access_log: AccessLog, namespace: str
) -> None:
    """After a restart each object is verified by one request, and nothing is written; new ones are served."""
    names = [f"repo-{number}" for number in range(20)]
    first = start_operator()
    for name in names:
        objects.create(name)
    versions = {name: objects.wait_ready(name, tell=first.log)["metadata"]["resourceVersion"] for name in names}
    first.process.stop()
    mark, seen = audit.mark(), access_log.mark()
    second = start_operator()
    expected = sorted(f"HEAD /v2/artifacts/{namespace}/{name}/manifests/latest 200" for name in names)
    eventually(lambda: sorted(access_log.since(seen)) == expected, tell=second.log)
    assert audit.writes(mark) == []
    assert {name: objects.get(name)["metadata"]["resourceVersion"] for name in names} == versions
    objects.create("new")
    objects.wait_ready("new", tell=second.log)


@pytest.mark.parametrize("tag", ["latest", "v1"])
def test_what_a_user_pushed_is_adopted_untouched(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, namespace: str, tag: str
) -> None:
    """A user's latest, and a repository with other tags only, are byte-identical afterwards; nothing is added."""
    path = f"artifacts/{namespace}/web"
    pushed = put_image(cluster.registry_url, path, tag)
    tags = fetch(cluster.registry_url, path, "tags/list").json()
    operator = start_operator()
    objects.create("web")
    status = objects.wait_ready("web", tell=operator.log)["status"]
    assert status["origin"] == "Adopted"
    assert fetch(cluster.registry_url, path, f"manifests/{tag}").content == pushed
    assert fetch(cluster.registry_url, path, "tags/list").json() == tags == {"name": path, "tags": [tag]}


def test_a_push_after_the_create_stays(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, namespace: str
) -> None:
    """A user replaces the marker's latest: the operator that verifies it later leaves it, and origin stays Created."""
    path = f"artifacts/{namespace}/web"
    operator = start_operator()
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    pushed = put_image(cluster.registry_url, path, "latest")
    objects.patch("web", {"metadata": {"annotations": {"artifacts.alien.dev/requestedAt": "now"}}})
    seen = objects.wait("web", lambda o: o["status"].get("lastHandledReconcileAt") == "now", tell=operator.log)
    assert seen["status"]["origin"] == "Created"
    assert fetch(cluster.registry_url, path, "manifests/latest").content == pushed


def test_objects_may_share_a_repository(objects: Objects, operator: OperatorProcess) -> None:
    """Several objects that name one repository are all Ready, with one uri; created at once, nobody fails."""
    names = [f"user-{number}" for number in range(16)]
    for name in names:
        objects.create(name, {"repositoryName": f"{objects.namespace}/shared"})
    uris = {objects.wait_ready(name, tell=operator.log)["status"]["uri"] for name in names}
    assert len(uris) == 1
