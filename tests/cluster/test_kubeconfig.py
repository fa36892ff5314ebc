"""kubeconfigs, each beside what kubectl does with the same file.

For the API server, both are the same user; where kubectl fails, the operator says why in one sentence.
"""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.errors import KubernetesError
from controller.kube.access import ClusterAccess
from controller.kube.client import KubernetesClient
from controller.kube.kubeconfig import KubeconfigSource
from devcluster.cluster import DevCluster
from devcluster.tools import Tool, provide
from tests.cluster.eventually import eventually
from tests.cluster.harness import (
    OPERATOR_ACCOUNT,
    OPERATOR_NAMESPACE,
    OPERATOR_USER,
    Objects,
    OperatorProcess,
    is_ready,
    operator_config,
    operator_kubeconfig,
)
from tests.fakes.authority import Authority
from tests.fakes.http_proxy import http_proxy

pytestmark = pytest.mark.cluster

REQUESTED_AT = "artifacts.alien.dev/requestedAt"
REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
PLUGIN = """\
import json, os, sys
print(json.dumps({"apiVersion": os.environ["VERSION"], "kind": "ExecCredential", "status": json.loads(sys.argv[1])}))
"""
"""An exec plugin: prints the status that it is given."""


@dataclass
class Bench:
    """What kubeconfigs are made of.

    Args:
        cluster: The control plane.
        folder: Where they are written.
    """

    cluster: DevCluster
    folder: Path
    user: dict[str, Any] = field(init=False)
    """The administrator's client certificate."""
    token: str = field(init=False)

    def __post_init__(self) -> None:
        self.user = yaml.safe_load(self.cluster.kubeconfig.read_text())["users"][0]["user"]
        self.token = yaml.safe_load(operator_kubeconfig(self.cluster).read_text())["users"][0]["user"]["token"]

    def data(self, path: str | Path) -> str:
        """Return a file's content as kubeconfigs embed it."""
        return base64.b64encode(Path(path).read_bytes()).decode()

    @property
    def certificate(self) -> dict[str, str]:
        """The client certificate as an exec plugin returns it."""
        fields = {"clientCertificateData": "client-certificate", "clientKeyData": "client-key"}
        return {name: Path(self.user[field]).read_text() for name, field in fields.items()}

    def exec(self, status: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
        """Return a user of an exec plugin."""
        plugin = self.folder / "plugin.py"
        plugin.write_text(PLUGIN)
        version = "client.authentication.k8s.io/v1"
        return {
            "exec": {
                "apiVersion": version,
                "command": sys.executable,
                "args": [str(plugin), json.dumps(status)],
                "env": [{"name": "VERSION", "value": version}],
                "interactiveMode": "Never",
                **fields,
            }
        }

    def write(self, user: Mapping[str, Any], **cluster: Any) -> Path:
        """Write a kubeconfig for the cluster; fields that are None are left out."""
        fields = {"server": self.cluster.url, "certificate-authority": str(self.cluster.ca_file), **cluster}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {k: v for k, v in fields.items() if v is not None}}],
            "users": [{"name": "u", "user": dict(user)}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
            "preferences": {},
        }
        return self.text(yaml.safe_dump(content))

    def text(self, text: str, name: str = "config") -> Path:
        """Write a file."""
        path = self.folder / name
        path.write_text(text)
        return path


@pytest.fixture
def bench(cluster: DevCluster, tmp_path: Path) -> Bench:
    """Return what kubeconfigs are made of."""
    return Bench(cluster, tmp_path)


Environment = dict[str, str]


