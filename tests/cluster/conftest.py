"""One control plane for all tests of this folder; a namespace, and mostly an operator, for each test."""

import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from devcluster.cluster import DevCluster
from devcluster.errors import ToolUnavailable
from devcluster.gitops import Crds, provide_crds
from tests.cluster import harness
from tests.cluster.flux import install_crds, provide_flux
from tests.cluster.harness import (
    AccessLog,
    Api,
    Audit,
    Object,
    Objects,
    OperatorProcess,
    operator_config,
    operator_kubeconfig,
    write_kubeconfig,
)
from tests.cluster.proxy import FaultProxy

StartOperator = Callable[..., OperatorProcess]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build Flux before the first test that needs it: in plain sight, and not within a test's time limit."""
    needed = any({"flux", "gitops_apis"} & set(getattr(item, "fixturenames", ())) for item in session.items)
    if session.config.option.collectonly or not needed:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    # What is not available skips the tests that need it (tests/untested.py).
    with capture.global_and_fixture_disabled(), suppress(ToolUnavailable):
        provide_flux()


@pytest.fixture(scope="session")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the API server notes each request."""
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, audit_log: Path) -> Iterator[DevCluster]:
    """Run a control plane with the operator's CRD and RBAC from manifests/, and a registry.

    It is of the Kubernetes that the command line says; a test may ask for another one by a parameter of this fixture.
    """
    kubernetes = getattr(request, "param", request.config.option.kubernetes)
    with harness.operator_cluster(*harness.audit_flags(audit_log), kubernetes=kubernetes) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def api(cluster: DevCluster) -> Iterator[Api]:
    """Return the API server, as an administrator sees it."""
    api = Api(cluster)
    yield api
    api.close()


@pytest.fixture(scope="session")
def audit(cluster: DevCluster, audit_log: Path) -> Audit:
    """Return what the API server notes of each request."""
    assert cluster.apiserver.running
    return Audit(audit_log)


@pytest.fixture(scope="session")
def access_log(cluster: DevCluster) -> AccessLog:
    """Return what the registry notes of each request."""
    return AccessLog(cluster.registry.log)


@pytest.fixture(scope="session")
def gitops_apis(cluster: DevCluster) -> None:
    """Install the CustomResourceDefinitions of Flux and Argo CD."""
    folders = [provide_crds(crds) for crds in Crds]
    install_crds(cluster, [path for folder in folders for path in sorted(folder.iterdir())])


@pytest.fixture
def namespace(api: Api) -> str:
    """Make a namespace for one test."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    api.must("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name


@pytest.fixture
def objects(api: Api, namespace: str) -> Objects:
    """Return the objects of the test's namespace."""
    return Objects(api, namespace)


@pytest.fixture
def start_operator(cluster: DevCluster, namespace: str, tmp_path: Path) -> Iterator[StartOperator]:
    """Return what starts an operator for the test's namespace under its ServiceAccount; in the end it is stopped."""
    with ExitStack() as stack:
        number = iter(range(100))

        def start(
            config: Object | None = None,
            *arguments: str,
            server: str | None = None,
            environment: Mapping[str, str] | None = None,
            wait: bool = True,
            python: str | Path = sys.executable,
            **fields: Any,
        ) -> OperatorProcess:
            directory = tmp_path / f"operator-{next(number)}"
            directory.mkdir()
            operator = OperatorProcess(
                directory,
                config=config or operator_config(cluster.registry_url, **fields),
                kubeconfig=write_kubeconfig(directory / "kubeconfig", operator_kubeconfig(cluster), server=server),
                arguments=("--namespace", namespace, *arguments),
                environment=environment,
                wait=wait,
                python=python,
            )
            return stack.enter_context(operator)

        yield start


@pytest.fixture
def mended(cluster: DevCluster) -> Iterator[DevCluster]:
    """Return the cluster to a test that hurts its servers; they are whole again afterwards."""
    yield cluster
    for server in cluster.servers:
        server.resume()
        if not server.running:
            server.start()
        server.wait_until_ready()


@pytest.fixture
def registry_proxy(cluster: DevCluster) -> Iterator[FaultProxy]:
    """Put a proxy in front of the registry."""
    with FaultProxy(cluster.registry_url) as proxy:
        yield proxy


@pytest.fixture
def api_proxy(cluster: DevCluster) -> Iterator[FaultProxy]:
    """Put a proxy in front of the API server."""
    with harness.api_proxy(cluster) as proxy:
        yield proxy


@pytest.fixture
def operator(start_operator: StartOperator) -> OperatorProcess:
    """Run an operator for the test's namespace."""
    return start_operator()


@pytest.fixture(scope="module")
def fragile() -> Iterator[DevCluster]:
    """Run a control plane that only the module's tests use: they take away what all objects of a cluster share."""
    with harness.operator_cluster() as cluster:
        yield cluster


@pytest.fixture
def stubborn(fragile: DevCluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Run an operator for all namespaces of that control plane; by its resync it finds what no watch could tell."""
    config = operator_config(fragile.registry_url, timings={"resyncInterval": "15s"})
    with OperatorProcess(tmp_path, config=config, kubeconfig=operator_kubeconfig(fragile)) as operator:
        yield operator
