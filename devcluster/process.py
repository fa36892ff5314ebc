"""A server as a child process: started, watched, hurt on purpose, and ended whatever happens to us."""

import http.client
import os
import random
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

from devcluster.certificates import Certificate
from devcluster.errors import ServerFailed
from devcluster.lifeline import Lifeline
from devcluster.progress import tail

READY_TIMEOUT = 60.0
# An API server would wait for its open watches for a minute.
STOP_TIMEOUT = 3.0

_PROBE_TIMEOUT = 2.0
_POLL_SECONDS = 0.05
# For the kernel to end what it was told to kill.
_KILL_TIMEOUT = 10.0
# Below what Linux and macOS give to outgoing connections, so that no connection takes the port of a server that a
# test holds stopped, and above what well-known services listen on.
_PORTS = range(20_000, 32_000)
_PORT_TRIES = 100


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on.

    Raises:
        ServerFailed: A hundred tries in a row were taken.
    """
    for port in random.sample(_PORTS, _PORT_TRIES):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerFailed(f"no free port found between {_PORTS.start} and {_PORTS.stop}")


@dataclass(frozen=True)
class Probe:
    """A GET request whose answer tells that a server is ready.

    Args:
        url: Where to.
        ready: The status codes that mean ready.
        ca_file: The CA that an https server has to be verified by.
        certificate: What an https server gets to see from us.
    """

    url: str
    ready: range = range(200, 300)
    ca_file: Path | None = None
    certificate: Certificate | None = None

    def succeeds(self) -> bool:
        """Ask once, within two seconds, past any proxy of the environment."""
        url = urlsplit(self.url)
        host, port = url.hostname or "", url.port
        connection = http.client.HTTPConnection(host, port, timeout=_PROBE_TIMEOUT)
        if url.scheme == "https":
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate.certificate, self.certificate.key)
            connection = http.client.HTTPSConnection(host, port, timeout=_PROBE_TIMEOUT, context=context)
        try:
            connection.request("GET", url.path)
            return connection.getresponse().status in self.ready
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class ReadinessCheck(Protocol):
    """Tells whether a server is ready."""

    def succeeds(self) -> bool:
        """Look once, within about two seconds."""
        ...


class ServerProcess:
    """A server in a process group of its own, on a fixed port, with a log.

    The same object can be started again after it was stopped or killed: the command, and with it port and data, stay.
    If this process dies without stopping it, ``kill -9`` included, the server is killed (see `Lifeline`).

    Args:
        name: How messages call it.
        command: Program and arguments.
        probes: It is ready when all of them succeed.
        log: Where its output goes; added to by every start.
        directory: Its working directory, and its HOME.
        environment: All it gets to see besides PATH and HOME, so that nothing of the user's settings changes it.
        pass_fds: File descriptors of ours that it inherits.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        probes: Sequence[ReadinessCheck],
        log: Path,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._probes = probes
        self._directory = directory
        self._pass_fds = pass_fds
        self._environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(directory), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.exit_code: int | None = None
        """How it ended last, once it was stopped or killed; negative: by a signal of that number."""
        self._lifeline: Lifeline | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process is there, ready or not, suspended or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it without waiting until it is ready.

        Raises:
            ServerFailed: It runs already, or could not be started.
        """
        if self.running:
            raise ServerFailed(f"{self.name} runs already")
        self._reap()
        try:
            with self.log.open("ab") as output:
                self._process = subprocess.Popen(  # noqa: S603 - commands are composed in this package
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._directory,
                    env=self._environment,
                    pass_fds=self._pass_fds,
                    start_new_session=True,  # Ctrl-C is for us; we stop it in order
                )
        except OSError as error:
            raise ServerFailed(f"{self.name} could not be started: {error}") from error
        self._lifeline = Lifeline(["kill", "-s", "KILL", "--", f"-{self._process.pid}"])

    def wait_until_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Wait until all probes succeed.

        Args:
            timeout: For how many seconds.

        Raises:
            ServerFailed: It ended first, or the time is over; the message has the end of its log.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process is None or (code := self._process.poll()) is not None:
                what = "was not started" if self._process is None else f"ended with exit code {code}"
                raise ServerFailed(f"{self.name} {what} before it was ready. {self._end_of_log()}")
            if all(probe.succeeds() for probe in self._probes):
                return
            time.sleep(_POLL_SECONDS)
        raise ServerFailed(f"{self.name} was not ready within {timeout:g} s. {self._end_of_log()}")

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Ask it to end (SIGTERM) and wait; kill it if it does not. Does nothing if it does not run.

        Args:
            timeout: How many seconds it has.
        """
        if self._process is not None and self.running:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a suspended process would act on SIGTERM only when resumed
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
        self._reap()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would. Does nothing if it does not run."""
        self._signal(signal.SIGKILL)
        self._reap()

    def suspend(self) -> None:
        """Stop its clock (SIGSTOP): connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended one go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def restart(self, timeout: float = READY_TIMEOUT) -> None:
        """Stop it if it runs, start it again on the same port with the same data, and wait until it is ready.

        Args:
            timeout: How many seconds it has to get ready.

        Raises:
            ServerFailed: It did not get ready.
        """
        self.stop()
        self.start()
        self.wait_until_ready(timeout)

    def log_tail(self, lines: int = 30) -> str:
        """Return the last lines of its log."""
        return tail(self.log, lines)

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            # The group: its id is the process's own, which is not reaped yet, so it cannot be anybody else's.
            os.killpg(self._process.pid, number)

    def _reap(self) -> None:
        if self._process is not None:
            self.exit_code = self._process.wait(_KILL_TIMEOUT)
            self._process = None
        if self._lifeline is not None:
            self._lifeline.release()
            self._lifeline = None

    def _end_of_log(self) -> str:
        return f"The end of its log:\n{self.log_tail()}"
