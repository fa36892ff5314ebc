"""Targets: which repository an object means, by spec, status, template and policy."""

from typing import Any

import pytest

from controller.config import OperatorConfig
from controller.resource import Reason
from controller.target import Refusal, Target, resolve_target
from tests.unit.objects import make_config, make_object

URL = {"registryUrl": "http://registry:5000"}
CONFIG = make_config(
    {
        "artifacts": URL,
        "flat": URL | {"repositoryTemplate": "{namespace}.{name}"},
        "root": URL | {"pathPrefix": "", "repositoryTemplate": "{name}"},
        "shared": URL | {"repositoryPolicy": "Namespaced"},
        "grouped": URL | {"repositoryPolicy": "Namespaced", "repositoryTemplate": "all/{namespace}/{name}"},
    }
)


def ready(registry: str, name: str) -> dict[str, Any]:
    """Return the status of an object that was verified."""
    return {"observedGeneration": 1, "registry": registry, "repositoryName": name, "uri": f"r/{registry}/{name}"}


@pytest.mark.parametrize(
    ("spec", "status", "registry", "name", "path"),
    [
        # what spec leaves open comes from the configuration
        ({}, None, "artifacts", "team/web", "artifacts/team/web"),
        ({"repositoryName": "x/y"}, None, "artifacts", "x/y", "artifacts/x/y"),
        ({"registry": "flat"}, None, "flat", "team.web", "flat/team.web"),
        ({"registry": "root"}, None, "root", "web", "web"),
        # what was resolved once stays
        ({}, ready("flat", "old-name"), "flat", "old-name", "flat/old-name"),
        ({"registry": "artifacts"}, ready("artifacts", "old"), "artifacts", "old", "artifacts/old"),
        # but not where nothing was verified yet, nor in another registry
        ({}, ready("flat", "old") | {"uri": ""}, "artifacts", "team/web", "artifacts/team/web"),
        ({"registry": "flat"}, ready("artifacts", "old"), "flat", "team.web", "flat/team.web"),
        # nor what only somebody else can have written into status
        ({}, ready("\x1b[31m", "old"), "artifacts", "team/web", "artifacts/team/web"),
        ({}, ready("artifacts", "../../x"), "artifacts", "team/web", "artifacts/team/web"),
        ({}, ready("artifacts", "x" * 201), "artifacts", "team/web", "artifacts/team/web"),
        # spec beats status
        ({"repositoryName": "x"}, ready("artifacts", "old"), "artifacts", "x", "artifacts/x"),
        # policy
        ({"registry": "shared"}, None, "shared", "team/web", "shared/team/web"),
        ({"registry": "shared", "repositoryName": "team.x"}, None, "shared", "team.x", "shared/team.x"),
        ({"registry": "grouped"}, None, "grouped", "all/team/web", "grouped/all/team/web"),
        # a name that somebody put into status to get round the policy is not believed
        ({"registry": "shared"}, ready("shared", "other/secret"), "shared", "team/web", "shared/team/web"),
    ],
)
def test_targets(spec: dict[str, Any], status: dict[str, Any] | None, registry: str, name: str, path: str) -> None:
    """Each row is one way to say which repository is meant."""
    assert resolve_target(make_object(spec=spec, status=status), CONFIG) == Target(registry, name, path)


@pytest.mark.parametrize(
    ("spec", "name", "reason", "says"),
    [
        ({"registry": "nowhere"}, "web", Reason.UNKNOWN_REGISTRY, "it has: artifacts, flat, grouped, root, shared"),
        ({"registry": "shared", "repositoryName": "other/x"}, "web", Reason.POLICY_VIOLATION, "start with 'team/' or"),
        ({"registry": "shared", "repositoryName": "teamx"}, "web", Reason.POLICY_VIOLATION, "'teamx' does not"),
        ({}, "n" * 253, Reason.INVALID_NAME, "has 258 characters, at most 200"),
    ],
)
def test_refusals(spec: dict[str, Any], name: str, reason: Reason, says: str) -> None:
    """What the operator must not touch is told with the reason and what to do."""
    refusal = resolve_target(make_object(name, spec=spec), CONFIG)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason
    assert says in refusal.message


def test_a_registry_that_went_from_the_configuration() -> None:
    """An object that was Ready in it is told so; it does not move to the default registry by itself."""
    refusal = resolve_target(make_object(status=ready("gone", "old")), CONFIG)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.registry) == (Reason.UNKNOWN_REGISTRY, "gone")


def test_a_later_default_concerns_new_objects_only() -> None:
    """Changing defaultRegistry and a template moves nothing that was verified."""
    later = OperatorConfig.model_validate(CONFIG.model_dump() | {"default_registry": "flat"})
    old, new = make_object(status=ready("artifacts", "team/web")), make_object("new")
    assert resolve_target(old, later) == Target("artifacts", "team/web", "artifacts/team/web")
    assert resolve_target(new, later) == Target("flat", "team.new", "flat/team.new")
