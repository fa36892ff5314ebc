"""Supervised background tasks: they go on whatever they raise, and wait as long as the API server asks."""

import asyncio
import random

import pytest

from controller.errors import KubernetesUnavailable
from controller.supervision import Delays, run_forever

pytestmark = pytest.mark.looptime


async def test_a_task_is_started_again_after_any_exception(caplog: pytest.LogCaptureFixture) -> None:
    """With a backoff: about 120 times in an hour; each cause is logged with a trace at first, then seldom."""
    starts = 0

    async def work() -> None:
        nonlocal starts
        starts += 1
        await asyncio.sleep(0)
        raise KeyError("items") if starts % 2 else OverflowError("too long")

    task = asyncio.create_task(run_forever("The work", work, rng=random.Random(1)))
    await asyncio.sleep(3600)
    assert not task.done()
    task.cancel()
    assert 100 < starts < 300
    assert len(caplog.records) <= 2
    assert all(record.exc_info for record in caplog.records)


async def test_work_that_ends_is_no_loop(caplog: pytest.LogCaptureFixture) -> None:
    """Work that returns is started again with a backoff, too."""
    starts = 0

    async def work() -> None:
        nonlocal starts
        starts += 1

    task = asyncio.create_task(run_forever("The work", work, rng=random.Random(1)))
    await asyncio.sleep(600)
    task.cancel()
    assert starts < 60
    assert caplog.messages == []


def test_delays_are_no_shorter_than_what_the_api_server_asks() -> None:
    """Retry-After is the lower bound; the backoff still grows."""
    delays = Delays(random.Random(1))
    assert delays.next(KubernetesUnavailable("busy", status=429, retry_after=20)) == 20
    for _ in range(10):
        assert delays.next(KubernetesUnavailable("busy", status=429)) <= 30
    assert delays.next(KubernetesUnavailable("busy", status=429, retry_after=1)) >= 15
    delays.reset()
    assert delays.next() <= 1
