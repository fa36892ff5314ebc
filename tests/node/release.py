"""The operator, installed on the node by Helm."""

from collections.abc import Sequence

from controller.api.v1alpha1 import GROUP, PLURAL
from devcluster.errors import CommandFailed
from devcluster.manifests import CHART, NAMESPACE
from devcluster.node.node import Node
from tests.charts.rendering import FULL_NAME, RELEASE
from tests.cluster.eventually import eventually
from tests.cluster.harness import Api, Object

REGISTRY = "config.registries.artifacts.registryUrl=http://kind-registry:5000"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
DEPLOYMENT = f"deploy/{FULL_NAME}"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_SELECTOR = f"app.kubernetes.io/name%3Dartifact-repository-controller,app.kubernetes.io/instance%3D{RELEASE}"


class Release:
    """A release in a namespace that enforces the `restricted` Pod security standard.

    Args:
        node: The node.
        api: Its API server.
    """

    def __init__(self, node: Node, api: Api) -> None:
        self.node = node
        self.api = api
        self._installed = False

    def ensure(self) -> None:
        """Install it unless it is there, and wait until it is available."""
        if self._installed:
            return
        # What another test has installed may still be going away.
        self.node.kubectl("wait", "--for=delete", f"namespace/{NAMESPACE}", f"crd/{PLURAL}.{GROUP}", "--timeout=60s")
        self.node.kubectl("create", "namespace", NAMESPACE)
        self.node.kubectl("label", "namespace", NAMESPACE, RESTRICTED)
        self._helm("install")
        self._installed = True

    def upgrade(self, *values: str) -> None:
        """Change its values, from the default ones on, and wait until it is available with them.

        Args:
            values: ``path=value`` each.
        """
        self._helm("upgrade", *values)
        # Old Pods stay for as long as they take to end.
        eventually(lambda: len(self.pods(ending=True)) == len(self.pods()), within=40, tell=self.log)

    def remove(self) -> None:
        """Uninstall it with all objects, so that it can be installed in another way."""
        if self._installed:
            self.node.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
            self.node.kubectl("delete", f"crd/{PLURAL}.{GROUP}", f"namespace/{NAMESPACE}")
        self._installed = False

    def pods(self, *, ending: bool = False) -> Sequence[Object]:
        """Return its Pods.

        Args:
            ending: Also those that are being deleted.
        """
        pods = self.api.must("GET", f"{_PODS}?labelSelector={_SELECTOR}")["items"]
        return [pod for pod in pods if ending or "deletionTimestamp" not in pod["metadata"]]

    def pod(self) -> Object:
        """Return the only Pod of one with a single replica."""
        (pod,) = self.pods()
        return pod

    def pid(self, pod: Object) -> int:
        """Return the process id of the operator in a Pod, as the node sees it.

        Args:
            pod: The Pod.
        """
        container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
        template = "{{.info.pid}}"
        return int(self.node.run("crictl", "inspect", "--output", "go-template", "--template", template, container))

    def get(self, path: str) -> str:
        """Return what a Pod answers on its health port.

        Args:
            path: The path, such as ``/readyz``.
        """
        name = self.pod()["metadata"]["name"]
        return self.node.kubectl("get", "--raw", f"{_PODS}/{name}:8081/proxy{path}")

    def log(self) -> str:
        """Return the end of its log, and what the cluster says of its Pods."""
        log = self.node.kubectl("logs", "-n", NAMESPACE, DEPLOYMENT, "--tail=30", check=False)
        return f"{log}\n{self.node.kubectl('describe', 'pods', '-n', NAMESPACE, check=False)[-3000:]}"

    def _helm(self, verb: str, *values: str) -> None:
        # Without it, Helm 4 refuses to change what somebody has edited by hand.
        more = ("--force-conflicts",) if verb == "upgrade" else ()
        settings = (argument for value in (REGISTRY, *values) for argument in ("--set", value))
        try:
            self.node.helm(verb, RELEASE, CHART, "--namespace", NAMESPACE, *settings, "--wait", "--timeout=90s", *more)
        except CommandFailed as error:
            raise AssertionError(f"{error}\n{self.log()}") from error
