"""`check --connect`: the questions to a registry, their answers, and that nothing is left behind.

========================================  ==============  ======================================================
what is wrong                             fails at        advice
========================================  ==============  ======================================================
host unknown, port closed, hangs          connection      check that it runs and is reachable
proxy refuses                             connection      check user and password in proxy
TLS expected, plain HTTP spoken           connection      use http:// in registryUrl
certificate of an unknown CA              certificate     set tls.caFile to its CA
another web server                        registry API    check registryUrl
wrong password                            login           check the file
no credentials where some are required    list tags       configure credentials for it
user may only pull                        push            allow the operator to pull and push
read-only registry                        push            turn off the registry's read-only mode
two path levels at most                   push            use repositoryTemplate {namespace}.{name}
========================================  ==============  ======================================================
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from controller.registry.credentials import Login
from controller.registry.transport import Timeouts
from controller.registrycheck import Answer, Question, check_registry
from devcluster.certificates import CertificateAuthority
from devcluster.registries import Registry, RegistryKind
from tests.contract import images
from tests.contract.conftest import Starter, binding
from tests.contract.test_authentication import HTPASSWD, LOGIN, PASSWORD, basic
from tests.contract.wire import tap
from tests.fakes.http_proxy import http_proxy
from tests.fakes.raw_server import Writer, raw_server
from tests.fakes.token_service import token_service

pytestmark = pytest.mark.timeout(300)

PATH = "artifacts/connection_check.connection_check"
FLAT = {"repositoryTemplate": "{namespace}.{name}"}
ALL_OK = [Answer(question) for question in (Question.CONNECTION, Question.API, Question.LIST, Question.PUSH)]


async def ask(url: str, *, repository: str | None = None, **fields: object) -> list[Answer]:
    """Ask a registry, with short timeouts."""
    timeouts = Timeouts(connect=5.0, read=2.0, pool=5.0, total=10.0)
    return await check_registry("artifacts", binding(url, **fields), repository=repository, timeouts=timeouts)


def failed(answers: list[Answer], question: Question) -> str:
    """Return the problem of the last answer, which has to be the only one and about a question."""
    *before, last = answers
    assert [answer.problem for answer in before] == [None] * len(before)
    assert last.question is question
    assert last.problem is not None
    return last.problem


def sessions(registry: Registry) -> int:
    """Return how many upload sessions a registry keeps on disk."""
    return sum(path.name == "startedat" or path.suffix == ".partial" for path in registry.storage.rglob("*"))


@pytest.mark.parametrize("kind", list(RegistryKind))
async def test_nothing_is_left_behind(running: Callable[[RegistryKind], Registry], kind: RegistryKind) -> None:
    """All is well, and afterwards there is no repository; only the crate, which cancels nothing, keeps the session."""
    registry = running(kind)
    before = sessions(registry)
    assert await ask(registry.url, **FLAT) == ALL_OK
    assert sessions(registry) - before == (kind == RegistryKind.CONTAINER_REGISTRY)
    async with httpx.AsyncClient(base_url=registry.url, trust_env=False) as other:
        assert (await other.get(f"/v2/{PATH}/tags/list")).status_code == 404
        assert await images.fetch(other, PATH, "latest") is None
        catalog = await other.get("/v2/_catalog")
        assert catalog.status_code == 404 or PATH not in (catalog.json()["repositories"] or [])


@pytest.mark.parametrize("kind", [RegistryKind.DISTRIBUTION_3, RegistryKind.DISTRIBUTION_2, RegistryKind.CRANE])
async def test_a_repository_that_exists(
    running: Callable[[RegistryKind], Registry], kind: RegistryKind, name: str
) -> None:
    """The upload goes to the repository that is named, whose tags stay as they are and are listed once."""
    registry = running(kind)
    async with httpx.AsyncClient(base_url=registry.url, trust_env=False) as other, tap(registry.url) as wire:
        await images.push_image(other, f"artifacts/{name}", "v1")
        assert await ask(wire.url, repository=name) == ALL_OK
        assert await images.tags(other, f"artifacts/{name}") == ["v1"]
        methods = [request.partition("?")[0].partition("/blobs/uploads/")[0] for request in wire.requests]
        base = f"/v2/artifacts/{name}"
        assert methods == [
            "GET /v2/",
            f"GET {base}/tags/list",
            f"POST {base}",
            f"DELETE {base}",
        ]


async def test_names_of_a_form_that_the_registry_refuses(running: Callable[[RegistryKind], Registry]) -> None:
    """The repository has the form of the binding's template, so that this is noticed before the first object."""
    problem = failed(await ask(running(RegistryKind.CONTAINER_REGISTRY).url), Question.PUSH)
    assert "use repositoryTemplate {namespace}.{name}" in problem


