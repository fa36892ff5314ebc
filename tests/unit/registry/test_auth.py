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

from controller.binding import BasicAuth, Credentials
from controller.errors import AccessDenied, AuthenticationFailed, ProtocolViolation, RegistryError, RegistryUnavailable
from controller.registry import auth
from controller.registry.auth import Authenticator, Challenge, choose_challenge, parse_challenges
from controller.registry.credentials import CredentialFiles, Login
from controller.registry.endpoint import Endpoint
from controller.registry.responses import Response

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
    """The grammar of RFC 9110 and common deviations are parsed; parsing stops at the first syntax error."""
    assert list(parse_challenges(header)) == challenges


@given(st.text(alphabet='abB= ,"\\\t:/~\x00é', max_size=200))
def test_parse_challenges_never_fails(header: str) -> None:
    """No header makes the parser fail or hang."""
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
def test_choose_challenge_prefers_bearer(header: str, scheme: str | None) -> None:
    """Bearer is preferred to Basic; unsupported schemes are ignored."""
    chosen = choose_challenge(header)
    assert (chosen.scheme if chosen else None) == scheme


@pytest.fixture
def basic(tmp_path: Path) -> Credentials:
    """User and password in files, as of a mounted basic-auth Secret."""
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
def test_invalid_token_realm_is_rejected_at_load(realm: str) -> None:
    """An invalid realm is rejected when the configuration is loaded, not at the first request."""
    with pytest.raises(ValueError, match="tokenRealms"):
        Credentials.model_validate({"tokenRealms": [realm]})


