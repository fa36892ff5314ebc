"""A user's chart with objects in it, as Helm 4 installs, upgrades and rolls it back.

Helm 4 applies on the server and waits by kstatus. Helm 3 does neither: its `--wait` ignores custom resources.
"""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from devcluster.cluster import DevCluster
from devcluster.tools import Tool, provide
from tests.cluster.conftest import StartOperator
from tests.cluster.harness import Objects, OperatorProcess, is_ready, operator_config, ready

pytestmark = pytest.mark.cluster

CHART = {"apiVersion": "v2", "name": "web", "version": "1.0.0"}
TEMPLATE = """
apiVersion: artifacts.alien.dev/v1alpha1
kind: ArtifactRepository
metadata:
  name: web
  annotations: {{ toJson .Values.annotations }}
spec: {{ toJson .Values.spec }}
"""
WAIT = ("--wait", "--timeout=5s")

Helm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def helm(cluster: DevCluster, namespace: str, tmp_path: Path) -> Helm:
    """Return helm, for a release `web` of a user's chart in the test's namespace; values are given as objects."""
    chart = tmp_path / "web"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(json.dumps(CHART))
    (chart / "templates" / "web.yaml").write_text(TEMPLATE)

    def run(verb: str, *arguments: str, **values: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        (chart / "values.yaml").write_text(json.dumps({"annotations": {}, "spec": {}, **values}))
        of_chart = () if verb in ("rollback", "status") else (chart,)
        return subprocess.run(
            [provide(Tool.HELM), verb, "web", *of_chart, "--namespace", namespace, *arguments],
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "KUBECONFIG": str(cluster.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def succeeded(answer: subprocess.CompletedProcess[str]) -> None:
    """Check that helm had nothing to complain of."""
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.fixture
def operator(start_operator: StartOperator, cluster: DevCluster) -> OperatorProcess:
    """Run an operator with two registries and a policy."""
    config = operator_config(cluster.registry_url)
    config["registries"]["other"] = {"registryUrl": cluster.registry_url}
    config["registries"]["strict"] = {"registryUrl": cluster.registry_url, "repositoryPolicy": "Namespaced"}
    return start_operator(config)


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("spec", [{"registry": "other"}, {"suspend": False}], ids=str)
def test_upgrade_to_an_empty_spec_and_back(helm: Helm, objects: Objects, spec: Mapping[str, Any]) -> None:
    """An upgrade that takes the last field of `spec` away works, waits for the object, and can be rolled back."""
    succeeded(helm("install", *WAIT, spec=spec))
    first = objects.get("web")
    assert is_ready(first)
    succeeded(helm("upgrade", *WAIT))
    second = objects.get("web")
    assert second["spec"] == {}
    assert is_ready(second)
    succeeded(helm("rollback", "1", *WAIT))
    third = objects.get("web")
    assert third["spec"] == spec
    assert is_ready(third)
    assert {seen["metadata"]["uid"] for seen in (second, third)} == {first["metadata"]["uid"]}


@pytest.mark.usefixtures("operator")
def test_upgrade_after_suspend_by_kubectl(helm: Helm, objects: Objects, cluster: DevCluster) -> None:
    """What a person suspends with kubectl stays suspended over an upgrade of a chart that does not name the field."""
    succeeded(helm("install", *WAIT))
    patch = ("--type=merge", "-p", '{"spec": {"suspend": true}}')
    cluster.kubectl("patch", "artrepo/web", "-n", objects.namespace, *patch)
    succeeded(helm("upgrade", annotations={"example.com/changed": "yes"}))
    seen = objects.get("web")
    assert seen["spec"] == {"suspend": True}
    assert seen["metadata"]["annotations"]["example.com/changed"] == "yes"


def test_waits_for_what_may_pass(helm: Helm, objects: Objects, start_operator: StartOperator) -> None:
    """`--wait` times out while nothing reconciles the object, and the next upgrade succeeds once it is Ready."""
    late = helm("install", *WAIT)
    assert late.returncode != 0
    assert "status: InProgress" in late.stderr
    assert "deadline exceeded" in late.stderr
    operator = start_operator()
    objects.wait_ready("web", tell=operator.log)
    succeeded(helm("upgrade", *WAIT))


@pytest.mark.usefixtures("operator")
def test_stalled_fails_the_wait(helm: Helm, objects: Objects) -> None:
    """What only a change of the object can fix ends the wait early, and an upgrade that corrects it succeeds."""
    refused = helm("install", "--wait", "--timeout=60s", spec={"registry": "strict", "repositoryName": "elsewhere/web"})
    assert refused.returncode != 0
    assert "status: Failed" in refused.stderr
    assert "deadline exceeded" not in refused.stderr
    assert ready(objects.get("web")) == ("False", "PolicyViolation")
    succeeded(helm("upgrade", *WAIT, spec={"registry": "strict", "repositoryName": f"{objects.namespace}/web"}))
    assert is_ready(objects.get("web"))


@pytest.mark.parametrize(
    ("wait", "annotations"),
    [("--wait=watcher", {"helm.sh/hook": "pre-install"}), ("--wait=legacy", {})],
    ids=["hook", "legacy"],
)
def test_what_does_not_wait(helm: Helm, objects: Objects, wait: str, annotations: Mapping[str, str]) -> None:
    """Helm continues after creating a hook, and with its legacy wait, although nothing has made the object Ready."""
    succeeded(helm("install", wait, "--timeout=5s", annotations=annotations))
    assert ready(objects.get("web")) == (None, None)
