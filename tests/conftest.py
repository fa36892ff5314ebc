"""What all tests share: one dev cluster per session, started at its first use."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

from controller import redaction
from devcluster.cluster import DevCluster, Kubernetes, cluster_tools
from devcluster.errors import ToolUnavailable
from devcluster.node.node import Node
from devcluster.node.support import unsupported
from devcluster.tools import provide_all

pytest_plugins = ("pytester", "tests.distribution", "tests.untested")

# How long an example takes says more about the machine than about the code. The only place that sets a deadline: a
# test that sets one of its own is found by tests/unit/test_suite.py.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

_CRD = Path(__file__).parents[1] / "manifests" / "crd.yaml"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the cluster tests run on another Kubernetes."""
    parser.addoption(
        "--kubernetes",
        type=Kubernetes,
        choices=list(Kubernetes),
        default=Kubernetes.NEWEST,
        help="which API server the tests in tests/cluster run on",
    )


def pytest_configure() -> None:
    """Say that there is no event loop yet.

    Before Python 3.14, asking for one where nobody has said so makes one. pytest-asyncio and looptime ask, do not close
    what they get, and the garbage collector's warning about it fails a test that has nothing to do with it.
    """
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def no_secrets() -> Iterator[None]:
    """Forget the secrets of a test: in texts of another one, they may be usual words."""
    yield
    redaction._secrets.clear()


@pytest.fixture(scope="session")
def cluster() -> Iterator[DevCluster]:
    """Yield the session's cluster, with the CRD installed.

    A test that stops one of its servers starts it again, whatever happens; one that needs other flags, or all objects
    to itself, has a `DevCluster` of its own: it takes three seconds.
    """
    with DevCluster() as started:
        if _CRD.exists():
            started.kubectl("apply", "-f", _CRD)
            started.wait_established()
        yield started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the session's cluster, or a node, so that `-m "not cluster and not node"` leaves it out."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "cluster" in fixtures:
            item.add_marker(pytest.mark.cluster)
        if "able" in fixtures:
            item.add_marker(pytest.mark.node)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what clusters and the node run before the first test: visibly, and not within a test's time limit."""
    kubernetes = {_kubernetes(item) for item in session.items if item.get_closest_marker("cluster")}
    node = any(item.get_closest_marker("node") for item in session.items) and unsupported() is None
    if session.config.option.collectonly or not (kubernetes or node):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    # What is not available skips the tests that need it (tests/untested.py).
    with capture.global_and_fixture_disabled(), suppress(ToolUnavailable):
        provide_all(list(dict.fromkeys(tool for one in sorted(kubernetes) for tool in cluster_tools(one))))
        if node:
            Node().prepare()


def _kubernetes(item: pytest.Item) -> Kubernetes:
    """Return the Kubernetes that a test runs on."""
    asked = (
        item.callspec.params.get("cluster") if isinstance(item, pytest.Function) and "callspec" in vars(item) else None
    )
    return asked if isinstance(asked, Kubernetes) else item.config.option.kubernetes


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have recorded by ``record_property``: the campaign's figures."""
    reports = (report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome))
    figures = [figure for report in reports if report.when == "call" for figure in report.user_properties]
    if figures:
        terminalreporter.section("figures")
    for name, value in figures:
        terminalreporter.write_line(f"{name:<72} {value:>12}")