def kubectl(environment: Environment, *arguments: str) -> dict[str, Any] | None:
    """Return who kubectl is for the API server; None if it fails."""
    done = subprocess.run(
        [provide(Tool.KUBECTL), "auth", "whoami", "--output=json", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        return None
    user: dict[str, Any] = json.loads(done.stdout)["status"]["userInfo"]
    return user


async def operator(source: KubeconfigSource) -> dict[str, Any]:
    """Return who the operator is for the API server."""
    access = ClusterAccess(source)
    client = KubernetesClient(access)
    try:
        review = await client.request(
            "POST", REVIEW, body={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        )
    finally:
        await client.close()
        await access.close()
    user: dict[str, Any] = review["status"]["userInfo"]
    return user


def same(user: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies a user; credential ids differ between tokens and requests."""
    extra = {key: value for key, value in user.get("extra", {}).items() if "credential-id" not in key}
    return {**user, "extra": extra}


WORKING: dict[str, Callable[[Bench], Path]] = {
    "certificate files": lambda b: b.write(b.user),
    "certificate data": lambda b: b.write(
        {f"{name}-data": b.data(path) for name, path in b.user.items()},
        **{"certificate-authority": None, "certificate-authority-data": b.data(b.cluster.ca_file)},
    ),
    "relative paths": lambda b: b.write(
        {name: _linked(b, path) for name, path in b.user.items()},
        **{"certificate-authority": _linked(b, b.cluster.ca_file)},
    ),
    "token": lambda b: b.write({"token": b.token}),
    "token file with a newline": lambda b: b.write({"tokenFile": str(b.text(f"{b.token}\n", "token"))}),
    "token and token file": lambda b: b.write({"token": "old", "tokenFile": str(b.text(b.token, "token"))}),
    "exec token": lambda b: b.write(b.exec({"token": b.token})),
    "exec with nulls": lambda b: b.write(b.exec({"token": b.token}, installHint=None, provideClusterInfo=None)),
    "exec certificate": lambda b: b.write(b.exec(b.certificate)),
    "exec with cluster info": lambda b: b.write(b.exec({"token": b.token}, provideClusterInfo=True)),
    "tls-server-name": lambda b: b.write(b.user, **{"tls-server-name": "localhost"}),
    "without verification": lambda b: b.write(
        b.user, **{"insecure-skip-tls-verify": True, "certificate-authority": None}
    ),
    "CA bundle with comments": lambda b: b.write(
        b.user,
        **{"certificate-authority": str(b.text(f"# Autorité\n{b.cluster.ca_file.read_text()}\n# Ende\n", "ca"))},
    ),
    "server certificate as CA": lambda b: b.write(
        b.user, **{"certificate-authority": str(b.cluster.folder / "certificates" / "serving.crt")}
    ),
    "impersonation": lambda b: b.write(
        {
            **b.user,
            "as": "jane",
            "as-uid": "7",
            "as-groups": ["developers", "system:authenticated"],
            "as-user-extra": {"example.com/Team%": ["a", "b"]},
        }
    ),
    "duplicate keys": lambda b: b.text(f"{b.write(b.user).read_text()}\ncurrent-context: x\n"),
    "server with a slash": lambda b: b.write(b.user, server=f"{b.cluster.url}/"),
}


def _linked(bench: Bench, path: str | Path) -> str:
    link = bench.folder / "files" / Path(path).name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(path)
    return f"files/{link.name}"


@pytest.mark.parametrize("write", [pytest.param(write, id=name) for name, write in WORKING.items()])
async def test_the_operator_is_who_kubectl_is(bench: Bench, write: Callable[[Bench], Path]) -> None:
    """With each form of kubeconfig, both have the same user, groups and extra fields."""
    path = write(bench)
    expected = await asyncio.to_thread(kubectl, {}, f"--kubeconfig={path}")
    assert expected is not None
    assert same(await operator(KubeconfigSource(path))) == same(expected)


REFUSED: dict[str, tuple[Callable[[Bench], Path], str]] = {
    "empty": (lambda b: b.text(""), "no current-context is set"),
    "broken YAML": (lambda b: b.text("clusters: [\n  - secret: s3cret\n }"), "is not valid YAML: expected"),
    "binary": (lambda b: b.text("\x00\x01"), "is not valid YAML"),
    "YAML with a wrong tag": (lambda b: b.text("a: !!bool 7"), "is not valid YAML"),
    "a list": (lambda b: b.text("[]"), "is not a YAML mapping"),
    "nested too deep": (lambda b: b.text("[" * 5000), "is not valid YAML"),
    "missing context": (
        lambda b: b.text(b.write(b.user).read_text().replace("current-context: x", "current-context: y")),
        "there is no context 'y'",
    ),
    "missing user": (
        lambda b: b.text(b.write(b.user).read_text().replace("user: u", "user: v")),
        "there is no user 'v'",
    ),
    "missing CA file": (
        lambda b: b.write(b.user, **{"certificate-authority": "none"}),
        "none cannot be read: No such file",
    ),
    "garbage CA": (
        lambda b: b.write(b.user, **{"certificate-authority": str(b.text("garbage", "ca"))}),
        "the certificate authority contains no valid certificate",
    ),
    "CA data that is not base64": (
        lambda b: b.write(b.user, **{"certificate-authority": None, "certificate-authority-data": "!"}),
        "certificate-authority-data: not valid base64",
    ),
    "CA of another server": (
        lambda b: b.write(b.user, **{"certificate-authority": b.user["client-certificate"]}),
        "CERTIFICATE_VERIFY_FAILED",
    ),
    "garbage certificate": (
        lambda b: b.write({**b.user, "client-certificate": str(b.text("garbage", "crt"))}),
        "the client certificate cannot be used",
    ),
    "certificate without a key": (
        lambda b: b.write({"client-certificate": b.user["client-certificate"]}),
        "needs a client key",
    ),
    "CA without verification": (
        lambda b: b.write(b.user, **{"insecure-skip-tls-verify": True}),
        "insecure-skip-tls-verify cannot be combined",
    ),
    "wrong tls-server-name": (lambda b: b.write(b.user, **{"tls-server-name": "other.example"}), "Hostname mismatch"),
    "empty token file": (lambda b: b.write({"tokenFile": str(b.text("\n", "token"))}), "is empty"),
    "token that expired": (lambda b: b.write({"token": "old"}), "Unauthorized"),
    "token with a line break": (lambda b: b.write({"token": "a\nb"}), "contains a line break"),
    "groups without a user": (lambda b: b.write({**b.user, "as-groups": ["a"]}), "need a user to impersonate"),
    "not allowed to impersonate": (lambda b: b.write({"token": b.token, "as": "jane"}), "cannot impersonate"),
    "exec that fails": (lambda b: b.write(b.exec({}, args=["-c", "exit('no session')"])), "exit code 1: no session"),
    "exec that is not there": (lambda b: b.write(b.exec({}, command="no-such-plugin")), "cannot be run"),
    "exec without credentials": (lambda b: b.write(b.exec({})), "neither a token nor a client certificate"),
    "exec for a terminal": (lambda b: b.write(b.exec({}, interactiveMode="Always")), "has no terminal"),
    "exec of an old version": (
        lambda b: b.write(b.exec({"token": b.token}, apiVersion="client.authentication.k8s.io/v1alpha1")),
        "apiVersion 'client.authentication.k8s.io/v1alpha1' is not supported",
    ),
    "no credentials": (lambda b: b.write({}), "is forbidden"),
    "server without a scheme": (  # means http
        lambda b: b.write(b.user, server=b.cluster.url.removeprefix("https://")),
        "status 400",
    ),
    "auth-provider": (
        lambda b: b.write({"auth-provider": {"name": "gcp", "config": {}}}),
        "auth-provider is not supported: use an exec plugin",
    ),
    "proxy that is not a URL": (lambda b: b.write(b.user, **{"proxy-url": "ftp://proxy"}), "is not an http://"),
}


@pytest.mark.parametrize(("write", "sentence"), [pytest.param(*row, id=name) for name, row in REFUSED.items()])
async def test_what_kubectl_refuses(bench: Bench, write: Callable[[Bench], Path], sentence: str) -> None:
    """The operator refuses it, too, and says why in one sentence without secrets."""
    path = write(bench)
    assert await asyncio.to_thread(kubectl, {}, f"--kubeconfig={path}") is None
    with pytest.raises(KubernetesError) as raised:
        await operator(KubeconfigSource(path))
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "s3cret" not in str(raised.value)
    assert len(str(raised.value)) < 600


def split(bench: Bench) -> Sequence[Path]:
    """Write a kubeconfig in two files; the second one has a user and a current context that do not count."""
    whole = yaml.safe_load(bench.write({"token": bench.token}).read_text())
    first = {"users": whole["users"], "current-context": "x"}
    second = {**whole, "users": [{"name": "u", "user": {"token": "wrong"}}], "current-context": "wrong"}
    return [bench.text(yaml.safe_dump(first), "first"), bench.text(yaml.safe_dump(second), "second")]


async def test_several_files(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG=a:b merges: the first file with an entry wins, and missing files are skipped."""
    first, second = split(bench)
    named = f"{bench.folder / 'missing'}:{first}::{second}"
    monkeypatch.setenv("KUBECONFIG", named)
    expected = await asyncio.to_thread(kubectl, {"KUBECONFIG": named})
    assert expected is not None
    assert expected["username"] == OPERATOR_USER
    assert same(await operator(KubeconfigSource())) == same(expected)


async def test_flags(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """--kubeconfig goes before KUBECONFIG, and --context before the current one."""
    monkeypatch.setenv("KUBECONFIG", str(bench.text("", "other")))
    content = yaml.safe_load(bench.write({"token": "wrong"}).read_text())
    content["users"].append({"name": "admin", "user": bench.user})
    content["contexts"].append({"name": "good", "context": {"cluster": "c", "user": "admin"}})
    path = bench.text(yaml.safe_dump(content))
    expected = await asyncio.to_thread(kubectl, {}, f"--kubeconfig={path}", "--context=good")
    assert expected is not None
    assert same(await operator(KubeconfigSource(path, "good"))) == same(expected)


PROXIES = {
    "proxy-url": ({"proxy-url": ""}, {}, True),
    "proxy-url with a password": ({"proxy-url": "user:s3cret@"}, {}, True),
    "proxy-url before the environment": (
        {"proxy-url": ""},
        {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "*"},
        True,
    ),
    "never for loopback": ({}, {"HTTPS_PROXY": "http://127.0.0.1:1"}, False),
}


@pytest.mark.parametrize(
    ("fields", "environment", "used"), [pytest.param(*row, id=name) for name, row in PROXIES.items()]
)
async def test_proxies(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fields: Environment, environment: Environment, used: bool
) -> None:
    """The kubeconfig's proxy is used for every host, that of the environment never for loopback."""
    async with http_proxy() as proxy:
        urls = {name: proxy.url.replace("//", f"//{login}") for name, login in fields.items()}
        path = bench.write(bench.user, **urls)
        expected = await asyncio.to_thread(kubectl, environment, f"--kubeconfig={path}")
        seen = len(proxy.heads)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert expected is not None
        assert same(await operator(KubeconfigSource(path))) == same(expected)
    assert (seen, len(proxy.heads)) == ((1, 2) if used else (0, 0))
    assert len({"Proxy-Authorization: Basic" in head for head in proxy.heads}) <= 1


async def test_an_operator_behind_a_proxy(bench: Bench, objects: Objects, tmp_path: Path) -> None:
    """Its watch, too, uses the proxy, the exec plugin, the TLS server name and the impersonated user."""
    user = {**bench.exec(bench.certificate), "as": OPERATOR_USER}

    def run(kubeconfig: Path) -> None:
        config, arguments = operator_config(bench.cluster.registry_url), ("--namespace", objects.namespace)
        with OperatorProcess(tmp_path / "run", config=config, kubeconfig=kubeconfig, arguments=arguments) as operator:
            objects.create("web")
            objects.wait_ready("web", tell=operator.log)

    async with http_proxy() as proxy:
        kubeconfig = bench.write(user, **{"proxy-url": proxy.url, "tls-server-name": "localhost"})
        await asyncio.to_thread(run, kubeconfig)
        assert len(proxy.heads) >= 2  # the client and the watch


def test_a_killed_operator_leaves_no_key(bench: Bench, namespace: str, tmp_path: Path) -> None:
    """After SIGKILL, the temporary folder is empty, with keys from the kubeconfig as well as from a plugin."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    for user in (
        {f"{name}-data": bench.data(path) for name, path in bench.user.items()},
        bench.exec(bench.certificate),
    ):
        operator = OperatorProcess(
            tmp_path / "run",
            config=operator_config(bench.cluster.registry_url),
            kubeconfig=bench.write(user),
            arguments=("--namespace", namespace),
            environment={"TMPDIR": str(folder)},
        )
        with operator:
            operator.process.kill()
        assert list(folder.iterdir()) == []


def test_a_renewed_client_certificate(bench: Bench, objects: Objects, tmp_path: Path) -> None:
    """An operator whose certificate the API server rejects continues with the one that replaces it on disk."""
    certificate, key = Authority(tmp_path, "foreign").issue("client")
    operator = OperatorProcess(
        tmp_path / "run",
        config=operator_config(bench.cluster.registry_url),
        kubeconfig=bench.write({"client-certificate": str(certificate), "client-key": str(key)}),
        arguments=("--namespace", objects.namespace),
        wait=False,
    )
    with operator:
        eventually(lambda: "Not ready to start, retrying: Unauthorized" in operator.log(), tell=operator.log)
        certificate.write_bytes(Path(bench.user["client-certificate"]).read_bytes())
        key.write_bytes(Path(bench.user["client-key"]).read_bytes())
        objects.create("web")
        objects.wait_ready("web", within=60, tell=operator.log)


COUNTING_PLUGIN = """\
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
with open(folder / "calls", "a") as calls:
    calls.write("x")
token = (folder / "token").read_text()
status = {"token": token}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


def bound_token(bench: Bench, secret: str) -> str:
    """Return a token of the operator that is good until a Secret is deleted."""
    bench.cluster.kubectl("create", "secret", "generic", secret, "-n", OPERATOR_NAMESPACE)
    bound = f"--bound-object-kind=Secret --bound-object-name={secret}".split()
    return bench.cluster.kubectl("create", "token", OPERATOR_ACCOUNT, "-n", OPERATOR_NAMESPACE, *bound).strip()


def test_one_expiry_with_many_objects(bench: Bench, objects: Objects, tmp_path: Path) -> None:
    """When a token expires and the exec plugin fails, the plugin is called again soon, but not for each object."""
    token, calls = tmp_path / "token", tmp_path / "calls"
    token.write_text(bound_token(bench, f"{objects.namespace}-1"))
    (tmp_path / "counting.py").write_text(COUNTING_PLUGIN)
    kubeconfig = bench.write(bench.exec({}, args=[str(tmp_path / "counting.py"), str(tmp_path)]))
    config = operator_config(bench.cluster.registry_url)
    arguments = ("--namespace", objects.namespace)
    server = (f"--server={bench.cluster.url}", f"--certificate-authority={bench.cluster.ca_file}")
    with OperatorProcess(tmp_path / "run", config=config, kubeconfig=kubeconfig, arguments=arguments) as operator:
        objects.create_many(f"web-{number}" for number in range(100))
        objects.wait_all(is_ready, within=60, tell=operator.log)
        assert len(calls.read_text()) == 1
        first = token.read_text()
        token.unlink()
        bench.cluster.kubectl("delete", "secret", f"{objects.namespace}-1", "-n", OPERATOR_NAMESPACE)
        # The API server remembers accepted tokens for ten seconds.
        eventually(lambda: kubectl({}, *server, f"--token={first}") is None, within=60)
        for number in range(100):
            objects.patch(f"web-{number}", {"metadata": {"annotations": {REQUESTED_AT: "1"}}})
        log = tmp_path / "run" / "operator.log"
        eventually(lambda: "cannot be renewed, retrying: exec plugin" in log.read_text(), within=60, tell=operator.log)
        failed = len(calls.read_text())
        assert failed <= 6
        token.write_text(bound_token(bench, f"{objects.namespace}-2"))
        for number in range(100):
            objects.patch(f"web-{number}", {"metadata": {"annotations": {REQUESTED_AT: "2"}}})
        objects.wait_all(lambda one: one["status"].get("lastHandledReconcileAt") == "2", within=90, tell=operator.log)
        assert len(calls.read_text()) <= failed + 5