async def test_a_registry_that_keeps_the_repository() -> None:
    """Where the upload alone creates a repository, the answer says so, and how to avoid it."""
    created: set[str] = set()

    async def respond(head: str, writer: Writer) -> None:
        method, target, _ = head.split(" ", 2)
        path = target.removeprefix("/v2/").partition("/blobs")[0].partition("/tags")[0]
        if method == "POST":
            created.add(path)
            await writer.respond("202 Accepted", Location=f"{target}session")
        elif "/tags/list" in target and path not in created:
            await writer.respond("404 Not Found", json.dumps({"errors": [{"code": "NAME_UNKNOWN"}]}).encode())
        else:
            await writer.respond("200 OK", b"{}", Content_Type="application/json")

    async with raw_server(respond) as server:
        *_, push = await ask(server.url, **FLAT)
        assert (push.question, push.problem) == (Question.PUSH, None)
        assert str(push) == (
            f"push: ok (but the registry keeps an empty repository {PATH}: name one that exists by --repository)"
        )
        assert await ask(server.url, **FLAT) == ALL_OK


async def test_read_only(start: Starter) -> None:
    """A registry in maintenance mode does not accept the upload."""
    server = start(RegistryKind.DISTRIBUTION_3, config={"storage": {"maintenance": {"readonly": {"enabled": True}}}})
    assert "turn off the registry's read-only mode" in failed(await ask(server.url), Question.PUSH)


async def test_behind_another_name(start: Starter) -> None:
    """With uploads elsewhere, a push would fail; that address is not contacted."""
    server = start(RegistryKind.DISTRIBUTION_3, config={"http": {"host": "http://127.0.0.1:1"}})
    assert "points to http://127.0.0.1:1; fix its http.host" in failed(await ask(server.url), Question.PUSH)


