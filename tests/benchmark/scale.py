"""Scenarios of scale: growth to a large number of objects, a restart with all of them, resyncs, and shards."""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from hack.benchmarks import Figures
from tests.benchmark.stage import Contender, Heads, Running, Stage
from tests.cluster import harness
from tests.cluster.proxy import Delay, FaultProxy

_WITHIN = 900.0
"""Longest time for one wait, in seconds."""

_SAMPLE = 5.0
"""Seconds over which the rate of a resync is averaged."""

_SHARDS = 4
"""The largest number of shards; as many namespaces share the objects."""

Sharded = Callable[[str, Sequence[str]], Contender]
"""Returns an operator for a registry's URL, with further arguments."""


def growth(operator: Contender, stage: Stage, size: int, *, batch: int) -> Figures:
    """Measure each batch of objects that is created while the operator runs; each has a namespace of its own."""
    figures: Figures = {}
    with Running(operator, stage) as running:
        cpu = running.cpu()
        for first in range(0, size, batch):
            here = stage.beside(f"batch-{first}")
            names = [f"repo-{number:06}" for number in range(first, first + batch)]
            begun = time.monotonic()
            with here.watch() as watch:
                here.objects.create_many(names)
                seconds = watch.wait(names, within=_WITHIN) - begun
            before, cpu = cpu, running.cpu()
            which = "first" if first == 0 else "last"
            figures |= {f"{which}/seconds-object": seconds / batch, f"{which}/cpu-object": (cpu - before) / batch}
        figures["memory"] = running.peak_megabytes()
    return figures


def large(operator: Contender, stage: Stage, size: int, *, seconds: float) -> Figures:
    """Measure a restart with many Ready objects, the pass over them that follows, and resyncs.

    Args:
        operator: The operator.
        stage: Where the objects are.
        size: Their number.
        seconds: How long to measure resyncs.
    """
    stage.objects.create("waiting")
    heads = Heads(stage)
    with stage.watch() as watch, Running(operator, stage) as running:
        running.process.wait_until_ready()  # its watch is established
        begun = time.monotonic()
        stage.objects.create("fresh")
        fresh = watch.wait(["fresh"], within=_WITHIN) - begun
        waiting = watch.wait(["waiting"], within=_WITHIN) - running.begun
        verified = heads.wait(size, within=_WITHIN) - running.begun
        figures = {
            "restart/fresh": fresh,
            "restart/waiting": waiting,
            "restart/verified": verified,
            "restart/cpu": running.cpu(),
            "restart/writes": sum("fresh" not in write and "waiting" not in write for write in running.writes()),
        }
        Heads(stage).wait(1, within=_WITHIN)
        return figures | _resync(running, stage, seconds) | {"resync/memory": running.peak_megabytes()}


def _resync(running: Running, stage: Stage, seconds: float) -> Figures:
    """Measure the load of resyncs, on the operator and on each server, as a share of a core."""
    cluster = stage.cluster
    servers = {"kube-apiserver": cluster.apiserver, "etcd": cluster.etcd, "registry": cluster.registry}
    pids = {name: server.pid for name, server in servers.items() if server.pid is not None} | {"operator": running.pid}
    running.mark()
    heads = Heads(stage)
    before = {name: harness.cpu_seconds(pid) for name, pid in pids.items()}
    counts, begun = [0], time.monotonic()
    while time.monotonic() - begun < seconds:
        time.sleep(_SAMPLE)
        counts.append(heads.count())
    lasted = time.monotonic() - begun
    rates = [(after - earlier) / _SAMPLE for earlier, after in itertools.pairwise(counts)]
    return {
        "resync/rate": statistics.mean(rates),
        "resync/peak": max(rates) / statistics.mean(rates),
        "resync/lists": sum(event["verb"] == "list" for event in running.api_requests()) / lasted,
        "resync/writes": len(running.writes()),
        **{f"resync/{name}": (harness.cpu_seconds(pid) - before[name]) / lasted for name, pid in pids.items()},
    }


def shards(sharded: Sharded, stage: Stage, size: int, *, latency: float) -> Figures:
    """Measure how much faster two and four operators are than one, by namespace and by label.

    On a machine whose cores the servers and the operators share, more operators would only compete. Therefore the
    registry takes a time for each request, so that the machine is mostly idle: what would be lost is lost to conflicts,
    double work and waiting for each other. The CPU for each object shows double work, too.

    Args:
        sharded: Makes an operator of a few workers for a scope.
        stage: Where.
        size: The number of objects each time.
        latency: What each request to the registry takes longer, in seconds.
    """
    namespaces = [f"shard-{number}" for number in range(_SHARDS)]
    here = [stage.beside(name) for name in namespaces]
    figures: Figures = {}
    with ExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(stage.cluster.registry_url))
        for method in ("HEAD", "GET", "POST", "PUT"):
            stack.enter_context(proxy.rule(method, "", Delay(latency)))
        single = 0.0, 0.0
        for number, scope in ((1, "namespace"), (2, "namespace"), (4, "namespace"), (2, "label"), (4, "label")):
            contenders = [sharded(proxy.url, _scope(scope, shard, number)) for shard in range(number)]
            seconds, cpu, servers = _share(contenders, here, f"{scope}-{number}", size)
            if number == 1:
                single = seconds, cpu
                figures["1/servers"] = servers
            else:
                figures |= {
                    f"{number}/{scope}/speed": single[0] / seconds / number,
                    f"{number}/{scope}/cpu": cpu / single[1],
                    f"{number}/{scope}/servers": servers,
                }
    return figures


def _scope(scope: str, shard: int, number: int) -> Sequence[str]:
    """Return the arguments of one of several operators."""
    mine = range(shard, _SHARDS, number)
    if scope == "namespace":
        return [f"--namespace=shard-{namespace}" for namespace in mine]
    return [f"--watch-label-selector=shard in ({', '.join(map(str, mine))})"]


def _share(
    contenders: Sequence[Contender], here: Sequence[Stage], prefix: str, size: int
) -> tuple[float, float, float]:
    """Create as many objects in each place.

    Returns:
        The seconds until all are Ready, the operators' CPU time in seconds, and the servers' share of all cores.
    """
    names = [[f"{prefix}-{shard}-{number}" for number in range(size // len(here))] for shard in range(len(here))]
    pids = [server.pid for server in here[0].cluster.servers if server.pid is not None]
    with ExitStack() as stack:
        operators = [stack.enter_context(Running(contender, here[0])) for contender in contenders]
        for operator in operators:
            operator.process.wait_until_ready()
        mine, theirs = sum(operator.cpu() for operator in operators), sum(map(harness.cpu_seconds, pids))
        watches = [stack.enter_context(place.watch()) for place in here]
        clients = stack.enter_context(ThreadPoolExecutor(len(here)))
        begun = time.monotonic()
        waits = [
            clients.submit(watch.wait, of_shard, within=_WITHIN) for watch, of_shard in zip(watches, names, strict=True)
        ]
        for together in zip(*names, strict=True):
            for shard, name in enumerate(together):
                here[shard].objects.create(name, labels={"shard": str(shard)})
        seconds = max(wait.result() for wait in waits) - begun
        busy = sum(map(harness.cpu_seconds, pids)) - theirs
        return seconds, sum(operator.cpu() for operator in operators) - mine, busy / seconds / (os.cpu_count() or 1)
