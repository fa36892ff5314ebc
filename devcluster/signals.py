"""Ctrl-C and SIGTERM as one exception, so that everything is ended in order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A person or the system wants this process to end.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` once, where the main thread is, when SIGINT or SIGTERM comes.

    The ones after it are ignored: what follows is the clean-up, which is bounded, and a torn one leaves more behind.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
