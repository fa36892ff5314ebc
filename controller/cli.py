"""Command line."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import click
import uvloop

from controller import __version__
from controller.api.selector import check_label_selector, check_namespace
from controller.config import OperatorConfig
from controller.configfile import load_config, read_config
from controller.errors import ConfigError, InvalidNameError, KubernetesError
from controller.httpserver import parse_address
from controller.kube.kubeconfig import KubeconfigSource
from controller.logs import LEVELS, LogFormat, configure_logging
from controller.manager import LEASE_NAME, MetricsOptions, Options, run_manager
from controller.names import validate_repository_name
from controller.registrycheck import check_registry
from controller.runner import Scope

logger = logging.getLogger(__name__)

_CONFIG = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Configuration file (see docs/configuration.md).",
)


def _check_address(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Reject an address of a server at once, with a sentence."""
    try:
        if value is not None:
            parse_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


def _seconds(_context: click.Context, _option: click.Parameter, value: float) -> float:
    """Check a number of seconds: float() reads nan and inf as well."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number of seconds: write for example 20 or 0.5")
    return value


def _namespaces(_context: click.Context, _option: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Check --namespace; drop names that are repeated."""
    for name in names:
        _checked(check_namespace, name)
    return tuple(dict.fromkeys(names))


def _label_selector(_context: click.Context, _option: click.Parameter, selector: str) -> str:
    """Check --watch-label-selector."""
    _checked(check_label_selector, selector)
    return selector


