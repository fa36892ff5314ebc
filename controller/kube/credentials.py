"""Address and credentials of the API server, for kopf's watch and for the operator's own client."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import kubernetes.aio.config as kube_config
from kubernetes.aio.client import Configuration

from controller.errors import KubernetesError

logger = logging.getLogger(__name__)

SERVICE_ACCOUNT_DIRECTORY: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def is_in_cluster() -> bool:
    """Return whether this process runs in a Pod and should use its ServiceAccount."""
    return not os.environ.get("KUBECONFIG") and "KUBERNETES_SERVICE_HOST" in os.environ


async def load_configuration() -> Configuration:
    """Read address, CA and credentials: from ``KUBECONFIG``, the Pod's ServiceAccount or ~/.kube/config, in this order.

    Raises:
        KubernetesError: There are no credentials, or they cannot be read.
    """
    configuration = Configuration()
    named = os.environ.get("KUBECONFIG")
    if named and not Path(named).is_file():  # noqa: ASYNC240 - one stat
        raise KubernetesError(f"KUBECONFIG names {named}, which is not a file")
    try:
        if is_in_cluster():
            kube_config.load_incluster_config(client_configuration=configuration)
        else:
            await kube_config.load_kube_config(
                config_file=named or None,
                client_configuration=configuration,
                persist_config=False,
            )
    except (kube_config.ConfigException, OSError, ValueError) as error:
        raise KubernetesError(
            f"no usable credentials for a Kubernetes API server: {error}. "
            "Set KUBECONFIG to a kubeconfig file, or run in a Pod with a ServiceAccount."
        ) from error
    # Looked up once: with trust_env, aiohttp would do it for each request, in a thread.
    server = urlsplit(configuration.host)
    if not proxy_bypass(server.netloc):
        configuration.proxy = getproxies().get(server.scheme)
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration


async def bearer_token(configuration: Configuration) -> str | None:
    """Return the bearer token; None if client certificates are used."""
    header = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return None if header is None else str(header).split(" ", 1)[-1].strip()
