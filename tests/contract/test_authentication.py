"""Authentication and TLS on real registries: htpasswd, tokens that Distribution verifies, a private CA.

==============================  ================================================================================
registry                        outcome
==============================  ================================================================================
htpasswd, right login           works, from files as from a .dockerconfigjson; a rotated file needs no restart
htpasswd, wrong login or none   AuthenticationFailed, with advice: the file, or that there is none
token                           works; the mount's token covers pull on the source, too; tokens are cached
token, service elsewhere        AuthenticationFailed until tokenRealms lists it; it is not contacted
token, pull only                AccessDenied on create; verify works
token, no pull on the source    created by an upload
https, private CA               works, with credentials; without the CA TLSVerificationFailed
==============================  ================================================================================
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from controller.errors import AccessDenied, AuthenticationFailed, TLSVerificationFailed
from controller.registry.credentials import Login
from controller.registry.local import LocalArtifactRegistry
from controller.registry.protocol import Origin
from devcluster.certificates import CertificateAuthority
from devcluster.registries import Registry, RegistryKind
from tests.contract import images
from tests.contract.conftest import Starter, binding
from tests.contract.wire import WireTap, tap
from tests.fakes.token_service import TokenService, token_service

pytestmark = pytest.mark.timeout(900)

# Cost 4, the minimum: Distribution verifies it at every request.
HTPASSWD = "robot:$2b$04$E9E6YtDPocykKce82DsNfu2wOj1Me.V0Q8RhHTlemo0e65qq4NWm6\n"
PASSWORD = "s3cr3t"
LOGIN = Login("robot", PASSWORD).header


def basic(directory: Path, password: str = PASSWORD) -> dict[str, object]:
    """Return credentials from two files."""
    (directory / "username").write_text("robot")
    (directory / "password").write_text(password)
    files = {"usernameFile": str(directory / "username"), "passwordFile": str(directory / "password")}
    return {"basic": files}


def docker_config(directory: Path, host: str) -> dict[str, object]:
    """Return credentials from a .dockerconfigjson."""
    auth = base64.b64encode(f"robot:{PASSWORD}".encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return {"dockerConfigFile": str(directory / "config.json")}


@pytest.fixture(scope="module", params=[RegistryKind.DISTRIBUTION_3, RegistryKind.DISTRIBUTION_2])
def guarded(request: pytest.FixtureRequest, start: Starter, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry with the single user robot."""
    path = tmp_path_factory.mktemp("htpasswd") / "htpasswd"
    path.write_text(HTPASSWD)
    return start(request.param, config={"auth": {"htpasswd": {"realm": "test", "path": str(path)}}})


class TestHtpasswd:
    """Basic authentication."""

    @pytest.mark.parametrize("form", ["basic", "docker config"])
    async def test_right_login(self, guarded: Registry, tmp_path: Path, name: str, form: str) -> None:
        """Create, verify and create with a mount work; only the very first request is sent without the login."""
        async with tap(guarded.url) as wire:
            host = wire.url.removeprefix("http://")
            credentials = basic(tmp_path) if form == "basic" else docker_config(tmp_path, host)
            async with LocalArtifactRegistry("artifacts", binding(wire.url, credentials=credentials)) as registry:
                await registry.ping()
                assert (await registry.ensure_repository(name)).created
                assert not (await registry.ensure_repository(name, known_origin=Origin.CREATED)).created
                mark = len(wire.requests)
                assert (await registry.ensure_repository(f"{name}-2")).created
                assert len(wire.requests) - mark == 3

    async def test_wrong_password(self, guarded: Registry, tmp_path: Path, name: str) -> None:
        """A wrong password is AuthenticationFailed; once the file is corrected, the next call succeeds."""
        credentials = basic(tmp_path, password="wrong")
        async with LocalArtifactRegistry("artifacts", binding(guarded.url, credentials=credentials)) as registry:
            with pytest.raises(AuthenticationFailed, match="401") as raised:
                await registry.ensure_repository(name)
            assert raised.value.status == 401
            assert raised.value.advice == f"check {tmp_path}/password"
            basic(tmp_path)
            assert (await registry.ensure_repository(name)).created

    async def test_no_login(self, guarded: Registry, name: str) -> None:
        """Without credentials, the advice is to configure some; a ping still succeeds."""
        async with LocalArtifactRegistry("artifacts", binding(guarded.url)) as registry:
            await registry.ping()
            with pytest.raises(AuthenticationFailed) as raised:
                await registry.ensure_repository(name)
            assert raised.value.advice == "configure credentials for it"
            assert await registry.head_manifest(f"artifacts/{name}", "latest") is None


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[TokenService]:
    """A token service with the user robot."""
    async with token_service(tmp_path) as service:
        service.authorization = LOGIN
        yield service


@pytest.fixture
async def wire(start: Starter, tokens: TokenService) -> AsyncIterator[WireTap]:
    """A registry that requires tokens of that service."""
    registry = start(RegistryKind.DISTRIBUTION_3, config=tokens.registry_config())
    async with tap(registry.url) as tapped:
        yield tapped
    registry.process.stop()


OpenWith = Callable[[TokenService, WireTap], LocalArtifactRegistry]


