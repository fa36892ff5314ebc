"""Credentials that expire, are renewed or break while the operator runs, on a TLS stand-in for the API server."""

import asyncio
import json
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from controller.errors import KubernetesError
from controller.kube import execplugin
from controller.kube.access import ClusterAccess
from controller.kube.client import KubernetesClient
from controller.kube.kubeconfig import KubeconfigSource
from tests.fakes.authority import Authority

PLUGIN = """\
import os, pathlib, sys, time
folder = pathlib.Path(__file__).parent
with open(folder / "calls", "a") as calls:
    calls.write("x")
time.sleep(0.2)
answer = folder / "answer"
if not answer.exists():
    sys.exit("no session")
print(answer.read_text())
"""


class ApiServer:
    """A stand-in: responds 200 to accepted tokens and client certificates, and 401 to others.

    Args:
        folder: For certificates, kubeconfig and plugin.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.accepted: set[str] = set()
        self.seen: list[str] = []
        """Token or common name of each request."""
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen, with a certificate of the current authority, on the same port as before."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.authority.issue("server"))
        context.load_verify_locations(self.authority.file)
        context.verify_mode = ssl.CERT_OPTIONAL
        application = web.Application()
        application.router.add_get("/", self._respond)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        port = int(self.url.rpartition(":")[2] or 0)
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=context, reuse_address=True).start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close the port and all connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _respond(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        certificate = request.transport.get_extra_info("peercert")
        name = dict(field[0] for field in certificate["subject"])["commonName"] if certificate else ""
        user = request.headers.get("Authorization", "").removeprefix("Bearer ") or name
        self.seen.append(user)
        return web.json_response({"user": user}, status=200 if user in self.accepted else 401)

    def kubeconfig(self, user: dict[str, Any], **cluster: Any) -> Path:
        """Write a kubeconfig for a user."""
        fields = {"server": self.url, "certificate-authority": str(self.authority.file), **cluster}
        content = {
            "clusters": [{"name": "c", "cluster": fields}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps(content))
        return path

    def exec_kubeconfig(self) -> Path:
        """Write a kubeconfig with a plugin that prints what :meth:`answer` has set."""
        (self.folder / "plugin.py").write_text(PLUGIN)
        plugin = {"command": sys.executable, "args": [str(self.folder / "plugin.py")], "interactiveMode": "Never"}
        return self.kubeconfig({"exec": {"apiVersion": "client.authentication.k8s.io/v1", **plugin}})

    def answer(self, token: str, *, lifetime: float | None = None) -> None:
        """Let the plugin return a token, and the server accept only that."""
        status = {"token": token}
        if lifetime is not None:
            status["expirationTimestamp"] = datetime.fromtimestamp(time.time() + lifetime, UTC).isoformat()
        credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
        (self.folder / "answer").write_text(json.dumps(credential))
        self.accepted = {token}

    @property
    def calls(self) -> int:
        """How often the plugin was run."""
        return len((self.folder / "calls").read_text())


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    """Run a stand-in for the API server."""
    server = ApiServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


class Clients:
    """Two clients of the operator, and a session as kopf has it."""

    def __init__(self, path: Path) -> None:
        self.requests: list[tuple[str, str]] = []
        self.access = ClusterAccess(
            KubeconfigSource(path), observe=lambda method, code: self.requests.append((method, code))
        )
        self.main = KubernetesClient(self.access)
        self.leader = KubernetesClient(self.access, connections=1)
        self._sessions: list[aiohttp.ClientSession] = []

    async def user(self) -> str:
        """Return who the main client is."""
        return str((await self.main.request("GET", "/"))["user"])

    async def kopf_status(self) -> int:
        """Return the status of a request in kopf's session."""
        if not self._sessions:
            await self.access.open()
            self._sessions.append(aiohttp.ClientSession(**self.access.session_options(connections=0)))
        async with self._sessions[0].get(f"{self.access.server}/") as response:
            return response.status

    async def close(self) -> None:
        """Close all."""
        for session in self._sessions:
            await session.close()
        await self.main.close()
        await self.leader.close()
        await self.access.close()


@pytest.fixture
async def closing() -> AsyncIterator[list[Clients]]:
    """Return a list of clients to close."""
    clients: list[Clients] = []
    yield clients
    for one in clients:
        await one.close()


async def until_user(clients: Clients, name: str) -> None:
    """Send requests until the user is another one; none may fail."""
    for _ in range(1000):
        if await clients.user() == name:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"still {await clients.user()}")


