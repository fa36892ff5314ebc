"""Errors of the project, in one tree.

An error of a library is wrapped once, where the library is called, and chained with ``from``: callers handle only the
types below, and the log keeps the cause::

    OperatorError                       base; str() is a sentence that a person can act on
    ├── ConfigError                     invalid configuration
    │   └── BindingConfigInvalid        invalid configuration of one registry
    ├── InvalidNameError                invalid name of a repository, tag or digest
    ├── OperationNotSupported           operation that a local registry does not have
    ├── RegistryError                   failed request to a registry
    │   ├── ResourceNotFound            unambiguous not-found
    │   ├── RegistryUnavailable         refused, timed out, reset, 408, 429, 5xx: may be temporary
    │   │   ├── PushFailed              the same for a push, while reads succeed (full disk)
    │   │   └── TLSVerificationFailed   certificate rejected: expired, unknown CA, wrong host
    │   ├── AuthenticationFailed        401, or credentials rejected by the token service
    │   │   └── LoginRefused            the same for all repositories: the login is not tried again for a while
    │   ├── AccessDenied                403, or a token without the requested scope
    │   ├── RegistryReadOnly            405 on a write
    │   ├── NameRefused                 the registry does not accept repository names of this form
    │   └── ProtocolViolation           response outside the specification: HTML, foreign Location, wrong digest
    ├── CircuitOpen                     call that a registry's breaker rejected (controller.reconcile.breaker)
    ├── LeadershipLost                  another replica may be leading: nothing may be written or pushed
    └── KubernetesError                 failed request to the API server
        ├── ObjectGone                  404: the object does not exist
        ├── Conflict                    409: the object changed since it was read
        └── KubernetesUnavailable       unreachable, timed out, 429, 5xx: may be temporary
"""

from __future__ import annotations

import copy
from http import HTTPStatus
from typing import Self


def phrase(status: int) -> str:
    """Return the standard text of an HTTP status; empty if it has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


class OperatorError(Exception):
    """Base of all errors of this project."""


class ConfigError(OperatorError):
    """Invalid configuration; the message names each invalid field by its path."""


class BindingConfigInvalid(ConfigError):
    """Invalid registry binding.

    Args:
        binding_name: The binding's name in the configuration.
        reason: What is wrong, with the name of the field.
    """

    def __init__(self, binding_name: str, reason: str) -> None:
        super().__init__(f"registry binding '{binding_name}' is invalid: {reason}")
        self.binding_name = binding_name
        self.reason = reason


class InvalidNameError(OperatorError):
    """Invalid name of a repository, a tag or a digest, which must not be used in a URL.

    Args:
        message: What is wrong, and what to write instead.
    """


class OperationNotSupported(OperatorError):
    """Operation that a local registry does not have.

    Args:
        operation: Name of the operation.
        reason: Why it is not supported.
    """

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(f"operation '{operation}' is not supported: {reason}")
        self.operation = operation
        self.reason = reason


class RegistryError(OperatorError):
    """A registry did not do what was requested.

    ``str(error)`` is a sentence for logs. What a person should do about it is not part of it: see
    :mod:`controller.reconcile.explanations`.

    Args:
        operation: What was attempted, to follow "cannot" (``look up latest of a/b``).
        endpoint: The server's URL: the registry's, or its token service's.
        cause: What went wrong, in a few words (``connection refused``, ``403 (DENIED)``).
        advice: What to do, where more is known than the error's class says.
        status: HTTP status of the response; None where there was none.
        codes: The specification's error codes in the response's body (``NAME_UNKNOWN``).
    """

    def __init__(
        self,
        operation: str,
        endpoint: str,
        cause: str,
        *,
        advice: str | None = None,
        status: int | None = None,
        codes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(operation, endpoint, cause)
        self.operation = operation
        self.endpoint = endpoint
        self.cause = cause
        self.advice = advice
        self.status = status
        self.codes = codes

    def __str__(self) -> str:
        return f"cannot {self.operation}: {self.endpoint}: {self.cause}"

    def shared(self, *, operation: str = "use the registry") -> Self:
        """Return a copy for all users of the registry, whose objects may belong to others than the failed one.

        It names the server and what went wrong, but no repository: neither the request nor the text of the response.

        Args:
            operation: What was attempted, to follow "cannot".
        """
        copied = copy.copy(self)
        copied.operation = operation
        if self.status is not None:
            said = f"({'; '.join(self.codes)})" if self.codes else phrase(self.status)
            copied.cause = f"{self.status} {said}".rstrip()
        copied.args = (copied.operation, copied.endpoint, copied.cause)
        return copied


class ResourceNotFound(RegistryError):
    """The registry stated clearly that the resource does not exist.

    Args:
        resource_id: The id that was requested.
        endpoint: The registry's URL.
        status: HTTP status of the response.
        codes: The specification's error codes in the response's body.
    """

    def __init__(
        self, resource_id: str, *, endpoint: str, status: int | None = 404, codes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(f"look up {resource_id}", endpoint, "not found", status=status, codes=codes)
        self.resource_id = resource_id

    def __str__(self) -> str:
        return f"resource '{self.resource_id}' was not found"


class RegistryUnavailable(RegistryError):
    """The registry did not respond, or responded that it cannot serve the request now.

    Args:
        operation: What was attempted.
        endpoint: The server's URL.
        cause: What went wrong.
        advice: What to do, where more is known than the error's class says.
        status: HTTP status of the response; None where there was none.
        retry_after: Seconds that the registry asked to wait (``Retry-After``); None where it did not.
        codes: The specification's error codes in the response's body.
    """

    def __init__(
        self,
        operation: str,
        endpoint: str,
        cause: str,
        *,
        advice: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        codes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(operation, endpoint, cause, advice=advice, status=status, codes=codes)
        self.retry_after = retry_after


class PushFailed(RegistryUnavailable):
    """A push failed although reads succeed, for example because the registry's disk is full."""


