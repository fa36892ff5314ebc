"""The configuration file while the operator runs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from controller.binding import RegistryBinding
from controller.configfollower import ConfigFollower
from controller.errors import BindingConfigInvalid
from controller.reconcile.interfaces import RepositoryRegistry
from tests.unit.reconcile.world import MemoryRegistry, World


class Followed:
    """A configuration file that is followed.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.world = World()
        self.path = path
        self.applied = 0
        self.on_applied: Callable[[], object] = lambda: None
        self.write()
        self.follower = self.new_follower()

    def new_follower(self) -> ConfigFollower:
        """Return what the next term of leadership follows the file with."""
        return ConfigFollower(
            self.path,
            registries=self.world.pool,
            on_applied=self._apply,
            events=self.world.events,
            metrics=self.world.metrics,
            interval=0.01,
        )

    async def _apply(self) -> None:
        self.applied += 1
        result = self.on_applied()
        if asyncio.iscoroutine(result):
            await result

    def write(self, url: str = "http://registry:5000", **timings: str) -> None:
        """Write a file with one registry."""
        config = {"defaultRegistry": "artifacts", "registries": {"artifacts": {"registryUrl": url}}, "timings": timings}
        self.path.write_text(yaml.safe_dump(config))

    @property
    def good(self) -> float | None:
        """The gauge that the alert uses; None if it is not exported."""
        return self.world.metrics.registry.get_sample_value("artifact_repository_config_good")

    def loads(self, result: str) -> float | None:
        """Return how many changes had a result."""
        labels = {"result": result}
        return self.world.metrics.registry.get_sample_value("artifact_repository_config_loads_total", labels)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true."""
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def followed(tmp_path: Path) -> AsyncIterator[Followed]:
    """Return a file that is followed."""
    followed = Followed(tmp_path / "config.yaml")
    running = asyncio.create_task(followed.follower.run())
    yield followed
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await followed.world.controller.stop(grace=0)


async def test_the_gauge_is_exported_while_the_file_is_followed(tmp_path: Path) -> None:
    """A standby, and a process that has lost the Lease, export nothing that hides or repeats what the leader knows."""
    followed = Followed(tmp_path / "config.yaml")
    assert followed.good is None
    for _ in range(2):
        running = asyncio.create_task(followed.follower.run())
        await followed.until(lambda: followed.good == 1)
        followed.path.write_text("broken")
        await followed.until(lambda: followed.good == 0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert followed.good is None
        followed.write()
        followed.follower = followed.new_follower()
    await followed.world.controller.stop(grace=0)


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), BindingConfigInvalid("artifacts", "no such file")])
async def test_whatever_goes_wrong_the_last_good_one_is_kept(followed: Followed, error: Exception) -> None:
    """An exception while a configuration is applied is reported, and the next one is applied."""
    connect = followed.world.pool._connect

    def refuse(name: str, binding: RegistryBinding) -> RepositoryRegistry:
        del name, binding
        raise error

    before = followed.world.pool.config
    followed.world.pool._connect = refuse
    followed.write("http://elsewhere:5000")
    await followed.until(lambda: followed.good == 0)
    assert followed.world.pool.config is before
    assert (followed.loads("invalid"), followed.applied) == (1, 0)
    assert followed.world.events.seen == [("operator", "InvalidConfiguration")]
    followed.world.pool._connect = connect
    await followed.until(lambda: followed.applied == 1)
    assert (followed.good, followed.loads("good")) == (1, 1)
    assert followed.world.pool["artifacts"].binding.registry_url == "http://elsewhere:5000"


async def test_a_reload_with_impossible_durations_is_reported(followed: Followed) -> None:
    """99999999999h is no OverflowError, and 1ms no flood."""
    for interval in ("99999999999h", "1ms"):
        followed.write(resyncInterval=interval)
        await followed.until(lambda: followed.good == 0)
        followed.write()
        await followed.until(lambda: followed.good == 1)
    assert followed.loads("invalid") == 2


@pytest.mark.parametrize("how", ["hangs", "fails"])
async def test_a_change_is_applied_while_the_one_before_is_still_spread(followed: Followed, how: str) -> None:
    """Objects that cannot be listed, or whatever else takes long, do not keep the file from being followed."""

    def spread() -> object:
        followed.on_applied = lambda: None
        if how == "fails":
            raise ZeroDivisionError
        return asyncio.sleep(1e6)

    followed.on_applied = spread
    followed.write("http://one:5000")
    await followed.until(lambda: followed.applied == 1)
    followed.write("http://two:5000")
    await followed.until(lambda: followed.applied == 2)
    assert followed.world.pool["artifacts"].binding.registry_url == "http://two:5000"


async def test_clients_of_a_configuration_that_is_not_applied_are_closed(followed: Followed) -> None:
    """Of two new registries the second one cannot be connected: nothing is left of the first one."""
    closed: list[str] = []

    class Client(MemoryRegistry):
        """A client that tells when it is closed."""

        async def close(self) -> None:
            """Note it."""
            closed.append("first")

    def connect(name: str, binding: RegistryBinding) -> RepositoryRegistry:
        if name == "second":
            raise BindingConfigInvalid(name, binding.registry_url)
        return Client()

    pool = followed.world.pool
    pool._connect = connect
    registries = {name: {"registryUrl": f"http://{name}:5000"} for name in ("first", "second")}
    followed.path.write_text(yaml.safe_dump({"defaultRegistry": "first", "registries": registries}))
    await followed.until(lambda: followed.good == 0)
    assert next(iter(pool)).name == "artifacts"
    await pool.close()
    assert "first" in closed
