"""Explanations: what each registry error means for an object's status.

The only place where an error becomes a reason and advice. An error's own ``advice`` takes precedence: it is set where
the cause is known better than by the error's class. Texts are short, because ``kubectl get`` shows them in one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from controller.api.reasons import Reason
from controller.errors import (
    AccessDenied,
    AuthenticationFailed,
    NameRefused,
    PushFailed,
    RegistryError,
    RegistryReadOnly,
    RegistryUnavailable,
    TLSVerificationFailed,
)
from controller.redaction import redact


@dataclass(frozen=True, slots=True)
class Explanation:
    """An error as the Ready condition reports it.

    Args:
        reason: The condition's reason.
        subject: Start of its message: where the problem is. Equal for equal problems.
        detail: Rest of the message: the cause, and what to do.
    """

    reason: Reason
    subject: str
    detail: str


class _Meaning(NamedTuple):
    reason: Reason
    advice: str


_MEANINGS: Final[dict[type[RegistryError], _Meaning]] = {
    TLSVerificationFailed: _Meaning(Reason.TLS_VERIFICATION_FAILED, "check the certificate and tls.caFile"),
    PushFailed: _Meaning(Reason.REGISTRY_UNAVAILABLE, "check the registry's disk and logs"),
    RegistryUnavailable: _Meaning(Reason.REGISTRY_UNAVAILABLE, "check that it runs and is reachable"),
    AuthenticationFailed: _Meaning(Reason.AUTHENTICATION_FAILED, "check the operator's credentials"),
    AccessDenied: _Meaning(Reason.ACCESS_DENIED, "allow the operator to pull and push"),
    RegistryReadOnly: _Meaning(Reason.REGISTRY_READ_ONLY, "turn off the registry's read-only mode"),
    NameRefused: _Meaning(Reason.NAME_NOT_SUPPORTED, "use repositoryTemplate {namespace}.{name}"),
    RegistryError: _Meaning(Reason.UNEXPECTED_ANSWER, "check registryUrl"),
}

_FAILING: Final = "check the registry's logs"
"""Advice for a registry that is reachable, but responds with an error such as 500."""


def explain(error: RegistryError) -> Explanation:
    """Return how status reports an error, by the most specific class that has a meaning."""
    kind = next(class_ for class_ in type(error).__mro__ if class_ in _MEANINGS)
    reason, advice = _MEANINGS[kind]
    if kind is RegistryUnavailable and error.status is not None:
        advice = _FAILING
    return Explanation(reason, redact(f"{error.endpoint}: "), redact(f"{error.cause}; {error.advice or advice}"))