class TestFiles:
    """Credential files."""

    def test_no_files_no_login(self) -> None:
        """Without files there is no login."""
        assert CredentialFiles(None, HTTP).login() is None

    def test_user_and_password(self, basic: Credentials) -> None:
        """A trailing line break is not part of the user name."""
        assert CredentialFiles(basic, HTTP).login() == Login("robot", SECRET)

    def test_header_is_utf8(self) -> None:
        """Non-ASCII text is sent in UTF-8, and the password may contain a colon."""
        assert Login("robot", "a:ü").header == f"Basic {encoded('robot:a:ü')}"

    def test_files_are_read_again_when_they_change(self, basic: Credentials) -> None:
        """Unchanged files are not read again; a change is noticed at the next call."""
        files = CredentialFiles(basic, HTTP)
        first = files.login()
        assert files.login() is first
        assert basic.basic is not None
        basic.basic.password_file.write_text("another")
        assert files.login() == Login("robot", "another")

    def test_rotated_secret_is_noticed(self, tmp_path: Path) -> None:
        """The kubelet's swap of a symbolic link is noticed, even with equal sizes and times."""
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

    def test_a_pipe_is_refused(self, basic: Credentials, tmp_path: Path) -> None:
        """Instead of waiting for somebody to write to it."""
        (tmp_path / "password").unlink()
        os.mkfifo(tmp_path / "password")
        with pytest.raises(AuthenticationFailed, match=r"/password not a regular file"):
            CredentialFiles(basic, HTTP).login()

    @pytest.mark.parametrize("name", ["username", "password"])
    def test_missing_file_is_named(self, basic: Credentials, tmp_path: Path, name: str) -> None:
        """A missing file is named in the error; once it exists again, so does the login."""
        files = CredentialFiles(basic, HTTP)
        files.login()
        content = (tmp_path / name).read_text()
        (tmp_path / name).unlink()
        with pytest.raises(AuthenticationFailed, match=rf"/{name} is missing"):
            files.login()
        (tmp_path / name).write_text(content)
        assert files.login() is not None

    @pytest.mark.parametrize(
        ("username", "password", "why"),
        [
            (b"", b"x", "empty or contains a colon"),
            (b"a:b", b"x", "empty or contains a colon"),
            (b"a", b"\xff\xfe-secret", "is not UTF-8 text"),
            (b"a", b"x" * ((1 << 20) + 1), "exceeds 1048576 bytes"),
        ],
    )
    def test_invalid_content_is_reported(self, basic: Credentials, username: bytes, password: bytes, why: str) -> None:
        """Invalid content is reported, without showing it."""
        assert basic.basic is not None
        basic.basic.username_file.write_bytes(username)
        basic.basic.password_file.write_bytes(password)
        with pytest.raises(AuthenticationFailed, match=why) as raised:
            CredentialFiles(basic, HTTP).login()
        assert raised.value.__cause__ is None

    def test_directory_is_reported(self, tmp_path: Path) -> None:
        """A directory in place of a file is reported."""
        credentials = Credentials(basic=BasicAuth(username_file=tmp_path, password_file=tmp_path))
        with pytest.raises(AuthenticationFailed, match="is a directory"):
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
    def test_docker_config_of_another_registry_is_ignored(self, tmp_path: Path, key: str) -> None:
        """Another registry's entry is never used."""
        credentials = docker_config(tmp_path, {key: {"auth": encoded("x:y")}})
        with pytest.raises(AuthenticationFailed, match="has no entry for registry:5000"):
            CredentialFiles(credentials, HTTP).login()

    @pytest.mark.parametrize(
        ("keys", "user"),
        [
            (["registry:5000", "registry:5000/artifacts"], "registry:5000/artifacts"),
            (["registry:5000/artifacts/team", "registry:5000"], "registry:5000"),
            (["registry:5000/art", "http://registry:5000/v1/"], "http://registry:5000/v1/"),
            (["*:5000"], "*:5000"),
        ],
    )
    def test_the_most_specific_entry_is_used(self, tmp_path: Path, keys: list[str], user: str) -> None:
        """Of several entries that match, the one with the longest path of the registry's prefix is used."""
        auths = {key: {"username": key.replace(":", "."), "password": SECRET} for key in keys}
        login = CredentialFiles(docker_config(tmp_path, auths), HTTP, "artifacts").login()
        assert login == Login(user.replace(":", "."), SECRET)

    @pytest.mark.parametrize(
        ("url", "key"),
        [
            ("https://registry-1.docker.io", "https://index.docker.io/v1/"),
            ("https://a.registry.corp.example", "*.registry.corp.example"),
            ("https://[fd00::1]:5000", "[fd00::1]:5000"),
        ],
    )
    def test_other_spellings_of_a_host(self, tmp_path: Path, url: str, key: str) -> None:
        """Docker Hub's names, patterns and IPv6 addresses name a registry."""
        auths = {key: {"auth": f" {encoded('robot:' + SECRET)}\n"}}
        assert CredentialFiles(docker_config(tmp_path, auths), Endpoint.of(url)).login() == Login("robot", SECRET)

    def test_a_line_break_after_the_password(self, tmp_path: Path) -> None:
        """What `echo` adds before base64 is not part of the password."""
        auths = {"registry:5000": {"auth": encoded(f"robot:{SECRET}\n")}}
        assert CredentialFiles(docker_config(tmp_path, auths), HTTP).login() == Login("robot", SECRET)

    def test_legacy_docker_config(self, tmp_path: Path) -> None:
        """A `.dockercfg` has its entries at the top."""
        file = tmp_path / "legacy"
        file.write_text(json.dumps({"https://registry:5000": {"auth": encoded(f"robot:{SECRET}"), "email": "a@b"}}))
        assert CredentialFiles(Credentials(docker_config_file=file), HTTP).login() == Login("robot", SECRET)

    def test_docker_config_with_plain_login(self, tmp_path: Path) -> None:
        """An entry may also contain user and password in plain text."""
        credentials = docker_config(tmp_path, {"registry:5000": {"username": "robot", "password": SECRET}})
        assert CredentialFiles(credentials, HTTP).login() == Login("robot", SECRET)

    @pytest.mark.parametrize(
        ("auths", "why"),
        [
            ("", "is not a .dockerconfigjson"),
            ("[]", "is not a .dockerconfigjson"),
            ('{"auths": []}', "is not a .dockerconfigjson"),
            ('{"credsStore": "desktop"}', r'has no "auths", only credsStore \("desktop"\)'),
            ('{"credHelpers": {"registry:5000": "ecr-login"}}', r'only credHelpers \("registry:5000": "ecr-login"\)'),
            ('{"auths": {}, "credHelpers": {"registry:5000": "ecr-login"}}', "which the operator cannot run"),
            ('{"auths": {"registry:5000": {}}, "credsStore": "osxkeychain"}', r'credsStore \("osxkeychain"\)'),
            ("[" * 100_000, "is not a .dockerconfigjson"),
            ({"registry:5000": "x"}, "has no entry"),
            ({"registry:5000": {}}, 'has neither "auth" nor'),
            ({"registry:5000": {"username": "robot"}}, 'has neither "auth" nor'),
            ({"registry:5000": {"auth": f"not base64 {SECRET}"}}, "is not base64"),
            ({"registry:5000": {"auth": encoded(SECRET)}}, "it has no colon"),
            ({"registry:5000": {"auth": encoded("0000:"), "identitytoken": SECRET}}, "has identitytoken instead"),
            ({"registry:5000": {"registrytoken": SECRET}}, "has registrytoken instead"),
            ({"registry:5000": {"auth": encoded(SECRET)[:-1] + "!"}}, "is not base64"),
            ({"registry:5000": {"auth": encoded(f":{SECRET}")}}, "empty or contains a colon"),
        ],
    )
    def test_invalid_docker_config_is_reported(self, tmp_path: Path, auths: object, why: str) -> None:
        """An invalid file is reported, without showing its content."""
        with pytest.raises(AuthenticationFailed, match=why) as raised:
            CredentialFiles(docker_config(tmp_path, auths), HTTP).login()
        assert SECRET not in str(raised.value)
        assert raised.value.__cause__ is None

    def test_repr_hides_the_password(self, basic: Credentials) -> None:
        """No repr contains the password."""
        files = CredentialFiles(basic, HTTP)
        login = files.login()
        assert login is not None
        assert login.header  # computed, and still hidden
        for thing in (login, files, vars(files)):
            assert SECRET not in repr(thing)
            assert encoded(f"robot:{SECRET}") not in repr(thing)


