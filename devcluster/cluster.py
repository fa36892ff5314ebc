"""A Kubernetes control plane and a registry on loopback, started in seconds and gone without a trace."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devcluster.certificates import Certificate, CertificateAuthority
from devcluster.command import run_command
from devcluster.errors import CommandFailed
from devcluster.lifeline import Lifeline
from devcluster.process import Probe, ServerProcess, free_port
from devcluster.progress import Progress, to_stderr
from devcluster.registries import Registry, RegistryKind, prepare_registry
from devcluster.tools import Tool, provide, provide_all


class Kubernetes(StrEnum):
    """Which API server a cluster has; their versions are those of devcluster/go."""

    NEWEST = "newest"
    OLDEST = "oldest"
    """The oldest that the operator is tested on.

    The rest of the cluster stays the newest. A controller manager should not be newer than its API server, but the few
    controllers that run here use APIs that have long been as they are.
    """

    @property
    def apiserver(self) -> Tool:
        """The program."""
        return Tool.KUBE_APISERVER if self is Kubernetes.NEWEST else Tool.KUBE_APISERVER_OLDEST


def cluster_tools(kubernetes: Kubernetes = Kubernetes.NEWEST, *, controllers: bool = True) -> tuple[Tool, ...]:
    """Return all programs that a cluster needs.

    Args:
        kubernetes: Which API server it has.
        controllers: Whether kube-controller-manager runs.
    """
    managers = (Tool.KUBE_CONTROLLER_MANAGER,) if controllers else ()
    return (Tool.ETCD, kubernetes.apiserver, *managers, Tool.KUBECTL, Tool.DISTRIBUTION)


ARTIFACT_REPOSITORIES = "artifactrepositories.artifacts.alien.dev"
"""Name of the operator's CustomResourceDefinition."""

_COMMAND_TIMEOUT = 60.0
_ESTABLISHED_TIMEOUT = 30.0
_POLL_INTERVAL = 0.1
# All that a cluster without nodes needs: tokens, the deletion of namespaces, owner references, the CA for in-cluster
# clients, what is in the roles view, edit and admin. Each further controller would cost memory and API calls.
_CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
)


