"""The commands in the documentation, run as they stand there, by a shell with the real helm and kubectl on its PATH."""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from devcluster.cluster import DevCluster
from devcluster.manifests import CHART
from devcluster.tools import Tool, provide
from tests.charts.pod import OperatorPod
from tests.charts.rendering import NAMESPACE, RELEASE, helm, render
from tests.cluster.harness import ROOT, Api, Objects

pytestmark = pytest.mark.cluster

# What a control plane without nodes cannot do, and what takes an image or a person.
NOT_HERE = (
    "helm test",
    "kubectl exec",
    "kubectl logs",
    "make ",
    "artifact-repository-controller check",
    'eval "$(_ARTIFACT_REPOSITORY_CONTROLLER_COMPLETE=',
    "_ARTIFACT_REPOSITORY_CONTROLLER_COMPLETE=",
    ".venv/bin/artifact-repository-controller run",
)

OF_OTHERS = re.compile(r"toolkit\.fluxcd\.io|argoproj\.io|kustomize\.config\.k8s\.io|external-secrets\.io")

Shell = Callable[[str], str]


@pytest.fixture
def shell(cluster: DevCluster, tmp_path: Path) -> Shell:
    """Return what runs commands in the repository's folder."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in (Tool.HELM, Tool.KUBECTL):
        (programs / tool.value).symlink_to(provide(tool))

    def run(text: str) -> str:
        environment = {
            "PATH": f"{programs}:{os.defpath}",
            "HOME": str(tmp_path),
            "KUBECONFIG": str(cluster.kubeconfig),
        }
        answer = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert answer.returncode == 0, f"{text}\n{answer.stdout}{answer.stderr}"
        return answer.stdout

    return run


def commands(page: str) -> list[str]:
    """Return the commands of a page's shell blocks, without those that cannot be run here."""
    text = "".join(re.findall(r"^```sh\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL))
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith(("#", *NOT_HERE))]


def starting(lines: Sequence[str], beginning: str) -> str:
    """Return the one command that begins so."""
    (found,) = (line for line in lines if line.startswith(beginning))
    return found


@pytest.mark.usefixtures("uninstalled")
@pytest.mark.parametrize("page", ["README.md", "charts/artifact-repository-controller/README.md"])
def test_helm_install(shell: Shell, cluster: DevCluster, page: str) -> None:
    """The line that a person copies installs the operator and its API."""
    shell(starting(commands(page), "helm install"))
    assert cluster.kubectl("get", "deploy", "-n", NAMESPACE, "-o", "name").startswith("deployment.apps/artifacts-")
    cluster.wait_established()
    assert shell("kubectl get artrepo -A") == ""


@pytest.mark.usefixtures("uninstalled")
def test_shards(shell: Shell, cluster: DevCluster) -> None:
    """Two releases that share the objects are installed by the lines in benchmarks.md."""
    installs = [line for line in commands("docs/benchmarks.md") if line.startswith("helm install")]
    for line in installs:
        shell(line)
    releases = [line.split()[2] for line in installs]
    assert releases == ["shard-a", "shard-b"]
    for release in releases:
        arguments = cluster.kubectl(
            "get", "deploy", "-n", NAMESPACE, "-o", "yaml", "-l", f"app.kubernetes.io/instance={release}"
        )
        assert f"--watch-label-selector=shard={release[-1]}" in arguments
        helm("uninstall", release, "--namespace", NAMESPACE, kubeconfig=cluster.kubeconfig)


@pytest.mark.usefixtures("uninstalled")
def test_looking_and_doing(shell: Shell, cluster: DevCluster, api: Api, tmp_path: Path) -> None:
    """All commands of gitops.md and operations.md, and the example in the chart's notes, beside an operator."""
    documents = render("--set", f"config.registries.artifacts.registryUrl={cluster.registry_url}")
    install = ("--namespace", NAMESPACE, "--set", f"config.registries.artifacts.registryUrl={cluster.registry_url}")
    notes = helm("install", RELEASE, CHART, *install, kubeconfig=cluster.kubeconfig).partition("NOTES:")[2]
    cluster.wait_established()
    pasted = notes.partition("Try it:")[2].partition("`-o wide`")[0]
    with OperatorPod(documents, cluster, tmp_path / "pod") as operator:
        assert "artifactrepository.artifacts.alien.dev/web created" in shell(pasted)
        objects = Objects(api, "default")
        ready = objects.wait_ready("web", tell=operator.log)
        cluster.kubectl("create", "namespace", "argocd")
        cluster.kubectl("create", "configmap", "argocd-cm", "--namespace", "argocd", "--from-literal", "url=theirs")
        told = shell("\n".join([*commands("docs/gitops.md"), "echo $uri"]))
        assert told.splitlines()[-1] == ready["status"]["uri"]
        argo = api.must("GET", "/api/v1/namespaces/argocd/configmaps/argocd-cm")["data"]
        assert argo["url"] == "theirs"
        assert "resource.customizations.health.artifacts.alien.dev_ArtifactRepository" in argo
        for command in commands("docs/operations.md"):
            shell(command)
        assert objects.get("web")["spec"]["suspend"]
        objects.wait("web", lambda seen: "lastHandledReconcileAt" in seen["status"], tell=operator.log)


@pytest.mark.usefixtures("uninstalled")
def test_objects(shell: Shell, cluster: DevCluster) -> None:
    """The API server takes each object in the documentation that it knows, with strict validation."""
    shell(f"kubectl apply -f {ROOT / 'manifests' / 'crd.yaml'}")
    cluster.wait_established()
    seen = set()
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]):
        for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            for document in yaml.safe_load_all(text):
                # Those of other tools: see tests/cluster/test_gitops_page.py and test_pull_secrets.py.
                if "kind" not in document or OF_OTHERS.search(document["apiVersion"]):
                    continue
                seen.add(document["kind"])
                document.pop("status", None)
                how = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
                cluster.kubectl(*how, stdin=yaml.safe_dump(document))
    assert {"ArtifactRepository", "Job", "ResourceQuota"} <= seen
