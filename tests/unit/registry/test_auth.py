"""Challenges, credential files and tokens, without a network."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.config import BasicAuth, Credentials
from controller.errors import AccessDenied, AuthenticationFailed, ProtocolViolation, RegistryError, RegistryUnavailable
from controller.registry import auth
from controller.registry.answers import Answer, Endpoint
from controller.registry.auth import (
    Authenticator,
    Challenge,
    CredentialFiles,
    Login,
    choose_challenge,
    parse_challenges,
)

HTTP = Endpoint("http", "registry", 5000)
HTTPS = Endpoint("https", "registry", 5000)
SCOPES = ("repository:a/b:pull,push",)
REALM = "http://registry:5000/token"
SECRET = "s3cr3t-p4ssw0rd"


def challenge(scheme: str, **parameters: str) -> Challenge:
    """Return a challenge."""
    return Challenge(scheme, parameters)


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("", []),
        ("Basic", [challenge("basic")]),
        ('Basic realm="x"', [challenge("basic", realm="x")]),
        ("basic realm=x", [challenge("basic", realm="x")]),
        ('Basic realm="x", charset="UTF-8"', [challenge("basic", realm="x", charset="UTF-8")]),
        ('Basic REALM = "x"', [challenge("basic", realm="x")]),
        (
            'Bearer realm="https://a/token?x=1",service="reg, 1",scope="repository:a/b:pull,push"',
            [challenge("bearer", realm="https://a/token?x=1", service="reg, 1", scope="repository:a/b:pull,push")],
        ),
        ("Bearer realm=https://a/token,service=s", [challenge("bearer", realm="https://a/token", service="s")]),
        (r'Bearer realm="a\"b\\c"', [challenge("bearer", realm=r"a\"b\c".replace(r"\"", '"'))]),
        ('Bearer realm="x", Basic realm="y"', [challenge("bearer", realm="x"), challenge("basic", realm="y")]),
        ('Negotiate, Basic realm="y"', [challenge("negotiate"), challenge("basic", realm="y")]),
        ('Negotiate YWJj==, Basic realm="y"', [challenge("negotiate"), challenge("basic", realm="y")]),
        (' , ,Basic realm="y",,', [challenge("basic", realm="y")]),
        ('Bearer realm="x", realm="y"', [challenge("bearer", realm="x")]),
        ('Bearer realm="", error="insufficient_scope"', [challenge("bearer", realm="", error="insufficient_scope")]),
        ('Bearer realm="never closed', [challenge("bearer")]),
        ("Basic realm=x garbage=", [challenge("basic", realm="x")]),
        ('"quoted" Basic', []),
        ("=", []),
    ],
)
def test_parse_challenges(header: str, challenges: list[Challenge]) -> None:
    """The grammar of RFC 9110, the usual sins against it, and a stop where it makes no sense."""
    assert list(parse_challenges(header)) == challenges


@given(st.text(alphabet='abB= ,"\\\t:/~\x00é', max_size=200))
def test_parse_challenges_takes_everything(header: str) -> None:
    """No header makes it fail or hang."""
    parse_challenges(header)


@pytest.mark.parametrize(
    ("header", "scheme"),
    [
        ('Basic realm="x", Bearer realm="y"', "bearer"),
        ('Negotiate, Basic realm="x"', "basic"),
        ('Digest realm="x"', None),
        ("", None),
    ],
)
def test_choose_challenge(header: str, scheme: str | None) -> None:
    """A token is preferred, since it tells the registry less; what we cannot answer is passed over."""
    chosen = choose_challenge(header)
    assert (chosen.scheme if chosen else None) == scheme


@pytest.fixture
def basic(tmp_path: Path) -> Credentials:
    """User and password in files, as a basic-auth Secret is mounted."""
    (tmp_path / "username").write_text("robot\n")
    (tmp_path / "password").write_text(SECRET)
    return Credentials(basic=BasicAuth(username_file=tmp_path / "username", password_file=tmp_path / "password"))


def docker_config(path: Path, auths: object) -> Credentials:
    """Return credentials from a .dockerconfigjson with these entries."""
    file = path / ".dockerconfigjson"
    file.write_text(auths if isinstance(auths, str) else json.dumps({"auths": auths}))
    return Credentials(docker_config_file=file)


def encoded(text: str) -> str:
    """Return base64."""
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "realm",
    [
        *(
            "",
            "auth.example.com",
            "ftp://x",
            "http://",
            "http://u@x/",
            "http://x:0/",
            "http://x:port/",
            "http://x:70000/",
        ),
        *("http://x/ü", "http://x/a b", "http://x\\@y/", "http://[::1", "http://x/\n"),
    ],
)
def test_unusable_token_realms_are_refused_early(realm: str) -> None:
    """The configuration takes no realm that the client could not compare with: it would fail at a request otherwise."""
    with pytest.raises(ValueError, match="tokenRealms"):
        Credentials.model_validate({"tokenRealms": [realm]})


class TestFiles:
    """Where the login comes from."""

    def test_anonymous(self) -> None:
        """Without files there is no login."""
        assert CredentialFiles(None, HTTP).login() is None
        assert CredentialFiles(Credentials(), HTTP).login() is None

    def test_user_and_password(self, basic: Credentials) -> None:
        """A line end that an editor left is no part of the user."""
        assert CredentialFiles(basic, HTTP).login() == Login("robot", SECRET)

    def test_header(self) -> None:
        """Text beyond ASCII is sent in UTF-8, and a colon in the password stays."""
        assert Login("robot", "a:ü").header == f"Basic {encoded('robot:a:ü')}"

    def test_reads_only_what_changed(self, basic: Credentials) -> None:
        """As long as the files stay the same, so does the object; a change is seen at the next call."""
        files = CredentialFiles(basic, HTTP)
        first = files.login()
        assert files.login() is first
        assert basic.basic is not None
        basic.basic.password_file.write_text("another")
        assert files.login() == Login("robot", "another")

    def test_mounted_secret_is_swapped(self, tmp_path: Path) -> None:
        """The kubelet changes a Secret by turning a symbolic link: equal sizes and times do not hide that."""
        for version, password in (("1", "old-one"), ("2", "new-one")):
            (tmp_path / version).mkdir()
            (tmp_path / version / "username").write_text("robot")
            (tmp_path / version / "password").write_text(password)
            for name in ("username", "password"):
                os.utime(tmp_path / version / name, (1, 1))
        data = tmp_path / "..data"
        data.symlink_to("1")
        credentials = Credentials(basic=BasicAuth(username_file=data / "username", password_file=data / "password"))
        files = CredentialFiles(credentials, HTTP)
        assert files.login() == Login("robot", "old-one")
        (tmp_path / "..new").symlink_to("2")
        (tmp_path / "..new").rename(data)
        assert files.login() == Login("robot", "new-one")

    @pytest.mark.parametrize("name", ["username", "password"])
    def test_missing_file(self, basic: Credentials, tmp_path: Path, name: str) -> None:
        """A missing file is named; the login is there again when the file is."""
        files = CredentialFiles(basic, HTTP)
        files.login()
        content = (tmp_path / name).read_text()
        (tmp_path / name).unlink()
        with pytest.raises(AuthenticationFailed, match=rf"{name} cannot be read: No such file"):
            files.login()
        (tmp_path / name).write_text(content)
        assert files.login() is not None

    @pytest.mark.parametrize(
        ("username", "password", "why"),
        [
            (b"", b"x", "empty or contains a colon"),
            (b"a:b", b"x", "empty or contains a colon"),
            (b"a", b"\xff\xfe-secret", "is not UTF-8 text"),
            (b"a", b"x" * ((1 << 20) + 1), "is larger than"),
        ],
    )
    def test_unusable_content(self, basic: Credentials, username: bytes, password: bytes, why: str) -> None:
        """What HTTP cannot send is said so, without the content."""
        assert basic.basic is not None
        basic.basic.username_file.write_bytes(username)
        basic.basic.password_file.write_bytes(password)
        with pytest.raises(AuthenticationFailed, match=why) as raised:
            CredentialFiles(basic, HTTP).login()
        assert raised.value.__cause__ is None

    def test_folder_in_place_of_a_file(self, tmp_path: Path) -> None:
        """A path that is no file is said so."""
        credentials = Credentials(basic=BasicAuth(username_file=tmp_path, password_file=tmp_path))
        with pytest.raises(AuthenticationFailed, match="cannot be read: Is a directory"):
            CredentialFiles(credentials, HTTP).login()

    @pytest.mark.parametrize(
        ("endpoint", "key"),
        [
            (HTTP, "registry:5000"),
            (HTTP, "http://registry:5000"),
            (HTTP, "https://registry:5000/v2/"),
            (HTTP, "Registry:5000/v1/"),
            (Endpoint("https", "registry", 443), "registry"),
            (Endpoint("https", "registry", 443), "https://registry"),
            (Endpoint("https", "registry", 443), "registry:443"),
        ],
    )
    def test_docker_config_keys(self, tmp_path: Path, endpoint: Endpoint, key: str) -> None:
        """The registry's entry is found in every spelling that Docker and kubectl write."""
        auths = {"other:5000": {"auth": encoded("x:y")}, key: {"auth": encoded(f"robot:{SECRET}:x")}}
        login = CredentialFiles(docker_config(tmp_path, auths), endpoint).login()
        assert login == Login("robot", f"{SECRET}:x")

    @pytest.mark.parametrize(
        "key", ["registry", "registry:5001", "evil-registry:5000", "registry:5000/team-a", "::", ""]
    )
    def test_docker_config_of_others(self, tmp_path: Path, key: str) -> None:
        """Another registry's entry is never used."""
        credentials = docker_config(tmp_path, {key: {"auth": encoded("x:y")}})
        with pytest.raises(AuthenticationFailed, match="has no entry for registry:5000"):
            CredentialFiles(credentials, HTTP).login()

    def test_docker_config_in_clear(self, tmp_path: Path) -> None:
        """An entry may also hold user and password as they are."""
        credentials = docker_config(tmp_path, {"registry:5000": {"username": "robot", "password": SECRET}})
        assert CredentialFiles(credentials, HTTP).login() == Login("robot", SECRET)

    @pytest.mark.parametrize(
        ("auths", "why"),
        [
            ("", "is not a .dockerconfigjson"),
            ("[]", "is not a .dockerconfigjson"),
            ('{"auths": []}', "is not a .dockerconfigjson"),
            ("[" * 100_000, "is not a .dockerconfigjson"),
            ({"registry:5000": "x"}, "has no entry"),
            ({"registry:5000": {}}, "has neither"),
            ({"registry:5000": {"username": "robot"}}, "has neither"),
            ({"registry:5000": {"auth": f"not base64 {SECRET}"}}, "is not base64"),
            ({"registry:5000": {"auth": encoded(SECRET)[:-1] + "!"}}, "is not base64"),
            ({"registry:5000": {"auth": encoded(f":{SECRET}")}}, "empty or contains a colon"),
        ],
    )
    def test_unusable_docker_config(self, tmp_path: Path, auths: object, why: str) -> None:
        """A wrong file is said so, without its content."""
        with pytest.raises(AuthenticationFailed, match=why) as raised:
            CredentialFiles(docker_config(tmp_path, auths), HTTP).login()
        assert SECRET not in str(raised.value)
        assert raised.value.__cause__ is None

    def test_nothing_shows_the_password(self, basic: Credentials) -> None:
        """Neither a login nor its holders tell the password when printed."""
        files = CredentialFiles(basic, HTTP)
        login = files.login()
        assert login is not None
        assert login.header  # computed, and still not shown
        for thing in (login, files, vars(files)):
            assert SECRET not in repr(thing)
            assert encoded(f"robot:{SECRET}") not in repr(thing)