async def test_ca_without_key_identifiers(server: ApiServer, closing: list[Clients]) -> None:
    """What client-go accepts is accepted on every Python, by both clients."""
    server.accepted = {"t"}
    clients = Clients(server.kubeconfig({"token": "t"}))
    closing.append(clients)
    assert await clients.user() == "t"
    assert await clients.kopf_status() == 200


async def test_one_expiry_runs_the_plugin_once(server: ApiServer, closing: list[Clients]) -> None:
    """However many requests of both clients and of kopf are rejected at the same time."""
    server.answer("first")
    clients = Clients(server.exec_kubeconfig())
    closing.append(clients)
    await clients.user()
    server.answer("second")
    users = await asyncio.gather(*(clients.user() for _ in range(100)), clients.leader.request("GET", "/"))
    assert await clients.kopf_status() == 200
    assert users == ["second"] * 100 + [{"user": "second"}]
    assert server.calls == 2


async def test_a_plugin_that_fails_once(server: ApiServer, closing: list[Clients]) -> None:
    """The old token stays, no request is anonymous, and the plugin is called again after a backoff."""
    server.answer("first")
    clients = Clients(server.exec_kubeconfig())
    closing.append(clients)
    await clients.user()
    server.accepted = {"second"}
    (server.folder / "answer").unlink()
    for _ in range(3):
        with pytest.raises(KubernetesError) as raised:
            await clients.user()
        assert raised.value.status == 401
    assert server.calls == 2  # the backoff lasts
    assert set(server.seen) == {"first"}
    server.answer("second")
    clients.access._not_before = 0
    assert await clients.user() == "second"


async def test_each_request_is_counted(server: ApiServer, closing: list[Clients]) -> None:
    """The observer is told of each attempt: the accepted one, the rejected one, and one without a response."""
    server.answer("first")
    clients = Clients(server.exec_kubeconfig())
    closing.append(clients)
    await clients.user()
    assert await clients.kopf_status() == 200
    server.answer("second")
    server.accepted = {"second"}
    await clients.user()
    assert clients.requests == [("GET", "200"), ("GET", "200"), ("GET", "401"), ("GET", "200")]
    await server.stop()
    with pytest.raises(KubernetesError):
        await clients.user()
    assert set(clients.requests[4:]) == {("GET", "error")}


@pytest.mark.parametrize("answer", ["", "{}", '{"status": {"token": ""}}', "null", '{"status": null}'])
async def test_a_plugin_that_prints_no_token(server: ApiServer, closing: list[Clients], answer: str) -> None:
    """The same as a failure: the old token stays."""
    server.answer("first")
    clients = Clients(server.exec_kubeconfig())
    closing.append(clients)
    await clients.user()
    (server.folder / "answer").write_text(answer)
    server.accepted = {"second"}
    with pytest.raises(KubernetesError):
        await clients.user()
    assert set(server.seen) == {"first"}


async def test_a_token_that_is_rejected_for_good(server: ApiServer, closing: list[Clients]) -> None:
    """The plugin is not run for each request."""
    server.answer("first")
    clients = Clients(server.exec_kubeconfig())
    closing.append(clients)
    await clients.user()
    server.accepted = set()
    for _ in range(20):
        with pytest.raises(KubernetesError):
            await clients.user()
    assert server.calls == 2


async def test_a_token_is_renewed_before_it_expires(server: ApiServer, closing: list[Clients]) -> None:
    """In the background: requests go on with the old one, and none is rejected."""
    server.answer("first", lifetime=2.0)
    clients = Clients(server.exec_kubeconfig())
    closing.append(clients)
    await clients.user()
    assert clients.access._current is not None
    assert clients.access._current.renew_at < time.time() + 1.7
    server.answer("second", lifetime=1000)
    server.accepted = {"first", "second"}
    await until_user(clients, "second")
    assert server.calls == 2
    assert "" not in server.seen


async def test_an_expired_token_is_not_sent(server: ApiServer, closing: list[Clients]) -> None:
    """A request waits for the plugin."""
    server.answer("first", lifetime=0.1)
    clients = Clients(server.exec_kubeconfig())
    closing.append(clients)
    await clients.access.open()
    await asyncio.sleep(0.1)
    server.answer("second")
    assert await clients.user() == "second"
    assert server.seen == ["second"]


