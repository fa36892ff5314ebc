"""The dev cluster is a real control plane, keeps to itself, and leaves nothing behind.

The tests that hurt a server or need other flags have a cluster of their own.
"""

import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from devcluster.certificates import CertificateAuthority
from devcluster.cluster import DevCluster, cluster_tools
from devcluster.errors import CommandFailed, ServerFailed
from devcluster.tools import provide
from tests.devcluster.observe import eventually, output_until, processes_mentioning

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def own() -> Iterator[DevCluster]:
    """Yield a cluster that these tests may hurt."""
    with DevCluster() as cluster:
        yield cluster


def namespaces(cluster: DevCluster) -> set[str]:
    """Return the names of a cluster's namespaces."""
    return set(cluster.kubectl("get", "namespaces", "-o", "name").split())


def test_tells_the_version_that_is_pinned(cluster: DevCluster) -> None:
    """Server and client tell what go.mod says, so clients see a usual server."""
    versions = json.loads(cluster.kubectl("version", "-o", "json"))
    if "KUBEBUILDER_ASSETS" not in os.environ:
        assert versions["serverVersion"]["gitVersion"] == versions["clientVersion"]["gitVersion"]
    assert re.fullmatch(r"v1\.\d+\.\d+", versions["serverVersion"]["gitVersion"])


def test_permissions_are_enforced(cluster: DevCluster) -> None:
    """A fresh service account is known by its token, and may not list anything until it is told it may."""
    cluster.kubectl("create", "serviceaccount", "stranger")
    access = cluster.service_account_kubeconfig("default", "stranger", timedelta(hours=24))
    assert "system:serviceaccount:default:stranger" in cluster.kubectl("auth", "whoami", kubeconfig=access)
    with pytest.raises(CommandFailed, match=r'User "system:serviceaccount:default:stranger" cannot list resource'):
        cluster.kubectl("get", "configmaps", kubeconfig=access)
    cluster.kubectl("create", "rolebinding", "stranger", "--clusterrole=view", "--serviceaccount=default:stranger")
    eventually(
        lambda: "kube-root-ca.crt" in cluster.kubectl("get", "configmaps", kubeconfig=access, check=False),
        "the permission has arrived",
    )
    assert "Forbidden" in cluster.kubectl("get", "nodes", kubeconfig=access, check=False)


def test_tls_is_verified(cluster: DevCluster, tmp_path: Path) -> None:
    """Its own CA verifies the server; another one does not."""
    port = urlsplit(cluster.url).port

    def connect(ca_file: Path) -> None:
        context = ssl.create_default_context(cafile=ca_file)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
        connection.connect()
        connection.close()

    connect(cluster.ca_file)
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(CertificateAuthority(tmp_path).ca_file)


def test_files_with_keys_are_private(cluster: DevCluster) -> None:
    """Nobody else on the machine can read what gives access."""
    assert cluster.folder.stat().st_mode & 0o077 == 0
    assert cluster.kubeconfig.stat().st_mode & 0o077 == 0


def test_namespaces_and_owned_objects_are_deleted(cluster: DevCluster) -> None:
    """The controller manager does what tests expect of a cluster: namespaces go, and what its owner leaves."""
    cluster.kubectl("create", "namespace", "short-lived")
    cluster.kubectl("delete", "namespace", "short-lived", "--timeout=50s")
    cluster.kubectl("create", "configmap", "owner")
    uid = cluster.kubectl("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
    owned = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "owned",
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}],
        },
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(owned))
    cluster.kubectl("delete", "configmap", "owner")
    eventually(
        lambda: "owned" not in cluster.kubectl("get", "configmaps", "-o", "name").replace("/", " ").split(),
        "the owned object is gone",
        timeout=30,
    )


def test_failing_command_shows_what_it_said(cluster: DevCluster) -> None:
    """An unknown object is an error with kubectl's own words."""
    with pytest.raises(CommandFailed, match=r'kubectl get pod none: exit code 1: .*pods "none" not found'):
        cluster.kubectl("get", "pod", "none")


def test_servers_restart_with_their_data(own: DevCluster) -> None:
    """Faults of a server are a matter of one line, and what was stored is still there afterwards."""
    own.kubectl("create", "namespace", "kept")
    for server in own.servers:
        server.kill()
        assert not server.running
        server.start()
        server.wait_until_ready()
    assert "namespace/kept" in namespaces(own)
    own.apiserver.suspend()
    assert "namespace" not in own.kubectl("get", "namespaces", "--request-timeout=1s", check=False)
    own.apiserver.resume()
    own.apiserver.wait_until_ready()
    assert "namespace/kept" in namespaces(own)


def test_two_run_side_by_side(cluster: DevCluster, own: DevCluster) -> None:
    """Clusters have nothing in common: neither ports, nor data, nor trust."""
    own.kubectl("create", "namespace", "only-here")
    assert "namespace/only-here" in namespaces(own)
    assert "namespace/only-here" not in namespaces(cluster)
    assert own.folder != cluster.folder
    assert own.registry_url != cluster.registry_url
    refused = own.kubectl("get", "namespaces", f"--server={cluster.url}", check=False)
    assert "certificate signed by unknown authority" in refused


def test_failing_server_shows_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong flag is told in the server's own words; nothing of the cluster is left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ServerFailed, match=r"(?s)kube-apiserver ended with exit code 1 .*unknown flag: --no-such-flag"):
        DevCluster(apiserver_flags=["--no-such-flag"]).__enter__()
    assert list(tmp_path.iterdir()) == []
    assert processes_mentioning(str(tmp_path)) == []


def test_nothing_is_left_after_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes and files are gone, also when the block was left by an error."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail() -> None:
        with DevCluster() as cluster:
            assert len(processes_mentioning(str(tmp_path))) >= len(cluster.servers)
            raise RuntimeError("a test failed")

    with pytest.raises(RuntimeError, match="a test failed"):
        fail()
    assert list(tmp_path.iterdir()) == []
    assert processes_mentioning(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_nothing_is_left_after_a_signal(number: signal.Signals, exit_code: int, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM end everything in order and quietly; ``kill -9`` leaves nothing either."""
    with subprocess.Popen(
        [sys.executable, "-m", "devcluster", "up"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        told = output_until(process, "Ctrl-C ends everything")
        running = processes_mentioning(str(tmp_path))
        assert len(running) >= 4
        process.send_signal(number)
        told += process.communicate(timeout=30)[0]
        assert process.returncode == exit_code, told
        assert "Traceback" not in told
    eventually(lambda: processes_mentioning(str(tmp_path)) == [], "the processes are gone")
    eventually(lambda: list(tmp_path.iterdir()) == [], "the folder is gone")


def test_kubebuilder_assets_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control plane from that folder is the one that runs."""
    for tool in cluster_tools()[:2]:
        (tmp_path / tool.value).symlink_to(provide(tool))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with DevCluster() as cluster:
        assert cluster.etcd._command[0] == tmp_path / "etcd"
        assert cluster.apiserver._command[0] == tmp_path / "kube-apiserver"
        assert "namespace/default" in namespaces(cluster)


def test_prebuilt_programs_are_run(tmp_path: Path) -> None:
    """What a demo has downloaded is what runs, the registry included."""
    prebuilt = {tool: tmp_path / tool.value for tool in cluster_tools(controllers=False)}
    for tool, link in prebuilt.items():
        link.symlink_to(provide(tool))
    with DevCluster(prebuilt=prebuilt, controllers=False):
        for server in ("etcd", "kube-apiserver", "registry"):
            assert len(processes_mentioning(f"{tmp_path / server}\0")) == 1
