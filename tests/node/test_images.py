"""Images that are pushed from the laptop, and the Pods that run them by the names in an object's status."""

import json

import pytest

from controller.registry.marker import EXPLANATION
from devcluster.node.node import Node
from tests.cluster.eventually import eventually
from tests.cluster.harness import Objects
from tests.node.release import Release


def push(node: Node, reference: str) -> None:
    """Build an image and push it, as docs/kind.md does on the laptop."""
    node.laptop("docker", "build", "-t", reference, "manifests/kind/example")
    node.laptop("docker", "push", reference)


def run(node: Node, objects: Objects, pod: str, image: str, *command: str, policy: str = "Always") -> None:
    """Create a Pod, as a person does who tries an image."""
    how = (f"--image={image}", f"--image-pull-policy={policy}", "-n", objects.namespace)
    node.kubectl("run", pod, *how, *(["--command", "--", *command] if command else []))


def wait_until_it_runs(node: Node, objects: Objects, pod: str) -> None:
    """Wait until a Pod is Ready. A kubelet waits up to 40 s before its third try to start a container."""
    how = ("--for=condition=Ready", "--timeout=90s", "-n", objects.namespace)
    told = node.kubectl("wait", f"pod/{pod}", *how, check=False)
    assert "condition met" in told, told + describe(node, objects, pod)


def wait_until_it_explains(node: Node, objects: Objects, pod: str) -> None:
    """Wait until a person sees why a Pod does not start."""
    eventually(lambda: EXPLANATION in describe(node, objects, pod), within=30)


def describe(node: Node, objects: Objects, pod: str) -> str:
    """Return what `kubectl describe` shows a person of a Pod."""
    return node.kubectl("describe", "pod", pod, "-n", objects.namespace)


def test_push_and_run(release: Release, objects: Objects) -> None:
    """What is pushed to `references.host` runs by `references.containerRuntime`; in the Pod, the third name works."""
    node = release.node
    objects.create("web")
    references = objects.wait_ready("web", tell=release.log)["status"]["references"]
    push(node, f"{references['host']}:v1")
    listing = f"http://{references['clusterNetwork'].replace('/', '/v2/', 1)}/tags/list"
    script = f"wget -q -O - {listing}; exec sleep 1000"
    run(node, objects, "web", f"{references['containerRuntime']}:v1", "sh", "-c", script)
    wait_until_it_runs(node, objects, "web")
    tags = eventually(lambda: node.kubectl("logs", "web", "-n", objects.namespace))
    assert sorted(json.loads(tags)["tags"]) == ["latest", "v1"]


@pytest.fixture
def latest(release: Release, objects: Objects) -> str:
    """Return `latest` of a repository that nothing was pushed to, by the name that laptop and Pods have in common."""
    objects.create("early")
    references = objects.wait_ready("early", tell=release.log)["status"]["references"]
    assert references["host"] == references["containerRuntime"]
    return f"{references['containerRuntime']}:latest"


def test_latest_before_the_first_push(node: Node, objects: Objects, latest: str) -> None:
    """A Pod that comes before the first push says what to do; afterwards it runs only with imagePullPolicy Always.

    With IfNotPresent the marker is on the node already, so neither this Pod nor a new one asks the registry again.
    Another tag than `latest` has no such past.
    """
    for pod, policy in (("always", "Always"), ("cached", "IfNotPresent")):
        run(node, objects, pod, latest, policy=policy)
    for pod in ("always", "cached"):
        wait_until_it_explains(node, objects, pod)
    push(node, latest)
    push(node, latest.replace(":latest", ":v1"))
    run(node, objects, "again", latest, policy="IfNotPresent")
    run(node, objects, "tagged", latest.replace(":latest", ":v1"), policy="IfNotPresent")
    wait_until_it_runs(node, objects, "always")
    wait_until_it_runs(node, objects, "tagged")
    for pod in ("cached", "again"):
        wait_until_it_explains(node, objects, pod)
