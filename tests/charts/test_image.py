"""The image: built by `make image`, and run as the kubelet would run it, with the access of a Pod.

what                       | how it is shown
what is in it              | no compiler, no pip, no cache; user, labels, the list of dependencies
what it may do             | the main job: read-only, without root, without capabilities, without new privileges
who it is to the cluster   | a token, a CA and a namespace in files, and two variables: as in every Pod
how it ends                | SIGTERM reaches it; it ends in order, with exit code 0
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from controller import __version__
from devcluster.cluster import DevCluster
from devcluster.engine import Engine, NoEngine, find_engine
from devcluster.manifests import CHART, MANIFESTS
from devcluster.process import free_port
from devcluster.progress import to_stderr
from tests.charts.command import must
from tests.charts.rendering import FULL_NAME, NAMESPACE, RELEASE, helm, only, render
from tests.cluster.eventually import eventually
from tests.cluster.harness import Api, Objects

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

IMAGE = "localhost/artifact-repository-controller:test"


@pytest.fixture(scope="module")
def engine() -> Engine:
    """Return what builds and runs images."""
    try:
        return find_engine()
    except NoEngine as error:
        pytest.skip(f"the image: {error}")


@pytest.fixture(scope="module")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the image as a person does."""
    engine.build_operator(IMAGE, to_stderr, tmp_path_factory.mktemp("image") / "log")
    return IMAGE


def test_contents(engine: Engine, image: str) -> None:
    """It is the operator on its base: by number not root, labelled, and with nothing that only building needs."""
    (about,) = json.loads(must(engine.program, "image", "inspect", image))
    assert about["Config"]["User"] == "65532:65532"
    assert about["Config"]["Entrypoint"] == ["artifact-repository-controller"]
    assert about["Config"].get("Healthcheck") is None
    labels = about["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert len(labels["org.opencontainers.image.revision"]) == 40
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    look = """
import pathlib, sys, importlib.metadata as m
root = pathlib.Path("/opt/operator")
assert not [p for p in root.rglob("*") if p.name in ("pip", "gcc", "cc", "wheel", "hatchling")], "build tools"
assert not pathlib.Path("/root/.cache").exists() and not pathlib.Path("/src").exists(), "leftovers"
listed = (root / "requirements.txt").read_text()
own = [d for d in m.distributions() if str(d.locate_file("")).startswith("/opt/operator")]
missing = [d.name for d in own if f"{d.name.lower().replace('_', '-')}=={d.version}" not in listed.lower()]
assert missing == ["artifact-repository-controller"], missing
print("MiB", sum(p.stat().st_size for p in root.rglob("*") if p.is_file()) >> 20)
"""
    told = must(*engine.run, "--rm", "--user", "0", "--entrypoint", "python3", image, "-c", look)
    assert must(*engine.run, "--rm", image, "crd") == (MANIFESTS / "crd.yaml").read_text().strip()
    assert 0 < int(told.split()[-1]) <= 150  # docs/operations.md has the figure


@dataclass
class Container:
    """An operator that runs in a container.

    Args:
        engine: What it runs with.
        name: Its name.
        address: Where its health is served.
    """

    engine: Engine
    name: str
    address: str

    def log(self) -> str:
        """Return what it has logged."""
        return must("sh", "-c", f"{self.engine.program} logs {self.name} 2>&1 | tail -40")

    def pid(self) -> int:
        """Return the process id of the operator, as the machine sees it."""
        return int(must(self.engine.program, "inspect", "--format", "{{.State.Pid}}", self.name))

    def ready(self) -> bool:
        """Tell whether it says that it is ready."""
        try:
            return httpx.get(f"http://{self.address}/readyz", trust_env=False, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture
def container(cluster: DevCluster, engine: Engine, image: str) -> Iterator[Container]:
    """Install the chart, and run its Pod's container; only the network is the machine's, for there is no other here."""
    values = ("--set", f"config.registries.artifacts.registryUrl={cluster.registry_url}")
    helm("install", RELEASE, CHART, "--namespace", NAMESPACE, *values, kubeconfig=cluster.kubeconfig)
    cluster.wait_established()
    documents = render(*values)
    spec = only(documents, "Deployment")["spec"]["template"]["spec"]
    (template,) = spec["containers"]
    restricted = template["securityContext"]
    assert restricted["readOnlyRootFilesystem"]
    assert restricted["capabilities"] == {"drop": ["ALL"]}
    assert not restricted["allowPrivilegeEscalation"]
    server = urlsplit(cluster.url)
    address = f"127.0.0.1:{free_port()}"
    arguments = [one.replace("--health-address=:8081", f"--health-address={address}") for one in template["args"]]
    arguments = [
        one.replace("--metrics-address=:8080", f"--metrics-address=127.0.0.1:{free_port()}") for one in arguments
    ]
    environment = {
        "KUBERNETES_SERVICE_HOST": str(server.hostname),
        "KUBERNETES_SERVICE_PORT": str(server.port),
        "POD_NAME": "operator-0",
        "POD_NAMESPACE": NAMESPACE,
        "POD_UID": "uid-of-operator-0",
    }
    assert {entry["name"] for entry in template["env"]} <= environment.keys()
    # The user in the container has to read what is mounted, so it cannot lie in a folder of pytest's.
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        token = cluster.kubectl("create", "token", spec["serviceAccountName"], "-n", NAMESPACE).strip()
        write(files / "config", only(documents, "ConfigMap")["data"])
        write(
            files / "access",
            {"token": token, "ca.crt": cluster.ca_file.read_text(), "namespace": NAMESPACE},
        )
        files.chmod(0o755)
        mounts = {
            "/etc/artifact-repository-controller": files / "config",
            "/var/run/secrets/kubernetes.io/serviceaccount": files / "access",
        }
        name = must(
            *(*engine.run, "--detach", "--network", "host", "--read-only", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges"),
            *(f"--volume={path}:{mounted}:ro" for mounted, path in mounts.items()),
            *(f"--env={variable}={value}" for variable, value in environment.items()),
            *(image, *arguments),
        ).splitlines()[-1]
        yield Container(engine, name, address)
        must(engine.program, "rm", "--force", name)
    helm("uninstall", RELEASE, "--namespace", NAMESPACE, kubeconfig=cluster.kubeconfig)
    cluster.kubectl("delete", "crd", "artifactrepositories.artifacts.alien.dev")


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write files that everybody may read."""
    folder.mkdir(mode=0o755)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_main_job(container: Container, api: Api) -> None:
    """It becomes ready, leads, makes an object Ready, has no privilege left, and ends in order when it is told to."""
    eventually(container.ready, within=60, tell=container.log)
    objects = Objects(api, "team-b")
    objects.create("web")
    objects.wait_ready("web", tell=container.log)
    lease = api.must("GET", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{FULL_NAME}")
    assert lease["spec"]["holderIdentity"]
    users = must(container.engine.program, "exec", container.name, "python3", "-c", "print(open('/etc/passwd').read())")
    assert ":65532:" not in users
    status = Path(f"/proc/{container.pid()}/status").read_text()
    assert [
        line.split()[1] for line in status.splitlines() if line.startswith(("Uid", "CapEff", "CapBnd", "NoNew"))
    ] == [
        "65532",
        "0000000000000000",
        "0000000000000000",
        "1",
    ]
    must(container.engine.program, "kill", "--signal", "TERM", container.name)
    assert must(container.engine.program, "wait", container.name) == "0"
    assert '"message": "Stopped"' in container.log()
