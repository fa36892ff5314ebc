"""Messages of Ready: every typical one fits ``kubectl get`` at 160 columns.

The rows are those of the README's example: a name of ten characters, READY of seven (Unknown), and this URI.
"""

import pytest

from controller.addresses import RegistryAddresses
from controller.api.outcome import Suspended, Verified
from controller.api.reasons import Reason
from controller.api.status import decide
from controller.api.target import Refusal, Target, resolve_target
from controller.config import Timings
from controller.errors import (
    AccessDenied,
    AuthenticationFailed,
    LoginRefused,
    NameRefused,
    ProtocolViolation,
    PushFailed,
    RegistryError,
    RegistryReadOnly,
    RegistryUnavailable,
    ResourceNotFound,
    TLSVerificationFailed,
)
from controller.names import RepositoryPath
from controller.reconcile.explanations import explain
from controller.registry.protocol import Origin
from tests.unit.objects import NOW, make_config, make_object

COLUMNS = 160
GAP = 3
"""Spaces that kubectl puts between two columns."""

NAME = "frontend-2"
URI = "localhost:5001/artifacts/team-a/backend"
AGE = "12m"
HTTP = "http://kind-registry:5000"
HTTPS = "https://kind-registry:5000"
LOOK_UP = "look up latest of artifacts/team-a/backend"
PUSH = "push a blob to artifacts/team-a/backend"


def row(message: str, *, ready: str = "Unknown") -> str:
    """Return a row as kubectl prints it."""
    return (" " * GAP).join((NAME, ready, URI, message, AGE))


ERRORS = [
    (RegistryUnavailable(LOOK_UP, HTTP, "connection refused"), Reason.REGISTRY_UNAVAILABLE),
    (RegistryUnavailable(LOOK_UP, HTTP, "host name not found"), Reason.REGISTRY_UNAVAILABLE),
    (RegistryUnavailable(LOOK_UP, HTTP, "connection timed out"), Reason.REGISTRY_UNAVAILABLE),
    (RegistryUnavailable(LOOK_UP, HTTP, "timed out after 30 s"), Reason.REGISTRY_UNAVAILABLE),
    (RegistryUnavailable(LOOK_UP, HTTP, "connection closed early"), Reason.REGISTRY_UNAVAILABLE),
    (RegistryUnavailable(LOOK_UP, HTTP, "500 Internal Server Error", status=500), Reason.REGISTRY_UNAVAILABLE),
    (
        RegistryUnavailable(LOOK_UP, HTTPS, "no TLS on this port", advice="use http:// in registryUrl"),
        Reason.REGISTRY_UNAVAILABLE,
    ),
    (PushFailed(PUSH, HTTP, "507 Insufficient Storage", status=507), Reason.REGISTRY_UNAVAILABLE),
    (
        TLSVerificationFailed(LOOK_UP, HTTPS, "certificate from an unknown CA", advice="add its CA to tls.caFile"),
        Reason.TLS_VERIFICATION_FAILED,
    ),
    (TLSVerificationFailed(LOOK_UP, HTTPS, "certificate has expired"), Reason.TLS_VERIFICATION_FAILED),
    (AuthenticationFailed(LOOK_UP, HTTP, "401 (UNAUTHORIZED)", status=401), Reason.AUTHENTICATION_FAILED),
    (
        AuthenticationFailed(
            LOOK_UP, HTTP, "401 Unauthorized", advice="check /etc/registries/artifacts/password", status=401
        ),
        Reason.AUTHENTICATION_FAILED,
    ),
    (
        LoginRefused("log in", HTTP, "401 Unauthorized", advice="check /etc/registries/artifacts/password", status=401),
        Reason.AUTHENTICATION_FAILED,
    ),
    (
        AuthenticationFailed(
            "read credentials", HTTP, "/etc/registries/artifacts/password is missing", advice="fix its Secret"
        ),
        Reason.AUTHENTICATION_FAILED,
    ),
    (AccessDenied(LOOK_UP, HTTP, "403 (DENIED)", status=403), Reason.ACCESS_DENIED),
    (AccessDenied(LOOK_UP, HTTP, "401 (insufficient scope)", status=401), Reason.ACCESS_DENIED),
    (RegistryReadOnly(PUSH, HTTP, "405 Method Not Allowed", status=405), Reason.REGISTRY_READ_ONLY),
    (NameRefused(PUSH, HTTP, "404 (name rejected)", status=404), Reason.NAME_NOT_SUPPORTED),
    (
        NameRefused(PUSH, HTTP, "400 (NAME_INVALID)", advice="choose another repositoryName", status=400),
        Reason.NAME_NOT_SUPPORTED,
    ),
    (ProtocolViolation(LOOK_UP, HTTP, "200 with text/html, not a manifest", status=200), Reason.UNEXPECTED_ANSWER),
    (ProtocolViolation(LOOK_UP, HTTP, "response is not a list of tags"), Reason.UNEXPECTED_ANSWER),
    (RegistryError(LOOK_UP, HTTP, "400 Bad Request", status=400), Reason.UNEXPECTED_ANSWER),
    (ResourceNotFound("artifacts/team-a/backend", endpoint=HTTP), Reason.UNEXPECTED_ANSWER),
]


