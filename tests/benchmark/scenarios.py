"""What is measured. Each scenario returns figures by their names; the report knows what they mean."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from controller.api.v1alpha1 import REQUESTED_AT_ANNOTATION
from hack.benchmarks import Figures
from tests.benchmark.contenders import reconfigure
from tests.benchmark.stage import Contender, Heads, Running, Stage
from tests.cluster import harness

_WITHIN = 600.0
"""Longest time for one wait, in seconds."""

_FEWEST = 5
"""Fewest objects of another namespace that are timed during a burst."""

_STATUS = "artifactrepositories/status"


def burst(contender: Contender, stage: Stage, size: int) -> Figures:
    """Measure from a contender's start until all objects that wait for it are Ready."""
    names = stage.create(size)
    with stage.watch() as watch, Running(contender, stage) as running:
        seconds = watch.wait(names, within=_WITHIN) - running.begun
        return {
            "seconds": seconds,
            "cpu": running.cpu(),
            "memory": running.peak_megabytes(),
            "writes": len(running.writes()) / size,
            "requests": len(running.registry_requests()) / size,
        }


def idle(contender: Contender, stage: Stage, count: int) -> Figures:
    """Measure one object after the other, from before it is applied until it is seen Ready."""
    stage.create(1, first=90_000)
    with stage.watch() as watch, Running(contender, stage) as running:
        watch.wait(["repo-90000"], within=_WITHIN)  # from now on a blob is there to be mounted
        cpu = running.cpu()
        running.mark()
        taken = []
        for number in range(count):
            begun = time.monotonic()
            stage.objects.create(f"one-{number}")
            taken.append(watch.wait([f"one-{number}"], within=_WITHIN) - begun)
        cpu = running.cpu() - cpu
        return {
            "p50": statistics.median(taken),
            "p99": sorted(taken)[int(0.99 * count)],
            "cpu": cpu / count,
            "writes": len(running.writes()) / count,
            "requests": len(running.registry_requests()) / count,
        }


def restart(contender: Contender, stage: Stage, size: int) -> Figures:
    """Measure how soon new objects are served by a contender that finds all others Ready, and what it writes to these.

    One was created while no operator ran, the other one is created once that is Ready.
    """
    stage.create(1, first=size)
    with stage.watch() as watch, Running(contender, stage) as running:
        waiting = watch.wait([f"repo-{size:05}"], within=_WITHIN) - running.begun
        begun = time.monotonic()
        stage.objects.create("fresh")
        fresh = watch.wait(["fresh"], within=_WITHIN) - begun
        cpu = running.cpu()
        expected = {f"patch {_STATUS} {stage.objects.namespace}/{name}" for name in (f"repo-{size:05}", "fresh")}
        writes = running.writes()
        return {
            "waiting": waiting,
            "fresh": fresh,
            "cpu": cpu,
            "memory": running.peak_megabytes(),
            "writes": len(writes) - len(expected.intersection(writes)),
        }


def verify(operator: Contender, bare: Contender, stage: Stage, size: int) -> Figures:
    """Measure a pass over objects that are all Ready, as fast as it goes, and the same requests by a bare loop.

    A change of the configuration has all objects verified at once; a resync, which does the same, takes its time.
    """
    with Running(operator, stage) as running:
        running.cpu()
        heads = Heads(stage)
        reconfigure(running, stage, {"resyncInterval": "11m"})
        ours = _per_second(heads, size)
        writes = len(running.writes())
    heads = Heads(stage)
    with Running(bare, stage):
        floor = _per_second(heads, size)
    return {"rate": ours, "floor": floor, "share": ours / floor, "writes": writes}


def _per_second(heads: Heads, count: int) -> float:
    """Return the rate of so many HEAD requests, from the first one on."""
    begun = heads.wait(1, within=_WITHIN)
    first = heads.count()
    return (count - first) / (heads.wait(count, within=_WITHIN) - begun)


def outage(operator: Contender, stage: Stage) -> Figures:
    """Measure an outage of the registry that lasts until all objects tell of it, and the recovery."""
    names = [object_["metadata"]["name"] for object_ in stage.objects.list()]
    with stage.watch() as watch, Running(operator, stage) as running:
        running.cpu()
        running.mark()
        stage.cluster.registry.kill()
        for name in names[:5]:  # what is verified next would find it out as well, some time within the next resync
            stage.objects.patch(name, _requested_now())
        watch.wait(names, status="Unknown", within=_WITHIN)
        stage.cluster.registry.start()
        stage.cluster.registry.wait_until_ready()
        back = time.monotonic()
        recovery = watch.wait(names, within=_WITHIN) - back
        running.cpu()
        writes = running.writes()
        of_status = sum(_STATUS in write for write in writes)
        return {
            "recovery": recovery,
            "writes": of_status / len(names),
            "events": (len(writes) - of_status) / len(names),
        }


def crowd(contender: Contender, stage: Stage, size: int) -> Figures:
    """Measure how soon objects of another namespace are Ready while a burst is served."""
    names = stage.create(size)
    beside = stage.beside(f"{stage.objects.namespace}-beside")
    with (
        stage.watch() as watch,
        beside.watch() as seen,
        Running(contender, stage),
        ThreadPoolExecutor(1) as waiting,
    ):
        burst = waiting.submit(watch.wait, names, within=_WITHIN)
        taken: list[float] = []
        while not burst.done() or len(taken) < _FEWEST:
            name, begun = f"beside-{len(taken)}", time.monotonic()
            beside.objects.create(name)
            taken.append(seen.wait([name], within=_WITHIN) - begun)
        burst.result()
    del taken[0]  # it waited for the start
    ordered = sorted(taken)
    return {"p50": statistics.median(ordered), "p99": ordered[int(0.99 * len(ordered))], "objects": len(ordered)}


def rest(contender: Contender, stage: Stage, seconds: float) -> Figures:
    """Measure what a contender costs per hour while nothing happens, all objects being Ready."""
    with Running(contender, stage) as running:
        return _per_hour(running, seconds)


def standby(contender: Contender, stage: Stage, seconds: float) -> Figures:
    """Measure what a second replica costs per hour, beside a leader with nothing to do.

    Args:
        contender: Takes part in leader election.
        stage: Where.
        seconds: How long to measure.
    """
    with Running(contender, stage) as leader:
        leader.cpu()
        with Running(contender, stage) as running:
            return _per_hour(running, seconds) | {"memory": running.peak_megabytes()}


def _per_hour(running: Running, seconds: float) -> Figures:
    cpu = running.cpu()
    running.mark()
    time.sleep(seconds)
    share = seconds / 3600
    return {
        "cpu": (harness.cpu_seconds(running.pid) - cpu) / share,
        "writes": len(running.writes()) / share,
        "api": len(running.api_requests()) / share,
        "registry": len(running.registry_requests()) / share,
    }


def _requested_now() -> dict[str, dict[str, dict[str, str]]]:
    return {"metadata": {"annotations": {REQUESTED_AT_ANNOTATION: datetime.now(UTC).isoformat()}}}
