"""The operator as the chart runs it, with the chart's permissions: it does its job, and needs them all.

what is done                                         | what is expected
start, create, vanish, conflict, a wrong change of   | each works; the API server's audit log has no refused request;
the configuration, replacement of a Pod that is gone | the requests in it need just the permissions that are rendered
a Secret and a ConfigMap of the user's, mounted      | a registry behind TLS and a password is used
`helm test`                                          | succeeds; fails without an operator, with one that cannot work,
                                                     | and while a registry is down
alerts, dashboard                                    | read only metrics and labels that /metrics has
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from devcluster.certificates import CertificateAuthority
from devcluster.cluster import DevCluster
from devcluster.manifests import CHART
from devcluster.process import free_port
from devcluster.registries import RegistryKind, start_registry
from tests.charts.pod import OperatorPod
from tests.charts.rendering import NAMESPACE, NAMESPACES_VALUES, RELEASE, Document, helm, only, permissions, render
from tests.cluster.eventually import eventually
from tests.cluster.harness import Api, Audit, Object, Objects, remove_repositories, write_kubeconfig
from tests.cluster.proxy import Delay, FaultProxy
from tests.contract.test_authentication import HTPASSWD, PASSWORD

pytestmark = pytest.mark.cluster


@pytest.fixture
def proxy(cluster: DevCluster) -> Iterator[FaultProxy]:
    """Put a proxy in front of the registry."""
    with FaultProxy(cluster.registry_url) as proxy:
        yield proxy


@pytest.fixture
def installed(cluster: DevCluster, proxy: FaultProxy, request: pytest.FixtureRequest) -> Iterator[list[Document]]:
    """Install the chart with some values; return what it rendered."""
    registry = f"config.registries.artifacts.registryUrl={proxy.url}"
    timings = "config.timings.resyncInterval=2s,config.timings.probeInterval=300ms"
    values = (*getattr(request, "param", ()), "--set", f"{registry},{timings}")
    # The one that brings the CRD comes first where the values under test leave it out.
    crd = ("--show-only", "templates/crd.yaml", "--set", "crds.keep=false")
    cluster.kubectl("apply", "-f", "-", stdin=helm("template", RELEASE, CHART, "--set", registry, *crd))
    cluster.wait_established()
    documents = [document for document in render(*values) if document["kind"] != "CustomResourceDefinition"]
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(without_tests(documents)))
    # What no release owns, from tests before.
    cluster.kubectl("delete", "leases,events", "--all", "-n", NAMESPACE)
    cluster.kubectl("delete", "events", "--all", "-n", "team-a")
    yield documents
    cluster.kubectl("delete", "-f", "-", stdin=yaml.safe_dump_all(without_tests(documents)))
    cluster.kubectl("delete", "crd", "artifactrepositories.artifacts.alien.dev")


def without_tests(documents: Sequence[Document]) -> list[Document]:
    """Return what Helm installs at once."""
    return [one for one in documents if "helm.sh/hook" not in one["metadata"].get("annotations", {})]


def namespaces_values() -> tuple[str | Path, ...]:
    """Return values for listed namespaces, with objects that nothing selects out."""
    return ("--values", NAMESPACES_VALUES, "--set", "watch.labelSelector=")


@pytest.mark.parametrize(
    "installed", [(), namespaces_values()], ids=["cluster-wide", "namespaces"], indirect=["installed"]
)
def test_least_privilege(
    installed: list[Document], cluster: DevCluster, api: Api, audit: Audit, proxy: FaultProxy, tmp_path: Path
) -> None:
    """All that the operator does is allowed, and all that is allowed is done: no rule could go, and none lacks.

    The job meets each use of the API: list and watch, status, reading again after a conflict, an event on an object and
    on the operator's Pod, one that repeats, the Lease, the Pod that held it, and the ConfigMap of KEP-1755.
    """
    deployment = only(installed, "Deployment")
    account = {
        "kind": "ServiceAccount",
        "name": deployment["spec"]["template"]["spec"]["serviceAccountName"],
        "namespace": NAMESPACE,
    }
    mark = audit.mark()
    objects = Objects(api, "team-a")
    with OperatorPod(installed, cluster, tmp_path / "pod") as operator:
        main_job(objects, cluster, proxy, operator)
        spoil_configuration_twice(api, operator)
        operator.process.kill()
    with OperatorPod(installed, cluster, tmp_path / "next") as operator:
        eventually(lambda: leads(operator), within=5, tell=operator.log)
    granted = permissions(installed, account)
    user = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    requests = audit.since(mark, user=user)
    # What everybody may ask (discovery) is about no object.
    used = [event for event in requests if "objectRef" in event]
    if "kube-public" not in {permission[4] for permission in granted}:
        # It asks all the same, is refused, and says so: see rbac.localRegistryHosting.
        used = [event for event in used if event["objectRef"].get("namespace") != "kube-public"]
    assert [told(event) for event in used if event["responseStatus"]["code"] == 403] == []
    assert {told(event) for event in used if not any(covers(one, event) for one in granted)} == set()
    unused = {one for one in granted if not any(covers(one, event) for event in used)}
    assert unused == of_the_other_namespace(granted)


def leads(pod: OperatorPod) -> bool:
    """Tell whether an operator says that it holds the Lease."""
    return pod.metric("artifact_repository_leader") == 1


def of_the_other_namespace(granted: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Return what is granted for objects in `team-b`, where there are none; it is the same as in `team-a`."""
    beyond_watching = {one for one in granted if one[4] == "team-b" and one[0] not in ("list", "watch")}
    assert {one[:4] for one in granted if one[4] == "team-b"} == {one[:4] for one in granted if one[4] == "team-a"}
    return beyond_watching


