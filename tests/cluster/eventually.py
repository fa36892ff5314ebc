"""The one way in which tests wait."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    look: Callable[[], T | None], *, within: float = 20.0, tell: Callable[[], str] = str, what: str = ""
) -> T:
    """Return what ``look`` returns as soon as that is true.

    Args:
        look: Returns something true, or something false as long as it has to be waited for. May raise AssertionError
            instead.
        within: For how many seconds.
        tell: Returns what a person wants to see when it did not happen: statuses, ends of logs.
        what: What is waited for.

    Raises:
        AssertionError: The time is over.
    """
    deadline = time.monotonic() + within
    pause = 0.02
    while True:
        problem = ""
        try:
            if seen := look():
                return seen
        except AssertionError as error:
            problem = f": {error}"
        if time.monotonic() > deadline:
            raise AssertionError(
                f"{what or 'what was waited for'} did not happen within {within:g} s{problem}\n{tell()}"
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
