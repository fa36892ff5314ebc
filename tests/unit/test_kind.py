"""manifests/kind/, tested as far as possible without a container engine."""

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.addresses import HOSTING_KEY, HOSTING_NAME, HOSTING_NAMESPACE, RegistryHosting, resolve_addresses
from controller.binding import RegistryBinding
from controller.configfile import parse_config
from tests.environment import outside_make

ROOT = Path(__file__).parents[2]
KIND = ROOT / "manifests" / "kind"
EXAMPLE = KIND / "example"
OPERATOR = ROOT / "manifests" / "operator.yaml"


def load(path: Path) -> list[Any]:
    """Return the documents in a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


@pytest.fixture
def config_map() -> dict[str, Any]:
    """Return the operator's ConfigMap."""
    return next(d for d in load(OPERATOR) if d["kind"] == "ConfigMap")


@pytest.fixture
def deployment() -> dict[str, Any]:
    """Return the operator's Deployment."""
    return next(d for d in load(OPERATOR) if d["kind"] == "Deployment")


@pytest.fixture
def container(deployment: dict[str, Any]) -> dict[str, Any]:
    """Return the operator's container."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize("path", sorted(KIND.rglob("*.yaml")), ids=lambda path: path.name)
def test_files_are_objects(path: Path) -> None:
    """Every file is YAML with apiVersion and kind."""
    for document in load(path):
        assert document["apiVersion"]
        assert document["kind"]


def test_configuration_is_valid(config_map: dict[str, Any]) -> None:
    """The operator accepts the configuration and calls the registry by its name in the cluster."""
    config = parse_config(config_map["data"]["config.yaml"])
    assert config.registries[config.default_registry].registry_url == "http://kind-registry:5000"


def test_environment(container: dict[str, Any]) -> None:
    """The environment has the Pod's identity from the downward API, and nothing else."""
    told = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container["env"]}
    assert told == {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "POD_UID": "metadata.uid",
    }


def test_account_and_names(config_map: dict[str, Any], deployment: dict[str, Any]) -> None:
    """The operator runs in the namespace and as the ServiceAccount of manifests/."""
    (namespace,) = load(ROOT / "manifests" / "namespace.yaml")
    account = next(d for d in load(ROOT / "manifests" / "rbac.yaml") if d["kind"] == "ServiceAccount")
    assert deployment["metadata"]["namespace"] == config_map["metadata"]["namespace"] == namespace["metadata"]["name"]
    assert account["metadata"]["namespace"] == namespace["metadata"]["name"]
    template = deployment["spec"]["template"]
    assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_restricted(deployment: dict[str, Any], container: dict[str, Any]) -> None:
    """The Pod has no privileges that it does not need."""
    pod = deployment["spec"]["template"]["spec"]["securityContext"]
    assert pod == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    users = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("USER ")]
    assert users == ["USER 65532:65532"]  # by number, or the kubelet could not tell that it is not root


def test_image_is_the_one_that_make_builds(container: dict[str, Any]) -> None:
    """`make image kind-load` loads the image that the Deployment names, and the kubelet does not pull it."""
    commands = subprocess.run(
        ["make", "--no-print-directory", "-n", "image", "kind-load"],
        cwd=ROOT,
        env=outside_make(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    image = f"docker.io/library/{container['image']}"  # its whole name, which the kubelet and every engine agree on
    assert f"docker build --tag {image} " in commands
    assert f"docker save --output build/image.tar {image}\n" in commands
    assert "kind load image-archive build/image.tar --name kind" in commands
    assert container["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize("file", [ROOT / "Dockerfile", EXAMPLE / "Dockerfile"], ids=["operator", "example"])
def test_bases_are_named_in_full(file: Path) -> None:
    """No engine has to guess from which registry a base comes."""
    text = file.read_text()
    names = re.findall(r"^(?:FROM|ARG BASE_IMAGE=)\s*([^$\s]+)", text, re.MULTILINE)
    assert names
    assert all(name.startswith("docker.io/library/") for name in names)


class Engine:
    """Stand-ins for docker, kind and kubectl that record their calls.

    Args:
        folder: Directory for the programs and the records.
    """

    _PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
"docker inspect --format {{.State.Running}}"* | "podman inspect --format {{.State.Running}}"*)
    case $STATE in absent) exit 1 ;; *) echo "$STATE" ;; esac ;;
"docker inspect"* | "podman inspect"*) echo "$NETWORK" ;;
"docker exec --interactive"* | "podman exec --interactive"*) cat >>"$CALLS" ;;
"kind get nodes"*) printf '%s' "$NODES" ;;
kubectl*) cat >"$APPLIED" ;;
esac
"""

    def __init__(self, folder: Path) -> None:
        self._calls = folder / "calls"
        self._applied = folder / "applied.yaml"
        self._path = folder / "bin"
        self._path.mkdir()
        for name in ("docker", "podman", "kind", "kubectl"):
            program = self._path / name
            program.write_text(self._PROGRAM)
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def run(self, *, state: str, network: str, nodes: str = "kind-control-plane\n", **environment: str) -> str:
        """Run registry.sh; return its error output if it failed."""
        self._calls.write_text("")
        answer = subprocess.run(
            [KIND / "registry.sh"],
            env={
                "PATH": f"{self._path}:{os.defpath}",
                "CALLS": str(self._calls),
                "APPLIED": str(self._applied),
                "STATE": state,
                "NETWORK": network,
                "NODES": nodes,
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return answer.stderr if answer.returncode else ""

    def calls(self) -> list[str]:
        """Return the recorded calls, with the text that was written into nodes."""
        return self._calls.read_text().splitlines()

    def applied(self) -> dict[str, Any]:
        """Return the object that kubectl received."""
        (document,) = load(self._applied)
        return dict(document)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Return stand-ins for docker, kind and kubectl."""
    return Engine(tmp_path)