class TokenService:
    """A token service that answers from a list, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.answer: Callable[[int], tuple[int, object]] = lambda number: (200, {"token": f"token-{number}"})

    async def request(self, url: str, authorization: str | None) -> Answer:
        """Answer."""
        self.asked.append((url, authorization))
        status, body = self.answer(len(self.asked))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Answer("GET", url, status, httpx.Headers(), content)

    def queries(self) -> list[list[tuple[str, str]]]:
        """Return the query of each request."""
        return [parse_qsl(urlsplit(url).query) for url, _ in self.asked]


@pytest.fixture
def service() -> TokenService:
    """A token service."""
    return TokenService()


def unauthorized(header: str) -> Answer:
    """Return a 401 with a challenge."""
    headers = httpx.Headers({"www-authenticate": header} if header else {})
    return Answer("GET", "http://registry:5000/v2/", 401, headers, b"")


def authenticator(
    service: TokenService,
    credentials: Credentials | None = None,
    *,
    endpoint: Endpoint = HTTP,
    clock: Callable[[], float] = lambda: 0.0,
) -> Authenticator:
    """Return the subject of these tests."""
    return Authenticator(endpoint, credentials, service.request, clock=clock)


def learn(subject: Authenticator, header: str, *, rejected: str | None = None) -> None:
    """Let it see a 401."""
    subject.challenged(unauthorized(header), doing="look up x", rejected=rejected)


class TestBasic:
    """User and password sent to the registry itself."""

    async def test_nothing_before_a_challenge(self, service: TokenService, basic: Credentials) -> None:
        """A registry that wants no credentials gets none."""
        assert await authenticator(service, basic).authorization(SCOPES) is None

    async def test_after_a_challenge(self, service: TokenService, basic: Credentials) -> None:
        """Once asked for, they are sent with every request, in the version that the files hold."""
        subject = authenticator(service, basic)
        learn(subject, 'Basic realm="x"')
        assert await subject.authorization(SCOPES) == Login("robot", SECRET).header
        assert basic.basic is not None
        basic.basic.password_file.write_text("rotated")
        assert await subject.authorization(SCOPES) == Login("robot", "rotated").header

    async def test_none_to_give(self, service: TokenService) -> None:
        """Without credentials the refusal says where to put them."""
        subject = authenticator(service)
        learn(subject, "Basic")
        assert await subject.authorization(SCOPES) is None
        refusal = subject.refusal(unauthorized("Basic"), doing="look up x")
        assert type(refusal) is AuthenticationFailed
        assert refusal.status == 401
        assert "set credentials" in str(refusal)

    def test_wrong_ones(self, service: TokenService, basic: Credentials) -> None:
        """Refused credentials are named by their files, not by their content."""
        refusal = authenticator(service, basic).refusal(unauthorized("Basic"), doing="look up x")
        assert type(refusal) is AuthenticationFailed
        assert "/username and " in str(refusal)
        assert SECRET not in str(refusal)

    @pytest.mark.parametrize("header", ["", "Digest realm=x", "Negotiate"])
    def test_no_way_that_we_know(self, service: TokenService, header: str) -> None:
        """A registry that offers neither Basic nor Bearer is said so."""
        with pytest.raises(AuthenticationFailed, match="neither Basic nor Bearer"):
            learn(authenticator(service), header)


class TestBearer:
    """Tokens from a token service."""

    async def test_scopes_and_service(self, service: TokenService, basic: Credentials) -> None:
        """The service is asked for what the request needs, with the registry's own words and the login."""
        subject = authenticator(service, basic)
        learn(subject, f'Bearer realm="{REALM}?account=x",service="my registry",scope="registry:catalog:*"')
        scopes = (*SCOPES, "repository:c/d:pull")
        assert await subject.authorization(scopes) == "Bearer token-1"
        ((url, authorization),) = service.asked
        assert url.startswith(f"{REALM}?account=x&service=")
        assert service.queries() == [
            [("account", "x"), ("service", "my registry"), *(("scope", scope) for scope in scopes)]
        ]
        assert authorization == Login("robot", SECRET).header

    async def test_anonymous_token(self, service: TokenService) -> None:
        """Without credentials a token is asked for anonymously."""
        subject = authenticator(service)
        learn(subject, f'Bearer realm="{REALM}"')
        assert await subject.authorization(SCOPES) == "Bearer token-1"
        assert service.asked[0][1] is None

    @pytest.mark.parametrize(
        ("lifetime", "seconds"),
        [(None, 60), (300, 300), (1, 1), (0, 60), (-5, 60), ("300", 60), (10**400, 3600), (1e308, 60), (True, 1)],
    )
    async def test_cached_until_it_expires(self, service: TokenService, lifetime: object, seconds: int) -> None:
        """A token serves until shortly before its end; a senseless lifetime counts as none."""
        now = 1000.0
        subject = authenticator(service, clock=lambda: now)
        told = {} if lifetime is None else {"expires_in": lifetime}
        service.answer = lambda number: (200, {"access_token": f"token-{number}", **told})
        learn(subject, f'Bearer realm="{REALM}"')
        assert await subject.authorization(SCOPES) == "Bearer token-1"
        now = 1000 + 0.89 * seconds
        assert await subject.authorization(SCOPES) == "Bearer token-1"
        now = 1000 + 0.91 * seconds
        assert await subject.authorization(SCOPES) == "Bearer token-2"

    async def test_cached_by_scopes(self, service: TokenService) -> None:
        """Each set of scopes has its token."""
        subject = authenticator(service)
        learn(subject, f'Bearer realm="{REALM}"')
        assert await subject.authorization(("a",)) == "Bearer token-1"
        assert await subject.authorization(("b",)) == "Bearer token-2"
        assert await subject.authorization(("a",)) == "Bearer token-1"

    async def test_cache_is_bounded(self, service: TokenService, monkeypatch: pytest.MonkeyPatch) -> None:
        """Old tokens make room, so that ten thousand repositories do not fill the memory."""
        monkeypatch.setattr(auth, "MAX_TOKENS", 8)
        subject = authenticator(service)
        learn(subject, f'Bearer realm="{REALM}"')
        for number in range(100):
            await subject.authorization((str(number),))
            assert len(subject._tokens) <= 8
        assert await subject.authorization(("99",)) == "Bearer token-100"

    async def test_rejected_token_is_dropped(self, service: TokenService) -> None:
        """A token that the registry refuses is not used again; others stay."""
        subject = authenticator(service)
        learn(subject, f'Bearer realm="{REALM}"')
        await subject.authorization(("a",))
        await subject.authorization(("b",))
        learn(subject, f'Bearer realm="{REALM}",error="invalid_token"', rejected="Bearer token-1")
        assert await subject.authorization(("a",)) == "Bearer token-3"
        assert await subject.authorization(("b",)) == "Bearer token-2"

    def test_insufficient_scope(self, service: TokenService, basic: Credentials) -> None:
        """A token without the right to push is a matter of rights, not of the password."""
        header = f'Bearer realm="{REALM}",error="insufficient_scope"'
        refusal = authenticator(service, basic).refusal(unauthorized(header), doing="push x")
        assert type(refusal) is AccessDenied
        assert "/username" in str(refusal)
        assert "anonymous users" in str(authenticator(service).refusal(unauthorized(header), doing="push x"))

    @pytest.mark.parametrize(
        ("endpoint", "realm"),
        [
            (HTTP, "http://registry:5000/token"),
            (HTTP, "https://registry:5000/token"),
            (HTTP, "http://REGISTRY:5000"),
            (HTTPS, "https://registry:5000/token"),
            (HTTPS, "https://auth.example.com/token"),
            (HTTPS, "https://auth.example.com:443/token/?x=1"),
            (HTTP, "http://plain.example.com/"),
        ],
    )
    async def test_realms_that_are_asked(self, service: TokenService, endpoint: Endpoint, realm: str) -> None:
        """The registry's own host and port, and the realms that the configuration lists."""
        credentials = Credentials(token_realms=("https://auth.example.com/token", "http://plain.example.com"))
        subject = authenticator(service, credentials, endpoint=endpoint)
        learn(subject, f'Bearer realm="{realm}"')
        assert await subject.authorization(SCOPES) == "Bearer token-1"

    @pytest.mark.parametrize(
        ("endpoint", "realm"),
        [
            (HTTP, "http://169.254.169.254/latest/meta-data/iam"),
            (HTTP, "http://registry:5001/token"),
            (HTTP, "http://registry/token"),
            (HTTP, "http://registry.evil:5000/token"),
            (HTTP, "https://auth.example.com/other"),
            (HTTP, "https://auth.example.com.evil/token"),
            (HTTP, "http://auth.example.com/token"),
            (HTTPS, "http://registry:5000/token"),
            (HTTP, "http://registry:5000@evil/token"),
            (HTTP, "/token"),
            (HTTP, "file:///etc/passwd"),
            (HTTP, ""),
        ],
    )
    async def test_realms_that_are_not(
        self, service: TokenService, basic: Credentials, endpoint: Endpoint, realm: str
    ) -> None:
        """No other host hears of us, and none is asked in the clear where the registry is not."""
        credentials = basic.model_copy(update={"token_realms": ("https://auth.example.com/token",)})
        subject = authenticator(service, credentials, endpoint=endpoint)
        with pytest.raises(AuthenticationFailed, match="token service"):
            learn(subject, f'Bearer realm="{realm}"')
        assert await subject.authorization(SCOPES) is None
        assert service.asked == []

    @pytest.mark.parametrize(
        ("status", "body", "expected"),
        [
            (401, b"", AuthenticationFailed),
            (403, b"", AuthenticationFailed),
            (400, b"", AuthenticationFailed),
            (404, b"", AuthenticationFailed),
            (404, {"errors": [{"code": "NAME_UNKNOWN"}]}, AuthenticationFailed),
            (302, b"", ProtocolViolation),
            (204, b"", ProtocolViolation),
            (429, b"", RegistryUnavailable),
            (500, b"", RegistryUnavailable),
            (200, b"<html>", ProtocolViolation),
            (200, [], ProtocolViolation),
            (200, {}, ProtocolViolation),
            (200, {"token": 5}, ProtocolViolation),
            (200, {"token": "a\r\nX-Injected: yes"}, ProtocolViolation),
            (200, {"token": "ü"}, ProtocolViolation),
        ],
    )
    async def test_token_service_fails(
        self, service: TokenService, status: int, body: object, expected: type[RegistryError]
    ) -> None:
        """Each failure has its error; none of them may pass for the registry's word on a repository."""
        service.answer = lambda _: (status, body)
        subject = authenticator(service)
        learn(subject, f'Bearer realm="{REALM}"')
        with pytest.raises(RegistryError) as raised:
            await subject.authorization(SCOPES)
        assert type(raised.value) is expected

    async def test_nothing_shows_the_token(self, service: TokenService, basic: Credentials) -> None:
        """Neither the cache nor an answer of the token service tells a token when printed."""
        subject = authenticator(service, basic)
        learn(subject, f'Bearer realm="{REALM}"')
        await subject.authorization(SCOPES)
        assert "token-1" not in repr(vars(subject))
        assert "token-1" not in repr(await service.request(REALM, None))
