"""Resolves the repository that an object means, from the object and the operator's configuration."""

from __future__ import annotations

from dataclasses import dataclass

from controller.api.reasons import Reason
from controller.api.v1alpha1 import ArtifactRepository
from controller.binding import RegistryBinding, RepositoryPolicy
from controller.config import OperatorConfig
from controller.errors import InvalidNameError
from controller.names import RepositoryPath, expand_template, is_repository_name, is_within_namespace, join_path


@dataclass(frozen=True, slots=True)
class Target:
    """The repository that an object means.

    Args:
        registry: Binding name of the registry.
        repository_name: Name of the repository.
        path: Path in the registry: prefix and name.
    """

    registry: str
    repository_name: str
    path: RepositoryPath


@dataclass(frozen=True, slots=True)
class Refusal:
    """Reason why an object has no valid target.

    Args:
        reason: Reason of the condition.
        message: What is wrong, and what to do.
        registry: Binding name of the registry that the object means.
        repository_name: The name of the repository; None if none can be formed.
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
    recorded = recorded_names(repository)
    return repository.registry or (recorded[0] if recorded else config.default_registry)


def resolve_target(repository: ArtifactRepository, config: OperatorConfig) -> Target | Refusal:
    """Return the repository that an object means.

    Registry and name that ``spec`` does not set are resolved once: an object with a ``uri`` keeps those in its status,
    so that a new default or template concerns new objects only. A name is not kept for another registry, which may
    have another template because it accepts other names.

    Args:
        repository: The object.
        config: The operator's configuration.
    """
    registry = intended_registry(repository, config)
    binding = config.registries.get(registry)
    if binding is None or not binding.is_open_to(repository.key.namespace):
        return _refuse_registry(repository, registry, config)
    recorded = recorded_names(repository)
    try:
        name = _name(repository, binding, recorded[1] if recorded and recorded[0] == registry else None)
        path = join_path(binding.prefix(registry), name)
    except InvalidNameError as error:
        return Refusal(
            Reason.INVALID_NAME,
            f"{error}; {_rename(repository, registry, None, to='a shorter name')}",
            registry,
            None,
        )
    if repository.repository_name is not None and not _is_allowed(repository, binding):
        namespace = repository.key.namespace
        return Refusal(
            Reason.POLICY_VIOLATION,
            f"'{name}' must start with '{namespace}/' or '{namespace}.'; "
            f"{_rename(repository, registry, name, to='such a name')}",
            registry,
            name,
        )
    return Target(registry=registry, repository_name=name, path=path)


def _refuse_registry(repository: ArtifactRepository, registry: str, config: OperatorConfig) -> Refusal:
    """Refuse a registry that is not configured, or not for the object's namespace; name only those that are."""
    namespace = repository.key.namespace
    usable = ", ".join(sorted(name for name, binding in config.registries.items() if binding.is_open_to(namespace)))
    advice = f"set spec.registry to one of: {usable}" if usable else "no registry is configured for this namespace"
    if registry in config.registries:
        reason, problem = Reason.REGISTRY_NOT_ALLOWED, f"Namespace '{namespace}' may not use registry '{registry}'"
    else:
        reason, problem = Reason.UNKNOWN_REGISTRY, f"Registry '{registry}' is not configured"
    return Refusal(reason, f"{problem}; {advice}", registry, repository.repository_name)


def _rename(repository: ArtifactRepository, registry: str, name: str | None, *, to: str) -> str:
    """Return how to get another name; by the CRD, spec.repositoryName can be changed until status.uri exists.

    The uri of another repository does not count, because the same status write removes it.
    """
    status = repository.status
    is_same = status.get("registry") == registry and name in (None, status.get("repositoryName"))
    if status.get("uri") and is_same:
        return f"create another object with {to}"
    return f"set spec.repositoryName to {to}"


def recorded_names(repository: ArtifactRepository) -> tuple[str, str] | None:
    """Return registry and name of the repository in status; None without ``uri``, and for values that cannot be ours.

    Args:
        repository: The object.
    """
    status = repository.status
    registry, name = status.get("registry") or "", status.get("repositoryName") or ""
    if not status.get("uri") or not (is_repository_name(registry) and is_repository_name(name)):
        return None
    return registry, name


def _name(repository: ArtifactRepository, binding: RegistryBinding, kept: str | None) -> str:
    if repository.repository_name is not None:
        return repository.repository_name
    key = repository.key
    # Users who may edit status may not be allowed to choose names, so the policy applies to a kept name as well.
    if kept and (binding.repository_policy is RepositoryPolicy.ANY or is_within_namespace(kept, key.namespace)):
        return kept
    return expand_template(binding.repository_template, namespace=key.namespace, name=key.name)


def _is_allowed(repository: ArtifactRepository, binding: RegistryBinding) -> bool:
    return binding.repository_policy is RepositoryPolicy.ANY or is_within_namespace(
        repository.repository_name or "", repository.key.namespace
    )
