"""Targets: which repository an object means, by spec, status, template and policy."""

from typing import Any

import pytest

from controller.api.reasons import Reason
from controller.api.target import Refusal, Target, resolve_target
from controller.config import OperatorConfig
from controller.names import RepositoryPath
from tests.unit.objects import make_config, make_object

URL = {"registryUrl": "http://registry:5000"}
CONFIG = make_config(
    {
        "artifacts": URL,
        "flat": URL | {"repositoryTemplate": "{namespace}.{name}"},
        "root": {"registryUrl": "http://other:5000", "pathPrefix": "", "repositoryTemplate": "{name}"},
        "shared": URL | {"repositoryPolicy": "Namespaced"},
        "grouped": URL | {"repositoryPolicy": "Namespaced", "repositoryTemplate": "{namespace}/all/{name}"},
    }
)


def ready(registry: str, name: str) -> dict[str, Any]:
    """Return the status of a verified object."""
    return {"observedGeneration": 1, "registry": registry, "repositoryName": name, "uri": f"r/{registry}/{name}"}


@pytest.mark.parametrize(
    ("spec", "status", "registry", "name", "path"),
    [
        # defaults from the configuration
        ({}, None, "artifacts", "team/web", "artifacts/team/web"),
        ({"repositoryName": "x/y"}, None, "artifacts", "x/y", "artifacts/x/y"),
        ({"registry": "flat"}, None, "flat", "team.web", "flat/team.web"),
        ({"registry": "root"}, None, "root", "web", "web"),
        # registry and name in status are kept
        ({}, ready("flat", "old-name"), "flat", "old-name", "flat/old-name"),
        ({"registry": "artifacts"}, ready("artifacts", "old"), "artifacts", "old", "artifacts/old"),
        # except before the first verification and in another registry
        ({}, ready("flat", "old") | {"uri": ""}, "artifacts", "team/web", "artifacts/team/web"),
        ({"registry": "flat"}, ready("artifacts", "old"), "flat", "team.web", "flat/team.web"),
        # and except invalid values, which the operator cannot have written
        ({}, ready("\x1b[31m", "old"), "artifacts", "team/web", "artifacts/team/web"),
        ({}, ready("artifacts", "../../x"), "artifacts", "team/web", "artifacts/team/web"),
        ({}, ready("artifacts", "x" * 201), "artifacts", "team/web", "artifacts/team/web"),
        # spec takes precedence over status
        ({"repositoryName": "x"}, ready("artifacts", "old"), "artifacts", "x", "artifacts/x"),
        # policy
        ({"registry": "shared"}, None, "shared", "team/web", "shared/team/web"),
        ({"registry": "shared", "repositoryName": "team.x"}, None, "shared", "team.x", "shared/team.x"),
        ({"registry": "grouped"}, None, "grouped", "team/all/web", "grouped/team/all/web"),
        # the policy applies to a name in status as well
        ({"registry": "shared"}, ready("shared", "other/secret"), "shared", "team/web", "shared/team/web"),
    ],
)
def test_targets(spec: dict[str, Any], status: dict[str, Any] | None, registry: str, name: str, path: str) -> None:
    """The repository results from spec, status, template and policy."""
    assert resolve_target(make_object(spec=spec, status=status), CONFIG) == Target(registry, name, RepositoryPath(path))


@pytest.mark.parametrize(
    ("spec", "name", "reason", "says"),
    [
        (
            {"registry": "nowhere"},
            "web",
            Reason.UNKNOWN_REGISTRY,
            "set spec.registry to one of: artifacts, flat, grouped, root, shared",
        ),
        ({"registry": "shared", "repositoryName": "other/x"}, "web", Reason.POLICY_VIOLATION, "start with 'team/' or"),
        ({"registry": "shared", "repositoryName": "teamx"}, "web", Reason.POLICY_VIOLATION, "teamx' must start with"),
        ({}, "n" * 253, Reason.INVALID_NAME, "has 258 characters, at most 200"),
    ],
)
def test_refusals(spec: dict[str, Any], name: str, reason: Reason, says: str) -> None:
    """An invalid target is refused with a reason, and a message that says what to do."""
    refusal = resolve_target(make_object(name, spec=spec), CONFIG)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason
    assert says in refusal.message


