"""A server can be watched and hurt, and does not outlive us."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devcluster.errors import ServerFailed
from devcluster.lifeline import Lifeline
from devcluster.process import Probe, ServerProcess, free_port
from tests.devcluster.observe import alive, eventually

_SERVER = """
import http.server, pathlib, signal, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

with pathlib.Path("starts").open("a") as starts:
    starts.write("x")
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

Make = Callable[..., ServerProcess]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return what makes a server, and end all that were made."""
    made: list[ServerProcess] = []

    def make_server(*arguments: str, script: str = _SERVER) -> ServerProcess:
        port = free_port()
        server = ServerProcess(
            "the server",
            [sys.executable, "-u", "-c", script, str(port), *arguments],
            probes=[Probe(f"http://127.0.0.1:{port}/")],
            log=tmp_path / "log",
            directory=tmp_path,
        )
        made.append(server)
        return server

    yield make_server
    for server in made:
        server.kill()


def answers(server: ServerProcess) -> bool:
    """Whether a server answers now."""
    return all(probe.succeeds() for probe in server._probes)


def test_starts_and_stops(make: Make) -> None:
    """In a ``with`` block it answers; after it, it is gone."""
    server = make()
    with server:
        pid = server.pid
        assert pid is not None
        assert answers(server)
    assert not server.running
    assert server.pid is None
    assert not alive(pid)


def test_restarts_on_the_same_port_with_the_same_data(make: Make, tmp_path: Path) -> None:
    """A restart is what a client sees of a server's update."""
    with make() as server:
        before = server.pid
        server.restart()
        assert server.pid != before
        assert answers(server)
        assert (tmp_path / "starts").read_text() == "xx"
        server.kill()
        assert not answers(server)
        server.start()
        server.wait_until_ready()
        assert answers(server)


def test_suspended_one_keeps_its_port_and_says_nothing(make: Make) -> None:
    """A hung server is another fault than a dead one; it can be stopped all the same."""
    with make() as server:
        server.suspend()
        assert not answers(server)
        assert server.running
        server.resume()
        assert answers(server)
        server.suspend()
        server.stop()
        assert not server.running


def test_one_that_ignores_sigterm_is_killed(make: Make) -> None:
    """Waiting for a server to end is bounded."""
    with make("stubborn") as server:
        server.stop(timeout=0.2)
        assert not server.running


def test_early_end_shows_the_log(make: Make) -> None:
    """A server that ends at its start tells why at once, not at the end of a deadline."""
    server = make(script="print('the port is taken'); raise SystemExit(4)")
    with pytest.raises(ServerFailed, match=r"(?s)the server ended with exit code 4 .*the port is taken"), server:
        pass


def test_one_that_does_not_get_ready_shows_the_log(make: Make) -> None:
    """Waiting is bounded, and what it said until then is shown."""
    server = make(script="print('waiting for a database'); import time; time.sleep(60)")
    server.start()
    eventually(lambda: "database" in server.log_tail(), "it has said something")
    with pytest.raises(ServerFailed, match=r"(?s)not ready within 0.5 s.*waiting for a database"):
        server.wait_until_ready(0.5)


def test_program_that_is_not_there(tmp_path: Path) -> None:
    """A program that cannot be run is told, too."""
    with pytest.raises(ServerFailed, match="could not be started"):
        ServerProcess("x", [tmp_path / "none"], probes=[], log=tmp_path / "log", directory=tmp_path).start()


def test_starting_twice_is_refused(make: Make) -> None:
    """Two processes cannot have one port."""
    with make() as server, pytest.raises(ServerFailed, match="runs already"):
        server.start()


def test_sees_nothing_of_the_users_settings(monkeypatch: pytest.MonkeyPatch, make: Make, tmp_path: Path) -> None:
    """A variable that the user has set for a server of theirs does not change ours."""
    monkeypatch.setenv("REGISTRY_HTTP_ADDR", "0.0.0.0:5000")
    server = make(script="import os; print(sorted(os.environ)); raise SystemExit(1)")
    with pytest.raises(ServerFailed), server:
        pass
    assert "REGISTRY_HTTP_ADDR" not in (tmp_path / "log").read_text()


_PARENT = """
import sys, time
from pathlib import Path
from devcluster.process import ServerProcess

folder = Path(sys.argv[1])
server = ServerProcess("sleeper", ["sleep", "60"], probes=[], log=folder / "log", directory=folder)
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_does_not_outlive_us(number: signal.Signals, tmp_path: Path) -> None:
    """Even ``kill -9`` on the test run leaves no server behind."""
    with subprocess.Popen([sys.executable, "-c", _PARENT, tmp_path], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(number)
        parent.wait(10)
    eventually(lambda: not alive(pid), "the server is gone")


def test_released_lifeline_does_nothing(tmp_path: Path) -> None:
    """Whoever has cleaned up says so, and nothing happens any more."""
    lifeline = Lifeline(["touch", str(tmp_path / "done")])
    lifeline.release()
    assert lifeline._shell.returncode == 0
    assert not (tmp_path / "done").exists()


def test_ports_are_not_those_of_outgoing_connections() -> None:
    """While a test holds a server stopped, no connection may take its port."""
    range_ = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not range_.exists():
        pytest.skip(f"this machine has no {range_}, which is Linux's")
    first_ephemeral = int(range_.read_text().split()[0])
    assert all(1024 < free_port() < first_ephemeral for _ in range(50))
