"""The operator's metrics, in Prometheus' conventions: base units, ``_total`` for counters, few labels of few values."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.resource import ConditionType

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """All metrics of one operator, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # a time of creation beside each counter doubles what is scraped, and nobody asks
        self.registry = CollectorRegistry()
        self.reconciles = self._counter("reconciles", "Reconciles by result.", "result")
        self.reconcile_duration = self._histogram("reconcile_duration_seconds", "How long a reconcile took.")
        self.queue_latency = self._histogram("queue_latency_seconds", "How long a ready object waited for a worker.")
        self.retries = self._counter("retries", "Reconciles that will be tried again after a backoff.")
        self.status_writes = self._counter("status_writes", "Writes of an object's status.")
        self.config_loads = self._counter("config_loads", "Changed configurations by result.", "result")
        self.config_good = self._gauge("config_good", "1 while the configuration file is in use, 0 while it is wrong.")
        self.config_good.set(1)
        self.drift_repairs = self._counter(
            "drift_repairs", "Repositories that had vanished and were made again.", "registry"
        )
        self.registry_requests = self._counter(
            "registry_requests",
            "Requests to a registry; code is the HTTP status or 'error'.",
            "registry",
            "method",
            "code",
        )
        self.registry_request_duration = self._histogram(
            "registry_request_duration_seconds", "How long a registry took to answer.", "registry"
        )
        # Counters that alerts look at start with 0: a rise from nothing to 1 is none to Prometheus' increase().
        self.reconciles.labels("defect")
        self._objects = _ObjectCollector()
        self.registry.register(self._objects)
        self._leader = self._gauge("leader", "1 while this process holds the Lease.")
        self._registries = _RegistryCollector()
        self.registry.register(self._registries)
        self._queue_depth = self._gauge("queue_depth", "Objects that wait for a worker.")

    def observe_queue(self, depth: Callable[[], int], ready: Callable[[], Iterable[str]]) -> None:
        """Read these gauges from their source whenever somebody asks.

        Args:
            depth: Returns the number of objects that wait for a worker.
            ready: Returns the status of every object's Ready condition.
        """
        self._queue_depth.set_function(depth)
        self._objects.ready = ready

    def observe_leader(self, leads: Callable[[], bool]) -> None:
        """Read from its source whether this process holds the Lease."""
        self._leader.set_function(leads)

    def expect_registry(self, name: str) -> None:
        """Count from now on what happens in a registry.

        Args:
            name: The registry's name.
        """
        self.drift_repairs.labels(name)

    def observe_registries(self, failing_since: Callable[[], Mapping[str, float | None]]) -> None:
        """Read from their source which registries answer.

        Args:
            failing_since: Returns each registry's name, and since when it fails; None where it does not.
        """
        self._registries.failing_since = failing_since

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"artifact_repository_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"artifact_repository_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"artifact_repository_{name}", text, labels, registry=self.registry, buckets=_SECONDS)


class _ObjectCollector(Collector):
    """Counts objects by the status of their Ready condition when asked: nothing to keep in step."""

    def __init__(self) -> None:
        self.ready: Callable[[], Iterable[str]] = tuple

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "artifact_repository_objects", "Objects by condition and its status.", labels=("condition", "status")
        )
        tally = Tally(self.ready())
        for status in ("True", "False", "Unknown"):
            family.add_metric((ConditionType.READY, status), tally[status])
        yield family


class _RegistryCollector(Collector):
    """Tells for each registry whether it answers."""

    def __init__(self) -> None:
        self.failing_since: Callable[[], Mapping[str, float | None]] = dict

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "artifact_repository_registry_up", "1 while the registry answers.", labels=("registry",)
        )
        for name, since in self.failing_since().items():
            family.add_metric((name,), 1 if since is None else 0)
        yield family
