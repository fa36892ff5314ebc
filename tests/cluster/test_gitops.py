"""A life of objects as GitOps tools see it: kstatus (Flux, Helm) and Argo CD by their own code, and ``kubectl wait``.

The life is lived once, on the real API server; then each stage of it is held against the table below.
"""

import json
import re
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from controller.api.v1alpha1 import API_VERSION, KIND
from devcluster.cluster import DevCluster
from hack import states
from hack.argocd import CUSTOMIZATIONS
from tests.cluster import judges
from tests.cluster.eventually import eventually
from tests.cluster.harness import (
    Api,
    History,
    Object,
    Objects,
    OperatorProcess,
    condition,
    is_ready,
    operator_kubeconfig,
    row,
)
from tests.cluster.pages import GITOPS
from tests.cluster.proxy import FaultProxy

pytestmark = pytest.mark.cluster

TABLE = """
stage                       | Ready, and what is beside it                | kstatus     | Argo CD     | kubectl wait
created                     | None None                                   | InProgress  | Progressing | waits
ready                       | True RepositoryReady                        | Current     | Healthy     | goes on
down for a moment           | True RepositoryReady                        | Current     | Healthy     | goes on
down, never ready           | False RegistryUnavailable Reconciling       | InProgress  | Progressing | waits
down, was ready             | Unknown RegistryUnavailable Reconciling     | InProgress  | Progressing | waits
suspended while down        | Unknown RegistryUnavailable                 | InProgress  | Suspended   | waits
too long down, never ready  | False RegistryUnavailable Stalled           | Failed      | Degraded    | waits
too long down, was ready    | Unknown RegistryUnavailable Stalled         | Failed      | Degraded    | waits
recovered                   | True RepositoryReady                        | Current     | Healthy     | goes on
resumed                     | True RepositoryReady                        | Current     | Healthy     | goes on
unknown registry            | False UnknownRegistry Reconciling           | InProgress  | Progressing | waits
against the policy          | False PolicyViolation Stalled               | Failed      | Degraded    | waits
name too long               | False InvalidName Stalled                   | Failed      | Degraded    | waits
suspended from the start    | False Suspended                             | InProgress  | Suspended   | waits
suspended while ready       | True RepositoryReady                        | Current     | Healthy     | goes on
suspended, moved            | Unknown Suspended                           | InProgress  | Suspended   | waits
changed, not seen yet       | True RepositoryReady                        | InProgress  | Progressing | waits
suspended, not seen yet     | True RepositoryReady                        | InProgress  | Progressing | waits
being deleted               | True RepositoryReady                        | Terminating | Progressing | waits
"""


UNSEEN = frozenset({"created", "changed, not seen yet", "suspended, not seen yet", "being deleted"})
"""Where the operator has not seen the newest generation; a deletion counts as one."""

TOO_LONG = "n" * 250
"""An object's name of which no repository's name can be made."""


@dataclass(frozen=True)
class Expected:
    """A line of the table."""

    row: str
    kstatus: str
    argo: str
    wait: str


@dataclass(frozen=True)
class Stage:
    """An object at a stage of its life, as the API server has it, and what ``kubectl wait`` does then."""

    object: Object
    wait: str


EXPECTED = {
    stage: Expected(*verdicts)
    for stage, *verdicts in (re.split(r" *\| ", line) for line in TABLE.strip().splitlines()[1:])
}


class Life:
    """What the objects of a namespace went through.

    Args:
        cluster: The API server.
        objects: The objects.
    """

    def __init__(self, cluster: DevCluster, objects: Objects) -> None:
        self._cluster = cluster
        self._objects = objects
        self.stages: dict[str, Stage] = {}
        self.versions: list[Object] = []
        """All that was to be seen, also between the stages."""

    def take(self, stage: str, name: str, *, tell: Callable[[], str] = str) -> None:
        """Wait until an object is in the row of a stage, and keep it.

        Args:
            stage: The stage.
            name: The object.
            tell: Returns the end of the operator's log.
        """

        def look() -> Stage | None:
            before = self._objects.get(name)
            observed = before["status"]["observedGeneration"] == before["metadata"]["generation"]
            if row(before) != EXPECTED[stage].row or observed is (stage in UNSEEN):
                return None
            # With 0 it looks once.
            wait = ("wait", f"artrepo/{name}", "--for=condition=Ready", "--timeout=0", "-n", self._objects.namespace)
            answer = self._cluster.kubectl(*wait, check=False)
            after = self._objects.get(name)
            moved = after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
            return None if moved else Stage(after, "goes on" if "condition met" in answer else "waits")

        def show() -> str:
            return f"{json.dumps(self._objects.get(name).get('status'), indent=2)}\n{tell()}"

        self.stages[stage] = eventually(look, within=25, tell=show, what=stage)