def main_job(objects: Objects, cluster: DevCluster, proxy: FaultProxy, operator: OperatorPod) -> None:
    """Create, let vanish twice, and change an object while the operator works on it."""
    api, namespace = objects.api, objects.namespace
    uid = objects.create("web")["metadata"]["uid"]
    objects.wait_ready("web", tell=operator.log)
    for times in (1, 2):
        remove_repositories(cluster, f"artifacts/{namespace}/web")

        def recreated(times: int = times) -> bool:
            found = events(api, namespace, "RepositoryRecreated")
            return [event["count"] for event in found if event["involvedObject"]["uid"] == uid] == [times]

        eventually(recreated, tell=operator.log)
    contended = f"contended-{uid}"  # its repository is not there from another test
    with proxy.rule("PUT", f"/{contended}/manifests/", Delay(1.0)) as rule:
        objects.create(contended)
        eventually(lambda: rule.seen, tell=operator.log)
        objects.patch(contended, {"metadata": {"labels": {"by": "somebody"}}})
        objects.wait_ready(contended, tell=operator.log)


def spoil_configuration_twice(api: Api, operator: OperatorPod) -> None:
    """Have the operator tell, on its Pod, of the same wrong configuration twice."""
    good = operator.config.read_text()
    for times in (1, 2):
        operator.config.write_text("nonsense: true")

        def recorded(times: int = times) -> bool:
            return [event["count"] for event in events(api, NAMESPACE, "InvalidConfiguration")] == [times]

        eventually(recorded, tell=operator.log)
        operator.config.write_text(good)

        def in_use(times: int = times) -> bool:
            return f'artifact_repository_config_loads_total{{result="good"}} {times}.0' in operator.metrics()

        eventually(in_use, tell=operator.log)


