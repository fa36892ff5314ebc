"""A wrong password, from two hundred objects to the requests that the registry gets."""

import asyncio
from pathlib import Path

import httpx
import pytest

from controller.binding import RegistryBinding
from controller.reconcile.breaker import BreakerState
from controller.reconcile.interfaces import RepositoryRegistry
from controller.registry.credentials import Login
from controller.registry.local import LocalArtifactRegistry
from tests.fakes.registry import FakeRegistry
from tests.unit.objects import make_config
from tests.unit.reconcile.world import World

pytestmark = [pytest.mark.looptime]

RIGHT = Login("robot", "right")
OBJECTS = 200


class GuardedWorld(World):
    """A world whose registry requires a login."""

    def __init__(self, directory: Path) -> None:
        self.server = FakeRegistry()
        self.server.override = self.guard
        self.logins = 0
        (directory / "username").write_text(RIGHT.username)
        (directory / "password").write_text("wrong")
        files = {"usernameFile": str(directory / "username"), "passwordFile": str(directory / "password")}
        binding = {"registryUrl": "http://registry:5000", "credentials": {"basic": files}}
        super().__init__(make_config(registries={"artifacts": binding}))

    async def guard(self, request: httpx.Request) -> httpx.Response | None:
        """Count a login; let the right one pass."""
        sent = request.headers.get("authorization")
        self.logins += sent is not None
        if sent == RIGHT.header:
            return None
        return httpx.Response(401, headers={"www-authenticate": 'Basic realm="x"'})

    def _connect(self, name: str, binding: RegistryBinding) -> RepositoryRegistry:
        return LocalArtifactRegistry(name, binding, transport=self.server)


async def test_wrong_password(tmp_path: Path) -> None:
    """Two hundred objects log in once; all are told, with one write each; the corrected file makes all Ready."""
    world = GuardedWorld(tmp_path)
    keys = [world.put(f"repo-{number}") for number in range(OBJECTS)]
    await asyncio.sleep(30)
    assert world.logins == 1
    assert {world.ready(key) for key in keys} == {("False", "AuthenticationFailed")}
    assert len(world.store.writes) == OBJECTS
    # The trials after each probe contact nothing; the first object may have sent a request before the challenge.
    requests = [request for request in world.server.requests if request.url.path != "/v2/"]
    assert len(requests) <= 20
    assert world.pool["artifacts"].breaker.state is not BreakerState.CLOSED
    (tmp_path / "password").write_text(RIGHT.password)
    await asyncio.sleep(15)
    assert {world.ready(key) for key in keys} == {("True", "RepositoryReady")}
    await world.controller.stop(grace=0)