def test_registry_from_nothing(engine: Engine) -> None:
    """registry.sh starts the registry on loopback, connects it, and configures both of its names on each node."""
    assert engine.run(state="absent", network="null", nodes="kind-control-plane\nkind-worker\n") == ""
    calls = engine.calls()
    (started,) = [call for call in calls if call.startswith("docker run ")]
    assert re.search(
        r" --network bridge --publish 127\.0\.0\.1:5001:5000 docker\.io/library/registry@sha256:[0-9a-f]{64}$", started
    )
    assert "docker network connect kind kind-registry" in calls
    for node in ("kind-control-plane", "kind-worker"):
        for host in ("localhost:5001", "kind-registry:5000"):
            file = f"/etc/containerd/certs.d/{host}/hosts.toml"
            written = calls.index(f"docker exec --interactive {node} cp /dev/stdin {file}")
            assert calls[written + 1] == '[host."http://kind-registry:5000"]'


def test_registry_again(engine: Engine) -> None:
    """An existing registry is neither started nor connected again."""
    assert engine.run(state="true", network='{"IPAddress":"172.18.0.3"}') == ""
    assert [call for call in engine.calls() if call.startswith(("docker run", "docker start", "docker network"))] == []


def test_registry_stopped(engine: Engine) -> None:
    """A stopped registry is started again with its data."""
    assert engine.run(state="false", network='{"IPAddress":""}') == ""
    assert "docker start kind-registry" in engine.calls()


def test_no_cluster(engine: Engine) -> None:
    """Without the cluster, one sentence says what is missing, and nothing is started, connected or applied."""
    said = engine.run(state="absent", network="null", nodes="", KIND_CLUSTER="dev")
    assert said.startswith("There is no kind cluster named 'dev'")
    assert engine.calls() == ["kind get nodes --name dev"]


def test_other_names(engine: Engine) -> None:
    """Cluster, registry and port can be changed everywhere."""
    names = {"KIND_CLUSTER": "dev", "REGISTRY_NAME": "reg", "REGISTRY_PORT": "5055"}
    assert engine.run(state="absent", network="null", **names) == ""
    calls = "\n".join(engine.calls())
    assert "kind get nodes --name dev" in calls
    assert "kubectl --context kind-dev apply -f -" in calls
    assert "kind-registry" not in calls
    assert "5001" not in calls
    hosting = RegistryHosting.parse(engine.applied()["data"][HOSTING_KEY])
    assert hosting == RegistryHosting("localhost:5055", "localhost:5055", "reg:5000")


def test_another_engine(engine: Engine) -> None:
    """With CONTAINER_ENGINE=podman, podman does everything that docker does."""
    assert engine.run(state="absent", network="null") == ""
    by_docker = engine.calls()
    assert engine.run(state="absent", network="null", CONTAINER_ENGINE="podman") == ""
    assert engine.calls() == [re.sub("^docker ", "podman ", call) for call in by_docker]
    assert any(call.startswith("podman run ") for call in engine.calls())


def test_addresses_are_those_of_the_documentation(engine: Engine, config_map: dict[str, Any]) -> None:
    """Advertisement and configuration together result in the addresses in docs/kind.md."""
    engine.run(state="true", network="{}")
    advertised = engine.applied()
    assert advertised["metadata"] == {"name": HOSTING_NAME, "namespace": HOSTING_NAMESPACE}
    hosting = RegistryHosting.parse(advertised["data"][HOSTING_KEY])
    config = parse_config(config_map["data"]["config.yaml"])
    binding: RegistryBinding = config.registries[config.default_registry]
    path = f"{binding.prefix(config.default_registry)}/default/web"
    assert hosting.is_about(binding)
    addresses = resolve_addresses(binding, hosting)
    uri = f"{addresses.uri}/{path}"
    assert addresses.references(path) == {
        "host": uri,
        "containerRuntime": uri,
        "clusterNetwork": f"kind-registry:5000/{path}",
    }
    repository, pod = load(EXAMPLE / "web.yaml")
    assert (repository["metadata"]["namespace"], repository["metadata"]["name"]) == ("default", "web")
    assert pod["spec"]["containers"][0]["image"] == f"{uri}:v1"
    assert f"docker_build('{uri}', '.')" in (EXAMPLE / "Tiltfile").read_text()
    assert load(EXAMPLE / "skaffold.yaml")[0]["build"]["artifacts"] == [{"image": uri}]
    registry, cluster = load(EXAMPLE / "ctlptl.yaml")
    assert (f"localhost:{registry['port']}", cluster["registry"]) == (hosting.host, registry["name"])
