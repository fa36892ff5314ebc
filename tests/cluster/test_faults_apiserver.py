"""The API server's faults: the operator stays alive, comes back with growing pauses, and misses nothing.

what happens                               | what is expected
a watch that ends with 410, 429, 500, 504  | watched again; what was created meanwhile is served
lists are answered with 5xx for a while    | asked again, seldom; served afterwards
kube-apiserver restarts                    | the same process goes on
etcd hangs                                 | the same; ready again afterwards, and nothing written that is not needed
the token is refused and rotated on disk   | read anew; never more than a try a second or so meanwhile
a connection is swallowed without a FIN    | noticed by the silence; served within a minute and a half
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from devcluster.certificates import CertificateAuthority
from devcluster.cluster import DevCluster
from tests.cluster.eventually import eventually
from tests.cluster.harness import (
    MANIFESTS,
    Api,
    Objects,
    OperatorProcess,
    is_ready,
    operator_config,
    operator_kubeconfig,
)
from tests.cluster.proxy import FaultProxy, Response
from tests.settings import FULL

pytestmark = pytest.mark.cluster

WATCH = r"artifactrepositories\?.*watch=true"
LIST = r"artifactrepositories\?limit=50"  # at first; kopf begins with 500


@dataclass
class WayToApi:
    """An operator's way to the API server, through a proxy that a test can make misbehave.

    Args:
        proxy: The proxy.
        kubeconfig: The way.
    """

    proxy: FaultProxy
    kubeconfig: Path

    def rotate(self, cluster: DevCluster) -> None:
        """Write a fresh token to where the old one is, at once and whole, as the kubelet does."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        config["users"] = yaml.safe_load(operator_kubeconfig(cluster).read_text())["users"]
        config["contexts"][0]["context"]["user"] = config["users"][0]["name"]
        fresh = self.kubeconfig.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(config))
        fresh.replace(self.kubeconfig)

    def token(self) -> str:
        """Return the token on the disk."""
        return str(yaml.safe_load(self.kubeconfig.read_text())["users"][0]["user"]["token"])


@pytest.fixture
def way(cluster: DevCluster, tmp_path: Path) -> Iterator[WayToApi]:
    """Put a proxy between an operator and the API server."""
    authority = CertificateAuthority(tmp_path / "ca")
    with FaultProxy(cluster.url, certificate=authority.issue("proxy"), ca_file=cluster.ca_file) as proxy:
        config = yaml.safe_load(operator_kubeconfig(cluster).read_text())
        config["clusters"][0]["cluster"] = {"server": proxy.url, "certificate-authority": str(authority.ca_file)}
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(config))
        yield WayToApi(proxy, kubeconfig)


@pytest.fixture
def proxied(cluster: DevCluster, namespace: str, tmp_path: Path, way: WayToApi) -> Iterator[OperatorProcess]:
    """Run an operator behind the proxy."""
    with OperatorProcess(
        tmp_path / "proxied",
        config=operator_config(cluster.registry_url),
        kubeconfig=way.kubeconfig,
        arguments=("--namespace", namespace),
    ) as operator:
        yield operator


@pytest.mark.parametrize("code", [410, 429, 500, 504])
def test_a_watch_that_ends_with_an_error(objects: Objects, way: WayToApi, proxied: OperatorProcess, code: int) -> None:
    """Three times in a row: whatever the error, the watch is opened again, and the process is the same."""
    pid = proxied.process.pid
    error = {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "made up", "reason": "Test"}}
    body = json.dumps(error).encode() + b"\n"
    begun = time.monotonic()
    with way.proxy.rule("GET", WATCH, Response(200, body, {"Content-Type": "application/json"}), times=3) as rule:
        way.proxy.cut()
        objects.create("meanwhile")
        eventually(lambda: rule.seen >= 3, within=30, tell=proxied.log)
    objects.wait_ready("meanwhile", within=30, tell=proxied.log)
    objects.create("afterwards")
    objects.wait_ready("afterwards", within=30, tell=proxied.log)
    assert proxied.process.pid == pid
    assert way.proxy.count("GET", LIST, since=begun) <= 8


def test_lists_that_fail_for_a_while(objects: Objects, way: WayToApi, proxied: OperatorProcess) -> None:
    """Asked again with growing pauses, not in a loop; then everything is there."""
    begun = time.monotonic()
    with (
        way.proxy.rule("GET", WATCH, Response(410, b"{}"), times=1),
        way.proxy.rule("GET", LIST, Response(503, b"{}")) as lists,
    ):
        way.proxy.cut()
        objects.create("meanwhile")
        eventually(lambda: lists.seen >= 3, within=30, tell=proxied.log)
        time.sleep(3)
        assert lists.seen <= 2 + 2 * (time.monotonic() - begun)
    objects.wait_ready("meanwhile", within=60, tell=proxied.log)


