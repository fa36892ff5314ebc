"""The registries that the operator is tested against, each as people run it.

They differ in what they accept and how they answer, which is why there are four.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from devcluster.certificates import Certificate
from devcluster.process import Probe, ServerProcess, free_port
from devcluster.progress import Progress, to_stderr
from devcluster.tools import Tool, provide


class RegistryKind(StrEnum):
    """A registry's implementation."""

    DISTRIBUTION_3 = "distribution-3"
    """Distribution 3: what `registry:3` images, and so most local registries, run."""
    DISTRIBUTION_2 = "distribution-2"
    """Distribution 2.8, as Debian ships it: what `registry:2` images run."""
    CRANE = "crane"
    """`crane registry serve` of go-containerregistry. It keeps manifests in memory: they do not survive a restart."""
    CONTAINER_REGISTRY = "container-registry"
    """The crate `container-registry`, with anonymous clients accepted."""


@dataclass(frozen=True)
class Registry:
    """A registry, started or not.

    Args:
        kind: Its implementation.
        url: Where clients reach it: ``http://127.0.0.1:PORT``.
        process: The server, for faults: stop, kill, suspend, restart.
        storage: The folder with its data.
    """

    kind: RegistryKind
    url: str
    process: ServerProcess
    storage: Path


@contextmanager
def start_registry(
    kind: RegistryKind,
    *,
    directory: Path,
    environment: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    tls: Certificate | None = None,
    ca_file: Path | None = None,
    progress: Progress = to_stderr,
) -> Iterator[Registry]:
    """Run a registry on a free loopback port until the end of the ``with`` block.

    Args:
        kind: Which implementation.
        directory: For its data, configuration and log; made if need be. What is in there from an earlier run is used.
        environment: Added to its environment; for the Distribution kinds ``REGISTRY_…`` overrides their configuration.
        config: For the Distribution kinds: merged into their configuration (``{"auth": {"htpasswd": …}}``); None in
            place of a value removes it.
        tls: For the Distribution kinds: serve https with this certificate.
        ca_file: The CA of ``tls``.
        progress: Takes a line now and then if the registry has to be built first.

    Raises:
        ToolUnavailable: This machine cannot build it.
        ServerFailed: It did not get ready; the message has the end of its log.
    """
    registry = prepare_registry(
        kind, directory=directory, environment=environment, config=config, tls=tls, ca_file=ca_file, progress=progress
    )
    with registry.process:
        yield registry


def prepare_registry(
    kind: RegistryKind,
    *,
    directory: Path,
    port: int | None = None,
    program: Path | None = None,
    environment: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    tls: Certificate | None = None,
    ca_file: Path | None = None,
    progress: Progress = to_stderr,
) -> Registry:
    """Return a registry that is not started yet, on a port or any free one.

    For the Distribution kinds, ``program`` is run in place of the one that `tools.provide` returns. The other arguments
    are those of `start_registry`.
    """
    storage = directory / "storage"
    storage.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{port or free_port()}"
    url = f"{'https' if tls else 'http'}://{address}"
    command: list[str | Path]
    match kind:
        case RegistryKind.DISTRIBUTION_3 | RegistryKind.DISTRIBUTION_2:
            tool = Tool.DISTRIBUTION if kind is RegistryKind.DISTRIBUTION_3 else Tool.DOCKER_REGISTRY
            file = directory / "config.yml"
            settings = _merged(_distribution_config(address, storage, tls), config or {})
            file.write_text(json.dumps(settings, indent=2))  # JSON is YAML
            command = [program or provide(tool, progress=progress), "serve", file]
        case RegistryKind.CRANE:
            command = [provide(Tool.CRANE, progress=progress), "registry", "serve"]
            command += ["--address", address, "--disk", storage]
        case RegistryKind.CONTAINER_REGISTRY:
            command = [provide(Tool.CONTAINER_REGISTRY, progress=progress), address, storage]
    process = ServerProcess(
        f"registry {kind.value}",
        command,
        # Any answer will do: a registry that asks for credentials is ready, and so is one with a path prefix.
        probes=[Probe(f"{url}/v2/", ready=range(200, 500), ca_file=ca_file)],
        log=directory / "log",
        directory=directory,
        # Distribution 3 would try to send traces to a collector on this machine.
        environment={"OTEL_TRACES_EXPORTER": "none", **(environment or {})},
    )
    return Registry(kind, url, process, storage)


def _distribution_config(address: str, storage: Path, tls: Certificate | None) -> dict[str, Any]:
    http: dict[str, Any] = {"addr": address}
    if tls is not None:
        http["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
    return {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": http,
    }


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with changes merged into it, level by level; None removes."""
    merged = dict(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(below := merged.get(key), Mapping):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged
