"""Proving oneself to a registry: challenges, credential files, bearer tokens.

The rules, each with a test:

- Nothing is sent before the registry has asked for it with a 401, and nothing ever to another endpoint: the registry's
  own credentials go to the registry, and to a token service that lies on the same host and port or that the
  configuration lists in ``tokenRealms``.
- Files are read again when they change, so a rotated Secret needs no restart.
- Secrets appear in no ``repr``, message or log line.

This module decides; :mod:`controller.registry.client` sends.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from controller.config import Credentials
from controller.errors import AccessDenied, AuthenticationFailed, ProtocolViolation, RegistryError, RegistryUnavailable
from controller.registry.answers import Answer, Endpoint, error_for, parse_object, printable, with_query

Scopes = tuple[str, ...]
"""What a token must allow, as token services write it (``repository:a/b:pull,push``)."""

TokenRequest = Callable[[str, str | None], Awaitable[Answer]]
"""Sends a GET to a token service: its URL, and the Authorization header if there are credentials."""

DEFAULT_TOKEN_LIFETIME: Final = 60.0
"""Seconds that a token lives when its service does not say; the token specification's default."""

MAX_TOKEN_LIFETIME: Final = 3600
MAX_TOKENS: Final = 1024
"""Tokens kept at once: enough for all workers, and a bound for an operator with very many repositories."""

