"""Supervision of background tasks: whatever one of them raises, it goes on."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NoReturn

from controller.backoff import OPERATOR_BACKOFF
from controller.errors import KubernetesError
from controller.logs import Throttled

logger = logging.getLogger(__name__)

STEADY: Final = 10.0
"""Seconds after which work that ends counts as healthy: it is started again with the shortest delay."""


class Delays:
    """Delays between the attempts of one operation, never shorter than what the API server asked for.

    Args:
        rng: Source of jitter.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._delays: Iterator[float] = OPERATOR_BACKOFF.delays(rng)

    def next(self, error: BaseException | None = None) -> float:
        """Return the next delay, in seconds.

        Args:
            error: The failure of the last attempt, if it is known.
        """
        asked = error.retry_after if isinstance(error, KubernetesError) else 0.0
        return max(next(self._delays), asked)

    def reset(self) -> None:
        """Start over with the shortest delay."""
        self._delays = OPERATOR_BACKOFF.delays(self._rng)


async def run_forever(name: str, work: Callable[[], Awaitable[object]], *, rng: random.Random) -> NoReturn:
    """Run a background task until cancelled; start it again, after a backoff, whatever it raises.

    A background task handles the failures that it knows. This is for the others, such as a response that nobody
    expected: without it, one exception would end the process or, worse, only the task.

    Args:
        name: What it does, for the log.
        work: The task; called again whenever it ends.
        rng: Source of jitter.
    """
    log, delays = Throttled(logger), Delays(rng)
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            await work()
            delay = delays.next()
        except Exception as error:
            delay = delays.next(error)
            cause = (type(error), str(error))
            log.log(logging.ERROR, cause, "%s failed unexpectedly and is started again", name, exc_info=True)
        if loop.time() - started >= STEADY:
            delays.reset()
        await asyncio.sleep(delay)
