"""The chart by itself: what it renders, what it refuses, and that it agrees with what it is made from."""

import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from controller import __version__, cli
from controller.api.selector import check_label_selector
from controller.configfile import parse_config
from controller.urls import normalise_registry_url
from devcluster import manifests
from devcluster.manifests import CHART, MANIFESTS, ROOT
from hack import chart
from tests.charts.rendering import CI_VALUES, FULL_NAME, KIND_VALUES, PRODUCTION_VALUES, RELEASE, helm, only, render

ci_values = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)

REPOSITORY = "https://github.com/alien-dev/artifact-repository-controller"
REGISTRY = ("--set", "config.registries.artifacts.registryUrl=http://kind-registry:5000")


def test_one_version() -> None:
    """Chart and operator have one version, and the image that a release pulls is the one that `make image` builds."""
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["version"] == about["appVersion"] == __version__
    container = only(render(*REGISTRY), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"artifact-repository-controller:{__version__}"


def test_manifests_are_up_to_date() -> None:
    """manifests/ is what the chart renders: otherwise, `make manifests`."""
    for name, text in manifests.render().items():
        assert (MANIFESTS / name).read_text() == text, name


def test_kustomization_is_complete() -> None:
    """`kubectl apply -k manifests/` installs each of the rendered files, and the namespace that they are in."""
    kustomization = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    listed = kustomization["resources"]
    for component in kustomization["components"]:
        inner = yaml.safe_load((MANIFESTS / component / "kustomization.yaml").read_text())
        assert inner["kind"] == "Component"
        listed += [f"{component}/{name}" for name in inner["resources"]]
    assert sorted(listed) == sorted([*manifests.render(), "namespace.yaml"])


def test_schema_is_up_to_date() -> None:
    """values.schema.json follows values.yaml, the configuration's models and the command line: `make docs`."""
    assert (CHART / "values.schema.json").read_text() == chart.schema()


@ci_values
def test_lint(values: Path) -> None:
    """Helm finds nothing to warn of."""
    assert "[WARNING]" not in helm("lint", "--strict", CHART, "--values", values)


@ci_values
def test_configuration(values: Path) -> None:
    """The operator takes the rendered configuration, and it is that of the values, with policy Namespaced."""
    text = only(render("--values", values), "ConfigMap", name=_full_name(values))["data"]["config.yaml"]
    given = yaml.safe_load(values.read_text())["config"]
    assert parse_config(text) == parse_config(yaml.safe_dump({"repositoryPolicy": "Namespaced", **given}))


@ci_values
def test_arguments(values: Path) -> None:
    """The container's arguments are the operator's, and each file and folder that they name is mounted."""
    container = only(render("--values", values), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    command, *arguments = container["args"]
    with cli.main.commands[command].make_context(command, list(arguments), resilient_parsing=False) as context:
        given = context.params
    assert given["leader_elect"]
    ports = {port["name"]: f":{port['containerPort']}" for port in container["ports"]}
    assert (given["health_address"], given["metrics_address"]) == (ports["health"], ports["metrics"])
    folders = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(given["config"].parent) in folders
    config = parse_config(only(render("--values", values), "ConfigMap", name=_full_name(values))["data"]["config.yaml"])
    for binding in config.registries.values():
        files = [binding.tls.ca_file] if binding.tls else []
        if binding.credentials and binding.credentials.basic:
            files += [binding.credentials.basic.username_file, binding.credentials.basic.password_file]
        assert {str(file.parent) for file in files if file} <= folders


def test_every_value_reaches_something() -> None:
    """Each value in values.yaml changes what is rendered, or is there to be looked at by another that does."""
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    scoped = {"metrics.serviceMonitor", "metrics.prometheusRule", "metrics.dashboard"}
    for path, _, _ in chart.values():
        group = path.rpartition(".")[0]
        used = f".Values.{path}" in templates or (group in scoped and f".{path.rpartition('.')[2]}" in templates)
        assert used, path


def test_namespaced_release_touches_nothing_else() -> None:
    """With listed namespaces and all toggles off there is nothing cluster-wide, and nothing elsewhere."""
    documents = render("--values", CHART / "ci" / "namespaces-values.yaml", namespace="tenants")
    assert {document["metadata"].get("namespace") for document in documents} == {"tenants", "team-a", "team-b"}
    arguments = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert {"--namespace=team-a", "--namespace=team-b", "--watch-label-selector=shard in (a, b)"} <= set(arguments)


@ci_values
def test_roles_have_distinct_names(values: Path) -> None:
    """No two Roles of a release differ in their namespace alone, except those that are the same in each one watched."""
    roles = [document for document in render("--values", values) if document["kind"] == "Role"]
    per_name: dict[str, list[Any]] = {}
    for role in roles:
        per_name.setdefault(role["metadata"]["name"], []).append(role["rules"])
    assert all(rules.count(rules[0]) == len(rules) for rules in per_name.values())


KEPT = {
    "helm.sh/resource-policy": "keep",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
    "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
}


def test_the_crd_is_kept() -> None:
    """Helm, Flux and Argo CD leave the CRD, and with it all objects, when they remove the rest; by each one's rule."""
    assert only(render(*REGISTRY), "CustomResourceDefinition")["metadata"]["annotations"] == KEPT
    assert (
        "annotations" not in only(render(*REGISTRY, "--set", "crds.keep=false"), "CustomResourceDefinition")["metadata"]
    )
    (crd,) = yaml.safe_load_all((MANIFESTS / "crd.yaml").read_text())
    assert crd["metadata"]["annotations"] == {name: how for name, how in KEPT.items() if "helm" not in name}


def test_the_crd_belongs_to_no_instance() -> None:
    """Argo CD by label tracking writes the application's name into app.kubernetes.io/instance of what it installs."""
    (of_manifests,) = yaml.safe_load_all((MANIFESTS / "crd.yaml").read_text())
    for crd in (only(render(*REGISTRY), "CustomResourceDefinition"), of_manifests):
        labels = crd["metadata"]["labels"]
        assert "app.kubernetes.io/instance" not in labels
        assert labels["app.kubernetes.io/name"] == "artifact-repository-controller"


def test_a_process_that_hangs_is_replaced_soon() -> None:
    """operations.md states the most that it takes; a process that lacks CPU for 20 seconds survives."""
    pod = only(render(*REGISTRY), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probe = container["livenessProbe"]
    grace = probe["terminationGracePeriodSeconds"]
    # It hangs just after a probe: the next one is a period later, and the last one that is needed takes its timeout.
    until_killed = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"] + grace
    assert until_killed <= 40
    page = " ".join((ROOT / "docs" / "operations.md").read_text().split())
    assert f"hangs is killed within {until_killed} seconds" in page
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) >= 20
    assert 0 < grace < pod["terminationGracePeriodSeconds"]


def test_a_refused_start_is_described() -> None:
    """The kubelet takes the end of the log as the message of a container that failed."""
    (container,) = only(render(*REGISTRY), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_values_for_other_peoples_clusters() -> None:
    """Labels, annotations, volumes, DNS, security contexts and further objects appear where they belong."""
    documents = render("--values", CHART / "ci" / "custom-values.yaml")
    namespaced = [document for document in documents if "namespace" in document["metadata"]]
    assert {document["metadata"]["namespace"] for document in namespaced} <= {"platform", "kube-public"}
    deployment = only(documents, "Deployment")
    assert deployment["metadata"]["labels"]["team"] == "platform"
    assert "team" not in deployment["spec"]["selector"]["matchLabels"]
    assert deployment["metadata"]["annotations"] == {"reloader.stakater.com/auto": "true"}
    assert (deployment["spec"]["strategy"], deployment["spec"]["revisionHistoryLimit"]) == ({"type": "Recreate"}, 2)
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["fsGroup"] == 1000
    assert pod["hostAliases"][0]["ip"] == "10.1.2.3"
    assert (pod["dnsPolicy"], pod["dnsConfig"]["options"][0]["name"]) == ("ClusterFirst", "ndots")
    assert not pod["enableServiceLinks"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["registry-corp"]["configMap"] == {"name": "corp-bundle"}
    assert volumes["extra"] == {"name": "extra", "emptyDir": {}}
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert (mounts["registry-corp"], mounts["extra"]) == ("/etc/registries/corp", "/extra")
    assert container["args"][-1] == "--grace-period=5"
    assert only(documents, "Service")["metadata"]["annotations"] == {"example.com/scrape": "true"}
    assert only(documents, "ServiceMonitor")["spec"]["endpoints"][0]["scrapeTimeout"] == "10s"
    dashboard = only(documents, "ConfigMap", name=f"{FULL_NAME}-dashboard")
    assert dashboard["metadata"]["annotations"] == {"grafana_folder": "Platform"}
    assert only(documents, "ConfigMap", name=f"{RELEASE}-extra")["data"] == {"key": "value"}


def test_the_default_network_policy() -> None:
    """By default only metrics can be reached, and egress is TCP, and DNS to the cluster's servers."""
    spec = only(render(*REGISTRY), "NetworkPolicy")["spec"]
    metrics, test = spec["ingress"]
    assert metrics == {"ports": [{"port": "metrics"}]}
    assert test["from"] == [{"podSelector": {"matchLabels": only(render(*REGISTRY), "Pod")["metadata"]["labels"]}}]
    dns, rest = spec["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert {"k8s-app": "kube-dns"} in [peer.get("podSelector", {}).get("matchLabels") for peer in dns["to"]]
    assert rest == {"ports": [{"protocol": "TCP"}]}


def test_digest_goes_before_tag() -> None:
    """A digest pins the image, whatever the tag says."""
    digest = f"sha256:{'0' * 64}"
    documents = render(*REGISTRY, "--set", f"image.digest={digest},image.tag=x")
    image = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"artifact-repository-controller@{digest}"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "--set config.registries.artifacts.registryUrl=http://kind-registry:5000"),
        ({"config": {"registries": {"shared": {"registryUrl": "http://a"}}}}, "config.defaultRegistry"),
        ({"replicas": 2}, "replicaCount"),
        ({"replicaCount": "two"}, "replicaCount"),
        ({"image": {"tagg": "x"}}, "tagg"),
        ({"image": {"digest": "abc"}}, "digest"),
        ({"concurrent": 0}, "concurrent"),
        ({"logLevel": "verbose"}, "logLevel"),
        ({"config": {"registries": {"a": {"registryURL": "http://a"}}}}, "registryURL"),
        ({"config": {"registries": {"a": {"registryUrl": 5}}}}, "registryUrl"),
        ({"config": {"timings": {"resyncInterval": "soon"}}}, "resyncInterval"),
        ({"config": {"timings": {"resyncinterval": "5m"}}}, "resyncinterval"),
        ({"registrySecrets": {"../../etc": "x"}}, "registrySecrets"),
        ({"networkPolicy": {"egress": []}}, "egress"),
        ({"registrySecrets": {"ca": "x"}, "registryConfigMaps": {"ca": "y"}}, "registryConfigMaps.ca"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
        ({"watch": {"namespaces": "team-a"}}, "namespaces"),
        ({"watch": {"labelSelector": "shard: a"}}, "labelSelector"),
        ({"watch": {"labelSelector": "shard in a, b"}}, "labelSelector"),
        ({"metrics": {"serviceMonitor": {"interval": "30"}}}, "interval"),
        ({"metrics": {"serviceMonitor": {"scrapeTimeout": "10 s"}}}, "scrapeTimeout"),
        ({"metrics": {"prometheusRule": {"runbookUrl": "docs/operations.md"}}}, "runbookUrl"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_values_are_refused(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    """What is misspelt or makes no sense is refused before anything is installed, and the value is named."""
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    good = () if "config" in values or not values else REGISTRY
    assert said in helm("template", CHART, "--values", file, *good, check=False)


@pytest.mark.parametrize(
    "url", ["ftp://registry", "https://user:password@registry", "http://registry/path", "http://", "a b", ""]
)
def test_a_url_of_no_registry_is_refused(url: str) -> None:
    """Neither another scheme, a user, a path nor an empty host; the message has the path of the value."""
    told = helm("template", CHART, "--set", f"config.registries.artifacts.registryUrl={url}", check=False)
    assert "/config/registries/artifacts/registryUrl" in told


def test_durations_that_the_operator_takes() -> None:
    """The schema is no stricter about durations than the operator."""
    pattern = re.compile(json.loads(chart.schema())["$defs"]["Timings"]["properties"]["resyncInterval"]["pattern"])
    for text in ("90s", "10m", "1h30m", "1s500ms", "1.5h"):
        assert pattern.search(text), text
        parse_config(
            f"{{defaultRegistry: a, registries: {{a: {{registryUrl: b}}}}, timings: {{resyncInterval: {text}}}}}"
        )


@pytest.mark.parametrize(
    "selector",
    [
        "",
        "shard=a",
        "shard == a",
        "a!=b",
        "a",
        "!a",
        "! a",
        "n > 3",
        "shard in (a, b)",
        "a.b/c notin (),!x , y= ",
        "a=",
    ],
)
def test_label_selectors_that_the_operator_takes(selector: str) -> None:
    """The schema is no stricter about label selectors than the operator."""
    check_label_selector(selector)
    watch = json.loads(chart.schema())["properties"]["watch"]["properties"]
    assert re.search(watch["labelSelector"]["pattern"], selector)


@pytest.mark.parametrize(
    "url", ["registry", "registry:5000", "http://registry:5000/", "https://127.0.0.1", "[::1]:5000", "https://[::1]/"]
)
def test_registry_urls_that_the_operator_takes(url: str) -> None:
    """The schema is no stricter about the URLs of registries than the operator."""
    normalise_registry_url(url)
    fields = json.loads(chart.schema())["$defs"]["RegistryBinding"]["properties"]
    assert re.search(fields["registryUrl"]["pattern"], url)


def test_the_test_pod_runs_where_the_operator_runs() -> None:
    """The Pod of `helm test` has resources, and the operator's node selector, tolerations and pull secrets."""
    values = {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "pull"}],
    }
    documents = render(*REGISTRY, *(f"--set-json={name}={json.dumps(value)}" for name, value in values.items()))
    pods = only(documents, "Pod")["spec"], only(documents, "Deployment")["spec"]["template"]["spec"]
    for pod in pods:
        assert {name: pod[name] for name in values} == values
        assert pod["containers"][0]["resources"].keys() == {"requests", "limits"}


def test_each_alert_has_a_runbook() -> None:
    """`runbook_url` points to a heading of operations.md, or of the page that a value names."""
    page = (ROOT / "docs" / "operations.md").read_text()
    headings = {line.removeprefix("### ") for line in page.splitlines() if line.startswith("### ")}
    enabled = (*REGISTRY, "--set", "metrics.prometheusRule.enabled=true")
    rules = runbooks(*enabled)
    assert {alert for alert in rules if alert in headings} == rules.keys()
    for alert, url in rules.items():
        assert url == f"{REPOSITORY}/blob/main/docs/operations.md#{alert.lower()}"
    ours = runbooks(*enabled, "--set", "metrics.prometheusRule.runbookUrl=https://wiki.example.com/$1?page=2")
    assert ours == {alert: f"https://wiki.example.com/$1?page=2#{alert.lower()}" for alert in rules}


def runbooks(*arguments: str) -> dict[str, str]:
    """Return the runbook of each alert that is rendered."""
    (group,) = only(render(*arguments), "PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule["annotations"]["runbook_url"] for rule in group["rules"]}


def test_notes_name_what_is_there() -> None:
    """The notes after an installation name the release's Deployment and a namespace that it watches."""
    notes = helm("install", "artifacts", CHART, "--dry-run=client", "--namespace", "tenants", *REGISTRY)
    assert f"kubectl logs -n tenants deploy/{FULL_NAME}" in notes
    assert "helm test -n tenants artifacts" in notes
    assert f"kubectl exec -n tenants deploy/{FULL_NAME} -- " in notes
    narrowed = helm("install", "artifacts", CHART, "--dry-run=client", *REGISTRY, "--set", "watch.namespaces={team-a}")
    assert "kubectl apply -n team-a -f -" in narrowed.partition("NOTES:")[2]


def test_packed(tmp_path: Path) -> None:
    """The packed chart installs the same as the folder, and has nothing in it that only the repository needs."""
    helm("package", CHART, "--destination", tmp_path)
    (packed,) = tmp_path.glob("*.tgz")
    assert packed.name == f"artifact-repository-controller-{__version__}.tgz"
    arguments = ("--values", str(PRODUCTION_VALUES))
    assert helm("template", "x", packed, *arguments) == helm("template", "x", CHART, *arguments)


def test_readme_commands() -> None:
    """The chart's page installs with values that the chart takes."""
    page = (CHART / "README.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    (install,) = [words for words in lines if words[:2] == ["helm", "install"]]
    sets = [value for name, value in itertools.pairwise(install) if name == "--set"]
    assert sets
    assert render(*(argument for value in sets for argument in ("--set", value)))


def _full_name(values: Path) -> str:
    return str(yaml.safe_load(values.read_text()).get("fullnameOverride", FULL_NAME))


def test_arguments_are_checked() -> None:
    """The test of the arguments above would find a wrong one."""
    with pytest.raises(click.NoSuchOption):
        cli.main.commands["run"].make_context("run", ["--config=x", "--nonsense"])
    assert KIND_VALUES.exists()
