"""Hostile neighbours: others who may write to the same API server.

what they do                                        | what is expected
finalizers, labels, annotations on our objects      | no write; one that is being deleted is left alone
status edited again and again                       | no more writes than edits; the truth in the end
a name deleted and created again in a loop          | each object gets its own facts only; nothing is left of the others
repositories left behind by such a loop             | as many as the namespace may create; others are served
a spec flipped again and again                      | no more writes than flips; the last one holds
permissions taken away under load, and given back   | said; nobody is forgotten
the CRD deleted under load, and installed again     | the new objects are served, the old ones forgotten
a namespace deleted while objects are made in it    | forgotten, without an error; others are served
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from controller.api.v1alpha1 import API_VERSION
from controller.reconcile.overwrites import INTERVAL
from controller.registry import marker
from devcluster.cluster import DevCluster
from tests.cluster.campaign import LIMIT, Record, defects
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import (
    MANIFESTS,
    AccessLog,
    Api,
    Audit,
    AuditMark,
    History,
    Object,
    Objects,
    OperatorProcess,
    condition,
    is_ready,
    operator_config,
    ready,
)
from tests.cluster.test_faults_apiserver import outlived
from tests.cluster.test_lifecycle import fetch
from tests.settings import FULL

pytestmark = [pytest.mark.cluster, pytest.mark.campaign, pytest.mark.timeout(LIMIT)]

TIMES = 1000 if FULL else 50
ROUNDS = 10 if FULL else 1
TAKES = 120 if FULL else 60
"""Seconds for all to be well again, on a machine that has other things to do."""

RULES = "/apis/rbac.authorization.k8s.io/v1/clusterroles/artifact-repository-controller"
FORBIDDEN = 'artifact_repository_status_write_failures_total{code="403"}'
COUNTED = 'artifact_repository_objects{condition="Ready",status="True"}'
REQUESTED_AT = "artifacts.alien.dev/requestedAt"


def served(objects: Objects, name: str, operator: OperatorProcess) -> None:
    """Check that an honest object is served meanwhile."""
    objects.create(name)
    objects.wait_ready(name, tell=operator.log)


def status_writes(audit: Audit, mark: AuditMark, name: str) -> int:
    """Return how often the operator has written an object's status."""
    return sum(write.endswith(f"/{name}") and "/status" in write for write in audit.writes(mark))


def test_a_quota_of_objects_is_no_quota_of_repositories(
    api: Api, cluster: DevCluster, objects: Objects, start_operator: StartOperator
) -> None:
    """An author who creates and deletes objects leaves no more repositories than the rate limit allows."""
    other = Objects(api, f"{objects.namespace}-other")
    api.must("POST", "/api/v1/namespaces", {"metadata": {"name": other.namespace}})
    config = operator_config(cluster.registry_url)
    operator = start_operator({**config, "creations": {"perSecond": 0.1, "burst": 5}}, "--namespace", other.namespace)
    names = [f"loop-{number}" for number in range(30)]
    started = time.monotonic()
    for name in names:
        objects.create(name)
        objects.wait(name, lambda o: ready(o)[1] in ("RepositoryReady", "CreationRateLimited"), tell=operator.log)
        objects.delete(name)
    served(other, "web", operator)
    paths = [f"artifacts/{objects.namespace}/{name}" for name in names]
    made = [path for path in paths if fetch(cluster.registry_url, path, "tags/list").is_success]
    assert 5 <= len(made) <= 5 + (time.monotonic() - started) * 0.1
    objects.create("late")
    late = objects.wait("late", lambda o: ready(o) == ("False", "CreationRateLimited"), tell=operator.log)
    assert condition(late, "Reconciling")["status"] == "True"
    operator.configure(config)
    objects.wait_ready("late", tell=operator.log)


def test_finalizers_labels_and_annotations_of_others(
    objects: Objects, operator: OperatorProcess, audit: Audit, access_log: AccessLog
) -> None:
    """They cost no write; what their finalizer keeps is not asked about any more, and goes when they let it."""
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    mark, asked = audit.mark(), access_log.mark()
    others = {"labels": {"team": "x"}, "annotations": {"note": "\x1b[31m\nforged"}, "finalizers": ["example.com/keep"]}
    for field, value in others.items():
        objects.patch("web", {"metadata": {field: value}})
    objects.delete("web")
    objects.patch("web", {"metadata": {"annotations": {REQUESTED_AT: "now"}}})
    objects.patch("web", {"status": {"uri": "evil:1/x", "observedGeneration": 0}}, subresource="/status")
    served(objects, "other", operator)
    assert status_writes(audit, mark, "web") == 0
    assert [request for request in access_log.since(asked) if f"{objects.namespace}/web/" in request] == []
    assert "forged" not in operator.process.log.read_text()
    objects.patch("web", {"metadata": {"finalizers": None}})
    eventually(lambda: not objects.exists("web"))
    eventually(lambda: operator.metrics()[COUNTED] == 1)


