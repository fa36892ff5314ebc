"""How the program starts."""

import subprocess
import sys

_PROGRAM = """
import atexit, gc, sys
import controller.__main__ as program

def tell():
    print(gc.isenabled(), gc.get_freeze_count() > 10_000, sorted({"requests", "kopf"} & {*sys.modules}))

atexit.register(tell)
sys.argv[1:] = ["--version"]
program.main()
"""


def test_only_what_is_needed_is_imported() -> None:
    """The synchronous client stays away; the garbage collector works, but not on what imports have made."""
    answer = subprocess.run(
        [sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True, timeout=60, env={}
    )
    version, state = answer.stdout.splitlines()
    assert version.startswith("artifact-repository-controller ")
    assert state == "True True ['kopf']"


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
    """As PID 1 it would be discarded by the kernel, and the kubelet would have to kill the process 30 s later."""
    answer = subprocess.run(
        [sys.executable, "-c", _TERMINATED], check=False, capture_output=True, text=True, timeout=60, env={}
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
