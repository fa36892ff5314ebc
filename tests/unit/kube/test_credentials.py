"""What is read from kubeconfigs, token files and the Pod. Most forms are in tests/cluster/test_kubeconfig.py."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from controller.errors import KubernetesError
from controller.kube import kubeconfig
from controller.kube.access import ClusterAccess
from controller.kube.credentials import Credentials, read_credentials
from controller.kube.kubeconfig import KubeconfigSource

CLUSTER_INFO = """\
import json, os, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
status = {"token": json.dumps(info["spec"], sort_keys=True)}
print(json.dumps({"apiVersion": info["apiVersion"], "kind": "ExecCredential", "status": status}))
"""


def write(folder: Path, user: dict[str, Any], **cluster: Any) -> Path:
    """Write a kubeconfig."""
    content = {
        "clusters": [{"name": "c", "cluster": {"server": "https://api.corp:6443", **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "config"
    path.write_text(json.dumps(content))
    return path


async def read(folder: Path, user: dict[str, Any], **cluster: Any) -> Credentials:
    """Return what a kubeconfig gives."""
    return await read_credentials(KubeconfigSource(write(folder, user, **cluster)), None)


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the ServiceAccount's directory of a Pod."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT_DIRECTORY", tmp_path)
    (tmp_path / "token").write_text("t\n")
    (tmp_path / "ca.crt").write_text("ca")
    return tmp_path


async def test_service_account(pod: Path) -> None:
    """Address from the environment, token and CA from files."""
    source = KubeconfigSource()
    assert source.is_in_cluster
    credentials = await read_credentials(source, None)
    assert credentials.server == "https://[fd00::1]:443"
    assert credentials.headers == [("Authorization", "Bearer t")]
    assert credentials.tls.ca == b"ca"
    (pod / "token").unlink()
    with pytest.raises(KubernetesError, match="token cannot be read: No such file"):
        await read_credentials(source, credentials)


def test_what_is_used_instead_of_the_pod(pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both flags, and KUBECONFIG."""
    assert not KubeconfigSource(pod / "config").is_in_cluster
    assert not KubeconfigSource(context="x").is_in_cluster
    monkeypatch.setenv("KUBECONFIG", "config")
    assert not KubeconfigSource().is_in_cluster


def test_no_kubeconfig_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says what to do."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(KubernetesError, match="use --kubeconfig or KUBECONFIG"):
        KubeconfigSource().load()
    with pytest.raises(KubernetesError, match="--kubeconfig names"):
        KubeconfigSource(tmp_path).load()
    write(tmp_path, {}).rename(tmp_path / "moved")
    (tmp_path / ".kube").mkdir()
    (tmp_path / "moved").rename(tmp_path / ".kube" / "config")
    assert KubeconfigSource().load().cluster.server == "https://api.corp:6443"


async def test_a_kubeconfig_from_a_pipe_is_read_once(tmp_path: Path) -> None:
    """As of a shell's ``<(kubectl config view --raw)``. Reading it again would wait for somebody to write to it."""
    content, pipe = write(tmp_path, {"token": "t"}).read_text(), tmp_path / "pipe"
    os.mkfifo(pipe)
    source = KubeconfigSource(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(content,))
    writer.start()
    credentials = await read_credentials(source, None)
    writer.join()
    with pytest.raises(KubernetesError, match=r"cannot be read again .*: save it as a file, and restart"):
        await read_credentials(source, credentials)


async def test_headers(tmp_path: Path) -> None:
    """Basic authentication and impersonation, as client-go encodes them."""
    user = {
        "username": "jane",
        "password": "s3cret",
        "as": "john",
        "as-groups": ["a", "b"],
        "as-user-extra": {"example.com/Team": ["x"]},
    }
    credentials = await read(tmp_path, user)
    assert credentials.headers == [
        ("Authorization", "Basic amFuZTpzM2NyZXQ="),
        ("Impersonate-User", "john"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-example.com%2FTeam", "x"),
    ]
    assert "s3cret" not in repr(credentials)


async def test_cluster_info(tmp_path: Path) -> None:
    """A plugin gets it if it asks for it, and is found beside the kubeconfig."""
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/usr/bin/env python3\n{CLUSTER_INFO}")
    plugin.chmod(0o755)
    fields = {"command": "./plugin", "apiVersion": "client.authentication.k8s.io/v1beta1"}
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}
    for asks, expected in ((False, {}), (True, {"server": "https://api.corp:6443", "config": {"audience": "a"}})):
        user = {"exec": {**fields, "provideClusterInfo": asks}}
        (_, token), *_ = (await read(tmp_path, user, extensions=[extension])).headers
        spec = json.loads(token.removeprefix("Bearer "))
        assert spec == {"interactive": False, **({"cluster": expected} if expected else {})}


async def test_another_current_context(tmp_path: Path) -> None:
    """The context of the start is kept while the process runs."""
    path = write(tmp_path, {"token": "t"})
    source = KubeconfigSource(path)
    credentials = await read_credentials(source, None)
    path.write_text(path.read_text().replace('"current-context": "x"', '"current-context": "y"'))
    assert await read_credentials(source, credentials) == credentials


@pytest.mark.parametrize("server", ["ftp://api", "https://", "https://api:0", "https://api:x", "https://["])
async def test_a_server_that_is_not_a_url(tmp_path: Path, server: str) -> None:
    """It is named in the error."""
    with pytest.raises(KubernetesError, match="is not an http:// or https:// URL"):
        _ = (await read(tmp_path, {}, server=server)).server


@pytest.mark.parametrize("content", [{"clusters": 5}, {"clusters": [5, None, {"name": ["c"]}], "users": {}}])
def test_odd_types(tmp_path: Path, content: dict[str, Any]) -> None:
    """They are the same as missing entries."""
    path = tmp_path / "config"
    path.write_text(json.dumps({**content, "contexts": [{"name": "x", "context": {"cluster": "c"}}]}))
    with pytest.raises(KubernetesError, match="there is no cluster 'c'"):
        KubeconfigSource(path, "x").load()


async def test_credentials_do_not_follow_a_redirect(tmp_path: Path, unused_tcp_port_factory: Any) -> None:
    """Another host does not get the token."""
    seen: list[str] = []
    ports = [unused_tcp_port_factory(), unused_tcp_port_factory()]

    async def respond(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization", ""))
        if len(seen) == 1:
            raise web.HTTPFound(f"http://127.0.0.1:{ports[1]}/")
        return web.Response()

    application = web.Application()
    application.router.add_get("/", respond)
    runner = web.AppRunner(application)
    await runner.setup()
    for port in ports:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    access = ClusterAccess(KubeconfigSource(write(tmp_path, {"token": "t"}, server=f"127.0.0.1:{ports[0]}")))
    await access.open()
    async with ClientSession(**access.session_options(connections=1)) as session, session.get(f"{access.server}/"):
        pass
    await runner.cleanup()
    assert seen == ["Bearer t", ""]