def events(api: Api, namespace: str, reason: str) -> list[Object]:
    """Return a namespace's events of a reason."""
    found = api.must("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
    return [event for event in found if event["reason"] == reason]


def told(event: Object) -> str:
    """Return what an audited request was, in one line."""
    reference = event["objectRef"]
    parts = [event["verb"], *(reference.get(part, "") for part in ("apiGroup", "resource", "subresource"))]
    return " ".join([*parts, f"{reference.get('namespace', '')}/{reference.get('name', '')}"])


def covers(permission: tuple[str, ...], event: Object) -> bool:
    """Tell whether a permission allows an audited request."""
    verb, group, resource, name, namespace = permission
    reference = event["objectRef"]
    full = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
    return (
        (verb, group, resource) == (event["verb"], reference.get("apiGroup", ""), full)
        and name in ("", reference.get("name"))
        and namespace in ("", reference.get("namespace"))
    )


def test_two_replicas(installed: list[Document], cluster: DevCluster, api: Api, tmp_path: Path) -> None:
    """Two Pods of one Deployment are both ready, one works, and the other goes on when that one ends."""
    objects = Objects(api, "team-a")

    with OperatorPod(installed, cluster, tmp_path / "a") as first:
        eventually(lambda: leads(first), tell=first.log)
        with OperatorPod(installed, cluster, tmp_path / "b") as second:
            assert not leads(second)
            first.__exit__()
            objects.create("after")
            objects.wait_ready("after", tell=second.log)


def test_secrets_by_reference(cluster: DevCluster, api: Api, tmp_path: Path) -> None:
    """A password in a Secret, and a CA in a ConfigMap as trust-manager writes it, reach the operator by name alone.

    The Secret is in no object of the release, and the operator may not read Secrets by the API.
    """
    users = tmp_path / "htpasswd"
    users.write_text(HTPASSWD)
    authority = CertificateAuthority(tmp_path / "certificates")
    config = {"auth": {"htpasswd": {"realm": "test", "path": str(users)}}}
    mounted = "/etc/registries/shared"
    binding = {
        "credentials": {"basic": {"usernameFile": f"{mounted}/username", "passwordFile": f"{mounted}/password"}},
        "tls": {"caFile": "/etc/registries/corp/ca.crt"},
    }
    with start_registry(
        RegistryKind.DISTRIBUTION_3,
        directory=tmp_path / "registry",
        config=config,
        tls=authority.issue("registry"),
        ca_file=authority.ca_file,
    ) as registry:
        values = {
            "registrySecrets": {"shared": "registry-shared"},
            "registryConfigMaps": {"corp": "corp-bundle"},
            "config": {"defaultRegistry": "shared", "registries": {"shared": {"registryUrl": registry.url, **binding}}},
        }
        file = tmp_path / "values.yaml"
        file.write_text(json.dumps(values))
        cluster.kubectl(
            *("create", "secret", "generic", "registry-shared", "-n", NAMESPACE, "--from-literal=username=robot"),
            f"--from-literal=password={PASSWORD}",
        )
        bundle = f"--from-file=ca.crt={authority.ca_file}"
        cluster.kubectl("create", "configmap", "corp-bundle", "-n", NAMESPACE, bundle)
        documents = render("--values", file)
        assert PASSWORD not in json.dumps(documents)
        helm("install", RELEASE, CHART, "-n", NAMESPACE, "--values", file, kubeconfig=cluster.kubeconfig)
        cluster.wait_established()
        objects = Objects(api, "team-b")
        with OperatorPod(documents, cluster, tmp_path / "pod") as operator:
            objects.create("guarded")
            objects.wait_ready("guarded", tell=operator.log)
            assert PASSWORD not in operator.log()
    helm("uninstall", RELEASE, "-n", NAMESPACE, kubeconfig=cluster.kubeconfig)
    cluster.kubectl("delete", "crd", "artifactrepositories.artifacts.alien.dev")


def run_helm_test(documents: Sequence[Document], operator: OperatorPod) -> subprocess.CompletedProcess[str]:
    """Run what the Pod of `helm test` runs, with the operator's addresses in the place of its Service's."""
    (container,) = only(documents, "Pod")["spec"]["containers"]
    assert container["command"] == ["python3", "-c"]
    script, *urls = container["args"]
    service = only(documents, "Service")
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    host = f"http://{service['metadata']['name']}.{NAMESPACE}"
    assert urls == [f"{host}:{ports['health']}/readyz", f"{host}:{ports['metrics']}/metrics"]
    assert service["spec"]["selector"].items() <= pod_labels(documents).items()
    assert not service["spec"]["selector"].items() <= only(documents, "Pod")["metadata"]["labels"].items()
    script = script.replace("range(30)", "range(2)")
    local = [f"http://{operator.address}/readyz", f"http://{operator.metrics_address}/metrics"]
    command = [sys.executable, "-c", script, *local]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def pod_labels(documents: Sequence[Document]) -> dict[str, str]:
    """Return the labels of the operator's Pods."""
    labels: dict[str, str] = only(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    return labels


def test_helm_test(installed: list[Document], cluster: DevCluster, api: Api, proxy: FaultProxy, tmp_path: Path) -> None:
    """`helm test` finds an operator that works, one that is not there, and one whose registry is down."""
    objects = Objects(api, "team-a")
    with OperatorPod(installed, cluster, tmp_path / "pod") as operator:
        objects.create("web")
        objects.wait_ready("web", tell=operator.log)
        good = run_helm_test(installed, operator)
        assert good.returncode == 0, good.stderr
        proxy.refuse()
        told_down = 'artifact_repository_registry_up{registry="artifacts"} 0.0'
        eventually(lambda: told_down in operator.metrics(), tell=operator.log)
        down = run_helm_test(installed, operator)
        assert down.returncode == 1
        assert "do not answer: artifact_repository_registry_up" in down.stderr
    gone = run_helm_test(installed, operator)
    assert gone.returncode == 1
    assert "kubectl logs" in gone.stderr


@pytest.mark.parametrize("lacking", ["permissions", "API server"])
@pytest.mark.parametrize("installed", [("--set", "rbac.create=false")], ids=["no-rbac"], indirect=True)
def test_an_operator_that_cannot_work_is_not_ready(
    installed: list[Document], lacking: str, cluster: DevCluster, tmp_path: Path
) -> None:
    """Not even for standing by: `helm install --wait` waits in vain for such a Pod, `helm test` fails and says why."""
    account = only(installed, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
    kubeconfig = cluster.service_account_kubeconfig(NAMESPACE, account)
    if lacking == "API server":
        nowhere = f"https://127.0.0.1:{free_port()}"
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", kubeconfig, server=nowhere)
    operator = OperatorPod(installed, cluster, tmp_path / "pod", kubeconfig=kubeconfig)
    operator.process.start()
    try:
        eventually(lambda: "Failed to acquire the Lease" in operator.log(), tell=operator.log)
        answer = httpx.get(f"http://{operator.address}/readyz", trust_env=False)
        assert answer.status_code == 503
        failed = run_helm_test(installed, operator)
        assert failed.returncode == 1
        assert f"is not ready ({answer.text.strip()})" in failed.stderr
    finally:
        operator.__exit__()


def expressions() -> dict[str, str]:
    """Return each expression of alerts and dashboard by where it stands."""
    alerts = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"][0]["rules"]
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    panels = {f"{panel['title']}: {t['expr']}": t["expr"] for panel in dashboard["panels"] for t in panel["targets"]}
    return {rule["alert"]: rule["expr"] for rule in alerts} | panels


def test_alerts_and_dashboard_read_what_is_there(
    installed: list[Document], cluster: DevCluster, api: Api, tmp_path: Path
) -> None:
    """Each expression is PromQL, and the metrics and labels that it asks for are in a live /metrics."""
    objects = Objects(api, "team-a")
    with OperatorPod(installed, cluster, tmp_path / "pod") as operator:
        objects.create("web")
        objects.wait_ready("web", tell=operator.log)
        operator.config.write_text("nonsense: true")
        eventually(lambda: 'config_loads_total{result="invalid"}' in operator.metrics(), tell=operator.log)
        samples = [sample for family in text_string_to_metric_families(operator.metrics()) for sample in family.samples]
    names = {sample.name for sample in samples}
    assert {
        "artifact_repository_build_info",
        "artifact_repository_api_requests_total",
        "process_cpu_seconds_total",
    } <= names
    of_prometheus = {"namespace", "job"}
    for where, expression in expressions().items():
        text = expression.replace("$namespace", "n").replace("$job", "j").replace("$__rate_interval", "5m")
        promql_parser.parse(text)
        selectors = re.findall(r"(artifact_repository_\w+)(?:\{([^}]*)\})?", text)
        assert selectors, where
        grouped = {name for found in re.findall(r"by \(([^)]*)\)", text) for name in re.split(r", *", found)}
        for metric, inner in selectors:
            found = [sample for sample in samples if sample.name == metric]
            assert found, f"{where}: {metric}"
            wanted = dict(re.findall(r'(\w+)="([^"]*)"', inner))
            asked = {name: value for name, value in wanted.items() if name not in of_prometheus}
            assert any(asked.items() <= sample.labels.items() for sample in found), f"{where}: {asked}"
            if len(selectors) == 1:
                assert grouped - of_prometheus <= found[0].labels.keys(), where


@pytest.mark.parametrize("installed", [("--set", "metrics.authorization=true")], ids=["authorization"], indirect=True)
def test_metrics_authorization_by_the_api_server(
    installed: list[Document], cluster: DevCluster, tmp_path: Path
) -> None:
    """With `metrics.authorization`, only a ServiceAccount bound to the chart's ClusterRole reads the metrics."""
    reader = next(
        document["metadata"]["name"]
        for document in installed
        if document["metadata"]["name"].endswith("-metrics-reader")
    )
    account = f"{NAMESPACE}:prometheus"
    cluster.kubectl("create", "serviceaccount", "prometheus", "-n", NAMESPACE)
    try:
        token = cluster.kubectl("create", "token", "prometheus", "-n", NAMESPACE).strip()
        headers = {"Authorization": f"Bearer {token}"}
        with OperatorPod(installed, cluster, tmp_path / "pod") as operator:
            url = f"http://{operator.metrics_address}/metrics"
            assert httpx.get(url, trust_env=False).status_code == 401
            assert httpx.get(url, trust_env=False, headers={"Authorization": "Bearer x.y.z"}).status_code == 401
            assert httpx.get(url, trust_env=False, headers=headers).status_code == 403
            assert httpx.get(f"http://{operator.address}/readyz", trust_env=False).status_code == 200
        cluster.kubectl(
            "create", "clusterrolebinding", reader, f"--clusterrole={reader}", f"--serviceaccount={account}"
        )
        with OperatorPod(installed, cluster, tmp_path / "next") as operator:
            url = f"http://{operator.metrics_address}/metrics"
            assert "artifact_repository_objects" in httpx.get(url, trust_env=False, headers=headers).text
    finally:
        cluster.kubectl("delete", "serviceaccount", "prometheus", "-n", NAMESPACE)
        cluster.kubectl("delete", "clusterrolebinding", reader, "--ignore-not-found")