def subclasses(class_: type[RegistryError]) -> set[type[RegistryError]]:
    """Return a class and all classes derived from it."""
    return {class_}.union(*(subclasses(derived) for derived in class_.__subclasses__()))


def test_every_error_class_has_an_example() -> None:
    """The rows below cover all errors that an object can end with."""
    assert {type(error) for error, _ in ERRORS} == subclasses(RegistryError)


@pytest.mark.parametrize(
    ("error", "reason"),
    [pytest.param(error, reason, id=f"{type(error).__name__}: {error.cause}") for error, reason in ERRORS],
)
def test_failure_fits_into_a_row(error: RegistryError, reason: Reason) -> None:
    """A failure's message has the address once, the cause once and the advice once, and fits."""
    explanation = explain(error)
    message = f"{explanation.subject}{explanation.detail}"
    assert explanation.reason is reason
    assert explanation.subject == f"{error.endpoint}: "
    assert message.count("://") == (2 if "http:// in registryUrl" in message else 1)
    assert message.count(error.cause) == 1
    assert message.count(";") == 1
    assert len(row(message)) <= COLUMNS, message


def test_advice_of_the_error_takes_precedence() -> None:
    """Where the cause is known, its advice replaces the class's; neither is part of the error's text."""
    general = AuthenticationFailed(LOOK_UP, HTTP, "401 Unauthorized", status=401)
    specific = AuthenticationFailed(LOOK_UP, HTTP, "401 Unauthorized", advice="configure credentials for it")
    assert explain(general).detail == "401 Unauthorized; check the operator's credentials"
    assert explain(specific).detail == "401 Unauthorized; configure credentials for it"
    assert str(specific) == f"cannot {LOOK_UP}: {HTTP}: 401 Unauthorized"


def ready_message(addresses: RegistryAddresses) -> str:
    """Return Ready's message for a verified repository."""
    target = Target("artifacts", "team-a/backend", RepositoryPath("artifacts/team-a/backend"))
    decision = decide(make_object(), Verified(target, addresses, Origin.CREATED), now=NOW, timings=Timings())
    return str(decision.status["conditions"][0]["message"])


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        (
            RegistryAddresses("localhost:5001", "localhost:5001", "localhost:5001", "kind-registry:5000"),
            "Push and pull URI:TAG",
        ),
        (
            RegistryAddresses("kind-registry:5000", "localhost:5001", "kind-registry:5000", None),
            f"Push to {URI}:TAG; Pods pull URI:TAG",
        ),
        (
            RegistryAddresses("kind-registry:5000", None, None, "kind-registry:5000"),
            "Push from Pods to URI:TAG; to use images in Pods, set references.containerRuntime",
        ),
        (
            RegistryAddresses("localhost:5001", None, "localhost:5001", "kind-registry:5000"),
            "Push from Pods to kind-registry:5000/artifacts/team-a/backend:TAG; Pods pull URI:TAG",
        ),
        (RegistryAddresses("localhost:5001", None, "localhost:5001", None), "Pods pull URI:TAG"),
        (RegistryAddresses("kind-registry:5000", None, None, None), "Push to URI:TAG"),
    ],
)
def test_ready_message_fits_into_a_row(addresses: RegistryAddresses, message: str) -> None:
    """Ready's message says how to push and pull, without an address that the URI column has already."""
    assert ready_message(addresses) == message
    assert len(row(message, ready="True")) <= COLUMNS


def test_suspended_message_fits_into_a_row() -> None:
    """The message of a suspended object fits."""
    decision = decide(make_object(), Suspended("artifacts", None), now=NOW, timings=Timings())
    assert len(row(decision.status["conditions"][0]["message"])) <= COLUMNS


@pytest.mark.parametrize(
    "spec", [{"registry": "staging"}, {"registry": "shared", "repositoryName": "web"}], ids=["registry", "policy"]
)
def test_refusal_fits_into_a_row(spec: dict[str, str]) -> None:
    """The message of an object without a target fits."""
    shared = {"registryUrl": "r:5000", "repositoryPolicy": "Namespaced"}
    config = make_config({"artifacts": {"registryUrl": HTTP}, "shared": shared})
    refusal = resolve_target(make_object(namespace="team-a", spec=spec), config)
    assert isinstance(refusal, Refusal)
    assert len(row(refusal.message)) <= COLUMNS
