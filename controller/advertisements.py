"""Advertisements: applies what the cluster says about its local registry, and reports what that changes."""

from __future__ import annotations

import logging
from typing import Final

from controller.addresses import HOSTING_NAME, HOSTING_NAMESPACE, RegistryAddresses, RegistryHosting
from controller.metrics import Metrics
from controller.reconcile.interfaces import EventRecorder, EventType
from controller.reconcile.registries import RegistryPool

logger = logging.getLogger(__name__)

_SOURCE: Final = f"ConfigMap {HOSTING_NAMESPACE}/{HOSTING_NAME}"


class Advertisements:
    """Applies advertisements to the default registry.

    A change of known addresses is reported by a warning in the log, a metric, and one event on the operator's own Pod:
    people and Pods are led to another registry. Events on the objects would be as many as these.

    Args:
        registries: The registries.
        events: The event recorder.
        metrics: Metrics sink.
    """

    def __init__(self, registries: RegistryPool, *, events: EventRecorder, metrics: Metrics) -> None:
        self._registries = registries
        self._events = events
        self._metrics = metrics

    def apply(self, hosting: RegistryHosting | None) -> None:
        """Apply an advertisement.

        Args:
            hosting: The advertisement; None where there is none, for certain.
        """
        registry = self._registries[self._registries.config.default_registry]
        were_known, before = self._registries.are_addresses_known(registry.name), registry.addresses
        self._registries.advertise(hosting)
        if hosting is not None and not hosting.is_about(registry.binding):
            logger.warning(
                "%s is not applied: neither hostFromClusterNetwork nor host is the host of registryUrl of registry "
                "'%s'; if it is this registry, set its advertisedByCluster to true",
                _SOURCE,
                registry.name,
            )
        if were_known and registry.addresses != before:
            message = (
                f"{_SOURCE} has changed the addresses of registry '{registry.name}' from {_described(before)} "
                f"to {_described(registry.addresses)}"
            )
            logger.warning("%s", message)
            self._metrics.advertisement_changes.inc()
            self._events.event(None, EventType.WARNING, "RegistryAddressesChanged", message)


def _described(addresses: RegistryAddresses) -> str:
    places = {
        "host": addresses.host,
        "containerRuntime": addresses.container_runtime,
        "clusterNetwork": addresses.cluster_network,
    }
    return ", ".join(f"{place} {address}" for place, address in places.items() if address) or addresses.uri
