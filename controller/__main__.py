"""Entry point: ``python -m controller``, and the console script ``artifact-repository-controller``."""

import ctypes
import gc
import signal
import sys
from typing import Final

from controller import NAME

_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 128 << 10
"""Size from which on glibc maps a block of its own by default, in bytes."""


def main() -> None:
    """Run the command line.

    A SIGTERM handler is installed before the imports, which take half a second: in a container this process is PID 1,
    and the kernel discards a signal for which PID 1 has no handler.
    """
    signal.signal(signal.SIGTERM, _exit_before_start)
    _map_large_blocks()
    # Imports create many objects and hardly any garbage: exclude these objects from garbage collection for good.
    gc.disable()
    from controller.cli import main as command_line  # noqa: PLC0415 - imports everything else

    gc.freeze()
    gc.enable()
    command_line(prog_name=NAME)


def _map_large_blocks() -> None:
    """Keep large blocks, such as pages of objects, out of the heap for good.

    By default, glibc raises the threshold to the size of any larger block that is freed. The next pages then leave
    gaps in the heap, and it grows with each resync.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have no such threshold
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def _exit_before_start(*_: object) -> None:
    """Exit cleanly: nothing has been started yet."""
    sys.exit(0)


if __name__ == "__main__":
    main()