def _checked(check: Callable[[str], None], value: str) -> None:
    try:
        check(value)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Create repositories in an OCI registry from ArtifactRepository objects."""


@main.command()
@_CONFIG
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="kubeconfig file. Default: KUBECONFIG, the Pod's ServiceAccount or ~/.kube/config, in this order.",
)
@click.option("--context", help="Context of the kubeconfig. Default: its current-context.")
@click.option(
    "--namespace",
    "-n",
    "namespaces",
    multiple=True,
    callback=_namespaces,
    help="Watch only this namespace; can be repeated.",
)
@click.option(
    "--watch-label-selector",
    default="",
    callback=_label_selector,
    help="Watch only objects with these labels, e.g. shard=a.",
)
@click.option(
    "--concurrent",
    type=click.IntRange(1, 256),
    default=Scope().concurrent,
    show_default=True,
    help="Maximum concurrent reconciles per registry, fewer while the event loop lags; half of them may verify.",
)
@click.option(
    "--leader-elect/--no-leader-elect",
    default=None,
    help="Reconcile only while holding a Lease, so that one of several replicas is active. Default: enabled in a Pod.",
)
@click.option("--lease-namespace", help="Namespace of the Lease. Default: the Pod's own.")
@click.option(
    "--lease-name",
    default=LEASE_NAME,
    show_default=True,
    help="Name of the Lease. Operators that share the objects of a cluster need different ones.",
)
@click.option(
    "--health-address",
    metavar="HOST:PORT",
    callback=_check_address,
    help="Serve /healthz and /readyz here, e.g. 127.0.0.1:8081, or :8081 for all. Disabled by default.",
)
@click.option(
    "--metrics-address",
    metavar="HOST:PORT",
    callback=_check_address,
    help="Serve /metrics here, e.g. 127.0.0.1:8080, or :8080 for all. Disabled by default.",
)
@click.option(
    "--metrics-certificate",
    type=click.Path(path_type=Path, file_okay=False),
    help="Serve metrics by HTTPS, with tls.crt and tls.key from this directory.",
)
@click.option(
    "--metrics-authorization/--no-metrics-authorization",
    default=False,
    show_default=True,
    help="Serve metrics only to bearers of a token whose user may get the URL /metrics.",
)
@click.option(
    "--grace-period",
    type=click.FloatRange(min=0),
    callback=_seconds,
    default=20.0,
    show_default=True,
    help="Seconds to wait for reconciles in progress after SIGTERM.",
)
@click.option("--events/--no-events", default=True, show_default=True, help="Record Kubernetes events.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="Minimum log level.")
@click.option(
    "--log-format",
    type=click.Choice([format_.value for format_ in LogFormat]),
    default=LogFormat.TEXT.value,
    show_default=True,
    help="Plain text, or one JSON object per line.",
)
def run(
    config: Path,
    kubeconfig: Path | None,
    context: str | None,
    namespaces: tuple[str, ...],
    watch_label_selector: str,
    concurrent: int,
    leader_elect: bool | None,
    lease_namespace: str | None,
    lease_name: str,
    health_address: str | None,
    metrics_address: str | None,
    metrics_certificate: Path | None,
    metrics_authorization: bool,
    grace_period: float,
    events: bool,
    log_level: str,
    log_format: str,
) -> None:
    """Run the operator until SIGTERM or Ctrl-C."""
    format_ = LogFormat(log_format)
    configure_logging(log_level, format_)
    cluster = KubeconfigSource(kubeconfig, context)
    options = Options(
        config=config,
        cluster=cluster,
        scope=Scope(namespaces=namespaces, label_selector=watch_label_selector, concurrent=concurrent),
        leader_elect=cluster.is_in_cluster if leader_elect is None else leader_elect,
        lease_namespace=lease_namespace,
        lease_name=lease_name,
        health_address=health_address,
        metrics=MetricsOptions(metrics_address, metrics_certificate, authorization=metrics_authorization),
        grace=grace_period,
        events=events,
    )
    try:
        uvloop.run(run_manager(options))
    except (ConfigError, KubernetesError) as error:
        if format_ is LogFormat.JSON:
            logger.critical(str(error))
            sys.exit(1)
        raise click.ClickException(str(error)) from error


@main.command()
def crd() -> None:
    """Print the CustomResourceDefinition, for kubectl apply -f -."""
    click.echo(resources.files("controller").joinpath("crd.yaml").read_bytes(), nl=False)


def _repository(_context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
    """Check --repository."""
    try:
        return None if name is None else validate_repository_name(name)
    except InvalidNameError as error:
        raise click.BadParameter(str(error)) from error


@main.command(
    epilog="Exit status: 0 if all checks pass, 1 if the file is invalid or a check fails, 2 for a wrong command line."
)
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    required=True,
    help="Configuration file; - for standard input.",
)
@click.option(
    "--connect",
    is_flag=True,
    help="Also connect to each registry, and check the certificate, the login and whether the operator may list tags "
    "and push. An upload is started for that, and cancelled.",
)
@click.option(
    "--repository",
    metavar="NAME",
    callback=_repository,
    help="Repository to check with --connect, without the pathPrefix. Default: one that no object can refer to.",
)
def check(config: Path, connect: bool, repository: str | None) -> None:
    """Validate a configuration file and show the URL of each registry, and who may use it."""
    if repository is not None and not connect:
        raise click.UsageError("--repository requires --connect")
    name = "standard input" if str(config) == "-" else str(config)
    try:
        loaded = _read_standard_input(name) if str(config) == "-" else load_config(config, again=False)
    except (ConfigError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{click.format_filename(name)}: valid; registries: {', '.join(sorted(loaded.registries))}")
    if connect:
        uvloop.run(_check_registries(loaded, repository))
        return
    for binding_name in sorted(loaded.registries):
        click.echo(_described(loaded, binding_name))


def _read_standard_input(name: str) -> OperatorConfig:
    if sys.stdin is None:  # closed by the shell (<&-)
        raise ConfigError(f"{name} is closed: write the configuration to it, or name a file")
    return read_config(sys.stdin.buffer, name=name)


def _described(config: OperatorConfig, name: str) -> str:
    binding = config.registries[name]
    default = " (default)" if name == config.default_registry else ""
    namespaces = f", namespaces: {', '.join(binding.namespaces)}" if binding.namespaces else ""
    return f"  {name}: {binding.registry_url}{default}{namespaces}"


async def _check_registries(config: OperatorConfig, repository: str | None) -> None:
    """Check all registries at once, and print the answers of each in the order of names.

    Raises:
        ClickException: A check has failed.
    """
    failed = []
    async with asyncio.TaskGroup() as group:
        checks = {
            name: group.create_task(check_registry(name, binding, repository=repository))
            for name, binding in sorted(config.registries.items())
        }
        for name, check_ in checks.items():
            click.echo(_described(config, name))
            for answer in await check_:
                click.echo(f"    {answer}")
                failed += [name] if answer.problem is not None else []
    if failed:
        raise click.ClickException(f"the operator cannot use: {', '.join(failed)}")
