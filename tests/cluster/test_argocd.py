"""What is in manifests/argocd: its own test data as Argo CD runs it, the ConfigMap, and the actions on real objects."""

import json
import re
from typing import Any

import pytest
import yaml

from controller.api.status import merge_patch
from controller.api.v1alpha1 import API_VERSION, GROUP, KIND, REQUESTED_AT_ANNOTATION
from devcluster.cluster import DevCluster
from hack import argocd
from hack.argocd import CUSTOMIZATIONS
from tests.cluster import judges
from tests.cluster.harness import ROOT, AccessLog, Object, Objects, OperatorProcess, condition

PAGE = (ROOT / "docs" / "gitops.md").read_text()
ACTIONS = CUSTOMIZATIONS / "actions"
HEALTH_TESTS = yaml.safe_load((CUSTOMIZATIONS / "health_test.yaml").read_text())["tests"]
ACTION_TESTS = yaml.safe_load((ACTIONS / "action_test.yaml").read_text())

_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")


def load(path: str, *, below: str = "") -> Object:
    """Return the object in a file of test data."""
    object_: Object = yaml.safe_load((CUSTOMIZATIONS / below / path).read_text())
    assert (object_["apiVersion"], object_["kind"]) == (API_VERSION, KIND)
    return object_


@pytest.mark.parametrize("test", HEALTH_TESTS, ids=lambda test: test["inputPath"])
def test_health(test: dict[str, Any]) -> None:
    """What Argo CD's own test would run: each object of health_test.yaml has the status and the message told there."""
    assert judges.health([load(test["inputPath"])]) == [test["healthStatus"]]


@pytest.mark.parametrize("test", ACTION_TESTS["discoveryTests"], ids=lambda test: test["inputPath"])
def test_discovery(test: dict[str, Any]) -> None:
    """The same for which actions are offered."""
    by_name = sorted(test["result"], key=lambda action: action["name"])
    assert sorted(judges.actions(load(test["inputPath"], below="actions")), key=lambda a: a["name"]) == by_name


@pytest.mark.parametrize("test", ACTION_TESTS["actionTests"], ids=lambda test: test["action"])
def test_action(test: dict[str, Any]) -> None:
    """The same for what an action makes of an object; the time that it writes is today's."""
    result = judges.act(test["action"], load(test["inputPath"], below="actions"))
    annotations = result["metadata"].get("annotations", {})
    if REQUESTED_AT_ANNOTATION in annotations:
        assert _TIME.match(annotations[REQUESTED_AT_ANNOTATION])
        annotations[REQUESTED_AT_ANNOTATION] = "0001-01-01T00:00:00Z"
    assert result == load(test["expectedOutputPath"], below="actions")


def test_every_file_is_tested() -> None:
    """No test data lies there unused, every health status has an example, and every action is offered and tested."""
    used = {CUSTOMIZATIONS / test["inputPath"] for test in HEALTH_TESTS}
    for test in (*ACTION_TESTS["discoveryTests"], *ACTION_TESTS["actionTests"]):
        used |= {ACTIONS / test[name] for name in ("inputPath", "expectedOutputPath") if name in test}
    assert used == set(CUSTOMIZATIONS.rglob("testdata/*.yaml"))
    statuses = {test["healthStatus"]["status"] for test in HEALTH_TESTS}
    assert statuses == {"Healthy", "Progressing", "Degraded", "Suspended"}
    scripts = {path.parent.name for path in ACTIONS.glob("*/action.lua")}
    assert scripts == {test["action"] for test in ACTION_TESTS["actionTests"]}
    assert scripts == {action["name"] for action in judges.actions(load("testdata/initial.yaml", below="actions"))}


def test_config_map() -> None:
    """argocd-cm.yaml says what the Lua files say, under the keys that Argo CD reads; otherwise, `make docs`."""
    assert argocd.CONFIG_MAP.read_text() == argocd.config_map()
    data = yaml.safe_load(argocd.CONFIG_MAP.read_text())["data"]
    actions = yaml.safe_load(data.pop(f"resource.customizations.actions.{GROUP}_{KIND}"))
    assert data == {f"resource.customizations.health.{GROUP}_{KIND}": (CUSTOMIZATIONS / "health.lua").read_text()}
    assert actions.pop("discovery.lua") == (ACTIONS / "discovery.lua").read_text()
    assert {d["name"]: d["action.lua"] for d in actions.pop("definitions")} == {
        path.parent.name: path.read_text() for path in ACTIONS.glob("*/action.lua")
    }
    assert actions == {}


def test_the_patch_keeps_what_is_there(cluster: DevCluster) -> None:
    """The command in docs/gitops.md adds the keys to a ConfigMap that has others."""
    (command,) = re.findall(r"^kubectl (patch configmap argocd-cm .*)$", PAGE, re.MULTILINE)
    cluster.kubectl("create", "namespace", "argocd")
    cluster.kubectl("create", "configmap", "argocd-cm", "-n", "argocd", "--from-literal=url=https://argocd.example.com")
    cluster.kubectl(*command.split()[:-1], ROOT / command.split()[-1])
    data = json.loads(cluster.kubectl("get", "configmap", "argocd-cm", "-n", "argocd", "-o", "json"))["data"]
    ours = yaml.safe_load(argocd.CONFIG_MAP.read_text())["data"]
    assert data == {"url": "https://argocd.example.com", **ours}


def take_action(objects: Objects, name: str, action: str) -> Object:
    """Do an action to an object as Argo CD does, and return the patch that it sends: what the script has changed."""
    before = objects.get(name)
    assert {"name": action, "disabled": False} in judges.actions(before)
    patch = merge_patch(before, judges.act(action, before))
    assert patch is not None
    objects.patch(name, patch)
    return patch


def test_actions_on_a_real_object(objects: Objects, operator: OperatorProcess, access_log: AccessLog) -> None:
    """Each action changes one field, and the operator does what its name says."""
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)

    mark = access_log.mark()
    patch = take_action(objects, "web", "reconcile")
    seen = objects.wait("web", lambda o: "lastHandledReconcileAt" in o["status"], tell=operator.log)
    handled = seen["status"]["lastHandledReconcileAt"]
    assert patch == {"metadata": {"annotations": {REQUESTED_AT_ANNOTATION: handled}}}
    assert access_log.since(mark) == [f"HEAD /v2/artifacts/{objects.namespace}/web/manifests/latest 200"]

    assert take_action(objects, "web", "suspend") == {"spec": {"suspend": True}}
    seen = objects.wait("web", lambda o: o["status"]["observedGeneration"] == 2, tell=operator.log)
    assert "Suspended by spec.suspend" in condition(seen, "Ready")["message"]

    assert take_action(objects, "web", "resume") == {"spec": {"suspend": False}}
    seen = objects.wait("web", lambda o: o["status"]["observedGeneration"] == 3, tell=operator.log)
    assert condition(seen, "Ready")["message"].startswith("Push and pull")
