"""A control plane of its own for the chart: nothing of the operator is in it but what a test installs."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.cluster import DevCluster
from devcluster.errors import ToolUnavailable
from devcluster.gotoolchain import go_toolchain
from devcluster.progress import to_stderr
from tests.charts.rendering import NAMESPACE, RELEASE, helm
from tests.cluster.harness import Api, Audit, audit_flags

_PROMETHEUS_OPERATOR = Path(__file__).parent / "prometheus-operator"


@pytest.fixture(scope="package")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the API server notes each request."""
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="package")
def cluster(audit_log: Path) -> Iterator[DevCluster]:
    """Run a control plane and a registry, with the namespaces that values and tests name."""
    with DevCluster(apiserver_flags=audit_flags(audit_log)) as cluster:
        for name in (NAMESPACE, "team-a", "team-b", "registry-secrets"):
            cluster.kubectl("create", "namespace", name)
        yield cluster


@pytest.fixture(scope="package")
def api(cluster: DevCluster) -> Iterator[Api]:
    """Return the API server, as an administrator sees it."""
    api = Api(cluster)
    yield api
    api.close()


@pytest.fixture(scope="package")
def audit(cluster: DevCluster, audit_log: Path) -> Audit:
    """Return what the API server notes of each request."""
    assert cluster.apiserver.running
    return Audit(audit_log)


@pytest.fixture(scope="package")
def prometheus_operator(cluster: DevCluster) -> None:
    """Install the Prometheus operator's CustomResourceDefinitions, from its Go module."""
    go = go_toolchain("1.24.0", to_stderr)
    answer = subprocess.run(
        [go.command, "mod", "download", "-json", "github.com/prometheus-operator/prometheus-operator"],
        cwd=_PROMETHEUS_OPERATOR,
        env={**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=readonly", **go.environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    if answer.returncode != 0:
        why = json.loads(answer.stdout)["Error"] if answer.stdout else answer.stderr
        raise ToolUnavailable(f"the Prometheus operator's API could not be downloaded as a Go module: {why}")
    folder = Path(json.loads(answer.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
    for name in ("servicemonitors", "prometheusrules"):
        cluster.kubectl("create", "-f", folder / f"monitoring.coreos.com_{name}.yaml")
        cluster.wait_established(f"{name}.monitoring.coreos.com")


@pytest.fixture
def uninstalled(cluster: DevCluster) -> Iterator[None]:
    """Take away, after a test, what it has installed."""
    yield
    helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", kubeconfig=cluster.kubeconfig)
    cluster.kubectl("delete", "crd", "--ignore-not-found", "artifactrepositories.artifacts.alien.dev")
