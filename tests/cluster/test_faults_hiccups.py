"""Short failures and changes at the wrong moment, which must not spread.

what happens                                  | what is expected
a second of 401, 403 or HTML                  | Ready objects stay Ready; nothing is written
a Stalled object's spec is changed            | it is Reconciling in its new generation, for as long as a new one
labels leave the selector and come back       | the object is verified at once
one registry hangs, another one's address changes | objects of the other one have it within seconds
SIGTERM during the start of PID 1             | exit code 0
"""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from controller.api.v1alpha1 import REQUESTED_AT_ANNOTATION
from devcluster.cluster import DevCluster
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import (
    ROOT,
    Audit,
    Object,
    Objects,
    condition,
    operator_config,
    operator_kubeconfig,
    ready,
    remove_repositories,
)
from tests.cluster.proxy import FaultProxy, Hold, Response

pytestmark = pytest.mark.cluster

OBJECTS_READY = 'artifact_repository_objects{condition="Ready",status="True"}'


@pytest.mark.parametrize(
    "answer",
    [Response(401), Response(403), Response(200, b"<html>", {"Content-Type": "text/html"})],
    ids=["401", "403", "html"],
)
def test_a_moment_of_any_failure_leaves_objects_ready(
    answer: Response, registry_proxy: FaultProxy, objects: Objects, start_operator: StartOperator, audit: Audit
) -> None:
    """A Ready object that cannot be verified for a second is not written, and verified when it can be."""
    operator = start_operator(operator_config(registry_proxy.url))
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    mark = audit.mark()
    with registry_proxy.rule("GET", "web", answer) as get, registry_proxy.rule("HEAD", "web", answer) as head:
        objects.patch("web", {"metadata": {"annotations": {REQUESTED_AT_ANNOTATION: "now"}}})
        eventually(lambda: get.seen + head.seen, tell=operator.log)
        time.sleep(1)
        assert ready(objects.get("web")) == ("True", "RepositoryReady")
    objects.wait("web", lambda o: o["status"].get("lastHandledReconcileAt") == "now", tell=operator.log)
    assert len(audit.writes(mark)) == 1
    assert "WARNING" not in operator.log()


def test_a_fixed_spec_has_a_new_deadline(objects: Objects, start_operator: StartOperator) -> None:
    """The new generation is Reconciling first, and Stalled after its own deadline."""
    operator = start_operator(timings={"progressDeadline": "3s"})
    objects.create("web", {"registry": "missing"})
    objects.wait("web", lambda o: condition(o, "Stalled"), tell=operator.log)
    objects.patch("web", {"spec": {"registry": "missing-too"}})
    after = objects.wait("web", lambda o: o["status"]["observedGeneration"] == 2, tell=operator.log)
    assert condition(after, "Reconciling")["observedGeneration"] == 2
    assert not condition(after, "Stalled")
    objects.wait("web", lambda o: condition(o, "Stalled"), tell=operator.log)


def test_an_object_that_comes_back_into_the_selector_is_verified(
    cluster: DevCluster, objects: Objects, start_operator: StartOperator, namespace: str
) -> None:
    """While its labels did not fit, its repository vanished: it is made again at once, not at the next resync."""
    operator = start_operator(None, "--watch-label-selector", "shard=a")
    objects.create("web", labels={"shard": "a"})
    objects.wait_ready("web", tell=operator.log)
    objects.patch("web", {"metadata": {"labels": {"shard": "b"}}})
    eventually(lambda: operator.metrics()[OBJECTS_READY] == 0, tell=operator.log)
    remove_repositories(cluster, f"artifacts/{namespace}/web")
    objects.patch("web", {"metadata": {"labels": {"shard": "a"}}})
    eventually(lambda: "The repository was missing and was recreated" in operator.log(), tell=operator.log)


def test_a_registry_that_hangs_does_not_delay_a_change_for_another_one(
    cluster: DevCluster, registry_proxy: FaultProxy, objects: Objects, start_operator: StartOperator
) -> None:
    """References of one registry are in the status of its objects while requests to the other one hang."""

    def config(host: str) -> Object:
        good = {"registryUrl": cluster.registry_url, "references": {"host": host}}
        return {"defaultRegistry": "good", "registries": {"good": good, "hangs": {"registryUrl": registry_proxy.url}}}

    operator = start_operator(config("localhost:5001"))
    objects.create("web")
    objects.wait_ready("web", tell=operator.log)
    with registry_proxy.rule("GET", "stuck", Hold()) as held:
        for number in range(10):
            objects.create(f"stuck-{number}", {"registry": "hangs"})
        eventually(lambda: held.seen == 10, tell=operator.log)
        begun = time.monotonic()
        operator.configure(config("localhost:5002"))
        objects.wait("web", functools.partial(_is_at, "localhost:5002"), tell=operator.log)
        assert time.monotonic() - begun < 6
    for number in range(10):
        objects.wait_ready(f"stuck-{number}", within=60, tell=operator.log)


def _is_at(host: str, object_: Object) -> bool:
    return bool(object_["status"]["uri"].startswith(f"{host}/"))


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace requires root")
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.6, 1.0, 2.0])
def test_sigterm_in_the_first_seconds_of_pid_1(delay: float, cluster: DevCluster, tmp_path: Path) -> None:
    """From the moment on at which Python runs the program, whatever it does then: exit code 0."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(operator_config(cluster.registry_url)))
    with _as_pid_1(config, operator_kubeconfig(cluster)) as process:
        eventually(lambda: _child(process) is not None)
        child = _child(process)
        assert child is not None
        eventually(lambda: _catches_sigterm(child))
        time.sleep(delay)
        os.kill(child, signal.SIGTERM)
        assert process.wait(20) == 0


@contextlib.contextmanager
def _as_pid_1(config: Path, kubeconfig: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the operator as the first process of a PID namespace, as in a container."""
    operator = [sys.executable, "-m", "controller", "run", "--config", str(config), "--no-leader-elect"]
    process = subprocess.Popen(
        ["unshare", "--fork", "--pid", "--kill-child", *operator],
        cwd=ROOT,
        env={"KUBECONFIG": str(kubeconfig), "PATH": os.environ["PATH"], "HOME": "/"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _child(process: "subprocess.Popen[bytes]") -> int | None:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
    return int(children[0]) if children else None


def _catches_sigterm(pid: int) -> bool:
    """Tell whether a process has a handler for SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
