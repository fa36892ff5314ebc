"""What an object's status records of its repository, and how far it is believed: anybody may have edited it."""

from __future__ import annotations

from controller.addresses import Location, RegistryAddresses
from controller.api.target import Target, recorded_names
from controller.api.v1alpha1 import ArtifactRepository
from controller.errors import InvalidNameError
from controller.names import join_path
from controller.reconcile.registries import RegistryPool
from controller.registry.protocol import Origin


def known_origin(repository: ArtifactRepository, target: Target) -> Origin | None:
    """Return the origin that status records for this repository; None where it has not been verified yet.

    Args:
        repository: The object.
        target: The repository that it means.
    """
    if recorded_names(repository) != (target.registry, target.repository_name):
        return None
    try:
        return Origin(repository.status.get("origin", ""))
    except ValueError:
        return None


def addresses_to_write(repository: ArtifactRepository, target: Target, registries: RegistryPool) -> RegistryAddresses:
    """Return the addresses to write: those that status has, while it is unknown what the cluster advertises.

    Args:
        repository: The object.
        target: The repository that it means.
        registries: The registries.
    """
    addresses = registries[target.registry].addresses
    if known_origin(repository, target) is None or registries.are_addresses_known(target.registry):
        return addresses
    return RegistryAddresses.from_status(repository.status, target.path) or addresses


def recorded_location(repository: ArtifactRepository, registries: RegistryPool) -> Location | None:
    """Return where the repository in status is; None where that is unknown now.

    Args:
        repository: The object.
        registries: The registries.
    """
    recorded = recorded_names(repository)
    if recorded is None:
        return None
    registry, name = recorded
    if registry not in registries or not registries.are_addresses_known(registry):
        return None
    managed = registries[registry]
    try:
        return managed.addresses.locate(join_path(managed.binding.prefix(registry), name))
    except InvalidNameError:
        return None
