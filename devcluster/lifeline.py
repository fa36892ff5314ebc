"""What happens when this process is gone before it could clean up."""

import subprocess
from collections.abc import Sequence

# A read that fails means end of file: the only writer, our process, is gone. A line means that it said goodbye.
_WATCH = 'read -r _ || "$@"'
_RELEASE_TIMEOUT = 5.0


class Lifeline:
    """A shell that waits for the end of this process, and then runs one command.

    Nothing inside a process can clean up after ``kill -9``. Linux has PR_SET_PDEATHSIG for that, but it fires when
    the *thread* that started a child ends, so a server restarted from a worker thread of a test would die with that
    thread; and setting it takes code between fork and exec, which Python warns about once there are threads. A pipe
    has neither trouble: the kernel closes our end, however we end.

    Args:
        command: What to run if this process ends without `release`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._shell = subprocess.Popen(  # noqa: S603 - our own command, in a shell only for `read`
            ["/bin/sh", "-c", _WATCH, "lifeline", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal must not end it before us
        )

    def release(self) -> None:
        """Say that nothing is left to clean up: the command is not run."""
        try:
            self._shell.communicate(b"released\n", timeout=_RELEASE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._shell.kill()
            self._shell.wait()