class TokenService:
    """A token service with programmed responses that records its requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None]] = []
        self.respond: Callable[[int], tuple[int, object]] = lambda number: (200, {"token": f"token-{number}"})

    async def request(self, url: str, authorization: str | None) -> Response:
        """Record a request and respond to it."""
        self.requests.append((url, authorization))
        status, body = self.respond(len(self.requests))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Response("GET", url, status, httpx.Headers(), content)

    def queries(self) -> list[list[tuple[str, str]]]:
        """Return the query of each request."""
        return [parse_qsl(urlsplit(url).query) for url, _ in self.requests]


@pytest.fixture
def service() -> TokenService:
    """A token service."""
    return TokenService()


def unauthorized(header: str) -> Response:
    """Return a 401 with a challenge."""
    headers = httpx.Headers({"www-authenticate": header} if header else {})
    return Response("GET", "http://registry:5000/v2/", 401, headers, b"")


def authenticator(
    service: TokenService,
    credentials: Credentials | None = None,
    *,
    endpoint: Endpoint = HTTP,
    clock: Callable[[], float] = lambda: 0.0,
) -> Authenticator:
    """Return an authenticator for a registry."""
    return Authenticator(endpoint, credentials, service.request, clock=clock)


def learn(subject: Authenticator, header: str, *, rejected: str | None = None) -> None:
    """Pass it a 401 response."""
    subject.handle_challenge(unauthorized(header), operation="look up x", rejected=rejected)


class TestBasic:
    """Basic authentication to the registry itself."""

    async def test_nothing_is_sent_before_a_challenge(self, service: TokenService, basic: Credentials) -> None:
        """A registry that requires no credentials gets none."""
        assert await authenticator(service, basic).authorization(SCOPES) is None

    async def test_login_is_sent_after_a_challenge(self, service: TokenService, basic: Credentials) -> None:
        """After a challenge, every request carries the login, as the files currently have it."""
        subject = authenticator(service, basic)
        learn(subject, 'Basic realm="x"')
        assert await subject.authorization(SCOPES) == Login("robot", SECRET).header
        assert basic.basic is not None
        basic.basic.password_file.write_text("rotated")
        assert await subject.authorization(SCOPES) == Login("robot", "rotated").header

    async def test_rejection_without_credentials_advises_to_configure_them(self, service: TokenService) -> None:
        """Without credentials, the error advises to configure some."""
        subject = authenticator(service)
        learn(subject, "Basic")
        assert await subject.authorization(SCOPES) is None
        rejection = subject.rejection(unauthorized("Basic"), operation="look up x")
        assert type(rejection) is AuthenticationFailed
        assert rejection.status == 401
        assert rejection.advice == "configure credentials for it"

    def test_rejection_of_wrong_credentials(self, service: TokenService, basic: Credentials) -> None:
        """Rejected credentials are reported with the status and their file, without their content."""
        rejection = authenticator(service, basic).rejection(unauthorized("Basic"), operation="look up x")
        assert type(rejection) is AuthenticationFailed
        assert rejection.cause == "401 Unauthorized"
        assert rejection.advice is not None
        assert rejection.advice.endswith("/password")
        assert SECRET not in f"{rejection} {rejection.advice}"

    @pytest.mark.parametrize("header", ["", "Digest realm=x", "Negotiate"])
    def test_unsupported_scheme_is_reported(self, service: TokenService, header: str) -> None:
        """A registry that offers neither Basic nor Bearer is reported."""
        with pytest.raises(AuthenticationFailed, match="neither Basic nor Bearer"):
            learn(authenticator(service), header)


class TestBearer:
    """Tokens from a token service."""

    async def test_token_request_has_scopes_service_and_login(self, service: TokenService, basic: Credentials) -> None:
        """A token request has the request's scopes, the registry's service name and the login."""
        subject = authenticator(service, basic)
        learn(subject, f'Bearer realm="{REALM}?account=x",service="my registry",scope="registry:catalog:*"')
        scopes = (*SCOPES, "repository:c/d:pull")
        assert await subject.authorization(scopes) == "Bearer token-1"
        ((url, authorization),) = service.requests
        assert url.startswith(f"{REALM}?account=x&service=")
        assert service.queries() == [
            [("account", "x"), ("service", "my registry"), *(("scope", scope) for scope in scopes)]
        ]
        assert authorization == Login("robot", SECRET).header

    async def test_anonymous_token(self, service: TokenService) -> None:
        """Without credentials, a token is requested anonymously."""
        subject = authenticator(service)
        learn(subject, f'Bearer realm="{REALM}"')
        assert await subject.authorization(SCOPES) == "Bearer token-1"
        assert service.requests[0][1] is None

    @pytest.mark.parametrize(
        ("lifetime", "seconds"),
        [(None, 60), (300, 300), (1, 1), (0, 60), (-5, 60), ("300", 60), (10**400, 3600), (1e308, 60), (True, 1)],
    )
    async def test_token_is_cached_until_it_expires(
        self, service: TokenService, lifetime: object, seconds: int
    ) -> None:
        """A token is used until shortly before it expires; an invalid lifetime is ignored."""
        now = 1000.0
        subject = authenticator(service, clock=lambda: now)
        stated = {} if lifetime is None else {"expires_in": lifetime}
        service.respond = lambda number: (200, {"access_token": f"token-{number}", **stated})
        learn(subject, f'Bearer realm="{REALM}"')
        assert await subject.authorization(SCOPES) == "Bearer token-1"
        now = 1000 + 0.89 * seconds
        assert await subject.authorization(SCOPES) == "Bearer token-1"
        now = 1000 + 0.91 * seconds
        assert await subject.authorization(SCOPES) == "Bearer token-2"

    async def test_tokens_are_cached_by_scopes(self, service: TokenService) -> None:
        """Each set of scopes has its own token."""
        subject = authenticator(service)
        learn(subject, f'Bearer realm="{REALM}"')
        assert await subject.authorization(("a",)) == "Bearer token-1"
        assert await subject.authorization(("b",)) == "Bearer token-2"
        assert await subject.authorization(("a",)) == "Bearer token-1"

    async def test_cache_is_bounded(self, service: TokenService, monkeypatch: pytest.MonkeyPatch) -> None:
        """Old tokens are evicted, so that memory stays bounded with ten thousand repositories."""
        monkeypatch.setattr(auth, "MAX_TOKENS", 8)
        subject = authenticator(service)
        learn(subject, f'Bearer realm="{REALM}"')
        for number in range(100):
            await subject.authorization((str(number),))
            assert len(subject._tokens) <= 8
        assert await subject.authorization(("99",)) == "Bearer token-100"

    async def test_rejected_token_is_dropped(self, service: TokenService) -> None:
        """A token that the registry rejects is not used again; other tokens are kept."""
        subject = authenticator(service)
        learn(subject, f'Bearer realm="{REALM}"')
        await subject.authorization(("a",))
        await subject.authorization(("b",))
        learn(subject, f'Bearer realm="{REALM}",error="invalid_token"', rejected="Bearer token-1")
        assert await subject.authorization(("a",)) == "Bearer token-3"
        assert await subject.authorization(("b",)) == "Bearer token-2"

    def test_insufficient_scope_is_access_denied(self, service: TokenService, basic: Credentials) -> None:
        """A token with insufficient scope means AccessDenied, not AuthenticationFailed."""
        header = f'Bearer realm="{REALM}",error="insufficient_scope"'
        rejection = authenticator(service, basic).rejection(unauthorized(header), operation="push x")
        assert type(rejection) is AccessDenied
        assert rejection.cause == "401 (insufficient scope)"

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
    async def test_trusted_realms_are_used(self, service: TokenService, endpoint: Endpoint, realm: str) -> None:
        """The registry's own host and port and the configured realms are trusted."""
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
    async def test_untrusted_realms_are_not_contacted(
        self, service: TokenService, basic: Credentials, endpoint: Endpoint, realm: str
    ) -> None:
        """No other host is contacted, and none without TLS where the registry has it."""
        credentials = basic.model_copy(update={"token_realms": ("https://auth.example.com/token",)})
        subject = authenticator(service, credentials, endpoint=endpoint)
        with pytest.raises(AuthenticationFailed, match="token service"):
            learn(subject, f'Bearer realm="{realm}"')
        assert await subject.authorization(SCOPES) is None
        assert service.requests == []

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
    async def test_failures_of_the_token_service(
        self, service: TokenService, status: int, body: object, expected: type[RegistryError]
    ) -> None:
        """Each failure has its error; none is mistaken for a registry's response about a repository."""
        service.respond = lambda _: (status, body)
        subject = authenticator(service)
        learn(subject, f'Bearer realm="{REALM}"')
        with pytest.raises(RegistryError) as raised:
            await subject.authorization(SCOPES)
        assert type(raised.value) is expected

    async def test_repr_hides_the_token(self, service: TokenService, basic: Credentials) -> None:
        """No repr of the cache or of a token service's response contains the token."""
        subject = authenticator(service, basic)
        learn(subject, f'Bearer realm="{REALM}"')
        await subject.authorization(SCOPES)
        assert "token-1" not in repr(vars(subject))
        assert "token-1" not in repr(await service.request(REALM, None))