def test_a_token_that_is_rotated_on_disk(
    cluster: DevCluster, objects: Objects, way: WayToApi, proxied: OperatorProcess
) -> None:
    """The old token is refused from one moment on; the new one lies on the disk a little later."""
    objects.create("before")
    objects.wait_ready("before", tell=proxied.log)
    old = way.token()
    unauthorized = json.dumps({"kind": "Status", "code": 401, "message": "Unauthorized"}).encode()
    with (
        way.proxy.rule(
            "GET", "", Response(401, unauthorized), only=lambda seen: seen.authorization.endswith(old)
        ) as refused,
        way.proxy.rule("PATCH", "", Response(401, unauthorized), only=lambda seen: seen.authorization.endswith(old)),
    ):
        way.proxy.cut()
        objects.create("meanwhile")
        eventually(lambda: refused.seen >= 2, within=30, tell=proxied.log)
        time.sleep(3)
        assert refused.seen < 20
        way.rotate(cluster)
        objects.wait_ready("meanwhile", within=60, tell=proxied.log)
    assert old not in proxied.process.log.read_text()


def test_a_connection_that_is_swallowed(objects: Objects, way: WayToApi, proxied: OperatorProcess) -> None:
    """No FIN, no RST, only silence where bookmarks should be: the watch is opened anew."""
    objects.create("before")
    objects.wait_ready("before", tell=proxied.log)
    way.proxy.freeze(new=False)
    objects.create("meanwhile")
    objects.wait_ready("meanwhile", within=110, tell=proxied.log)


def outlived(fragile: DevCluster, operator: OperatorProcess, name: str) -> None:
    """Check that the operator serves again, without having touched what needed nothing."""
    api = Api(fragile)
    objects = Objects(api, "default")
    try:
        # For a moment after its start the API server knows no custom resources yet.
        seen = eventually(lambda: [*objects.list(), None], within=30, tell=operator.log)
        before = {o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in seen if o and is_ready(o)}
        objects.create(name)
        objects.wait_ready(name, within=60, tell=operator.log)
        eventually(lambda: operator.health("readyz") == (200, "ok"), within=60, tell=operator.log)
        after = {o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in objects.list()}
        assert before.items() <= after.items()
    finally:
        api.close()


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_kube_apiserver_restarts(fragile: DevCluster, stubborn: OperatorProcess, how: str) -> None:
    """Gone for some seconds: the operator says that it is not ready, and goes on by itself."""
    outlived(fragile, stubborn, f"before-{how}")
    pid = stubborn.process.pid
    if how == "kill":
        fragile.apiserver.kill()
    else:
        fragile.apiserver.stop()
    try:
        eventually(lambda: stubborn.health("readyz")[0] == 503, within=30, tell=stubborn.log)
        assert stubborn.health("healthz") == (200, "ok")
        time.sleep(3)
    finally:
        fragile.apiserver.restart()
    outlived(fragile, stubborn, f"after-{how}")
    assert stubborn.process.pid == pid


def test_etcd_hangs(fragile: DevCluster, stubborn: OperatorProcess) -> None:
    """For twenty seconds (a minute with FAULTS=full) nothing can be read or written."""
    outlived(fragile, stubborn, "before-etcd")
    pid = stubborn.process.pid
    fragile.etcd.suspend()
    try:
        time.sleep(60 if FULL else 20)
    finally:
        fragile.etcd.resume()
    fragile.apiserver.wait_until_ready()
    outlived(fragile, stubborn, "after-etcd")
    assert stubborn.process.pid == pid


def test_the_crd_is_deleted_and_installed_again(fragile: DevCluster, stubborn: OperatorProcess) -> None:
    """All objects go with it; the operator waits for it to come back, and serves the new ones."""
    outlived(fragile, stubborn, "doomed")
    fragile.kubectl("delete", "-f", MANIFESTS / "crd.yaml", "--wait=true")
    eventually(lambda: stubborn.health("readyz")[0] == 503, within=60, tell=stubborn.log)
    fragile.kubectl("apply", "-f", MANIFESTS / "crd.yaml")
    fragile.wait_established()
    outlived(fragile, stubborn, "reborn")
