"""Start of the program."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import atexit, gc, sys
import controller.__main__ as program

def report():
    print(gc.isenabled(), gc.get_freeze_count() > 10_000)

atexit.register(report)
sys.argv[1:] = ["--version"]
program.main()
"""


def test_imported_objects_are_frozen() -> None:
    """The garbage collector is enabled and skips the objects that imports created."""
    answer = subprocess.run(
        [sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True, timeout=60, env={}
    )
    version, state = answer.stdout.splitlines()
    assert version.startswith("artifact-repository-controller ")
    assert state == "True True"


_LARGE_BLOCKS = """
import atexit, ctypes, sys
import controller.__main__ as program

class Figures(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", *"123456")]

def mapped():
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Figures
    return mallinfo().hblks

def report():
    bytes(16 << 20)
    before = mapped()
    block = bytes(1 << 20)
    print(mapped() - before)

atexit.register(report)
sys.argv[1:] = ["--version"]
program.main()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such threshold")
def test_large_blocks_are_not_in_the_heap() -> None:
    """A large block is mapped by itself even after a larger one was freed, so it leaves no gap in the heap."""
    answer = subprocess.run(
        [sys.executable, "-c", _LARGE_BLOCKS], check=True, capture_output=True, text=True, timeout=60, env={}
    )
    assert answer.stdout.splitlines()[1] == "1"


_TERMINATED = """
import os, signal, sys

class Terminator:
    def find_spec(self, name, path, target=None):
        if name == "controller.cli":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Terminator())
import controller.__main__ as program

sys.argv[1:] = ["run"]
program.main()
"""


def test_sigterm_during_the_imports_ends_it_cleanly() -> None:
    """SIGTERM during the imports ends the process with code 0; PID 1 without a handler would ignore it."""
    answer = subprocess.run(
        [sys.executable, "-c", _TERMINATED], check=False, capture_output=True, text=True, timeout=60, env={}
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


_MANY = "".join(f"  registry-{number}: {{registryURL: x, credentials: {{basic: {{}}}}}}\n" for number in range(50))
_REFUSED = {
    "a field": ("registries: {a: {registryURL: b}}", "registries.a.registryUrl: required, but missing"),
    "many fields": (f"registries:\n{_MANY}", "registries.registry-0.registryUrl: required, but missing"),
    "a long name": (f"registries: {{a: {{{'b' * 1000}: c}}}}", "registries.a.bbb"),
    "no YAML": ("registries: [", "not valid YAML: while parsing a flow node"),
    "no file": (None, "no such file"),
}


@pytest.mark.parametrize(("text", "said"), _REFUSED.values(), ids=_REFUSED.keys())
def test_a_refused_configuration_shows_in_the_pod(text: str | None, said: str, tmp_path: Path) -> None:
    """Of a container that failed the kubelet keeps the end of the log, 80 lines and 2048 bytes: the whole entry."""
    config = tmp_path / "config.yaml"
    if text is not None:
        config.write_text(f"defaultRegistry: a\n{text}\n")
    command = [sys.executable, "-m", "controller", "run", f"--config={config}", "--log-format=json"]
    done = subprocess.run([*command, "--leader-elect"], capture_output=True, check=False, timeout=60, env={})
    assert done.returncode == 1
    shown = b"".join(done.stderr.splitlines(keepends=True)[-80:])[-2048:].decode()
    message = json.loads(shown)["message"]
    assert message.startswith(f"{config}: ")
    assert said in message