class DevCluster:
    """etcd, kube-apiserver, kube-controller-manager and Distribution's registry, in a ``with`` block.

    All listen on free loopback ports, keep their data in one temporary folder, and are gone with it at the end of the
    block, and also if this process is killed. Any number of clusters can run side by side. The methods block; in
    asynchronous code run them by `asyncio.to_thread`.

    Args:
        kubernetes: Which API server.
        prebuilt: Programs to run in place of those that `tools.provide` returns.
        controllers: Whether kube-controller-manager runs. Without it namespaces stay Terminating, and have neither a
            default ServiceAccount nor the CA's ConfigMap.
        apiserver_flags: Further flags of kube-apiserver, after ours.
        registry_port: The registry's port; any free one if none is given.
        registry_environment: ``REGISTRY_…`` variables that override the registry's configuration.
        registry_config: Merged into the registry's configuration (see `registries.start_registry`).
        progress: Takes a line now and then while something is built or started.

    Attributes:
        folder: Where all the cluster's files are.
        url: The API server: ``https://127.0.0.1:PORT``.
        ca_file: The CA that it is verified by.
        kubeconfig: Of a cluster administrator.
        registry_url: ``http://127.0.0.1:PORT``.
        etcd: A server, for faults: stop, kill, suspend, restart; it keeps its port and its data.
        apiserver: Another one.
        controller_manager: Another one, or None.
        registry: Another one.
    """

    folder: Path
    url: str
    ca_file: Path
    kubeconfig: Path
    registry_url: str
    etcd: ServerProcess
    apiserver: ServerProcess
    controller_manager: ServerProcess | None
    registry: ServerProcess

    def __init__(
        self,
        *,
        kubernetes: Kubernetes = Kubernetes.NEWEST,
        prebuilt: Mapping[Tool, Path] | None = None,
        controllers: bool = True,
        apiserver_flags: Sequence[str] = (),
        registry_port: int | None = None,
        registry_environment: Mapping[str, str] | None = None,
        registry_config: Mapping[str, Any] | None = None,
        progress: Progress = to_stderr,
    ) -> None:
        self._kubernetes = kubernetes
        self._prebuilt = dict(prebuilt or {})
        self._controllers = controllers
        self._apiserver_flags = apiserver_flags
        self._registry_port = registry_port
        self._registry_environment = registry_environment
        self._registry_config = registry_config
        self._progress = progress
        self._binaries: dict[Tool, Path] = {}
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._set_up(cleanup)
            self._start()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @property
    def servers(self) -> tuple[ServerProcess, ...]:
        """All servers, in the order in which they need each other."""
        servers = (self.etcd, self.apiserver, self.controller_manager, self.registry)
        return tuple(server for server in servers if server is not None)

    def binary(self, tool: Tool) -> Path:
        """Return the path of a program: the cluster's own, or the one that `tools.provide` returns.

        Args:
            tool: Which one.
        """
        return self._binaries.get(tool) or provide(tool, progress=self._progress)

    def log_tails(self, lines: int = 15) -> str:
        """Return the ends of all servers' logs.

        Args:
            lines: How many of each.
        """
        return "\n".join(f"--- {server.name}\n{server.log_tail(lines)}" for server in self.servers)

    def kubectl(
        self, *arguments: str | Path, stdin: str | None = None, check: bool = True, kubeconfig: Path | None = None
    ) -> str:
        """Run kubectl and return what it printed.

        Args:
            arguments: Its arguments.
            stdin: What it reads; for ``-f -``.
            check: Whether it has to succeed; if not, what it said on stderr is returned too.
            kubeconfig: Whose access it uses; the administrator's if none is given.

        Raises:
            CommandFailed: It failed and had to succeed, or took longer than a minute.
        """
        command = [
            self._binaries[Tool.KUBECTL],
            f"--kubeconfig={kubeconfig or self.kubeconfig}",
            *arguments,
        ]
        return run_command(
            command,
            name=f"kubectl {' '.join(map(str, arguments))}",
            timeout=_COMMAND_TIMEOUT,
            stdin=stdin,
            check=check,
            # A HOME of its own: neither the user's preferences nor a cache about another server on this port.
            environment={"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder)},
        )

    def wait_established(self, crd: str = ARTIFACT_REPOSITORIES) -> None:
        """Wait until a CustomResourceDefinition is served.

        ``kubectl wait`` fails on a definition that has no conditions yet, as it is for a moment after it was created.

        Args:
            crd: Its name.

        Raises:
            CommandFailed: It is not served within half a minute.
        """
        established = 'jsonpath={.status.conditions[?(@.type=="Established")].status}'
        deadline = time.monotonic() + _ESTABLISHED_TIMEOUT
        while (status := self.kubectl("get", "crd", crd, "-o", established, check=False)) != "True":
            if time.monotonic() > deadline:
                raise CommandFailed(f"{crd} is not established after {_ESTABLISHED_TIMEOUT:g} s: {status}")
            time.sleep(_POLL_INTERVAL)

    def service_account_kubeconfig(self, namespace: str, name: str, duration: timedelta = timedelta(hours=1)) -> Path:
        """Return a kubeconfig with a fresh token of a service account.

        Args:
            namespace: The account's namespace.
            name: The account's name.
            duration: How long the token is good for; at least ten minutes.

        Raises:
            CommandFailed: There is no such account.
        """
        lifetime = f"--duration={int(duration.total_seconds())}s"
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", lifetime).strip()
        return self._write_kubeconfig(f"{namespace}.{name}", {"token": token}, namespace=namespace)

    def _set_up(self, cleanup: ExitStack) -> None:
        """Compose everything; nothing runs yet.

        Args:
            cleanup: Told, step by step, how to undo it.
        """
        tools = cluster_tools(self._kubernetes, controllers=self._controllers)
        missing = [tool for tool in tools if tool not in self._prebuilt]
        self._binaries = self._prebuilt | provide_all(missing, progress=self._progress)
        self.folder = Path(tempfile.mkdtemp(prefix="devcluster-"))
        cleanup.callback(shutil.rmtree, self.folder, ignore_errors=True)
        # If we are killed, the servers are too; they get a moment before the folder goes from under them.
        cleanup.callback(Lifeline(["sh", "-c", 'sleep 1; rm -rf -- "$1"', "sh", str(self.folder)]).release)

        authority = CertificateAuthority(self.folder / "certificates")
        self.ca_file = authority.ca_file
        serving = authority.issue("serving")
        # Members of this group may do anything, whatever RBAC says.
        admin = authority.issue("admin", organization="system:masters")
        token_key = authority.issue("service-account-tokens").key
        self.url = f"https://127.0.0.1:{free_port()}"
        self.kubeconfig = self._write_kubeconfig("admin", _client_certificate(admin))

        self.etcd, etcd_url = self._etcd(self._binaries[Tool.ETCD])
        apiserver = self._binaries[self._kubernetes.apiserver]
        self.apiserver = self._apiserver(apiserver, etcd_url, serving, admin, token_key)
        self.controller_manager = self._controller_manager(serving, token_key) if self._controllers else None
        registry = self._registry()
        self.registry, self.registry_url = registry.process, registry.url
        for server in self.servers:
            # Nobody will miss the data, so there is no need to ask them to end.
            cleanup.callback(server.kill)

    def _start(self) -> None:
        for server in (self.etcd, self.registry, self.apiserver):
            server.start()
        self.etcd.wait_until_ready()
        self.apiserver.wait_until_ready()
        if self.controller_manager is not None:
            # It gives up soon where there is no API server, so it cannot start beside it.
            self.controller_manager.start()
            self.controller_manager.wait_until_ready()
        self.registry.wait_until_ready()

    def _server(
        self, name: str, binary: Path, flags: Mapping[str, object], probes: Sequence[Probe], further: Sequence[str] = ()
    ) -> ServerProcess:
        directory = self.folder / name
        directory.mkdir()
        command: list[str | Path] = [binary, *(f"--{flag}={value}" for flag, value in flags.items()), *further]
        return ServerProcess(name, command, probes=probes, log=self.folder / f"{name}.log", directory=directory)

    def _etcd(self, binary: Path) -> tuple[ServerProcess, str]:
        url = f"http://127.0.0.1:{free_port()}"
        flags = {
            "data-dir": self.folder / "etcd" / "data",
            "listen-client-urls": url,
            "advertise-client-urls": url,
            # It has no peers, and wants an address for them all the same.
            "listen-peer-urls": "http://127.0.0.1:0",
            "initial-advertise-peer-urls": "http://127.0.0.1:0",
            "initial-cluster": "default=http://127.0.0.1:0",
            # The data need not survive the machine, only the process.
            "unsafe-no-fsync": "true",
        }
        return self._server("etcd", binary, flags, [Probe(f"{url}/health")]), url

    def _apiserver(
        self, binary: Path, etcd_url: str, serving: Certificate, admin: Certificate, token_key: Path
    ) -> ServerProcess:
        flags = {
            "etcd-servers": etcd_url,
            "bind-address": "127.0.0.1",
            "secure-port": self.url.rpartition(":")[2],
            "tls-cert-file": serving.certificate,
            "tls-private-key-file": serving.key,
            "client-ca-file": self.ca_file,
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": token_key,
            "service-account-signing-key-file": token_key,
            "service-cluster-ip-range": "10.0.0.0/24",
            # The Service `kubernetes` has nobody to lead to here; without a route to elsewhere, looking for an
            # address to advertise would fail.
            "advertise-address": "127.0.0.1",
            "endpoint-reconciler-type": "none",
            "cert-dir": self.folder / "kube-apiserver",
        }
        probes = [
            Probe(f"{self.url}/readyz", ca_file=self.ca_file),
            # Made by the server itself, a moment after it is ready.
            Probe(f"{self.url}/api/v1/namespaces/default", ca_file=self.ca_file, certificate=admin),
        ]
        return self._server("kube-apiserver", binary, flags, probes, self._apiserver_flags)

    def _controller_manager(self, serving: Certificate, token_key: Path) -> ServerProcess:
        port = free_port()
        flags = {
            "kubeconfig": self.kubeconfig,
            "controllers": ",".join(_CONTROLLERS),
            "leader-elect": "false",
            "service-account-private-key-file": token_key,
            "root-ca-file": self.ca_file,
            "bind-address": "127.0.0.1",
            "secure-port": port,
            "tls-cert-file": serving.certificate,
            "tls-private-key-file": serving.key,
            # Its default spares an API server that serves more than one test.
            "kube-api-qps": "200",
            "kube-api-burst": "400",
        }
        probes = [Probe(f"https://127.0.0.1:{port}/healthz", ca_file=self.ca_file)]
        binary = self._binaries[Tool.KUBE_CONTROLLER_MANAGER]
        return self._server("kube-controller-manager", binary, flags, probes)

    def _registry(self) -> Registry:
        return prepare_registry(
            RegistryKind.DISTRIBUTION_3,
            directory=self.folder / "registry",
            port=self._registry_port,
            program=self._binaries[Tool.DISTRIBUTION],
            environment=self._registry_environment,
            config=self._registry_config,
            progress=self._progress,
        )

    def _write_kubeconfig(self, name: str, user: Mapping[str, str], namespace: str = "default") -> Path:
        directory = self.folder / "kubeconfigs"
        directory.mkdir(exist_ok=True)
        path = directory / name
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        context = {"cluster": "devcluster", "user": name, "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "devcluster", "cluster": cluster}],
            "users": [{"name": name, "user": dict(user)}],
            "contexts": [{"name": "devcluster", "context": context}],
            "current-context": "devcluster",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(content, indent=2))  # JSON is YAML
        return path


def _client_certificate(certificate: Certificate) -> dict[str, str]:
    return {"client-certificate": str(certificate.certificate), "client-key": str(certificate.key)}
