"""Logins: a wrong password is tried a few times at most, whatever the number of objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from controller.binding import Credentials
from controller.errors import AuthenticationFailed, LoginRefused, RegistryError, RegistryUnavailable
from controller.registry.auth import Authenticator
from controller.registry.endpoint import Endpoint
from controller.registry.responses import Response

REGISTRY = Endpoint("http", "registry", 5000)
BEARER = 'Bearer realm="http://registry:5000/token",service="x"'
MANY = 200


class Clock:
    """A clock that only the test moves."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Server:
    """A registry with a token service; it counts the requests with a login."""

    def __init__(self, challenge: str) -> None:
        self._challenge = challenge
        self.status: Callable[[str], int] = lambda _: 401
        """Status of a request with a login, by URL or repository."""
        self.says = '{"token": "x"}'
        """Body of the token service's responses, with ``{target}`` for the URL."""
        self.logins = 0
        self.busy = 0
        self.most_busy = 0

    async def login(self, target: str) -> int:
        """Return the status of a request with a login."""
        self.logins += 1
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        await asyncio.sleep(0.001)
        self.busy -= 1
        return self.status(target)

    async def request_token(self, url: str, authorization: str | None) -> Response:
        """Respond as a token service."""
        assert authorization
        body = self.says.replace("{target}", url).encode()
        return Response("GET", url, await self.login(url), httpx.Headers(), body)

    async def request(self, target: str, authorization: str | None) -> Response:
        """Respond as the registry."""
        status = 200 if authorization == "Bearer x" else 401
        if (authorization or "").startswith("Basic"):
            status = await self.login(target)
        return Response("GET", f"{REGISTRY}/v2/", status, httpx.Headers({"WWW-Authenticate": self._challenge}), b"")


class Client:
    """Sends requests as a connection does.

    Args:
        directory: Directory of the credential files.
        challenge: The registry's challenge.
    """

    def __init__(self, directory: Path, challenge: str) -> None:
        self._directory = directory
        self.write_password("wrong")
        self.server = Server(challenge)
        self.clock = Clock()
        files = {"usernameFile": directory / "username", "passwordFile": directory / "password"}
        credentials = Credentials.model_validate({"basic": files})
        self.auth = Authenticator(REGISTRY, credentials, self.server.request_token, clock=self.clock)
        learned = Response("GET", f"{REGISTRY}/v2/", 401, httpx.Headers({"WWW-Authenticate": challenge}), b"")
        self.auth.handle_challenge(learned, operation="x", rejected=None)

    def write_password(self, password: str) -> None:
        """Change the credential files."""
        (self._directory / "username").write_text("robot")
        (self._directory / "password").write_text(password)

    async def get(self, repository: str) -> RegistryError | None:
        """Request something of a repository; return the error."""

        async def send(authorization: str | None) -> Response:
            return await self.server.request(repository, authorization)

        scopes = (f"repository:{repository}:pull",)
        try:
            response, sent = await self.auth.exchange(send, scopes)
            if response.status == 401 and await self.auth.authorization(scopes) == sent:
                return self.auth.rejection(response, operation="look up x")
        except RegistryError as error:
            return error
        return None

    async def get_many(self, number: int = MANY) -> list[RegistryError | None]:
        """Request something of many repositories at the same time."""
        return await asyncio.gather(*(self.get(f"a/{index}") for index in range(number)))


@pytest.fixture(params=["Basic realm=x", BEARER])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Client:
    """A client of a registry that refuses its login."""
    return Client(tmp_path, request.param)


@pytest.fixture
def bearer(tmp_path: Path) -> Client:
    """A client of a token service that refuses its login."""
    return Client(tmp_path, BEARER)


async def test_wrong_password_is_tried_once(client: Client) -> None:
    """Two hundred objects share one refused login, and the message says when it is tried again."""
    errors = await client.get_many()
    assert client.server.logins == 1
    assert {type(error) for error in errors} == {LoginRefused}
    assert len({str(error) for error in errors}) == 1
    file = client.auth.files.paths[-1]
    end = f"check {file}: the login is tried again when that changes, or after some minutes"
    assert str(errors[0]).endswith(f"http://registry:5000: 401 Unauthorized; {end}")
    assert {error.advice for error in errors if error} == {f"check {file}"}


