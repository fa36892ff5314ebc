"""Metrics, by the conventions of Prometheus: base units, ``_total`` for counters, labels of low cardinality."""

from __future__ import annotations

import platform
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from controller import __version__
from controller.api.conditions import ConditionStatus, ConditionType

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Metrics of one operator, in their own collector registry."""

    def __init__(self) -> None:
        disable_created_metrics()  # they would double the number of series
        self.registry = CollectorRegistry()
        self.reconciles = self._counter("reconciles", "Reconciles by result.", "result")
        self.reconcile_duration = self._histogram("reconcile_duration_seconds", "Duration of a reconcile.")
        self.queue_latency = self._histogram("queue_latency_seconds", "Time that an object waited for a worker.")
        self.retries = self._counter("retries", "Reconciles that are retried after a backoff.")
        self.status_writes = self._counter("status_writes", "Writes of the status of objects.")
        self.status_write_failures = self._counter(
            "status_write_failures",
            "Failed writes of the status of objects; code is the HTTP status or 'error'.",
            "code",
        )
        self.config_loads = self._counter("config_loads", "Changes of the configuration file by result.", "result")
        self._config = _ConfigCollector()
        self.registry.register(self._config)
        self.advertisement_changes = self._counter(
            "advertisement_changes", "Changes of the default registry's addresses by the cluster's advertisement."
        )
        self.drift_repairs = self._counter(
            "drift_repairs", "Repositories that had vanished and were created again.", "registry"
        )
        self.registry_requests = self._counter(
            "registry_requests",
            "Requests to a registry; code is the HTTP status or 'error'.",
            "registry",
            "method",
            "code",
        )
        self.registry_request_duration = self._histogram(
            "registry_request_duration_seconds", "Duration of a request to a registry.", "registry"
        )
        self.api_requests = self._counter(
            "api_requests", "Requests to the API server; code is the HTTP status or 'error'.", "method", "code"
        )
        self._gauge("build_info", "1; version of the operator and of Python.", "version", "python").labels(
            __version__, platform.python_version()
        ).set(1)
        ProcessCollector(registry=self.registry)
        # Counters that alerts use start at 0: increase() in Prometheus ignores the first sample of a series.
        self.reconciles.labels("defect")
        for code in ("403", "429", "500", "503", "error"):
            self.status_write_failures.labels(code)
        self._objects = _ObjectCollector()
        self.registry.register(self._objects)
        self._leader = self._gauge("leader", "1 if this process holds the Lease.")
        self._registries = _RegistryCollector()
        self.registry.register(self._registries)
        self._watches = _WatchCollector()
        self.registry.register(self._watches)
        self._queue_depth = self._gauge("queue_depth", "Objects waiting for a worker.")

    def observe_queue(self, depth: Callable[[], int], ready: Callable[[], Iterable[str]]) -> None:
        """Set the sources of the gauges of the queue and of objects.

        Args:
            depth: Returns the number of objects waiting for a worker.
            ready: Returns the status of every object's Ready condition.
        """
        self._queue_depth.set_function(depth)
        self._objects.ready = ready

    def observe_config(self, is_good: Callable[[], bool] | None) -> None:
        """Set the source of the gauge of the configuration file.

        Args:
            is_good: Returns whether the file is in use; None if this process does not follow it, as a standby.
        """
        self._config.is_good = is_good

    def observe_leader(self, is_leader: Callable[[], bool]) -> None:
        """Set the source of the leader gauge.

        Args:
            is_leader: Returns whether this process holds the Lease.
        """
        self._leader.set_function(is_leader)

    def expect_registry(self, name: str) -> None:
        """Start the counters of a registry at 0.

        Args:
            name: The binding name of the registry.
        """
        self.drift_repairs.labels(name)

    def observe_registries(self, failing_since: Callable[[], Mapping[str, float | None]]) -> None:
        """Set the source of the gauge of registries.

        Args:
            failing_since: Returns for each registry, by name, the start of its outage; None if it is available.
        """
        self._registries.failing_since = failing_since

    def observe_watches(self, established: Callable[[], Mapping[str, bool]]) -> None:
        """Set the source of the gauge of watches.

        Args:
            established: Returns for each namespace (an empty name for all) whether its watch is established.
        """
        self._watches.established = established

    def render(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"artifact_repository_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"artifact_repository_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"artifact_repository_{name}", text, labels, registry=self.registry, buckets=_SECONDS)


class _ObjectCollector(Collector):
    """Counts objects by the status of their Ready condition, at each scrape."""

    def __init__(self) -> None:
        self.ready: Callable[[], Iterable[str]] = tuple

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "artifact_repository_objects", "Objects by condition and status.", labels=("condition", "status")
        )
        tally = Tally(self.ready())
        for status in ConditionStatus:
            family.add_metric((ConditionType.READY, status), tally[status])
        yield family


class _ConfigCollector(Collector):
    """Exports whether the configuration file is in use, from the process that follows it."""

    def __init__(self) -> None:
        self.is_good: Callable[[], bool] | None = None

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "artifact_repository_config_good",
            "1 if the configuration file is in use, 0 if it is invalid. Only the leader exports it.",
        )
        if self.is_good is not None:
            family.add_metric((), 1 if self.is_good() else 0)
        yield family


class _RegistryCollector(Collector):
    """Exports the availability of each registry."""

    def __init__(self) -> None:
        self.failing_since: Callable[[], Mapping[str, float | None]] = dict

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "artifact_repository_registry_up", "1 if the registry is available.", labels=("registry",)
        )
        for name, since in self.failing_since().items():
            family.add_metric((name,), 1 if since is None else 0)
        yield family


class _WatchCollector(Collector):
    """Exports the state of each watch."""

    def __init__(self) -> None:
        self.established: Callable[[], Mapping[str, bool]] = dict

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "artifact_repository_watch_up",
            "1 if the watch is established; one for each watched namespace, or one with an empty name for all.",
            labels=("watched_namespace",),
        )
        for namespace, is_established in self.established().items():
            family.add_metric((namespace,), int(is_established))
        yield family
