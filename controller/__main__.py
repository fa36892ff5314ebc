"""The program: ``python -m controller``, and the console script ``artifact-repository-controller``."""

import gc
import sys
from importlib.util import find_spec, module_from_spec


def main() -> None:
    """Run the command line, and have its imports done sooner: a waiting object waits for them, too."""
    # Imports make a great many objects, and hardly any garbage: neither they nor what comes later has to wait until the
    # collector has looked at them all.
    gc.disable()
    _leave_out_synchronous_client()
    from controller.cli import main as command_line  # noqa: PLC0415 - it imports all the rest

    gc.freeze()
    gc.enable()
    command_line(prog_name="artifact-repository-controller")


def _leave_out_synchronous_client() -> None:
    """Have ``kubernetes`` imported without its ``__init__``, so that ``kubernetes.aio`` comes alone.

    ``__init__`` imports the synchronous client, with requests, oauthlib and websocket: a tenth of the start, and 7 MB.
    """
    spec = find_spec("kubernetes")
    if spec is not None:
        sys.modules.setdefault("kubernetes", module_from_spec(spec))


if __name__ == "__main__":
    main()
