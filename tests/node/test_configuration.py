"""Changes of the ConfigMap and of Secrets, as the kubelet writes them into the running Pod."""

import json
from collections.abc import Iterator

import pytest

from devcluster.manifests import NAMESPACE
from devcluster.node.node import Node
from devcluster.process import ServerProcess
from tests.charts.rendering import FULL_NAME
from tests.cluster.eventually import eventually
from tests.cluster.harness import Api, Object, Objects, condition
from tests.contract.test_authentication import HTPASSWD, PASSWORD
from tests.node.release import Release

_CONFIG = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{FULL_NAME}"
# The kubelet of the node looks for changes every ten seconds, instead of every minute.
_SYNC = 40.0


@pytest.fixture
def guarded(node: Node) -> Iterator[str]:
    """Run a registry that asks for a password; return its URL, as Pods call it."""
    folder = node.folder / "guarded"
    folder.mkdir()
    (folder / "htpasswd").write_text(HTPASSWD)
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": ":5002"},
        "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.json").write_text(json.dumps(settings))
    server = ServerProcess(
        "a registry with a password",
        [node.folder / "bin" / "laptop", "registry", "serve", folder / "config.json"],
        probes=[],
        log=folder / "log",
        directory=folder,
        environment={"OTEL_TRACES_EXPORTER": "none"},
    )
    with server:
        yield "http://kind-registry:5002"


def test_config_map(release: Release, api: Api, objects: Objects) -> None:
    """An added registry is used without a restart; a wrong edit is reported on the Pod and not used."""
    pod = release.pod()
    objects.create("elsewhere", {"registry": "second"})
    objects.wait("elsewhere", lambda seen: "second" in condition(seen, "Ready").get("message", ""), tell=release.log)
    try:
        release.upgrade("config.registries.second.registryUrl=http://kind-registry:5000")
        objects.wait_ready("elsewhere", within=_SYNC, tell=release.log)
        edit(api, "registries: []")
        eventually(lambda: "InvalidConfiguration" in described(release), within=_SYNC, tell=release.log)
        objects.create("meanwhile", {"registry": "second"})
        objects.wait_ready("meanwhile", tell=release.log)
    finally:
        release.upgrade()
    assert release.pod()["metadata"]["uid"] == pod["metadata"]["uid"]
    assert restarts(release.pod()) == restarts(pod)


def edit(api: Api, text: str) -> None:
    """Change the operator's configuration, as `kubectl edit` does."""
    api.must("PATCH", _CONFIG, {"data": {"config.yaml": text}}, content_type="application/merge-patch+json")


def described(release: Release) -> str:
    """Return what `kubectl describe` shows of the operator's Pod."""
    return release.node.kubectl("describe", "pods", "-n", NAMESPACE)


def restarts(pod: Object) -> int:
    """Return how often the operator's container was started again."""
    count: int = pod["status"]["containerStatuses"][0]["restartCount"]
    return count


def test_secret(release: Release, api: Api, objects: Objects, guarded: str) -> None:
    """A password that is corrected in the Secret makes the object Ready, without a restart."""
    secret = f"/api/v1/namespaces/{NAMESPACE}/secrets/guarded"
    login = {"username": "robot", "password": "wrong"}
    api.must("POST", secret.rpartition("/")[0], {"metadata": {"name": "guarded"}, "stringData": login})
    files = {name: f"/etc/registries/guarded/{name}" for name in login}
    credentials = ",".join(f"credentials.basic.{name}File={path}" for name, path in files.items())
    values = [f"registryUrl={guarded}", *credentials.split(",")]
    try:
        release.upgrade("registrySecrets.guarded=guarded", *(f"config.registries.guarded.{one}" for one in values))
        pod = release.pod()
        objects.create("guarded", {"registry": "guarded"})
        refused = objects.wait("guarded", lambda seen: "AuthenticationFailed" in json.dumps(seen), tell=release.log)
        assert "/etc/registries/guarded/password" in condition(refused, "Ready")["message"]
        change = {"stringData": {"password": PASSWORD}}
        api.must("PATCH", secret, change, content_type="application/merge-patch+json")
        objects.wait_ready("guarded", within=_SYNC, tell=release.log)
        assert release.pod()["metadata"]["uid"] == pod["metadata"]["uid"]
        assert restarts(release.pod()) == restarts(pod)
    finally:
        release.upgrade()
        api.must("DELETE", secret)
