"""Authentication to a registry: challenges and bearer tokens.

The rules, each with a test:

- Credentials are sent only after a 401, and only to the registry itself or to a token service that has the registry's
  host and port or is listed in ``tokenRealms``.
- Credential files are read again when they change, so a rotated Secret needs no restart.
- A login that was refused is not repeated at once (:mod:`controller.registry.logins`).
- Secrets appear in no ``repr``, message or log line.

This module decides what to send; :mod:`controller.registry.connection` sends it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode, urlsplit
from weakref import WeakValueDictionary

from controller.binding import Credentials
from controller.errors import AccessDenied, AuthenticationFailed, ProtocolViolation, RegistryError, RegistryUnavailable
from controller.redaction import remember
from controller.registry.credentials import CredentialFiles
from controller.registry.endpoint import Endpoint
from controller.registry.logins import Logins
from controller.registry.responses import (
    Response,
    describe,
    error_codes,
    error_for,
    parse_object,
    printable,
    with_query,
)

Scopes = tuple[str, ...]
"""Scopes of a token, in the syntax of token services (``repository:a/b:pull,push``)."""

TokenRequest = Callable[[str, str | None], Awaitable[Response]]
"""Sends a GET to a token service: its URL, and the Authorization header if there are credentials."""

DEFAULT_TOKEN_LIFETIME: Final = 60.0
"""Lifetime of a token whose service states none, in seconds; the token specification's default."""

