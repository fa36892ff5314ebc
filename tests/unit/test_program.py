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
