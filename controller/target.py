"""Which repository an object means: pure, from the object and the operator's configuration."""

from __future__ import annotations

from dataclasses import dataclass

from controller.config import OperatorConfig, RegistryBinding, RepositoryPolicy
from controller.errors import InvalidNameError
from controller.names import expand_template, is_repository_name, is_within_namespace, join_path
from controller.resource import ArtifactRepository, Reason


@dataclass(frozen=True, slots=True)
class Target:
    """The repository that an object means.

    Args:
        registry: Binding name of its registry.
        repository_name: Its name.
        path: Its path in the registry: prefix and name.
    """

    registry: str
    repository_name: str
    path: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an object means no repository that the operator may touch.

    Args:
        reason: What is wrong.
        message: The same as a sentence that says what to do.
        registry: Binding name that the object means.
        repository_name: The name it means; None where none can be formed.
    """

    reason: Reason
    message: str
    registry: str
    repository_name: str | None


def intended_registry(repository: ArtifactRepository, config: OperatorConfig) -> str:
    """Return the binding name of the registry that an object means, configured or not.

    Args:
        repository: The object.
        config: The operator's configuration.
    """
    return repository.registry or _kept(repository)[0] or config.default_registry


def resolve_target(repository: ArtifactRepository, config: OperatorConfig) -> Target | Refusal:
    """Return the repository that an object means.

    What ``spec`` leaves open is resolved once: an object that has a ``uri`` keeps the registry and the name in its
    status, so that a new default or template concerns new objects only. A name made for one registry is not kept for
    another one, whose template may know what its registry takes.

    Args:
        repository: The object.
        config: The operator's configuration.
    """
    registry = intended_registry(repository, config)
    binding = config.registries.get(registry)
    if binding is None:
        known = ", ".join(sorted(config.registries))
        return Refusal(
            Reason.UNKNOWN_REGISTRY,
            f"No registry is named '{registry}' in the operator's configuration (it has: {known}). "
            "Set spec.registry to one of these, or add it to the configuration.",
            registry,
            repository.repository_name,
        )
    kept_registry, kept_name = _kept(repository)
    try:
        name = _name(repository, binding, kept_name if kept_registry == registry else None)
        path = join_path(binding.prefix(registry), name)
    except InvalidNameError as error:
        return Refusal(
            Reason.INVALID_NAME,
            f"No repository name can be made for this object: {error}. {_rename(repository, 'a shorter name')}.",
            registry,
            None,
        )
    if repository.repository_name is not None and not _is_allowed(repository, binding):
        namespace = repository.key.namespace
        return Refusal(
            Reason.POLICY_VIOLATION,
            f"Registry '{registry}' lets namespace '{namespace}' use only names that start with '{namespace}/' or "
            f"'{namespace}.'; '{name}' does not. {_rename(repository, 'such a name')}.",
            registry,
            name,
        )
    return Target(registry=registry, repository_name=name, path=path)


def _rename(repository: ArtifactRepository, to: str) -> str:
    """Return how to get another name: the CRD lets spec.repositoryName change until status.uri exists."""
    if repository.status.get("uri"):
        return f"Create another object with {to} as spec.repositoryName"
    return f"Set spec.repositoryName to {to}"


def _kept(repository: ArtifactRepository) -> tuple[str | None, str | None]:
    """Return the registry and the name that status keeps; not what only somebody else can have written there."""
    status = repository.status
    registry, name = status.get("registry") or "", status.get("repositoryName") or ""
    if not status.get("uri") or not (is_repository_name(registry) and is_repository_name(name)):
        return None, None
    return registry, name


def _name(repository: ArtifactRepository, binding: RegistryBinding, kept: str | None) -> str:
    if repository.repository_name is not None:
        return repository.repository_name
    key = repository.key
    # A name in status may have been put there by somebody who may not choose names: policy decides, not status.
    if kept and (binding.repository_policy is RepositoryPolicy.ANY or is_within_namespace(kept, key.namespace)):
        return kept
    return expand_template(binding.repository_template, namespace=key.namespace, name=key.name)


def _is_allowed(repository: ArtifactRepository, binding: RegistryBinding) -> bool:
    return binding.repository_policy is RepositoryPolicy.ANY or is_within_namespace(
        repository.repository_name or "", repository.key.namespace
    )