async def test_a_plugin_that_hangs(server: ApiServer, closing: list[Clients], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended, and the operator says so."""
    monkeypatch.setattr(execplugin, "_TIMEOUT", 0.3)
    path = server.exec_kubeconfig()
    (server.folder / "plugin.py").write_text("import time; time.sleep(60)")
    clients = Clients(path)
    closing.append(clients)
    with pytest.raises(KubernetesError, match="did not end within"):
        await clients.access.open()


async def test_renewed_client_certificate(server: ApiServer, closing: list[Clients]) -> None:
    """Certificate and key are read again after a 401, and open connections with the old one are no longer used."""
    certificate, key = server.authority.issue("old", file="client")
    server.accepted = {"old"}
    clients = Clients(server.kubeconfig({"client-certificate": str(certificate), "client-key": str(key)}))
    closing.append(clients)
    assert (await clients.user(), await clients.kopf_status()) == ("old", 200)
    server.authority.issue("new", file="client")
    server.accepted = {"new"}
    assert await clients.kopf_status() == 200
    assert await clients.user() == "new"
    assert server.seen[-2:] == ["new", "new"]  # the other client is not rejected once more


async def test_renewed_authority(server: ApiServer, closing: list[Clients]) -> None:
    """The CA is read again when a handshake fails."""
    server.accepted = {"t"}
    clients = Clients(server.kubeconfig({"token": "t"}))
    closing.append(clients)
    await clients.user()
    await clients.kopf_status()
    await server.stop()
    server.authority = Authority(server.folder)
    await server.start()
    assert await clients.kopf_status() == 200
    assert await clients.user() == "t"


async def test_a_half_written_certificate(server: ApiServer, closing: list[Clients]) -> None:
    """With a new certificate and the old key, the old pair stays until both are there."""
    certificate, key = server.authority.issue("old", file="client")
    server.accepted = {"old"}
    clients = Clients(server.kubeconfig({"client-certificate": str(certificate), "client-key": str(key)}))
    closing.append(clients)
    await clients.user()
    fresh, fresh_key = server.authority.issue("new")
    certificate.write_bytes(fresh.read_bytes())
    server.accepted = {"new"}
    with pytest.raises(KubernetesError):
        await clients.user()
    key.write_bytes(fresh_key.read_bytes())
    clients.access._not_before = 0
    assert await clients.user() == "new"


@pytest.mark.parametrize("content", ["", "clusters: [", "current-context: y", "\0"])
async def test_a_kubeconfig_that_is_being_written(server: ApiServer, closing: list[Clients], content: str) -> None:
    """A 401 at that moment is an error of the request; later the new token is used."""
    server.accepted = {"old"}
    path = server.kubeconfig({"token": "old"})
    clients = Clients(path)
    closing.append(clients)
    await clients.user()
    path.write_text(content)
    server.accepted = {"new"}
    with pytest.raises(KubernetesError) as raised:
        await clients.user()
    assert raised.value.status == 401
    server.kubeconfig({"token": "new"})
    clients.access._not_before = 0
    assert await clients.user() == "new"


async def test_a_kubeconfig_that_names_another_server(server: ApiServer, closing: list[Clients]) -> None:
    """The new cluster's token is not sent to the old one."""
    server.accepted = {"old"}
    clients = Clients(server.kubeconfig({"token": "old"}))
    closing.append(clients)
    await clients.user()
    server.accepted = {"new"}
    server.kubeconfig({"token": "new"}, server="https://127.0.0.1:1")
    with pytest.raises(KubernetesError):
        await clients.user()
    assert set(server.seen) == {"old"}


async def test_token_files_are_read_regularly(server: ApiServer, closing: list[Clients]) -> None:
    """As the kubelet rotates them: without a rejected request."""
    token = server.folder / "token"
    token.write_text("old\n")
    server.accepted = {"old", "new"}
    clients = Clients(server.kubeconfig({"tokenFile": str(token)}))
    closing.append(clients)
    assert await clients.user() == "old"
    token.write_text("new\n")
    clients.access._checked_at -= 61
    await until_user(clients, "new")


@pytest.mark.parametrize("in_memory", [True, False])
async def test_client_keys_leave_no_file(
    server: ApiServer, closing: list[Clients], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    """On Linux they are loaded from memory, elsewhere from files without a name."""
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    empty = tmp_path / "tmp"
    empty.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(empty))
    certificate, key = server.authority.issue("user")
    server.accepted = {"user"}
    clients = Clients(server.kubeconfig({"client-certificate": str(certificate), "client-key": str(key)}))
    closing.append(clients)
    assert await clients.user() == "user"
    assert list(empty.iterdir()) == []