MAX_CREDENTIAL_FILE: Final = 1 << 20
"""Bytes of a credential file; Kubernetes allows no larger Secret."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's grammar, no secret
_START = re.compile(r"[^\s,]")
_SCHEME = re.compile(rf"({_TOKEN})(?=[\s,]|$)(?:[ \t]+[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$)))?")
# Unquoted values may hold ':' and '/', unlike RFC 9110's tokens: registries send realm=https://… so.
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))(?=[\s,]|$)')
_BEARER_TOKEN = re.compile(r"[!-~]+")
_DOCKER_CONFIG_KEY = re.compile(r"(?:https?://)?([^/]+)(?:/(?:v[12]/?)?)?")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way that a server offers to prove oneself.

    Args:
        scheme: In lower case: ``basic``, ``bearer``, ….
        parameters: By their names in lower case.
    """

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Return the challenges in a ``WWW-Authenticate`` header, up to the first place that cannot be read."""
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while start := _START.search(header, position):
        if found and (match := _PARAMETER.match(header, start.start())):
            name, quoted, bare = match.groups()
            value = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[-1][1].setdefault(name.lower(), value)
        elif match := _SCHEME.match(header, start.start()):
            found.append((match[1].lower(), {}))
        else:
            break
        position = match.end()
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)


def choose_challenge(header: str) -> Challenge | None:
    """Return the challenge to answer: bearer before basic, since a token tells less; None if there is neither."""
    by_scheme = {challenge.scheme: challenge for challenge in reversed(parse_challenges(header))}
    return by_scheme.get("bearer") or by_scheme.get("basic")


@dataclass(frozen=True)
class Login:
    """A user and a password."""

    username: str
    password: str = field(repr=False)

    @cached_property
    def header(self) -> str:
        """The Authorization header for them."""
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"


FileStamp = tuple[int, int, int]


def file_stamp(path: Path) -> FileStamp:
    """Return what changes when a file does; a mounted Secret changes by a swap of symbolic links, so by the inode too.

    Raises:
        OSError: The file cannot be looked at.
    """
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


class CredentialFiles:
    """The login that a registry's credential files hold, read again whenever they change.

    Args:
        credentials: What the configuration says; None: anonymous.
        endpoint: The registry, to find its entry in a ``.dockerconfigjson``.
    """

    def __init__(self, credentials: Credentials | None, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._basic = credentials.basic if credentials else None
        self._docker_config = credentials.docker_config_file if credentials else None
        basic = (self._basic.username_file, self._basic.password_file) if self._basic else ()
        self.paths: tuple[Path, ...] = basic or ((self._docker_config,) if self._docker_config else ())
        self._stamps: tuple[FileStamp, ...] = ()
        self._login: Login | None = None

    def login(self) -> Login | None:
        """Return the login; None where the configuration names no files.

        The files are small and local, so they are read in place, like the configuration.

        Raises:
            AuthenticationFailed: A file is missing, unreadable, or does not hold a login; the message names it.
        """
        if not self.paths:
            return None
        # Stamps are taken before reading: what changes in between is seen as a change at the next call.
        stamps = tuple(self._look(path) for path in self.paths)
        if stamps != self._stamps:
            self._login = self._read()
            self._stamps = stamps
        return self._login

    def _look(self, path: Path) -> FileStamp:
        try:
            return file_stamp(path)
        except OSError as error:
            raise _unusable(path, f"cannot be read: {error.strerror}") from error

    def _read(self) -> Login:
        if self._docker_config:
            return login_from_docker_config(_content(self._docker_config), self._endpoint, path=self._docker_config)
        username, password = (_text(path) for path in self.paths)
        return _checked(Login(username, password), self.paths[0])


def login_from_docker_config(content: bytes, endpoint: Endpoint, *, path: Path) -> Login:
    """Return a registry's login from the content of a ``.dockerconfigjson``.

    Args:
        content: The file's content.
        endpoint: The registry.
        path: The file, for messages.

    Raises:
        AuthenticationFailed: It is not such a file, or has no login for the registry; the message says which.
    """
    config = parse_object(content)
    entries = config.get("auths") if config is not None else None
    if not isinstance(entries, dict):
        raise _unusable(path, 'is not a .dockerconfigjson: it must be a JSON object with "auths"')
    entry = next((entry for key, entry in entries.items() if _names_endpoint(key, endpoint)), None)
    if not isinstance(entry, dict):
        raise _unusable(path, f'has no entry for {endpoint.authority} in "auths"')
    return _checked(_entry_login(entry, endpoint, path), path)


def _names_endpoint(key: str, endpoint: Endpoint) -> bool:
    """Tell whether a key of "auths" names the registry: with or without scheme, default port and ``/v2/``."""
    match = _DOCKER_CONFIG_KEY.fullmatch(key)
    if match is None:
        return False
    try:
        named = Endpoint.of(f"{endpoint.scheme}://{match[1].lower()}")
    except ValueError:
        return False
    return named == endpoint


def _entry_login(entry: Mapping[str, Any], endpoint: Endpoint, path: Path) -> Login:
    username, password, encoded = (entry.get(key) for key in ("username", "password", "auth"))
    if isinstance(encoded, str) and encoded:
        try:
            username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            # Not chained: the cause would carry the value itself.
            raise _unusable(path, f'"auth" of {endpoint.authority} is not base64 of user:password') from None
    if not isinstance(username, str) or not isinstance(password, str):
        raise _unusable(path, f'the entry for {endpoint.authority} has neither "auth" nor "username" and "password"')
    return Login(username, password)


def _checked(login: Login, path: Path) -> Login:
    if not login.username or ":" in login.username:
        raise _unusable(path, "does not hold a user name that HTTP can send: it is empty or contains a colon")
    return login


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CREDENTIAL_FILE + 1)
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_CREDENTIAL_FILE:
        raise _unusable(path, f"is larger than {MAX_CREDENTIAL_FILE} bytes")
    return content


def _text(path: Path) -> str:
    try:
        # A trailing line end comes from an editor or from echo; no registry has such passwords.
        return _content(path).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise _unusable(path, "is not UTF-8 text") from None  # not chained: the cause carries the bytes


def _unusable(path: Path, what: str) -> AuthenticationFailed:
    return AuthenticationFailed(f"credential file {path} {what}")


@dataclass(frozen=True, slots=True)
class _Token:
    header: str = field(repr=False)
    expires: float


class Authenticator:
    """What one registry's requests carry as Authorization, learned from its challenges.

    Args:
        endpoint: The registry.
        credentials: What the configuration says; None: anonymous.
        request_token: Sends a request to a token service.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Credentials | None,
        request_token: TokenRequest,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._files = CredentialFiles(credentials, endpoint)
        self._token_realms = frozenset(_realm_id(realm) for realm in (credentials.token_realms if credentials else ()))
        self._request_token = request_token
        self._clock = clock
        self._challenge: Challenge | None = None
        self._tokens: dict[Scopes, _Token] = {}

    async def authorization(self, scopes: Scopes) -> str | None:
        """Return the Authorization header for a request that needs ``scopes``; None: send none.

        Raises:
            RegistryError: The credentials cannot be read, or the token service does not give a token.
        """
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            login = self._files.login()
            return login.header if login else None
        token = self._tokens.get(scopes)
        if token is None or token.expires <= self._clock():
            token = await self._new_token(self._challenge, scopes)
        return token.header

    def challenged(self, answer: Answer, *, doing: str, rejected: str | None) -> None:
        """Learn from a 401, so that the next :meth:`authorization` may be accepted.

        Args:
            answer: The answer with status 401.
            doing: What was asked, to follow "cannot".
            rejected: The Authorization header that was sent; its token is not used again.

        Raises:
            AuthenticationFailed: The registry wants something that this operator cannot or must not give.
        """
        challenge = choose_challenge(answer.headers.get("www-authenticate", ""))
        if challenge is None:
            raise AuthenticationFailed(
                f"cannot {doing}: {self._endpoint} asks for credentials, but offers neither Basic nor Bearer",
                status=answer.status,
            )
        if challenge.scheme == "bearer":
            self._realm(challenge)
        self._challenge = challenge
        self._tokens = {scopes: token for scopes, token in self._tokens.items() if token.header != rejected}

    def refusal(self, answer: Answer, *, doing: str) -> RegistryError:
        """Return the error for a 401 that new credentials did not mend."""
        challenge = choose_challenge(answer.headers.get("www-authenticate", ""))
        source = " and ".join(str(path) for path in self._files.paths)
        if challenge is not None and challenge.parameters.get("error") == "insufficient_scope":
            who = f"the user in {source}" if source else "anonymous users"
            return AccessDenied(
                f"cannot {doing}: {self._endpoint} refuses the token: grant {who} pull and push on this repository",
                status=answer.status,
            )
        hint = f"check the credentials in {source}" if source else "set credentials for it in the configuration"
        return AuthenticationFailed(
            f"cannot {doing}: {self._endpoint} does not let this operator in: {hint}", status=answer.status
        )

    def _realm(self, challenge: Challenge) -> str:
        """Return a token service's URL if it may be asked: the registry must not be able to name just any host."""
        realm = challenge.parameters.get("realm", "")
        try:
            service = Endpoint.of(realm)
        except ValueError as error:
            raise AuthenticationFailed(
                f"the token service that {self._endpoint} names, {printable(realm)!r}, has no usable URL"
            ) from error
        own = (service.host, service.port) == (self._endpoint.host, self._endpoint.port)
        weaker = service.scheme == "http" and self._endpoint.scheme == "https"
        if (own and not weaker) or _realm_id(realm) in self._token_realms:
            return service.url(realm)
        raise AuthenticationFailed(
            f"the token service that {self._endpoint} names, {printable(realm)}, is not asked, since it lies elsewhere "
            "or is less protected: if it is the right one, list it in credentials.tokenRealms"
        )

    async def _new_token(self, challenge: Challenge, scopes: Scopes) -> _Token:
        query = [("scope", scope) for scope in scopes]
        if service := challenge.parameters.get("service"):
            query.insert(0, ("service", service))
        url = with_query(self._realm(challenge), urlencode(query))
        login = self._files.login()
        asked = self._clock()
        answer = await self._request_token(url, login.header if login else None)
        token, lifetime = _read_token(answer)
        # A tenth less than told: the request that carries it takes time, and clocks differ.
        made = _Token(f"Bearer {token}", asked + 0.9 * lifetime)
        self._keep(scopes, made)
        return made

    def _keep(self, scopes: Scopes, token: _Token) -> None:
        if len(self._tokens) >= MAX_TOKENS:
            now = self._clock()
            alive = [(key, kept) for key, kept in self._tokens.items() if kept.expires > now]
            self._tokens = dict(alive[-MAX_TOKENS // 2 :])
        self._tokens[scopes] = token


def _realm_id(realm: str) -> str:
    """Return what two spellings of a token service's URL have in common."""
    return f"{Endpoint.of(realm)}{urlsplit(realm).path.rstrip('/')}"


def _read_token(answer: Answer) -> tuple[str, float]:
    """Return token and lifetime from a token service's answer."""
    service = Endpoint.of(answer.url)
    if answer.status != HTTPStatus.OK:
        error = error_for(answer, doing="get a token", resource=str(service), endpoint=service)
        # "Not found" and the like must never be taken for the registry's own word about a repository.
        if isinstance(error, RegistryUnavailable | ProtocolViolation):
            raise error
        raise AuthenticationFailed(f"{service} gives no token: it answered {answer.status}", status=answer.status)
    value = parse_object(answer.body) or {}
    token = value.get("token") or value.get("access_token")
    if not isinstance(token, str) or not _BEARER_TOKEN.fullmatch(token):
        raise ProtocolViolation(f"{service} gives no token: its answer holds none", status=answer.status)
    lifetime = value.get("expires_in")
    if not isinstance(lifetime, int) or lifetime <= 0:
        return token, DEFAULT_TOKEN_LIFETIME
    return token, float(min(lifetime, MAX_TOKEN_LIFETIME))