CLOSED = make_config(
    {
        "artifacts": URL,
        "shared": URL | {"namespaces": ["team", "dev-*"]},
        "secret": URL | {"namespaces": ["platform"]},
    },
    defaultRegistry="shared",
)
"""Registries for all, for some, and for one namespace; the default is not for all."""


@pytest.mark.parametrize("namespace", ["team", "dev-a", "dev-a-b"])
def test_namespaces_that_may_use_a_registry(namespace: str) -> None:
    """A namespace is listed by its name or by a pattern."""
    assert isinstance(resolve_target(make_object(namespace=namespace), CLOSED), Target)


@pytest.mark.parametrize("namespace", ["team-b", "tea", "dev", "a-dev-b"])
@pytest.mark.parametrize(
    ("spec", "status"),
    [({}, None), ({"registry": "shared"}, None), ({}, ready("shared", "old")), ({"suspend": True}, None)],
    ids=["default", "named", "kept", "suspended"],
)
def test_namespaces_that_may_not(namespace: str, spec: dict[str, Any], status: dict[str, Any] | None) -> None:
    """Whether spec, status or the default names the registry, others are refused, and told of open ones only."""
    refusal = resolve_target(make_object(namespace=namespace, spec=spec, status=status), CLOSED)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.REGISTRY_NOT_ALLOWED
    assert (
        refusal.message
        == f"Namespace '{namespace}' may not use registry 'shared'; set spec.registry to one of: artifacts"
    )


@pytest.mark.parametrize(
    ("namespace", "says"),
    [
        ("team", "set spec.registry to one of: artifacts, shared"),
        ("platform", "set spec.registry to one of: artifacts, secret"),
        ("other", "set spec.registry to one of: artifacts"),
    ],
)
def test_an_unknown_registry_names_those_of_the_namespace(namespace: str, says: str) -> None:
    """The message does not name bindings that the object's namespace may not use."""
    refusal = resolve_target(make_object(namespace=namespace, spec={"registry": "nowhere"}), CLOSED)
    assert isinstance(refusal, Refusal)
    assert refusal.message == f"Registry 'nowhere' is not configured; {says}"


def test_a_namespace_without_any_registry() -> None:
    """The message says so, and names none."""
    config = make_config({"artifacts": URL | {"namespaces": ["platform"]}})
    refusal = resolve_target(make_object(), config)
    assert isinstance(refusal, Refusal)
    assert refusal.message.endswith("registry 'artifacts'; no registry is configured for this namespace")


def test_a_registry_that_was_removed_from_the_configuration() -> None:
    """An object that was Ready in it gets an error; it does not move to the default registry."""
    refusal = resolve_target(make_object(status=ready("gone", "old")), CONFIG)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.registry) == (Reason.UNKNOWN_REGISTRY, "gone")


def test_a_later_default_concerns_new_objects_only() -> None:
    """A change of defaultRegistry or of a template does not affect verified objects."""
    later = OperatorConfig.model_validate(CONFIG.model_dump() | {"default_registry": "flat"})
    old, new = make_object(status=ready("artifacts", "team/web")), make_object("new")
    assert resolve_target(old, later) == Target("artifacts", "team/web", RepositoryPath("artifacts/team/web"))
    assert resolve_target(new, later) == Target("flat", "team.new", RepositoryPath("flat/team.new"))


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (None, "set spec.repositoryName to such a name"),
        (ready("shared", "other/x"), "create another object with such a name"),
        (ready("artifacts", "other/x"), "set spec.repositoryName to such a name"),  # its uri goes with this refusal
    ],
)
def test_the_advice_fits_what_the_api_server_allows(status: dict[str, Any] | None, advice: str) -> None:
    """spec.repositoryName can be changed until status.uri exists."""
    refusal = resolve_target(
        make_object(spec={"registry": "shared", "repositoryName": "other/x"}, status=status), CONFIG
    )
    assert isinstance(refusal, Refusal)
    assert refusal.message.endswith(advice)
