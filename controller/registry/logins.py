"""Logins of the operator to one registry: how many at a time, and the pause after a refused one.

Registries and directories lock accounts after a few wrong passwords. So until a login is accepted, one is tried at a
time; a refused one is tried again when a credential file changes, or after a pause that grows. Until then every request
that needs it fails with the remembered error, and neither registry nor token service is contacted.

A token service also refuses, in the same words, a login that lacks rights on one repository. After a login has been
accepted, and where the answer is not clear, it therefore takes several repositories in a row to start a pause.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from controller.backoff import Backoff
from controller.errors import AuthenticationFailed, LoginRefused, RegistryError, RegistryUnavailable
from controller.registry.credentials import CredentialFiles, Login

CONCURRENT_LOGINS: Final = 4
"""Token requests at a time after a login has been accepted: as many wrong ones at most when a password changes."""

REPOSITORIES_TO_PAUSE: Final = 3
"""Repositories in a row whose login failed that start a pause."""

REPOSITORIES_TO_DOUBT: Final = 10
"""The same after a login has been accepted: each of them may be one that the operator has no right to."""

_REFUSED: Final = Backoff(first=30.0, cap=300.0)
_UNAVAILABLE: Final = Backoff(first=1.0, cap=10.0)
"""Short: the registry's circuit breaker delays further attempts, too."""


@dataclass(slots=True)
class Attempt:
    """A request that contains the login.

    Args:
        login: The login; None for anonymous access.
        accepted: Whether the response shows that the login is right; to be set by the caller.
        failure: Why it failed; to be set by the caller.
    """

    login: Login | None
    accepted: bool = False
    failure: RegistryError | None = None


@dataclass(frozen=True, slots=True)
class _Pause:
    """No login is tried until a moment on the clock."""

    error: RegistryError
    until: float
    failures: int


class Logins:
    """The login of one registry, and what has come of it.

    Args:
        files: The credential files.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, files: CredentialFiles, *, clock: Callable[[], float]) -> None:
        self._files = files
        self._clock = clock
        self._lost: RegistryUnavailable | None = None
        """The last attempt without a response."""
        self._forget()

    def _forget(self) -> None:
        self._version = self._files.version
        self._pause: _Pause | None = None
        self._failing: set[str] = set()
        self._restrict(accepted=False)

    def _restrict(self, *, accepted: bool) -> None:
        self._accepted = accepted
        self._turns = asyncio.Semaphore(CONCURRENT_LOGINS if accepted else 1)

    def current(self) -> Login | None:
        """Return the login in the credential files; None for anonymous access.

        Raises:
            AuthenticationFailed: The files are unusable.
            LoginRefused: The login was refused, and it is too early to try it again.
            RegistryUnavailable: The token service failed, and it is too early to try it again.
        """
        login = self._files.login()
        if self._files.version != self._version:
            self._forget()
        if self._pause is not None and self._clock() < self._pause.until:
            raise copy.copy(self._pause.error)
        return login

    @asynccontextmanager
    async def attempt(self, repository: str, *, is_token_request: bool) -> AsyncIterator[Attempt]:
        """Wait for a turn, and record what comes of one request with the login.

        Args:
            repository: What the login is for.
            is_token_request: Whether the number of concurrent attempts stays limited after one was accepted.

        Raises:
            RegistryError: As of :meth:`current`, or an attempt that ended while this one waited got no response.
        """
        self.current()
        lost = self._lost
        async with nullcontext() if self._accepted and not is_token_request else self._turns:
            if self._lost is not None and self._lost is not lost:
                raise copy.copy(self._lost)
            attempt, version = Attempt(self.current()), self._version
            try:
                yield attempt
            except RegistryUnavailable as error:
                if error.status is None:
                    self._lost = error.shared()
                raise
            finally:
                if version == self._version:
                    self._record(attempt, repository)
        if self._pause is not None and attempt.failure is not None:
            self.current()

    def _record(self, attempt: Attempt, repository: str) -> None:
        if attempt.accepted:
            self._pause = None
            self._failing.clear()
            if not self._accepted:
                self._restrict(accepted=True)
        elif attempt.failure is not None:
            self._failing.add(repository)
            if self._is_general(attempt):
                self._start_pause(attempt.failure)

    def _is_general(self, attempt: Attempt) -> bool:
        """Return whether a failure is one of the login or the token service, and not of one repository."""
        if self._pause is not None:
            return True
        if isinstance(attempt.failure, AuthenticationFailed):
            if attempt.login is None:
                return False
            if attempt.failure.status == HTTPStatus.UNAUTHORIZED and not self._accepted:
                return True
            return len(self._failing) >= (REPOSITORIES_TO_DOUBT if self._accepted else REPOSITORIES_TO_PAUSE)
        return len(self._failing) >= REPOSITORIES_TO_PAUSE

    def _start_pause(self, failure: RegistryError) -> None:
        failures = 1 if self._pause is None else self._pause.failures + 1
        backoff = _UNAVAILABLE
        if isinstance(failure, AuthenticationFailed):
            backoff, failure = _REFUSED, _refused(failure)
            self._restrict(accepted=False)
        shared = failure.shared(operation=failure.operation)  # to log in or to get a token, without a repository
        self._pause = _Pause(shared, self._clock() + backoff.bound(failures), failures)


def _refused(error: AuthenticationFailed) -> LoginRefused:
    """Return the error of every request during the pause. It names no time, so that no status has to be updated."""
    return LoginRefused(
        error.operation, error.endpoint, error.cause, advice=error.advice, status=error.status, codes=error.codes
    )
