"""manifests/kind/ is what a person with Docker starts from; here it is tried as far as it goes without an engine."""

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.config import RegistryBinding, parse_config
from controller.references import HOSTING_KEY, HOSTING_NAME, HOSTING_NAMESPACE, RegistryHosting, resolve_addresses
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
def test_yaml(path: Path) -> None:
    """Every file is YAML, and says what it is."""
    for document in load(path):
        assert document["apiVersion"]
        assert document["kind"]


def test_configuration(config_map: dict[str, Any]) -> None:
    """The operator takes its configuration, and calls the registry by the name that it has in the cluster."""
    config = parse_config(config_map["data"]["config.yaml"])
    assert config.registries[config.default_registry].registry_url == "http://kind-registry:5000"


def test_environment(container: dict[str, Any]) -> None:
    """The Pod's identity is told by the downward API; nothing else is."""
    told = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container["env"]}
    assert told == {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "POD_UID": "metadata.uid",
    }


def test_account_and_names(config_map: dict[str, Any], deployment: dict[str, Any]) -> None:
    """It runs in the namespace and as the ServiceAccount of manifests/."""
    (namespace,) = load(ROOT / "manifests" / "namespace.yaml")
    account = next(d for d in load(ROOT / "manifests" / "rbac.yaml") if d["kind"] == "ServiceAccount")
    assert deployment["metadata"]["namespace"] == config_map["metadata"]["namespace"] == namespace["metadata"]["name"]
    assert account["metadata"]["namespace"] == namespace["metadata"]["name"]
    template = deployment["spec"]["template"]
    assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_restricted(deployment: dict[str, Any], container: dict[str, Any]) -> None:
    """It may not do what it need not."""
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
    """`make image kind-load` brings what the Deployment names, and the kubelet does not look for it elsewhere."""
    commands = subprocess.run(
        ["make", "--no-print-directory", "-n", "image", "kind-load"],
        cwd=ROOT,
        env=outside_make(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"build --tag {container['image']} " in commands
    assert f"kind load docker-image {container['image']} --name kind" in commands
    assert container["imagePullPolicy"] == "IfNotPresent"


class Engine:
    """Stand-ins for docker, kind and kubectl that note what they are asked.

    Args:
        folder: Where they lie and note it.
    """

    _PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
"docker inspect --format {{.State.Running}}"*)
    case $STATE in absent) exit 1 ;; *) echo "$STATE" ;; esac ;;
"docker inspect"*) echo "$NETWORK" ;;
"docker exec --interactive"*) cat >>"$CALLS" ;;
"kind get nodes"*) printf '%s' "$NODES" ;;
kubectl*) cat >"$APPLIED" ;;
esac
"""

    def __init__(self, folder: Path) -> None:
        self._calls = folder / "calls"
        self._applied = folder / "applied.yaml"
        self._path = folder / "bin"
        self._path.mkdir()
        for name in ("docker", "kind", "kubectl"):
            program = self._path / name
            program.write_text(self._PROGRAM)
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def run(self, *, state: str, network: str, nodes: str = "kind-control-plane\n", **environment: str) -> str:
        """Run registry.sh; return what it said, if it failed."""
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
        """Return what was asked of them, with what was written into nodes."""
        return self._calls.read_text().splitlines()

    def applied(self) -> dict[str, Any]:
        """Return what kubectl was given."""
        (document,) = load(self._applied)
        return dict(document)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Return stand-ins for docker, kind and kubectl."""
    return Engine(tmp_path)


def test_registry_from_nothing(engine: Engine) -> None:
    """It starts the registry on loopback, connects it, and tells each node both of its names."""
    assert engine.run(state="absent", network="null", nodes="kind-control-plane\nkind-worker\n") == ""
    calls = engine.calls()
    (started,) = [call for call in calls if call.startswith("docker run ")]
    assert "--publish 127.0.0.1:5001:5000 registry:3" in started
    assert "docker network connect kind kind-registry" in calls
    for node in ("kind-control-plane", "kind-worker"):
        for host in ("localhost:5001", "kind-registry:5000"):
            file = f"/etc/containerd/certs.d/{host}/hosts.toml"
            written = calls.index(f"docker exec --interactive {node} cp /dev/stdin {file}")
            assert calls[written + 1] == '[host."http://kind-registry:5000"]'


def test_registry_again(engine: Engine) -> None:
    """What is there already is neither started nor connected again."""
    assert engine.run(state="true", network='{"IPAddress":"172.18.0.3"}') == ""
    assert [call for call in engine.calls() if call.startswith(("docker run", "docker start", "docker network"))] == []


def test_registry_stopped(engine: Engine) -> None:
    """A registry that was stopped is started, with what it holds."""
    assert engine.run(state="false", network='{"IPAddress":""}') == ""
    assert "docker start kind-registry" in engine.calls()


def test_no_cluster(engine: Engine) -> None:
    """One sentence says what is missing, and nothing is applied to another cluster."""
    said = engine.run(state="true", network="{}", nodes="", KIND_CLUSTER="dev")
    assert said.startswith("There is no kind cluster named 'dev'")
    assert [call for call in engine.calls() if call.startswith("kubectl")] == []


def test_other_names(engine: Engine) -> None:
    """Cluster, registry and port can be other ones, everywhere."""
    names = {"KIND_CLUSTER": "dev", "REGISTRY_NAME": "reg", "REGISTRY_PORT": "5055"}
    assert engine.run(state="absent", network="null", **names) == ""
    calls = "\n".join(engine.calls())
    assert "kind get nodes --name dev" in calls
    assert "kubectl --context kind-dev apply -f -" in calls
    assert "kind-registry" not in calls
    assert "5001" not in calls
    hosting = RegistryHosting.parse(engine.applied()["data"][HOSTING_KEY])
    assert hosting == RegistryHosting("localhost:5055", "localhost:5055", "reg:5000")


def test_one_name_for_everybody(engine: Engine, config_map: dict[str, Any]) -> None:
    """The advertisement and the operator's configuration together give the names that docs/kind.md promises."""
    engine.run(state="true", network="{}")
    advertised = engine.applied()
    assert advertised["metadata"] == {"name": HOSTING_NAME, "namespace": HOSTING_NAMESPACE}
    hosting = RegistryHosting.parse(advertised["data"][HOSTING_KEY])
    config = parse_config(config_map["data"]["config.yaml"])
    binding: RegistryBinding = config.registries[config.default_registry]
    path = f"{binding.prefix(config.default_registry)}/default/web"
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