@pytest.fixture(scope="module")
def life(cluster: DevCluster, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Live a life: created, Ready, the registry gone and back, a person's mistakes, suspended, changed, deleted."""
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    api.must("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    objects = Objects(api, namespace)
    life = Life(cluster, objects)
    with ExitStack() as stack:
        registry = stack.enter_context(FaultProxy(cluster.registry_url))
        operator = OperatorProcess(
            tmp_path_factory.mktemp("operator"),
            config={
                "defaultRegistry": "artifacts",
                "registries": {
                    "artifacts": {"registryUrl": registry.url},
                    "other": {"registryUrl": cluster.registry_url},
                    "strict": {"registryUrl": cluster.registry_url, "repositoryPolicy": "Namespaced"},
                },
                "timings": {"unavailableAfter": "5s", "progressDeadline": "7s", "probeInterval": "300ms"},
            },
            kubeconfig=operator_kubeconfig(cluster),
            arguments=("--namespace", namespace),
        )
        history = stack.enter_context(History(objects))
        objects.create("web")
        life.take("created", "web")
        with operator:
            _live(life, objects, registry, operator.log)
        objects.patch("other", {"spec": {"registry": "other"}})
        life.take("changed, not seen yet", "other")
        objects.patch("held", {"spec": {"suspend": True}})
        life.take("suspended, not seen yet", "held")
        objects.patch("web", {"metadata": {"finalizers": ["example.com/held-by-a-test"]}})
        objects.delete("web")
        life.take("being deleted", "web")
        objects.patch("web", {"metadata": {"finalizers": None}})
        assert not objects.exists("web")
    life.versions = [object_ for _, object_ in history.seen]
    return life


def _live(life: Life, objects: Objects, registry: FaultProxy, tell: Callable[[], str]) -> None:
    """Go through what an operator sees of a life."""
    life.take("ready", "web", tell=tell)
    objects.create_many(["held", "other", "moved"])
    objects.wait_all(is_ready, tell=tell)

    registry.refuse()
    # Three of them, since a gate closes after three failures.
    objects.create_many(["late", "late-1", "late-2"])
    objects.wait("late", lambda o: row(o) == EXPECTED["down, never ready"].row, tell=tell)
    life.take("down for a moment", "web", tell=tell)
    life.take("down, never ready", "late", tell=tell)
    life.take("down, was ready", "web", tell=tell)
    objects.patch("held", {"spec": {"suspend": True}})
    life.take("suspended while down", "held", tell=tell)
    life.take("too long down, never ready", "late", tell=tell)
    life.take("too long down, was ready", "web", tell=tell)
    registry.listen()
    life.take("recovered", "web", tell=tell)
    objects.patch("held", {"spec": {"suspend": False}})
    life.take("resumed", "held", tell=tell)

    objects.create("unknown", {"registry": "nowhere"})
    life.take("unknown registry", "unknown", tell=tell)
    objects.create("forbidden", {"registry": "strict", "repositoryName": "elsewhere/web"})
    life.take("against the policy", "forbidden", tell=tell)
    objects.create(TOO_LONG)
    life.take("name too long", TOO_LONG, tell=tell)

    objects.create("asleep", {"suspend": True})
    life.take("suspended from the start", "asleep", tell=tell)
    objects.patch("web", {"spec": {"suspend": True}})
    life.take("suspended while ready", "web", tell=tell)
    objects.patch("moved", {"spec": {"suspend": True, "registry": "other"}})
    life.take("suspended, moved", "moved", tell=tell)


def test_the_life_is_whole(life: Life) -> None:
    """Each line of the table was lived."""
    assert life.stages.keys() == EXPECTED.keys()


@pytest.mark.parametrize("stage", EXPECTED)
def test_kstatus(life: Life, stage: str) -> None:
    """What Flux and Helm's --wait make of it: an outage is InProgress, and Failed only once it has lasted."""
    assert judges.kstatus([life.stages[stage].object]) == [EXPECTED[stage].kstatus]


@pytest.mark.parametrize("stage", EXPECTED)
def test_argo(life: Life, stage: str) -> None:
    """What Argo CD shows by our health check, and what it tells: the message of Ready where that is of today."""
    object_ = life.stages[stage].object
    (health,) = judges.health([object_])
    assert health["status"] == EXPECTED[stage].argo
    told = {**dict.fromkeys(UNSEEN, "Waiting for the operator"), "being deleted": "Pending deletion"}
    assert health["message"] == told.get(stage, condition(object_, "Ready").get("message"))


@pytest.mark.parametrize("stage", EXPECTED)
def test_kubectl_wait(life: Life, stage: str) -> None:
    """What a script that waits for Ready does: it goes on only where one can push, by today's spec."""
    assert life.stages[stage].wait == EXPECTED[stage].wait


def test_they_agree_at_all_times(life: Life) -> None:
    """In each version of each object that was to be seen: done, failed and under way are the same to all of them."""
    same = {"Current": {"Healthy"}, "Failed": {"Degraded"}, "InProgress": {"Progressing", "Suspended"}}
    versions = [version for version in life.versions if "deletionTimestamp" not in version["metadata"]]
    verdicts = zip(versions, judges.kstatus(versions), judges.health(versions), strict=True)
    assert len(versions) > len(EXPECTED)
    assert [(row(v), kstatus, argo) for v, kstatus, argo in verdicts if argo["status"] not in same[kstatus]] == []


def test_the_page_sums_it_up() -> None:
    """The short table in docs/gitops.md has each combination of verdicts that there is, and no other."""
    lines = GITOPS.section("How the tools read the status").splitlines()
    cells = [re.split(r" *\| *", line)[2:5] for line in lines if re.match(r"\| (?!---)\w", line)]
    assert sorted(map(tuple, cells[1:])) == sorted({(e.kstatus, e.argo, e.wait) for e in EXPECTED.values()})


@pytest.mark.parametrize("path", sorted(CUSTOMIZATIONS.glob("testdata/*.yaml")), ids=lambda path: path.stem)
def test_argos_test_data_is_from_life(life: Life, path: Path) -> None:
    """The examples that Argo CD would be given are such as the API server has: row, fields, generations, suspended."""

    def shape(object_: Object) -> object:
        status, generation = object_["status"], object_["metadata"]["generation"]
        suspended = object_["spec"].get("suspend", False)
        return row(object_), sorted(status), status["observedGeneration"] == generation, suspended

    assert shape(yaml.safe_load(path.read_text())) in [shape(version) for version in life.versions]


def test_the_generated_state_table_is_right() -> None:
    """docs/status.md says of each situation what kstatus itself says; its generator works that out by itself."""
    situations = states.situations()
    objects = [
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": "web", "namespace": "default", "generation": repository.generation},
            "spec": {},
            "status": repository.status,
        }
        for _, repository in situations
    ]
    assert [states.kstatus(r.generation, r.status) for _, r in situations] == judges.kstatus(objects)
    assert {"Current", "InProgress", "Failed"} == set(judges.kstatus(objects))


@pytest.mark.parametrize("server_side", [False, True], ids=["client-side", "server-side"])
def test_never_a_diff_to_git(
    cluster: DevCluster, objects: Objects, operator: OperatorProcess, server_side: bool
) -> None:
    """What was applied and is Ready by now shows no difference to what Git has, by either way to compare."""
    manifest = json.dumps(objects.manifest("web", {"repositoryName": f"{objects.namespace}/web"}))
    how = ("--server-side", "--field-manager=gitops") if server_side else ()
    cluster.kubectl("apply", *how, "-f", "-", stdin=manifest)
    objects.wait_ready("web", tell=operator.log)
    assert cluster.kubectl("diff", *how, "-f", "-", stdin=manifest) == ""
    changed = json.dumps(objects.manifest("web", {"suspend": True, "repositoryName": f"{objects.namespace}/web"}))
    assert "+  suspend: true" in cluster.kubectl("diff", *how, "-f", "-", stdin=changed, check=False)
