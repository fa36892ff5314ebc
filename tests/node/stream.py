"""Objects that are created one after the other while something happens to the operator."""

import threading
import time
from collections.abc import Callable
from typing import Self

from tests.cluster.eventually import eventually
from tests.cluster.harness import History, Objects, is_ready

_EVERY = 0.25


class Stream:
    """Creates an object every quarter of a second until the end of the ``with`` block.

    Args:
        objects: Their namespace.
        tell: Returns what a person wants to see if some do not become Ready.
    """

    def __init__(self, objects: Objects, tell: Callable[[], str]) -> None:
        self._objects = objects
        self._tell = tell
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._create, name="stream", daemon=True)
        self._history = History(objects)
        self._created: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._history.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def waits(self, *, within: float = 60.0) -> list[float]:
        """Return for how long each object was not Ready; to be called after the block.

        Args:
            within: How many seconds the last ones have to become Ready.
        """
        self._objects.wait_all(is_ready, within=within, tell=self._tell)

        def seen() -> list[float] | None:
            ready = {name: self._history.first(name, is_ready) for name in self._created}
            found = [at - self._created[name] for name, at in ready.items() if at is not None]
            return found if len(found) == len(ready) else None

        try:
            return eventually(seen, what="the watch has seen all of them Ready")
        finally:
            self._history.__exit__()

    def _create(self) -> None:
        number = 0
        while not self._over.wait(_EVERY):
            name = f"stream-{number}"
            self._created[name] = time.monotonic()
            self._objects.create(name)
            number += 1