@pytest.mark.parametrize("status", [401, 503])
async def test_a_shared_failure_names_no_repository(bearer: Client, status: int) -> None:
    """What the token service says about one repository is not told to the objects of others during the pause."""
    bearer.server.status = lambda _: status
    bearer.server.says = '{"errors": [{"code": "DENIED", "message": "no access to {target}"}]}'
    for number in range(20):
        await bearer.get(f"secret/{number}")
    logins = bearer.server.logins
    error = await bearer.get("team/web")
    assert bearer.server.logins == logins
    assert error is not None
    assert error.endpoint == "http://registry:5000"
    assert "secret" not in f"{error} {error.cause} {error.advice} {error!r}"


async def test_pause_grows(client: Client) -> None:
    """A refused login is tried again after 30 s, then after twice the time, until five minutes."""
    moments: list[float] = []
    for moment in range(0, 1200, 5):
        client.clock.now = moment
        before = client.server.logins
        await client.get_many(20)
        if client.server.logins > before:
            assert client.server.logins == before + 1
            moments.append(moment)
    assert moments == [0, 30, 90, 210, 450, 750, 1050]


async def test_changed_file_ends_the_pause(client: Client) -> None:
    """A changed credential file is tried at once; when it is accepted, everything works."""
    await client.get_many()
    client.server.status = lambda _: 200
    client.write_password("corrected")
    assert set(await client.get_many()) == {None}


async def test_accepted_login_ends_the_pause(client: Client) -> None:
    """When the account is put right at the registry, the next attempt ends the pause for all."""
    await client.get_many()
    client.server.status = lambda _: 200
    client.clock.now = 30.0
    assert set(await client.get_many()) == {None}


@pytest.mark.parametrize(("status", "logins"), [(401, 1), (403, 3)])
async def test_token_service_that_forbids(bearer: Client, status: int, logins: int) -> None:
    """A 403 of a token service may concern one repository; after three repositories, it is the login that is wrong."""
    bearer.server.status = lambda _: status
    errors = await bearer.get_many()
    assert bearer.server.logins == logins
    assert isinstance(errors[-1], LoginRefused)
    assert bearer.server.most_busy == 1


async def test_forbidden_repository_is_not_a_wrong_password(client: Client) -> None:
    """One forbidden repository does not keep others from the registry, however often it is tried."""
    client.server.status = lambda target: 401 if "forbidden" in target else 200
    assert await client.get("a/b") is None
    for _ in range(20):
        error = await client.get("forbidden")
        assert isinstance(error, AuthenticationFailed)
        assert not isinstance(error, LoginRefused)
        assert await client.get("a/other") is None


async def test_password_that_becomes_wrong(bearer: Client) -> None:
    """A password that was right and is changed at the registry is sent about ten times, not by every object."""
    bearer.server.status = lambda _: 200
    await bearer.get("a/b")
    bearer.server.status = lambda _: 401
    errors = await bearer.get_many()
    assert isinstance(errors[-1], LoginRefused)
    assert bearer.server.logins <= 1 + 10 + 3
    assert bearer.server.most_busy <= 4


async def test_failing_token_service(bearer: Client) -> None:
    """A token service that responds 500 is left alone for a while after three repositories."""
    bearer.server.status = lambda _: 500
    errors = await bearer.get_many()
    assert {type(error) for error in errors} == {RegistryUnavailable}
    assert bearer.server.logins == 3
    bearer.clock.now = 1.0
    bearer.server.status = lambda _: 200
    assert set(await bearer.get_many()) == {None}


async def test_one_failing_repository_does_not_pause(bearer: Client) -> None:
    """A token service that fails for one repository serves the others."""
    bearer.server.status = lambda url: 500 if "failing" in url else 200
    for _ in range(10):
        assert isinstance(await bearer.get("failing"), RegistryUnavailable)
    assert await bearer.get("a/b") is None


async def test_silent_token_service(bearer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that waited for an attempt without a response fail with it, instead of each waiting as long."""

    async def time_out(_: str) -> int:
        bearer.server.logins += 1
        await asyncio.sleep(0.001)
        raise RegistryUnavailable("get a token", str(REGISTRY), "timed out")

    monkeypatch.setattr(bearer.server, "login", time_out)
    errors = await bearer.get_many()
    assert {type(error) for error in errors} == {RegistryUnavailable}
    assert bearer.server.logins == 1


async def test_token_is_requested_once(bearer: Client) -> None:
    """Concurrent requests with the same scopes share one token."""
    bearer.server.status = lambda _: 200
    assert await asyncio.gather(*(bearer.get("a/b") for _ in range(20))) == [None] * 20
    assert bearer.server.logins == 1
