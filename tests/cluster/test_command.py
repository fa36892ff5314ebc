"""The command line on a real control plane: what it says when something is in the way, and how it ends.

what is in the way           | what happens
no or bad configuration      | one sentence, exit code 1
no credentials               | one sentence, exit code 1
health address is taken      | one sentence, exit code 1
CRD missing                  | one sentence; it goes on by itself once it is there
RBAC missing                 | the same
API server unreachable       | the same
"""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from devcluster.cluster import DevCluster
from devcluster.process import free_port
from tests.cluster.conftest import StartOperator
from tests.cluster.eventually import eventually
from tests.cluster.harness import MANIFESTS, ROOT, Api, Object, Objects, OperatorProcess, operator_config
from tests.image_user import IMAGE_HOME, as_image_user

pytestmark = pytest.mark.cluster


def run(*arguments: str | Path, kubeconfig: Path | str) -> tuple[int, str]:
    """Run a command that ends by itself; return its exit code and what it said."""
    done = subprocess.run(
        [*as_image_user(), sys.executable, "-m", "controller", *arguments],
        cwd=ROOT,
        env={"HOME": IMAGE_HOME, "KUBECONFIG": str(kubeconfig), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a good configuration."""
    path = tmp_path / "good.yaml"
    path.write_text(yaml.safe_dump(operator_config("http://127.0.0.1:1")))
    return path


def test_a_bad_configuration(tmp_path: Path) -> None:
    """The field's path and what to write, from ``run`` and from ``check``."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("defaultRegistry: a\nregistries: {a: {registryUrl: 'ftp://r'}}\n")
    for command in ("run", "check"):
        code, said = run(command, "--config", bad, kubeconfig="")
        assert code == 1
        assert said.splitlines() == [
            f"Error: {bad}: registries.a.registryUrl: scheme 'ftp' is not supported: use http:// or https://"
        ]


def test_a_good_configuration(config: Path) -> None:
    """``check`` says so, without a cluster."""
    said = f"{config}: valid; registries: artifacts\n  artifacts: http://127.0.0.1:1 (default)\n"
    assert run("check", "--config", config, kubeconfig="") == (0, said)


def test_no_credentials(config: Path) -> None:
    """Without any way to an API server there is nothing to wait for."""
    code, said = run("run", "--config", config, kubeconfig="/does/not/exist")
    assert (code, said) == (1, "Error: KUBECONFIG names /does/not/exist, which is not a file\n")


def test_a_taken_health_address(cluster: DevCluster, config: Path) -> None:
    """Two operators on one address: the second one says so and ends."""
    taken = cluster.registry_url.removeprefix("http://")
    code, said = run("run", "--config", config, "--health-address", taken, kubeconfig=cluster.kubeconfig)
    assert code == 1
    assert f"cannot listen on '{taken}'" in said.splitlines()[-1]


def test_help_names_every_command() -> None:
    """The first thing a person tries."""
    code, said = run("--help", kubeconfig="")
    assert code == 0
    assert "run" in said
    assert "check" in said


def test_crd_and_rbac_may_come_later(tmp_path: Path) -> None:
    """In any order, as GitOps tools apply them: it says what is missing, once each, and then works."""
    with DevCluster() as bare:
        bare.kubectl("apply", "-f", MANIFESTS / "namespace.yaml")
        account = "artifact-repository-controller"
        bare.kubectl("create", "serviceaccount", account, "-n", "artifact-repository-system")
        access = bare.service_account_kubeconfig("artifact-repository-system", account)
        operator = OperatorProcess(tmp_path, config=operator_config(bare.registry_url), kubeconfig=access)
        operator.process.start()
        try:
            eventually(lambda: "not allowed to read" in operator.log(), tell=operator.log)
            assert operator.health("readyz") == (503, "waiting for the API server")
            assert operator.health("healthz") == (200, "ok")
            bare.kubectl("apply", "-f", MANIFESTS / "rbac.yaml")
            eventually(lambda: "install the CustomResourceDefinition" in operator.log(), tell=operator.log)
            bare.kubectl("apply", "-f", MANIFESTS / "crd.yaml")
            bare.wait_established()
            api = Api(bare)
            Objects(api, "default").create("web")
            Objects(api, "default").wait_ready("web", within=60, tell=operator.log)
            api.close()
            assert operator.log().count("Not ready to start") == 2
        finally:
            operator.process.stop()


@pytest.fixture
def unreachable(cluster: DevCluster, tmp_path: Path) -> Path:
    """Write a kubeconfig for an API server that is not there."""
    access = yaml.safe_load(cluster.kubeconfig.read_text())
    access["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{free_port()}"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(access))
    return kubeconfig


def test_an_api_server_that_is_not_there_yet(unreachable: Path, tmp_path: Path, config: Path) -> None:
    """It keeps trying, with growing pauses, and says so once."""
    operator = OperatorProcess(tmp_path, config=yaml.safe_load(config.read_text()), kubeconfig=unreachable)
    operator.process.start()
    try:
        eventually(lambda: "does not answer" in operator.log(), tell=operator.log)
        assert operator.health("readyz") == (503, "waiting for the API server")
    finally:
        operator.process.stop()
    assert operator.log().count("does not answer") == 1
    assert operator.log().splitlines()[-1].endswith("Stopped")


@pytest.mark.parametrize(
    ("binding", "arguments", "warnings"),
    [
        ({}, (), 1),
        ({"repositoryPolicy": "Namespaced"}, (), 0),
        ({"namespaces": ["team-*"]}, (), 0),
        ({}, ("--namespace", "default"), 0),
    ],
    ids=["any", "namespaced", "listed", "watched"],
)
def test_shared_names_are_warned_of(
    binding: Object, arguments: tuple[str, ...], warnings: int, unreachable: Path, tmp_path: Path
) -> None:
    """One line at start, where all namespaces of the cluster may use each other's repositories."""
    registry = {"registryUrl": "http://127.0.0.1:1", **binding}
    config = {"defaultRegistry": "artifacts", "registries": {"artifacts": registry}}
    operator = OperatorProcess(tmp_path, config=config, kubeconfig=unreachable, arguments=arguments)
    operator.process.start()
    try:
        eventually(lambda: "does not answer" in operator.log(), tell=operator.log)
    finally:
        operator.process.stop()
    found = [line for line in operator.log().splitlines() if "In registry artifacts, any namespace may use" in line]
    assert len(found) == warnings
    assert all("set repositoryPolicy: Namespaced, or list its namespaces" in line for line in found)


def test_json_logs(start_operator: StartOperator) -> None:
    """One JSON object a line, with time, level, logger and message."""
    operator = start_operator(None, "--log-format", "json")
    entries = [yaml.safe_load(line) for line in operator.log().splitlines()]
    assert entries
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)