MAX_TOKEN_LIFETIME: Final = 3600
MAX_TOKENS: Final = 1024
"""Maximum cached tokens: enough for all workers, and a bound on memory with very many repositories."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's grammar, no secret
_START = re.compile(r"[^\s,]")
_SCHEME = re.compile(rf"({_TOKEN})(?=[\s,]|$)(?:[ \t]+[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$)))?")
# Unlike RFC 9110's tokens, unquoted values may contain ':' and '/': registries send realm=https://….
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))(?=[\s,]|$)')
_BEARER_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One authentication scheme that a server offers.

    Args:
        scheme: In lower case: ``basic``, ``bearer``, ….
        parameters: Its parameters by lower-case name.
    """

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Return the challenges in a ``WWW-Authenticate`` header, up to the first syntax error."""
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
    """Return the challenge to respond to: bearer before basic, as a token reveals less; None if there is neither."""
    by_scheme = {challenge.scheme: challenge for challenge in reversed(parse_challenges(header))}
    return by_scheme.get("bearer") or by_scheme.get("basic")


@dataclass(frozen=True, slots=True)
class _Token:
    header: str = field(repr=False)
    expires: float


class Authenticator:
    """Authorization headers for one registry, by the challenges that it has sent.

    Args:
        endpoint: The registry.
        credentials: Its credentials in the configuration; None for anonymous access.
        request_token: Sends a request to a token service.
        prefix: The path of the registry's repositories, to find their entry in a ``.dockerconfigjson``.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Credentials | None,
        request_token: TokenRequest,
        *,
        prefix: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self.files: Final = CredentialFiles(credentials, endpoint, prefix)
        self._logins = Logins(self.files, clock=clock)
        self._token_realms = frozenset(_realm_id(realm) for realm in (credentials.token_realms if credentials else ()))
        self._request_token = request_token
        self._clock = clock
        self._challenge: Challenge | None = None
        self._tokens: dict[Scopes, _Token] = {}
        self._token_locks: WeakValueDictionary[Scopes, asyncio.Lock] = WeakValueDictionary()
        """So that one token is requested once."""
        self._required: dict[Scopes, Scopes] = {}

    async def authorization(self, scopes: Scopes) -> str | None:
        """Return the Authorization header for a request with these scopes; None for none.

        Raises:
            RegistryError: The credentials cannot be read, or the token service did not issue a token.
        """
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            login = self._logins.current()
            return login.header if login else None
        async with self._token_locks.setdefault(scopes, asyncio.Lock()):
            token = self._tokens.get(scopes)
            if token is None or token.expires <= self._clock():
                token = await self._new_token(self._challenge, scopes)
        return token.header

    async def exchange(
        self, send: Callable[[str | None], Awaitable[Response]], scopes: Scopes
    ) -> tuple[Response, str | None]:
        """Send a request with the known authorization; return the response, and the header that was sent.

        Args:
            send: Sends it with an Authorization header; None for none.
            scopes: Its scopes.

        Raises:
            RegistryError: As of :meth:`authorization`, or there was no response.
        """
        if self._challenge is None or self._challenge.scheme != "basic" or not self.files.paths:
            header = await self.authorization(scopes)
            return await send(header), header
        async with self._logins.attempt(_repository(scopes), is_token_request=False) as attempt:
            header = attempt.login.header if attempt.login else None
            response = await send(header)
            challenge = choose_challenge(response.headers.get("www-authenticate", ""))
            if response.status != HTTPStatus.UNAUTHORIZED:
                attempt.accepted = response.status < HTTPStatus.BAD_REQUEST or response.status == HTTPStatus.NOT_FOUND
            elif challenge is not None and challenge.scheme == "basic":
                attempt.failure = self.rejection(response, operation="log in")
        return response, header

    def handle_challenge(
        self, response: Response, *, scopes: Scopes = (), operation: str, rejected: str | None
    ) -> None:
        """Learn from a 401, so that the next :meth:`authorization` may be accepted.

        Args:
            response: The response with status 401.
            scopes: The scopes of the request.
            operation: What was attempted, to follow "cannot".
            rejected: The Authorization header that was sent; its token is not used again.

        Raises:
            AuthenticationFailed: The registry requires a scheme or a token service that cannot be used.
        """
        challenge = self._choose(response.headers.get("www-authenticate", ""))
        if challenge is None:
            cause = "401, but offers neither Basic nor Bearer"
            raise AuthenticationFailed(operation, str(self._endpoint), cause, status=response.status)
        if challenge.scheme == "bearer":
            required = merge_scopes(scopes, challenge.parameters.get("scope", ""))
            if required != scopes:
                self._required[scopes] = required
        self._challenge = challenge
        self._tokens = {scopes: token for scopes, token in self._tokens.items() if token.header != rejected}

    def _choose(self, header: str) -> Challenge | None:
        """Return the challenge to respond to: basic instead of a token service that is not trusted.

        Raises:
            AuthenticationFailed: The token service is not trusted, and there is no other scheme.
        """
        challenge = choose_challenge(header)
        if challenge is None or challenge.scheme != "bearer":
            return challenge
        try:
            self._realm(challenge)
        except AuthenticationFailed:
            basic = [other for other in parse_challenges(header) if other.scheme == "basic"]
            if not basic:
                raise
            return basic[0]
        return challenge

    def rejection(self, response: Response, *, operation: str) -> RegistryError:
        """Return the error for a 401 to a request with the best available credentials."""
        challenge = choose_challenge(response.headers.get("www-authenticate", ""))
        endpoint, status = str(self._endpoint), response.status
        if challenge is not None and challenge.parameters.get("error") == "insufficient_scope":
            return AccessDenied(operation, endpoint, f"{status} (insufficient scope)", status=status)
        codes = error_codes(response.body) or ()
        return AuthenticationFailed(
            operation, endpoint, describe(response), advice=self._advice(), status=status, codes=codes
        )

    def _advice(self) -> str:
        return f"check {self.files.paths[-1]}" if self.files.paths else "configure credentials for it"

    def _realm(self, challenge: Challenge) -> str:
        """Return a token service's URL if it is trusted: the registry must not be able to name an arbitrary host."""
        realm = challenge.parameters.get("realm", "")
        operation, endpoint, shown = "get a token", str(self._endpoint), printable(realm)
        try:
            service = Endpoint.of(realm)
        except ValueError as error:
            cause = f"invalid token service URL {shown!r}"
            raise AuthenticationFailed(operation, endpoint, cause, advice="check the registry's realm") from error
        is_own = (service.host, service.port) == (self._endpoint.host, self._endpoint.port)
        is_weaker = service.scheme == "http" and self._endpoint.scheme == "https"
        if (is_own and not is_weaker) or _realm_id(realm) in self._token_realms:
            return service.url(realm)
        cause = f"untrusted token service {shown}"
        raise AuthenticationFailed(operation, endpoint, cause, advice="add it to tokenRealms")

    async def _new_token(self, challenge: Challenge, scopes: Scopes) -> _Token:
        query = [("scope", scope) for scope in self._required.get(scopes, scopes)]
        if service := challenge.parameters.get("service"):
            query.insert(0, ("service", service))
        url = with_query(self._realm(challenge), urlencode(query))
        async with self._logins.attempt(_repository(scopes), is_token_request=True) as attempt:
            requested = self._clock()
            response = await self._request_token(url, attempt.login.header if attempt.login else None)
            try:
                value, lifetime = _read_token(response, advice=self._advice())
            except (AuthenticationFailed, RegistryUnavailable) as error:
                attempt.failure = error
            else:
                attempt.accepted = True
                remember(value)
                # A tenth less than stated: requests take time, and clocks differ.
                token = _Token(f"Bearer {value}", requested + 0.9 * lifetime)
                self._cache(scopes, token)
                return token
        raise attempt.failure

    def _cache(self, scopes: Scopes, token: _Token) -> None:
        if len(self._tokens) >= MAX_TOKENS:
            now = self._clock()
            alive = [(key, kept) for key, kept in self._tokens.items() if kept.expires > now]
            self._tokens = dict(alive[-MAX_TOKENS // 2 :])
            self._required = {key: required for key, required in self._required.items() if key in self._tokens}
        self._tokens[scopes] = token


def merge_scopes(own: Scopes, challenged: str) -> Scopes:
    """Return the scopes of a request together with those of the registry's challenge, each resource once.

    A registry may require a scope that its path does not show: Artifactory's lacks the repository key, and Azure
    requires ``metadata_read`` to list tags.

    Args:
        own: The scopes of the request.
        challenged: The challenge's scopes, separated by spaces.
    """
    actions: dict[str, dict[str, None]] = {}
    for scope in (*own, *challenged.split()):
        resource, _, listed = scope.rpartition(":")
        actions.setdefault(resource, {}).update(dict.fromkeys(listed.split(",")))
    return tuple(
        f"{resource}:{','.join(listed)}" if resource else ",".join(listed) for resource, listed in actions.items()
    )


def _repository(scopes: Scopes) -> str:
    return scopes[0].rpartition(":")[0] if scopes else ""


def _realm_id(realm: str) -> str:
    """Return a token service's URL in normal form."""
    return f"{Endpoint.of(realm)}{urlsplit(realm).path.rstrip('/')}"


def _read_token(response: Response, *, advice: str) -> tuple[str, float]:
    """Return token and lifetime from a token service's response.

    Args:
        response: The response.
        advice: What to do where the service rejects the login.
    """
    operation, service = "get a token", Endpoint.of(response.url)
    if response.status != HTTPStatus.OK:
        error = error_for(response, operation=operation, resource=str(service), endpoint=service)
        # A 404 or 403 of the token service must not pass for the registry's own about a repository.
        if isinstance(error, RegistryUnavailable | ProtocolViolation):
            raise error
        raise AuthenticationFailed(operation, str(service), describe(response), advice=advice, status=response.status)
    value = parse_object(response.body) or {}
    token = value.get("token") or value.get("access_token")
    if not isinstance(token, str) or not _BEARER_TOKEN.fullmatch(token):
        cause = "response contains no token"
        raise ProtocolViolation(operation, str(service), cause, advice="check tokenRealms", status=response.status)
    lifetime = value.get("expires_in")
    if not isinstance(lifetime, int) or lifetime <= 0:
        return token, DEFAULT_TOKEN_LIFETIME
    return token, float(min(lifetime, MAX_TOKEN_LIFETIME))