class TLSVerificationFailed(RegistryUnavailable):
    """The registry's certificate was rejected; ``cause`` says why."""


class AuthenticationFailed(RegistryError):
    """The registry or its token service requires credentials or rejects them (401)."""


class LoginRefused(AuthenticationFailed):
    """The operator's login was refused; until it is tried again, no request that needs it is sent.

    Status has no room to say so: the advice names the file.
    """

    def __str__(self) -> str:
        return f"{super().__str__()}; {self.advice}: the login is tried again when that changes, or after some minutes"


class AccessDenied(RegistryError):
    """The credentials are valid but do not allow the operation (403)."""


class RegistryReadOnly(RegistryError):
    """The registry is read-only (405)."""


class NameRefused(RegistryError):
    """The registry does not accept repository names of this form (for example, more than two path levels)."""


class ProtocolViolation(RegistryError):
    """Response that the OCI distribution specification does not allow, or that must not be followed."""


class LeadershipLost(OperatorError):
    """It is not certain that this process still holds the Lease, so it must not write status or contact a registry."""


class KubernetesError(OperatorError):
    """Failed request to the API server.

    Args:
        message: The request and the response.
        status: HTTP status of the response; None without a response.
        retry_after: Seconds that the API server asked to wait (``Retry-After``), bounded; 0 where it did not.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class ObjectGone(KubernetesError):
    """The object does not exist (404)."""


class ListExpired(KubernetesError):
    """The state with which a list began is no longer known (410).

    Args:
        message: The request and the response.
        status: HTTP status of the response.
        continue_token: Token of the rest of the list as it is now; empty if the API server offers none.
    """

    def __init__(self, message: str, *, status: int, continue_token: str) -> None:
        super().__init__(message, status=status)
        self.continue_token = continue_token


class Conflict(KubernetesError):
    """The object has changed, or was deleted and created again, since it was read (409)."""


class KubernetesUnavailable(KubernetesError):
    """The API server cannot be reached or cannot serve the request now (timeout, 429, 5xx)."""
