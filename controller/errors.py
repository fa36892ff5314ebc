"""The one error tree of the project.

Library errors are wrapped once, where the library is called, and chained with ``from``, so that callers decide on
types of ours and a person still finds the cause in the log::

    OperatorError                       everything below; str() is a sentence a person can act on
    ├── ConfigError                     the operator's configuration file
    │   └── BindingConfigInvalid        one registry of it (the seed's error of the same name)
    ├── InvalidNameError                a repository name that the grammar or a length refuses
    ├── OperationNotSupported           an operation that a local registry does not have
    ├── RegistryError                   a registry was asked and did not do it; carries the HTTP status, if any
    │   ├── ResourceNotFound            a clear not-found
    │   ├── RegistryUnavailable         refused, timed out, reset, 408, 429, 5xx: may be well again in a moment
    │   │   └── TLSVerificationFailed   the certificate was refused: expired, unknown CA, another host's
    │   ├── AuthenticationFailed        401, or the token service refused the credentials
    │   ├── AccessDenied                403, or a token without the scope that was asked for
    │   ├── RegistryReadOnly            405 on a write
    │   ├── NameRefused                 the registry does not take names of this shape
    │   └── ProtocolViolation           an answer outside the specification: HTML, a foreign Location, a wrong digest
    └── KubernetesError                 the API server was asked and did not do it; carries the HTTP status, if any
        ├── ObjectGone                  404: the object is not there (any more)
        ├── Conflict                    409: it changed since it was read
        └── KubernetesUnavailable       unreachable, timed out, 429, 5xx: may be well again in a moment
"""

from __future__ import annotations


class OperatorError(Exception):
    """Base of all errors of this project."""


class ConfigError(OperatorError):
    """The operator's configuration cannot be used; the message names each wrong field by its path."""


class BindingConfigInvalid(ConfigError):
    """One registry binding cannot be used.

    Args:
        binding_name: The binding's name in the configuration.
        reason: What is wrong, naming the field.
    """

    def __init__(self, binding_name: str, reason: str) -> None:
        super().__init__(f"registry binding '{binding_name}' is invalid: {reason}")
        self.binding_name = binding_name
        self.reason = reason


class InvalidNameError(OperatorError):
    """A repository name, tag or digest that must not go into a URL.

    Args:
        message: A sentence that says what is wrong and what to write instead.
    """


class OperationNotSupported(OperatorError):
    """An operation that a local registry does not have.

    Args:
        operation: The operation's name.
        reason: Why it is not supported.
    """

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(f"operation '{operation}' is not supported: {reason}")
        self.operation = operation
        self.reason = reason


class RegistryError(OperatorError):
    """A registry did not do what it was asked.

    Args:
        message: What was asked, of whom, and what came back.
        status: The HTTP status of the answer; None where there was none.
        codes: The specification's error codes in the answer's body (``NAME_UNKNOWN``).
    """

    def __init__(self, message: str, *, status: int | None = None, codes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.codes = codes


class ResourceNotFound(RegistryError):
    """The registry said clearly that it does not have the thing.

    Args:
        resource_id: The id that the caller asked for.
        status: The HTTP status of the answer.
        codes: The specification's error codes in the answer's body.
    """

    def __init__(self, resource_id: str, *, status: int | None = 404, codes: tuple[str, ...] = ()) -> None:
        super().__init__(f"resource '{resource_id}' was not found", status=status, codes=codes)
        self.resource_id = resource_id


class RegistryUnavailable(RegistryError):
    """The registry did not answer, or said that it cannot now.

    Args:
        message: What was asked, of whom, and what came back.
        status: The HTTP status of the answer; None where there was none.
        retry_after: Seconds that the registry asked to wait (``Retry-After``), where it did.
        codes: The specification's error codes in the answer's body.

    Attributes:
        pushing: Whether it is only a push that was answered so, by a registry that answers questions (full disk).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        codes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, status=status, codes=codes)
        self.retry_after = retry_after
        self.pushing = False


class TLSVerificationFailed(RegistryUnavailable):
    """The registry's certificate was refused; the message says why."""


class AuthenticationFailed(RegistryError):
    """The registry or its token service does not accept the credentials, or wants some (401)."""


class AccessDenied(RegistryError):
    """The credentials are accepted but do not allow the operation (403)."""


class RegistryReadOnly(RegistryError):
    """The registry takes no writes (405)."""


class NameRefused(RegistryError):
    """The registry does not take repository names of this shape (for example: not more than two path levels)."""


class ProtocolViolation(RegistryError):
    """An answer that the OCI distribution specification does not allow, or that must not be followed."""


class KubernetesError(OperatorError):
    """The API server did not do what it was asked.

    Args:
        message: What was asked and what came back.
        status: The HTTP status of the answer; None where there was none.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ObjectGone(KubernetesError):
    """The object is not there (404)."""


class Conflict(KubernetesError):
    """The object is not the one that was read: changed, or deleted and created again (409)."""


class KubernetesUnavailable(KubernetesError):
    """The API server cannot be reached or cannot answer now (timeout, 429, 5xx)."""