@pytest.fixture(scope="module")
def guarded(start: Starter, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry with the single user robot."""
    path = tmp_path_factory.mktemp("htpasswd") / "htpasswd"
    path.write_text(HTPASSWD)
    return start(RegistryKind.DISTRIBUTION_3, config={"auth": {"htpasswd": {"realm": "test", "path": str(path)}}})


class TestCredentials:
    """Logins."""

    async def test_right_login(self, guarded: Registry, tmp_path: Path) -> None:
        """The login is a question of its own."""
        answers = await ask(guarded.url, credentials=basic(tmp_path))
        assert answers == [*ALL_OK[:2], Answer(Question.LOGIN), *ALL_OK[2:]]

    async def test_wrong_password(self, guarded: Registry, tmp_path: Path) -> None:
        """It is sent once, the advice names the file, and no more is asked."""
        async with tap(guarded.url) as wire:
            answers = await ask(wire.url, credentials=basic(tmp_path, password="wr0ng"))
            assert f"check {tmp_path}/password" in failed(answers, Question.LOGIN)
            assert wire.requests == ["GET /v2/"] * 3

    @pytest.mark.parametrize(
        ("refused", "question"),
        [("GET /v2/ ", Question.LOGIN), ("GET /v2/artifacts/", Question.LIST), ("POST ", Question.PUSH)],
    )
    async def test_what_a_registry_repeats(self, tmp_path: Path, refused: str, question: Question) -> None:
        """A registry that repeats the login in its error does not bring it into an answer."""
        secrets = ("wr0ng-s3cret", Login("robot", "wr0ng-s3cret").header.removeprefix("Basic "))

        async def respond(head: str, writer: Writer) -> None:
            if "authorization: " not in head:
                await writer.respond("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
            elif head.startswith(refused):
                await writer.respond("403 Forbidden", json.dumps({"message": " ".join(secrets)}).encode())
            else:
                await writer.respond("200 OK", b"{}", Content_Type="application/json")

        async with raw_server(respond) as server:
            problem = failed(await ask(server.url, credentials=basic(tmp_path, password=secrets[0])), question)
            assert problem.startswith("403 ([redacted]")
            assert not [secret for secret in secrets if secret in problem]

    async def test_missing_file(self, guarded: Registry, tmp_path: Path) -> None:
        """The message names it."""
        credentials = basic(tmp_path)
        (tmp_path / "password").unlink()
        problem = failed(await ask(guarded.url, credentials=credentials), Question.LOGIN)
        assert problem == f"{tmp_path}/password is missing; fix its Secret"

    async def test_no_login(self, guarded: Registry) -> None:
        """Without credentials there is none to check; the first request that requires some fails."""
        assert "configure credentials for it" in failed(await ask(guarded.url), Question.LIST)

    async def test_read_only_user(self, start: Starter, tmp_path: Path) -> None:
        """A user who may only pull may not push; that the session may not be deleted is no obstacle to others."""
        async with token_service(tmp_path) as tokens:
            tokens.authorization = LOGIN
            server = start(RegistryKind.DISTRIBUTION_3, config=tokens.registry_config())
            credentials = {**basic(tmp_path), "tokenRealms": [tokens.url]}
            tokens.grant = lambda _, actions: [action for action in actions if action == "pull"]
            problem = failed(await ask(server.url, credentials=credentials), Question.PUSH)
            assert "insufficient scope" in problem
            assert "allow the operator to pull and push" in problem
            tokens.grant = lambda _, actions: [action for action in actions if action != "delete"]
            assert (await ask(server.url, credentials=credentials))[-1] == Answer(Question.PUSH)

    async def test_token_service_down(self, start: Starter, tmp_path: Path) -> None:
        """The problem names the token service, not the registry."""
        async with token_service(tmp_path) as tokens:
            server = start(RegistryKind.DISTRIBUTION_3, config=tokens.registry_config())
            credentials = {**basic(tmp_path), "tokenRealms": [tokens.url]}
        problem = failed(await ask(server.url, credentials=credentials), Question.LOGIN)
        assert problem.startswith(f"{tokens.url.removesuffix('/token')}: connection refused")

    async def test_tags_may_not_be_listed(self) -> None:
        """The advice is about listing."""

        async def respond(head: str, writer: Writer) -> None:
            status = "403 Forbidden" if "/tags/list" in head else "200 OK"
            await writer.respond(status, json.dumps({"errors": [{"code": "DENIED"}]}).encode())

        async with raw_server(respond) as server:
            problem = failed(await ask(server.url), Question.LIST)
            assert problem == "403 (DENIED); allow the operator to list tags"


class TestConnection:
    """What fails before the registry itself answers."""

    async def test_certificate(self, start: Starter, tmp_path: Path) -> None:
        """An unknown CA fails; with the CA, or without verification, which is noted, all is well."""
        authority = CertificateAuthority(tmp_path / "ca")
        server = start(RegistryKind.DISTRIBUTION_3, tls=authority.issue("registry"), ca_file=authority.ca_file)
        problem = failed(await ask(server.url), Question.CERTIFICATE)
        assert problem == "certificate from an unknown CA; set tls.caFile to its CA"
        answers = await ask(server.url, tls={"caFile": str(authority.ca_file)})
        assert answers == [ALL_OK[0], Answer(Question.CERTIFICATE), *ALL_OK[1:]]
        unverified = await ask(server.url, tls={"insecureSkipVerify": True})
        assert str(unverified[1]) == "certificate: ok (not verified: insecureSkipVerify)"

    async def test_ca_file_that_is_missing(self, tmp_path: Path) -> None:
        """The bundle is part of the configuration: nothing is contacted."""
        answers = await ask("https://127.0.0.1:1", tls={"caFile": str(tmp_path / "ca.crt")})
        assert failed(answers, Question.CONFIGURATION).startswith("tls.caFile: cannot load")

    async def test_no_tls(self, running: Callable[[RegistryKind], Registry]) -> None:
        """https:// of a registry without TLS."""
        url = running(RegistryKind.DISTRIBUTION_3).url.replace("http://", "https://")
        assert failed(await ask(url), Question.CONNECTION) == "no TLS on this port; use http:// in registryUrl"

    @pytest.mark.parametrize(
        ("url", "cause"), [("127.0.0.1:1", "connection refused"), ("http://registry.invalid", "host name not found")]
    )
    async def test_not_reached(self, url: str, cause: str) -> None:
        """A closed port, and a host without an address."""
        assert failed(await ask(url), Question.CONNECTION) == f"{cause}; check that it runs and is reachable"

    async def test_another_web_server(self) -> None:
        """A web server that is no registry: by its 404, or by what it responds to everything."""

        async def not_found(_: str, writer: Writer) -> None:
            await writer.respond("404 Not Found", b"<html>", Content_Type="text/html")

        async def page(_: str, writer: Writer) -> None:
            await writer.respond("200 OK", b"<html>", Content_Type="text/html")

        async with raw_server(not_found) as server:
            assert "check registryUrl" in failed(await ask(server.url), Question.API)
        async with raw_server(page) as server:
            assert "response is not a list of tags" in failed(await ask(server.url), Question.LIST)

    async def test_proxy(self, running: Callable[[RegistryKind], Registry]) -> None:
        """A proxy is named without its login, whether it lets the request through or not."""
        url = running(RegistryKind.DISTRIBUTION_3).url
        async with http_proxy() as proxy:
            proxy.authorization = LOGIN
            login = proxy.url.replace("://", f"://robot:{PASSWORD}@")
            answers = await ask(url, proxy=login)
            assert answers == [Answer(Question.CONNECTION, note=f"through proxy {proxy.url}"), *ALL_OK[1:]]
            problem = failed(await ask(url, proxy=login.replace(PASSWORD, "wr0ng")), Question.CONNECTION)
            assert problem == f"proxy {proxy.url} rejects the login (407); check user and password in proxy"


async def command(file: Path, *options: str) -> tuple[int, str, str]:
    """Run the command; return its exit status, and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controller", "check", "--config", str(file), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LANG": "C.UTF-8"},
    )
    out, error = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


async def test_the_command(guarded: Registry, tmp_path: Path) -> None:
    """One line for each registry and question; status 1 if one fails; no secret; registries are asked at once."""
    contacted = asyncio.Barrier(2)

    async def respond(_: str, writer: Writer) -> None:
        await contacted.wait()  # a registry that hangs until the other one is asked, too
        writer.reset()

    async with raw_server(respond) as one, raw_server(respond) as other:
        registries = {
            "guarded": {"registryUrl": guarded.url, "credentials": basic(tmp_path)},
            "one": {"registryUrl": one.url},
            "other": {"registryUrl": other.url},
        }
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump({"defaultRegistry": "guarded", "registries": registries}))
        status, out, error = await command(file, "--connect")
    closed = "    connection: failed: connection closed early; check that it runs and is reachable"
    assert out.splitlines()[1:] == [
        f"  guarded: {guarded.url} (default)",
        *(f"    {line}: ok" for line in ("connection", "registry API", "login", "list tags", "push")),
        f"  one: {one.url}",
        closed,
        f"  other: {other.url}",
        closed,
    ]
    assert (status, error) == (1, "Error: the operator cannot use: one, other\n")

    (tmp_path / "password").write_text("wr0ng-s3cret")
    file.write_text(yaml.safe_dump({"defaultRegistry": "guarded", "registries": {"guarded": registries["guarded"]}}))
    status, out, error = await command(file, "--connect", "--repository", "team-a/web")
    assert status == 1
    assert "login: failed" in out
    assert "wr0ng-s3cret" not in out + error
    (tmp_path / "password").write_text(PASSWORD)
    assert (await command(file, "--connect", "--repository", "team-a/web"))[0] == 0


async def test_one_that_hangs(running: Callable[[RegistryKind], Registry]) -> None:
    """A registry that accepts connections and says nothing is given up after the timeout, and delays no other."""
    hangs, gone = asyncio.Event(), asyncio.Event()

    async def silence(_: str, __: Writer) -> None:
        hangs.set()
        await gone.wait()

    async with raw_server(silence) as server, asyncio.TaskGroup() as group:
        slow = group.create_task(ask(server.url))
        await hangs.wait()
        assert await ask(running(RegistryKind.DISTRIBUTION_3).url) == ALL_OK
        assert not gone.is_set()
        problem = failed(await slow, Question.CONNECTION)
        gone.set()
    assert problem == "no data for 2 s; check that it runs and is reachable"
