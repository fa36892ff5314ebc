"""Workers: the reconciles in progress, and how many there may be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Final

from controller.reconcile.workqueue import Priority

LOW_PRIORITY_SHARE: Final = 2
"""One worker in this many may process low-priority keys, so that new objects do not wait for resyncs."""

_MAX_RECONCILE: Final = 60.0
"""Maximum time that old connections are kept for reconciles that still use them, in seconds."""


class Workers:
    """Tasks of the reconciles in progress, limited per lane: a registry that hangs occupies only its own workers."""

    def __init__(self) -> None:
        self._busy: Counter[tuple[Hashable, Priority]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._afterwards: set[asyncio.Task[None]] = set()

    @property
    def are_busy(self) -> bool:
        """Whether reconciles are in progress."""
        return bool(self._tasks)

    def start(
        self, lane: Hashable, priority: Priority, work: Coroutine[Any, Any, None], *, on_done: Callable[[], None]
    ) -> None:
        """Start a reconcile.

        Args:
            lane: Its lane.
            priority: Its priority.
            work: The reconcile.
            on_done: Called when it has ended and its worker is free again.
        """

        def free(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._busy[lane, priority] -= 1
            on_done()

        task = asyncio.create_task(work)
        self._tasks.add(task)
        self._busy[lane, priority] += 1
        task.add_done_callback(free)

    def is_full(self, lane: Hashable, priority: Priority, *, at_most: int) -> bool:
        """Return whether a lane has no free worker for a priority.

        Args:
            lane: The lane.
            priority: The priority.
            at_most: The number of workers that the lane may have at present.
        """
        high, low = self._busy[lane, Priority.HIGH], self._busy[lane, Priority.LOW]
        return high + low >= at_most or (priority is Priority.LOW and low >= max(1, at_most // LOW_PRIORITY_SHARE))

    def after_these(self, action: Callable[[], Awaitable[None]]) -> None:
        """Do something in the background when the reconciles in progress have ended, or after a minute.

        Args:
            action: What to do.
        """
        task = asyncio.create_task(self._after(set(self._tasks), action))
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)

    @staticmethod
    async def _after(tasks: set[asyncio.Task[None]], action: Callable[[], Awaitable[None]]) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=_MAX_RECONCILE)
        await action()

    async def stop(self, *, grace: float) -> None:
        """Wait for the reconciles in progress, then cancel the rest.

        Args:
            grace: Maximum time to wait, in seconds.
        """
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for task in self._afterwards:
            task.cancel()
        await asyncio.gather(*self._afterwards, return_exceptions=True)
