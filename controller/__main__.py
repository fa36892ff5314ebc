"""Entry point: ``python -m controller``, and the console script ``artifact-repository-controller``."""

import gc
import signal
import sys

from controller import NAME


def main() -> None:
    """Run the command line.

    A SIGTERM handler is installed before the imports, which take half a second: in a container this process is PID 1,
    and the kernel discards a signal for which PID 1 has no handler.
    """
    signal.signal(signal.SIGTERM, _exit_before_start)
    # Imports create many objects and hardly any garbage: exclude these objects from garbage collection for good.
    gc.disable()
    from controller.cli import main as command_line  # noqa: PLC0415 - imports everything else

    gc.freeze()
    gc.enable()
    command_line(prog_name=NAME)


def _exit_before_start(*_: object) -> None:
    """Exit cleanly: nothing has been started yet."""
    sys.exit(0)


if __name__ == "__main__":
    main()
