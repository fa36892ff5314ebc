"""Who is compared: the operator, a peer, and the floor: the same requests by a bare loop."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controller.reconcile.workers import LOW_PRIORITY_SHARE
from controller.runner import Scope
from devcluster.process import ServerProcess
from tests.benchmark.stage import Contender, Running, Stage
from tests.cluster.harness import (
    OPERATOR_AGENT,
    OPERATOR_NAMESPACE,
    ROOT,
    OperatorProcess,
    operator_config,
    operator_kubeconfig,
)

FLOOR_AGENT = "floor"
LEADER_ELECTION = ("--leader-elect", "--lease-namespace", OPERATOR_NAMESPACE)
"""Arguments of a replica: what is the default in a Pod."""


def operator(
    timings: dict[str, Any], python: Path, *, registry_url: str | None = None, arguments: Sequence[str] = ()
) -> Contender:
    """Return the operator.

    Args:
        timings: Timings in its configuration that are not the default's.
        python: The interpreter that runs it.
        registry_url: The registry; None for the stage's own.
        arguments: Further arguments.
    """

    def prepare(stage: Stage, directory: Path) -> ServerProcess:
        return OperatorProcess(
            directory,
            config=operator_config(registry_url or stage.cluster.registry_url, timings=timings),
            kubeconfig=operator_kubeconfig(stage.cluster),
            arguments=tuple(arguments),
            python=python,
        ).process

    return Contender("operator", OPERATOR_AGENT, prepare)


def peer(binary: Path) -> Contender:
    """Return another operator for the same objects, which takes the flags -registry and -binding.

    Args:
        binary: Its program.
    """

    def prepare(stage: Stage, directory: Path) -> ServerProcess:
        command: list[str | Path] = [binary, "-registry", stage.cluster.registry_url, "-binding", "artifacts"]
        return _process(stage, directory, "peer", command)

    return Contender("peer", "Go-http-client/", prepare)


def floor(python: Path, *, verify: bool = False) -> Contender:
    """Return the bare loop (:mod:`tests.benchmark.floor`), with as many objects at once as the operator by default.

    Args:
        python: The interpreter that runs it.
        verify: Whether it only asks for what is there.
    """

    def prepare(stage: Stage, directory: Path) -> ServerProcess:
        what = "verify" if verify else "create"
        at_once = Scope().concurrent // (LOW_PRIORITY_SHARE if verify else 1)
        command: list[str | Path] = [
            python,
            "-m",
            "tests.benchmark.floor",
            stage.cluster.registry_url,
            what,
            str(at_once),
        ]
        return _process(stage, directory, "floor", command)

    return Contender("floor", FLOOR_AGENT, prepare)


def _process(stage: Stage, directory: Path, name: str, command: Sequence[str | Path]) -> ServerProcess:
    access = {"KUBECONFIG": str(operator_kubeconfig(stage.cluster))}
    return ServerProcess(name, command, probes=[], log=directory / "log", directory=ROOT, environment=access)


def reconfigure(running: Running, stage: Stage, timings: dict[str, Any]) -> None:
    """Change the operator's configuration while it runs: it then verifies all objects, as fast as it can."""
    fresh = running.directory / "fresh.yaml"
    fresh.write_text(json.dumps(operator_config(stage.cluster.registry_url, timings=timings)))
    fresh.replace(running.directory / "config.yaml")
