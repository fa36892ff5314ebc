"""The servers of a node, and how this process reaches two of them."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from devcluster.node.access import Access
from devcluster.node.addresses import NODE_ADDRESS, NODE_NAME, REGISTRY_ADDRESS
from devcluster.node.configuration import Command, Configuration
from devcluster.node.namespaces import Namespaces
from devcluster.process import Probe, ReadinessCheck, ServerProcess

_RELAY = Path(__file__).with_name("relay.py")
_PROBE_TIMEOUT = 5.0


class Servers:
    """All servers of a node; none of them runs before `start`.

    Args:
        namespaces: Where they run.
        access: Who is who.
        cleanup: Ends them.

    Attributes:
        url: The API server, on this machine's loopback.
        registry_url: The registry, likewise.
        audit_log: Where the API server notes each request.
        etcd: A server, for faults: stop, kill, suspend, restart. So are all that follow.
    """

    def __init__(self, namespaces: Namespaces, access: Access, cleanup: ExitStack) -> None:
        self._namespaces = namespaces
        self._access = access
        self.audit_log = namespaces.logs / "audit.log"
        ports, self._relay = self._make_relay([f"{NODE_ADDRESS}:6443", f"{REGISTRY_ADDRESS}:5000"], cleanup)
        self.url, self.registry_url = f"https://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"

        configuration = Configuration(namespaces.folder / "config", namespaces.folder / "bin", access)
        self.etcd = self._server("etcd", configuration.etcd())
        apiserver = configuration.apiserver(self.audit_log)
        self.apiserver = self._server("kube-apiserver", apiserver, self._probe("/readyz"))
        account = self._probe("/api/v1/namespaces/default/serviceaccounts/default")
        self.controller_manager = self._server("kube-controller-manager", configuration.controller_manager(), account)
        self.scheduler = self._server("kube-scheduler", configuration.scheduler())
        runtime = Succeeds(namespaces.node, "ctr", "version")
        self.containerd = self._server("containerd", configuration.containerd(), runtime)
        self.kubelet = self._server("kubelet", configuration.kubelet(), self._probe(f"/api/v1/nodes/{NODE_NAME}"))
        self.proxy = self._server("kube-proxy", configuration.proxy())
        self.dns = self._server("coredns", configuration.dns())
        self.registry = self._server(
            "registry",
            configuration.registry(namespaces.folder / "registry"),
            Probe(f"{self.registry_url}/v2/"),
            where=namespaces.laptop,
            # It would try to send traces to a collector on this machine.
            environment={"OTEL_TRACES_EXPORTER": "none"},
        )
        for server in (self._relay, *self):
            cleanup.callback(server.kill)

    def __iter__(self) -> Iterator[ServerProcess]:
        """Return all of them, in the order in which they need each other."""
        control_plane = (self.etcd, self.apiserver, self.controller_manager, self.scheduler)
        return iter((*control_plane, self.containerd, self.kubelet, self.proxy, self.dns, self.registry))

    def start(self, with_containerd: Callable[[], None]) -> None:
        """Start all of them and wait until they are ready.

        Args:
            with_containerd: Called as soon as containerd is ready; it should not block.

        Raises:
            ServerFailed: One of them did not get ready; the message has the end of its log.
        """
        for server in (self.etcd, self._relay, self.registry, self.apiserver, self.containerd):
            server.start()
        self.containerd.wait_until_ready()
        with_containerd()
        self.apiserver.wait_until_ready()
        # Some of these give up soon where there is no API server.
        clients = (self.controller_manager, self.scheduler, self.proxy, self.dns, self.kubelet)
        for server in clients:
            server.start()
        for server in (*clients, self.registry):
            server.wait_until_ready()

    def _server(
        self,
        name: str,
        command: Command,
        *probes: ReadinessCheck,
        where: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> ServerProcess:
        return ServerProcess(
            name,
            [where or self._namespaces.node, *command],
            probes=probes,
            log=self._namespaces.logs / f"{name}.log",
            directory=self._namespaces.folder,
            environment=environment,
            pass_fds=pass_fds,
        )

    def _probe(self, path: str) -> Probe:
        return Probe(f"{self.url}{path}", ca_file=self._access.ca_file, certificate=self._access.admin)

    def _make_relay(self, addresses: Sequence[str], cleanup: ExitStack) -> tuple[Sequence[int], ServerProcess]:
        """Return the ports of loopback by which addresses of the node are reached, and the process that does it."""
        listeners = []
        for _ in addresses:
            listener = cleanup.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            listeners.append(listener)
        arguments = [f"{one.fileno()}={address}" for one, address in zip(listeners, addresses, strict=True)]
        relay = self._server(
            "relay",
            [f"--net=/proc/{self._namespaces.pid}/ns/net", "--", sys.executable, _RELAY, *arguments],
            where="nsenter",
            pass_fds=[one.fileno() for one in listeners],
        )
        return [one.getsockname()[1] for one in listeners], relay


class Succeeds:
    """A readiness check: a command succeeds.

    Args:
        command: Program and arguments.
    """

    def __init__(self, *command: str | Path) -> None:
        self._command = command

    def succeeds(self) -> bool:
        """Run it once."""
        try:
            answer = subprocess.run(self._command, capture_output=True, check=False, timeout=_PROBE_TIMEOUT)  # noqa: S603 - ours
        except subprocess.TimeoutExpired:
            return False
        return answer.returncode == 0
