"""The program: ``python -m controller``, and the console script ``artifact-repository-controller``."""

import gc
import signal
import sys
from importlib.util import find_spec, module_from_spec


def main() -> None:
    """Run the command line.

    Signals are handled before the imports, which take half a second: the kernel discards a SIGTERM that PID 1, as which
    a container's process runs, has no handler for.
    """
    signal.signal(signal.SIGTERM, _exit_before_start)
    # Imports make a great many objects, and hardly any garbage: neither they nor what comes later has to wait until the
    # collector has looked at them all.
    gc.disable()
    _leave_out_synchronous_client()
    from controller.cli import main as command_line  # noqa: PLC0415 - it imports all the rest

    gc.freeze()
    gc.enable()
    command_line(prog_name="artifact-repository-controller")


def _exit_before_start(*_: object) -> None:
    """End cleanly: nothing has been started yet."""
    sys.exit(0)


def _leave_out_synchronous_client() -> None:
    """Have ``kubernetes`` imported without its ``__init__``, so that ``kubernetes.aio`` comes alone.

    ``__init__`` imports the synchronous client, with requests, oauthlib and websocket: a tenth of the start, and 7 MB.
    """
    spec = find_spec("kubernetes")
    if spec is not None:
        sys.modules.setdefault("kubernetes", module_from_spec(spec))


if __name__ == "__main__":
    main()
