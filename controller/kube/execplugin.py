"""Exec plugins: commands that print credentials for the API server, as in kubeconfigs of EKS, GKE, AKS and Teleport."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from controller.errors import KubernetesError
from controller.kube.kubeconfig import Cluster, ExecPlugin

_TIMEOUT: Final = 60.0
_MAX_MESSAGE: Final = 300


class ExecStatus(BaseModel):
    """Credentials that a plugin returned."""

    model_config = ConfigDict(defer_build=True, frozen=True, hide_input_in_errors=True, alias_generator=to_camel)

    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: AwareDatetime | None = None

    @model_validator(mode="after")
    def _has_credentials(self) -> ExecStatus:
        if bool(self.client_certificate_data) != bool(self.client_key_data):
            raise ValueError("it needs both clientCertificateData and clientKeyData")
        if not self.token and not self.client_certificate_data:
            raise ValueError("it has neither a token nor a client certificate")
        return self


class _ExecCredential(BaseModel):
    model_config = ConfigDict(defer_build=True, hide_input_in_errors=True, alias_generator=to_camel)

    api_version: str
    kind: str
    status: ExecStatus


async def run_plugin(plugin: ExecPlugin, cluster: Cluster, *, ca: bytes | None) -> ExecStatus:
    """Run a plugin and return the credentials that it prints.

    Args:
        plugin: The command.
        cluster: The cluster, for plugins that ask for it.
        ca: The cluster's CA certificates.

    Raises:
        KubernetesError: The plugin could not be run, failed, timed out, or printed no valid credentials.
    """
    info = json.dumps({"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": _spec(plugin, cluster, ca)})
    environment = {**os.environ, **{entry.name: entry.value for entry in plugin.env}, "KUBERNETES_EXEC_INFO": info}
    try:
        process = await asyncio.create_subprocess_exec(
            plugin.command,
            *plugin.args,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        hint = f". {plugin.install_hint.strip()}" if plugin.install_hint else ""
        raise KubernetesError(f"exec plugin '{plugin.command}' cannot be run: {error}{hint}") from error
    output = await _output(process, plugin)
    try:
        credential = _ExecCredential.model_validate_json(output)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        problem = f"{field}: {first['msg'].removeprefix('Value error, ')}" if field else "it is not JSON"
        raise KubernetesError(f"exec plugin '{plugin.command}' did not print an ExecCredential: {problem}") from None
    if (credential.kind, credential.api_version) != ("ExecCredential", plugin.api_version):
        raise KubernetesError(
            f"exec plugin '{plugin.command}' printed {credential.kind} of {credential.api_version} "
            f"instead of ExecCredential of {plugin.api_version}"
        )
    return credential.status


def _spec(plugin: ExecPlugin, cluster: Cluster, ca: bytes | None) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": False}
    if plugin.provide_cluster_info:
        known = {
            "server": cluster.server,
            "tls-server-name": cluster.tls_server_name,
            "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
            "certificate-authority-data": base64.b64encode(ca or b"").decode(),
            "proxy-url": cluster.proxy_url,
            "config": cluster.exec_config,
        }
        spec["cluster"] = {name: value for name, value in known.items() if value}
    return spec


async def _output(process: asyncio.subprocess.Process, plugin: ExecPlugin) -> bytes:
    """Return what a plugin prints; end it, and what it has started, if that takes too long."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            output, errors = await process.communicate()
    except (TimeoutError, asyncio.CancelledError) as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, TimeoutError):
            raise KubernetesError(f"exec plugin '{plugin.command}' did not end within {_TIMEOUT:g} s") from None
        raise
    if process.returncode:
        said = " ".join(errors.decode(errors="replace").split())
        raise KubernetesError(
            f"exec plugin '{plugin.command}' failed with exit code {process.returncode}: {said[-_MAX_MESSAGE:]}"
        )
    return output