@pytest.fixture
def open_registry(tmp_path: Path) -> OpenWith:
    """Return a function that opens a client with robot's login and the service in tokenRealms."""

    def open_with(tokens: TokenService, wire: WireTap) -> LocalArtifactRegistry:
        credentials = {**basic(tmp_path), "tokenRealms": [tokens.url]}
        return LocalArtifactRegistry("artifacts", binding(wire.url, credentials=credentials))

    return open_with


class TestToken:
    """Tokens, signed by the test's service and verified by Distribution."""

    async def test_create_and_verify_with_tokens(
        self, tokens: TokenService, wire: WireTap, open_registry: OpenWith, name: str
    ) -> None:
        """Reads need the right to pull only, a mount that for its source, too; a cached token is reused."""
        async with open_registry(tokens, wire) as registry:
            assert (await registry.ensure_repository(name)).created
            own = f"repository:artifacts/{name}"
            assert tokens.scopes == [[f"{own}:pull"], [f"{own}:pull,push"]]
            tokens.scopes.clear()
            mark = len(wire.requests)
            assert (await registry.ensure_repository(f"{name}-2")).created
            second = f"repository:artifacts/{name}-2"
            assert tokens.scopes == [
                [f"{second}:pull"],
                [f"{second}:pull,push", f"{own}:pull"],
                [f"{second}:pull,push"],
            ]
            assert len(wire.requests) - mark == 3
            tokens.scopes.clear()
            await registry.ensure_repository(name, known_origin=Origin.CREATED)
            assert tokens.scopes == []

    async def test_anonymous_tokens(self, tokens: TokenService, wire: WireTap, name: str) -> None:
        """With a token service that grants anonymous tokens, no login is needed."""
        tokens.authorization = None
        credentials = {"tokenRealms": [tokens.url]}
        async with LocalArtifactRegistry("artifacts", binding(wire.url, credentials=credentials)) as registry:
            assert (await registry.ensure_repository(name)).created

    async def test_service_elsewhere(self, tokens: TokenService, wire: WireTap, tmp_path: Path, name: str) -> None:
        """A service on another port that is not configured is not contacted; the advice names the field."""
        async with LocalArtifactRegistry("artifacts", binding(wire.url, credentials=basic(tmp_path))) as registry:
            with pytest.raises(AuthenticationFailed, match="untrusted token service") as raised:
                await registry.ensure_repository(name)
            assert raised.value.advice == "add it to tokenRealms"
        assert tokens.scopes == []

    async def test_wrong_login(self, tokens: TokenService, wire: WireTap, open_registry: OpenWith, name: str) -> None:
        """A login rejected by the service is AuthenticationFailed."""
        tokens.authorization = "Basic something else"
        async with open_registry(tokens, wire) as registry:
            with pytest.raises(AuthenticationFailed, match=r"cannot get a token: .*: 401"):
                await registry.ensure_repository(name)

    async def test_pull_only(self, tokens: TokenService, wire: WireTap, open_registry: OpenWith, name: str) -> None:
        """Without the right to push, a create is denied, but existing repositories are verified."""
        async with open_registry(tokens, wire) as registry:
            await registry.ensure_repository(name)
        tokens.grant = lambda _, actions: [action for action in actions if action == "pull"]
        async with open_registry(tokens, wire) as registry:
            assert not (await registry.ensure_repository(name)).created
            with pytest.raises(AccessDenied, match="insufficient scope") as raised:
                await registry.ensure_repository(f"{name}-2")
            assert raised.value.status == 401

    async def test_source_may_not_be_read(
        self, tokens: TokenService, wire: WireTap, open_registry: OpenWith, name: str
    ) -> None:
        """If the mount's source may not be read, the blob is uploaded; this is learned once."""
        created: set[str] = set()
        tokens.grant = lambda path, actions: [] if path in created and actions == ["pull"] else actions
        async with open_registry(tokens, wire) as registry:
            for number in range(4):
                assert (await registry.ensure_repository(f"{name}-{number}")).created
                created.add(f"artifacts/{name}-{number}")
        assert sum("mount=" in request for request in wire.requests) <= 2


async def test_tls(start: Starter, tmp_path: Path, name: str) -> None:
    """With the CA everything works over https, including the login; without it nothing is sent."""
    authority = CertificateAuthority(tmp_path / "ca")
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text(HTPASSWD)
    server = start(
        RegistryKind.DISTRIBUTION_3,
        config={"auth": {"htpasswd": {"realm": "test", "path": str(htpasswd)}}},
        tls=authority.issue("registry"),
        ca_file=authority.ca_file,
    )
    fields: dict[str, object] = {"credentials": basic(tmp_path)}
    tls = {"caFile": str(authority.ca_file)}
    async with LocalArtifactRegistry("artifacts", binding(server.url, tls=tls, **fields)) as registry:
        assert registry.registry_endpoint == server.url
        assert (await registry.ensure_repository(name)).created
        assert registry.uri(name) == f"{server.url.removeprefix('https://')}/artifacts/{name}"
    async with LocalArtifactRegistry("artifacts", binding(server.url, **fields)) as registry:
        with pytest.raises(TLSVerificationFailed, match="certificate from an unknown CA"):
            await registry.ensure_repository(name)
    async with httpx.AsyncClient(
        base_url=server.url,
        verify=ssl.create_default_context(cafile=authority.ca_file),
        auth=("robot", PASSWORD),
        trust_env=False,
    ) as other:
        assert await images.fetch(other, f"artifacts/{name}", "latest") is not None