def test_a_status_that_is_edited_again_and_again(
    objects: Objects, start_operator: StartOperator, audit: Audit, record_property: Record
) -> None:
    """Somebody forges it as fast as they can: no more writes than edits, others are served, the truth in the end."""
    operator = start_operator(timings={"resyncInterval": "2s"})
    objects.create("web")
    truth = objects.wait_ready("web", tell=operator.log)["status"]
    mark = audit.mark()
    forged = {
        "type": "Ready",
        "status": "False",
        "reason": "X",
        "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    for number in range(TIMES):
        edits = (
            {"observedGeneration": -number, "uri": f"evil:{number}/x"},
            {"conditions": [{**forged, "message": "\x1b" * 1000}], "lastHandledReconcileAt": "\n"},
            {"conditions": [{**forged, "type": "Stalled"}, {**forged, "type": "Reconciling"}], "references": None},
            {"registry": "\x1b[31m", "repositoryName": "../../evil", "origin": "Adopted"},
        )
        objects.patch("web", {"status": edits[number % len(edits)]}, subresource="/status")
    served(objects, "other", operator)

    def is_true_again() -> bool:
        status = objects.get("web")["status"]
        # The first origin stays, and so does an echo without a request: nothing tells a forged one from a true one.
        left_alone = {"conditions": 0, "origin": 0, "lastHandledReconcileAt": 0}
        return {**status, **left_alone} == {**truth, **left_alone} and len(status["conditions"]) == 1

    # Repeated edits are answered once in an interval: the last ones may have to wait for the next answer.
    eventually(is_true_again, within=INTERVAL + 20, tell=operator.log)
    writes = status_writes(audit, mark, "web")
    assert writes <= TIMES
    record_property("neighbour: edits of a status", TIMES)
    record_property("neighbour: … answered by writes", writes)


def test_a_name_that_is_deleted_and_created_again(
    objects: Objects, operator: OperatorProcess, audit: Audit, record_property: Record
) -> None:
    """Each incarnation means another repository; none ever gets the facts of another one, and nothing is left over."""
    mark = audit.mark()
    with History(objects) as history:
        for number in range(TIMES):
            objects.create("web", {"repositoryName": f"{objects.namespace}/life-{number}"})
            if number % 10 == 0:
                objects.wait_ready("web", tell=operator.log)
            objects.delete("web")
        last = objects.create("web", {"repositoryName": f"{objects.namespace}/last"})["metadata"]["uid"]
        seen = objects.wait_ready("web", tell=operator.log)
    assert seen["metadata"]["uid"] == last
    lies = [
        (one["spec"], one["status"])
        for _, one in history.seen
        if one["status"].get("repositoryName") not in (None, one["spec"]["repositoryName"])
    ]
    assert lies == []
    writes = status_writes(audit, mark, "web")
    assert writes <= TIMES + 1
    eventually(lambda: operator.metrics()[COUNTED] == 1)
    assert "Failed to write the status" not in operator.process.log.read_text()
    record_property("neighbour: lives of one name", TIMES + 1)
    record_property("neighbour: … served before the next one", writes)


def test_a_spec_that_is_flipped_again_and_again(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, audit: Audit, record_property: Record
) -> None:
    """Registry, suspension, registry: no more writes than flips, others are served, and the last flip holds."""
    binding = {"registryUrl": cluster.registry_url}
    operator = start_operator({"defaultRegistry": "one", "registries": {"one": binding, "two": binding}})
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    mark = audit.mark()
    for number in range(TIMES):
        flip = ({"registry": "two"}, {"suspend": True}, {"registry": "one", "suspend": None}, {"registry": "gone"})
        objects.patch("web", {"spec": flip[number % len(flip)]})
    objects.patch("web", {"spec": {"registry": "two", "suspend": None}})
    served(objects, "other", operator)
    path = f"two/{objects.namespace}/web"
    seen = objects.wait_ready("web", tell=operator.log)
    assert seen["status"]["uri"].endswith(f"/{path}")
    assert fetch(cluster.registry_url, path, "manifests/latest").content == marker.MANIFEST
    writes = status_writes(audit, mark, "web")
    assert writes <= TIMES + 1
    record_property("neighbour: flips of a spec", TIMES + 1)
    record_property("neighbour: … answered by writes", writes)


@contextmanager
def creating(objects: Objects, prefix: str) -> Iterator[list[str]]:
    """Create objects as fast as one client can in the ``with`` block; yield the names of those that were taken."""
    over, made = threading.Event(), list[str]()

    def create() -> None:
        number = 0
        while not over.wait(0.005):
            with suppress(ValueError):  # where there is no CRD, the API server answers without JSON
                answer = objects.try_create(f"{prefix}-{number}", {})
                made.extend([answer["metadata"]["name"]] if answer["kind"] != "Status" else [])
            number += 1

    thread = threading.Thread(target=create, name="creator", daemon=True)
    thread.start()
    try:
        yield made
    finally:
        over.set()
        thread.join(60)


@pytest.fixture
def theirs(fragile: DevCluster) -> Iterator[Objects]:
    """Return the objects of a namespace of the fragile cluster."""
    api = Api(fragile)
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    yield Objects(api, "team")
    api.close()


def test_permissions_that_are_taken_away_and_given_back(
    fragile: DevCluster, stubborn: OperatorProcess, theirs: Objects, record_property: Record
) -> None:
    """First that to write status, then all of them, while objects are created: nobody is forgotten."""
    role = theirs.api.must("GET", RULES)
    reading: list[Object] = [rule for rule in role["rules"] if rule["verbs"] != ["patch"]]
    nothing: list[Object] = []
    taken = 0
    for number in range(ROUNDS):
        for left in (reading, nothing):
            forbidden = stubborn.metrics().get(FORBIDDEN, 0)
            with creating(theirs, f"rbac-{number}-{len(left)}") as made:
                eventually(lambda made=made: len(made) > 10)  # type: ignore[misc]
                theirs.api.must("PATCH", RULES, {"rules": left}, content_type="application/merge-patch+json")
                try:
                    eventually(lambda seen=forbidden: stubborn.metrics().get(FORBIDDEN, 0) > seen, within=30)  # type: ignore[misc]
                finally:
                    theirs.api.must(
                        "PATCH", RULES, {"rules": role["rules"]}, content_type="application/merge-patch+json"
                    )
                taken += 1
            theirs.wait_all(is_ready, within=TAKES, tell=stubborn.log)
    eventually(lambda: stubborn.health("readyz") == (200, "ok"), within=TAKES, tell=stubborn.log)
    outlived(fragile, stubborn, "after-rbac")
    record_property("neighbour: permissions taken away", taken)
    record_property("neighbour: … objects created meanwhile", len(theirs.list()))


def test_a_crd_that_is_deleted_under_load(
    fragile: DevCluster, stubborn: OperatorProcess, theirs: Objects, record_property: Record
) -> None:
    """All objects go with it, again and again, while people create new ones; those that come after are served."""
    pid = stubborn.process.pid
    for number in range(ROUNDS):
        with creating(theirs, f"crd-{number}"):
            fragile.kubectl("delete", "-f", MANIFESTS / "crd.yaml", "--wait=true")
            fragile.kubectl("apply", "-f", MANIFESTS / "crd.yaml")
            fragile.wait_established()
        outlived(fragile, stubborn, f"after-crd-{number}")
        theirs.wait_all(is_ready, within=TAKES, tell=stubborn.log)
    everywhere = len(theirs.list()) + 1
    eventually(lambda: stubborn.metrics()[COUNTED] == everywhere, within=TAKES, tell=stubborn.log)
    assert stubborn.process.pid == pid
    assert defects(stubborn.process.log.read_text()) == []
    record_property("neighbour: deletions of the CRD under load", ROUNDS)


def test_a_namespace_that_is_deleted_while_objects_are_made_in_it(
    fragile: DevCluster, stubborn: OperatorProcess, record_property: Record
) -> None:
    """It goes, whatever we are doing in it; its objects are forgotten without a warning, and others are served."""
    api = Api(fragile)
    honest = Objects(api, "default")
    try:
        everywhere = api.must("GET", f"/apis/{API_VERSION}/artifactrepositories")["items"]
        eventually(lambda: stubborn.metrics()[COUNTED] == len(everywhere), tell=stubborn.log)
        for number in range(ROUNDS):
            doomed = Objects(api, f"doomed-{number}")
            api.must("POST", "/api/v1/namespaces", {"metadata": {"name": doomed.namespace}})
            with creating(doomed, "web") as made:
                eventually(lambda made=made: len(made) > 30)  # type: ignore[misc]
                api.must("DELETE", f"/api/v1/namespaces/{doomed.namespace}")
                served(honest, f"meanwhile-{number}", stubborn)
                gone = f"/api/v1/namespaces/{doomed.namespace}"
                eventually(lambda gone=gone: api.request("GET", gone).get("code") == 404, within=TAKES)  # type: ignore[misc]
        eventually(lambda: stubborn.metrics()[COUNTED] == len(everywhere) + ROUNDS, within=TAKES, tell=stubborn.log)
    finally:
        api.close()
    log = stubborn.process.log.read_text()
    assert defects(log) == []
    told = [line for line in log.splitlines() if "doomed" in line and " INFO " not in line]
    assert not told, json.dumps(told[:3])
    record_property("neighbour: namespaces deleted under load", ROUNDS)
