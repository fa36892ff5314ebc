"""The controller with everything around it in memory; minutes of outage pass in milliseconds (looptime)."""

import asyncio
import gc
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio

from controller.addresses import RegistryHosting
from controller.api.conditions import ConditionType
from controller.api.v1alpha1 import ArtifactRepository, Key
from controller.binding import RegistryBinding
from controller.config import Timings
from controller.errors import (
    AccessDenied,
    AuthenticationFailed,
    BindingConfigInvalid,
    Conflict,
    KubernetesError,
    KubernetesUnavailable,
    LeadershipLost,
    LoginRefused,
    NameRefused,
    ProtocolViolation,
    PushFailed,
    RegistryError,
    RegistryReadOnly,
    RegistryUnavailable,
    TLSVerificationFailed,
)
from controller.reconcile.concurrency import MINIMUM
from controller.reconcile.registries import ManagedRegistry
from controller.reconcile.workqueue import Priority
from tests.unit.objects import make_config
from tests.unit.reconcile.world import MemoryRegistry, World

pytestmark = [pytest.mark.looptime]

LOOK_UP = ("look up latest of artifacts/team/web", "http://registry:5000")
LOOK_UP_OF_OTHERS = ("look up latest of artifacts/team-b/secret", "http://registry:5000")
DAMAGED = RegistryUnavailable(*LOOK_UP, "500 Internal Server Error", status=500)
DOWN = RegistryUnavailable(*LOOK_UP, "connection refused")
RECONCILING, STALLED = ConditionType.RECONCILING, ConditionType.STALLED
URL = {"registryUrl": "http://registry:5000"}


class NoLuck(random.Random):
    """Draws the longest of all delays."""

    def uniform(self, a: float, b: float) -> float:
        """Return the upper bound."""
        return max(a, b)


def is_ready(world: World, key: Key) -> bool:
    """Return whether an object is Ready."""
    return world.ready(key)[0] == "True"


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    """Return a world with one registry."""
    world = World()
    yield world
    await world.controller.stop(grace=0)


async def test_a_create_is_one_write(world: World) -> None:
    """One question to the registry, one write, and the queue is empty again."""
    key = world.put("web")
    await asyncio.sleep(1)
    assert world.ready(key) == ("True", "RepositoryReady")
    assert world.store.writes == [key]
    assert world.registry.asked == ["team/web"]


async def test_verifying_again_writes_nothing(world: World) -> None:
    """In the steady state a look costs a question to the registry and no write."""
    key = world.put("web")
    await asyncio.sleep(1)
    for _ in range(10):
        await world.verify_all()
        await asyncio.sleep(1)
    assert world.store.writes == [key]
    assert len(world.registry.asked) == 11


async def test_no_more_than_so_many_at_once() -> None:
    """``--concurrent`` bounds what is under way."""
    world = World(concurrent=3)
    for number in range(20):
        world.put(f"repo-{number}")
    await asyncio.sleep(1)
    assert world.registry.most_busy == 3
    assert len(world.store.writes) == 20
    await world.controller.stop(grace=0)


async def test_a_new_object_does_not_wait_until_others_are_verified() -> None:
    """What nobody waits for gets half of the workers, so there is always one for what somebody waits for."""
    world = World(concurrent=8)
    for number in range(20):
        world.put(f"repo-{number}")
    await asyncio.sleep(1)
    world.registry.latency, world.registry.most_busy = 10, 0
    await world.verify_all()
    await asyncio.sleep(5)
    assert world.registry.most_busy == 4
    new = world.put("new")
    await asyncio.sleep(11)
    assert world.ready(new)[0] == "True"
    await world.controller.stop(grace=0)


async def test_a_vanished_repository_is_made_again_and_told(world: World) -> None:
    """Drift: the repository is there again, an event and a counter say so, and status stays as it was."""
    key = world.put("web")
    await asyncio.sleep(1)
    world.registry.repositories.clear()
    await world.verify_all()
    await asyncio.sleep(1)
    assert world.registry.repositories == {"team/web"}
    assert world.events.seen == [("web", "RepositoryRecreated")]
    assert (
        world.metrics.registry.get_sample_value("artifact_repository_drift_repairs_total", {"registry": "artifacts"})
        == 1
    )
    assert world.store.writes == [key]


async def test_a_registry_that_moved_is_no_drift(world: World) -> None:
    """At another address the repository is made, and nothing had vanished."""
    key = world.put("web")
    await asyncio.sleep(1)
    world.registry.repositories.clear()
    world.pool.configure(make_config({"artifacts": {"registryUrl": "http://elsewhere:5000"}}))
    await world.controller.reconfigured()
    await world.verify_all()
    await asyncio.sleep(1)
    assert world.store.read(key).status["uri"] == "elsewhere:5000/artifacts/team/web"
    assert world.events.seen == []


async def test_a_configuration_that_cannot_be_used_changes_nothing(world: World) -> None:
    """A registry's client cannot be made: the others stay as they are, and so does the configuration."""
    before = world.pool.config

    def refuse(name: str, binding: RegistryBinding) -> MemoryRegistry:
        raise BindingConfigInvalid(name, binding.registry_url)

    world.pool._connect = refuse
    with pytest.raises(BindingConfigInvalid):
        world.pool.configure(make_config({"artifacts": URL, "new": {"registryUrl": "http://new:5000"}}))
    assert world.pool.config is before
    key = world.put("web")
    await asyncio.sleep(1)
    assert world.ready(key) == ("True", "RepositoryReady")


async def test_an_edited_status_is_healed(world: World) -> None:
    """Whatever somebody wrote into status is put right, and another owner's condition stays."""
    key = world.put("web")
    await asyncio.sleep(1)
    good = world.store.read(key).status
    foreign = {"type": "example.com/X", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "t"}
    world.store.touch(key, {**good, "uri": "evil", "references": {}, "conditions": [foreign]})
    await world.verify_all()
    await asyncio.sleep(1)
    healed = world.store.read(key).status
    assert healed["uri"] == good["uri"]
    assert healed["references"] == good["references"]
    assert foreign in healed["conditions"]
    assert world.ready(key) == ("True", "RepositoryReady")


@pytest.mark.parametrize(
    "failure",
    [
        RegistryUnavailable(
            *LOOK_UP_OF_OTHERS,
            "500 (UNKNOWN: no space for artifacts/team-b/secret)",
            status=500,
            codes=("UNKNOWN",),
        ),
        RegistryUnavailable(*LOOK_UP_OF_OTHERS, "503 (team-b/secret is busy)", status=503, retry_after=60),
        PushFailed(*LOOK_UP_OF_OTHERS, "507 (team-b/secret is full)", status=507),
        LoginRefused(*LOOK_UP_OF_OTHERS, "401 (no secret in team-b)", advice="check the password", status=401),
    ],
    ids=["error", "retry-after", "full", "login"],
)
async def test_a_shared_failure_names_no_repository_of_others(world: World, failure: RegistryError) -> None:
    """Objects that wait for a registry are told of endpoint and cause, not whose request has failed."""
    world.registry.error = failure
    world.registry.ping_error = DOWN
    for number in range(5):
        world.put(f"secret-{number}", namespace="team-b")
    await asyncio.sleep(1)  # before the first probe, whose failure would replace theirs
    keys = [world.put(f"web-{number}") for number in range(20)]
    asked = len(world.registry.asked)
    await asyncio.sleep(0.3)
    assert len(world.registry.asked) == asked  # they were told without a request
    for key in keys:
        status = json.dumps(world.store.read(key).status)
        assert "http://registry:5000: " in status
        assert "team-b" not in status
        assert "secret" not in status


async def test_many_failing_objects_of_a_tenant_do_not_delay_the_message_of_another(world: World) -> None:
    """Failures are written at a limited rate, which namespaces share; in the end each object has its message."""
    many = [world.put(f"bad-{number}", {"registry": "unknown"}, namespace="busy") for number in range(3000)]
    await asyncio.sleep(5)
    told = sum(world.ready(key)[0] is not None for key in many)
    assert told < 1000
    only = world.put("typo", {"registry": "unknown"}, namespace="calm")
    await asyncio.sleep(1)
    assert world.ready(only) == ("False", "UnknownRegistry")
    await world.until(lambda: all(world.ready(key)[0] == "False" for key in many), every=1)
    assert len(world.store.writes) == 3001
    await world.controller.stop(grace=0)


async def test_a_new_object_in_an_outage(world: World) -> None:
    """It is told at once what is wrong, becomes Stalled at the deadline, and Ready after the registry is back."""
    world.registry.error = DOWN
    key = world.put("web")
    await asyncio.sleep(30)
    assert world.ready(key) == ("False", "RegistryUnavailable")
    assert world.has(key, RECONCILING)
    await asyncio.sleep(600)
    assert world.has(key, STALLED)
    assert not world.has(key, RECONCILING)
    await asyncio.sleep(3600)
    assert len(world.store.writes) == 2
    world.registry.error = None
    await asyncio.sleep(30)
    assert world.ready(key) == ("True", "RepositoryReady")
    assert not world.has(key, STALLED)
    assert len(world.store.writes) == 3


async def test_a_blip_costs_ready_objects_nothing(world: World) -> None:
    """Half a minute without the registry: not a write, not an event."""
    keys = [world.put(f"repo-{number}") for number in range(10)]
    await asyncio.sleep(1)
    world.registry.error = DOWN
    await world.verify_all()
    await asyncio.sleep(30)
    world.registry.error = None
    await asyncio.sleep(60)
    assert len(world.store.writes) == len(keys)
    assert world.events.seen == []


async def test_a_long_outage_costs_each_object_three_writes_and_one_event_pair(world: World) -> None:
    """Ready, Unknown, Stalled, Ready, also for objects that nobody touched; the registry is only probed meanwhile."""
    keys = [world.put(f"repo-{number}") for number in range(100)]
    await asyncio.sleep(5)
    world.registry.error = DOWN
    world.put("unlucky")
    await asyncio.sleep(120)
    assert {world.ready(key) for key in keys} == {("Unknown", "RegistryUnavailable")}
    assert all("uri" in world.store.read(key).status for key in keys)
    await asyncio.sleep(600)
    assert all(world.has(key, STALLED) for key in keys)
    asked, pings = len(world.registry.asked), world.registry.pings
    await asyncio.sleep(3600)
    assert len(world.registry.asked) == asked
    assert 3600 / 7.5 <= world.registry.pings - pings <= 3600 / 2.5
    world.registry.error = None
    await asyncio.sleep(30)
    assert {world.ready(key) for key in keys} == {("True", "RepositoryReady")}
    assert not any(world.has(key, STALLED) for key in keys)
    assert all(world.store.writes.count(key) == 1 + 3 for key in keys)
    own = [event for event in world.events.seen if event[0] == "operator"]
    assert own == [("operator", "RegistryUnavailable"), ("operator", "RegistryAvailable")]
    assert Counter(world.events.seen)["repo-0", "RegistryUnavailable"] == 1
    assert Counter(world.events.seen)["repo-0", "RepositoryReady"] == 1


async def test_failures_are_written_at_a_bounded_rate(world: World) -> None:
    """A thousand objects do not write at the same moment."""
    world.registry.error = DOWN
    for number in range(1000):
        world.put(f"repo-{number}")
    await asyncio.sleep(1)
    assert 50 <= len(world.store.writes) <= 110
    await asyncio.sleep(12)
    assert len(world.store.writes) == 1000


async def test_recovery_goes_step_by_step(world: World) -> None:
    """One object tries before the others go on, and they do at 500 a second."""
    world.registry.error = DOWN
    for number in range(1000):
        world.put(f"repo-{number}")
    await asyncio.sleep(100)
    asked = len(world.registry.asked)
    world.registry.latency = 0.2
    world.registry.error = None
    await world.until(lambda: len(world.registry.asked) > asked)
    await asyncio.sleep(0.15)
    assert len(world.registry.asked) == asked + 1
    world.registry.latency = 0.001
    await asyncio.sleep(1)
    assert len(world.registry.asked) < asked + 600
    await asyncio.sleep(10)
    assert {world.ready(key) for key in world.store.bodies} == {("True", "RepositoryReady")}


async def test_a_registry_that_answers_probes_but_no_writes(world: World) -> None:
    """Full disk: each probe lets one object try, not all of them; Ready objects are verified, and not written."""
    ready = [world.put(f"ready-{number}") for number in range(20)]
    await asyncio.sleep(1)
    world.registry.write_error = PushFailed(*LOOK_UP, "500 (no space left on device)", status=500)
    keys = [world.put(f"repo-{number}") for number in range(50)]
    await asyncio.sleep(20)
    asked = len(world.registry.asked)
    await asyncio.sleep(60)
    assert len(world.registry.asked) - asked < 60
    for _ in range(20):
        await world.verify_all()
        await asyncio.sleep(60)
    assert all(world.store.writes.count(key) == 1 for key in ready)
    assert {world.ready(key) for key in ready} == {("True", "RepositoryReady")}
    assert all(world.has(key, STALLED) and world.store.writes.count(key) == 2 for key in keys)
    world.registry.write_error = None
    await asyncio.sleep(30)
    assert {world.ready(key) for key in keys} == {("True", "RepositoryReady")}


async def test_a_prober_that_may_not_ask_any_more_ends_in_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leadership is lost while a probe is under way: no task dies of it, and when it is won again, all goes on."""
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))

    async def refused() -> None:
        raise LeadershipLost("this process no longer holds the Lease")

    world.registry.error = DOWN
    key = world.put("web")
    await asyncio.sleep(20)
    with monkeypatch.context() as patch:
        patch.setattr(world.registry, "ping", refused)
        await asyncio.sleep(20)
        gc.collect()
    assert problems == []
    world.registry.error = None
    await world.verify_all()
    await asyncio.sleep(60)
    assert world.ready(key) == ("True", "RepositoryReady")


async def test_a_registry_that_fails_again_while_its_prober_takes_leave(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of an outage is told while the next one begins: it has a prober, too, and its objects go on with it."""
    world.put("first")
    await asyncio.sleep(1)
    world.registry.error = DOWN
    later: list[Key] = []
    told = world.outage_ended

    async def slowly(registry: ManagedRegistry) -> None:
        await told(registry)
        world.registry.error = DOWN
        later.append(world.put("second"))
        await asyncio.sleep(20)

    world.put("unlucky")
    await asyncio.sleep(120)
    monkeypatch.setattr(world, "outage_ended", slowly)
    world.registry.error = None
    await world.until(lambda: bool(later))
    await asyncio.sleep(25)
    assert world.ready(later[0]) == ("False", "RegistryUnavailable")
    world.registry.error = None
    await asyncio.sleep(15)
    assert world.ready(later[0]) == ("True", "RepositoryReady")


@pytest.mark.parametrize(("tenants", "delay"), [(["a"], 0.1), (["a", "b"], 15)])
async def test_bad_repositories_of_others_delay_little(world: World, tenants: list[str], delay: float) -> None:
    """One namespace's bad repositories open no breaker; with two, a third one has the next trial."""
    world.put("first", namespace="calm")
    await asyncio.sleep(1)
    for tenant in tenants:
        for number in range(100):
            world.registry.damaged[f"{tenant}/bad-{number}"] = DAMAGED
            world.put(f"bad-{number}", namespace=tenant)
    for number in range(10):
        await asyncio.sleep(7)
        started = world.clock.monotonic()
        key = world.put(f"new-{number}", namespace="calm")
        await world.until(partial(is_ready, world, key))
        assert world.clock.monotonic() - started < delay


async def test_slow_repositories_of_others_delay_little(world: World) -> None:
    """Behind three hundred slow objects of one namespace, another one's new object takes three reconciles at most."""
    world.registry.latency = 2
    for number in range(300):
        world.put(f"slow-{number}", namespace="busy")
    for number in range(5):
        await asyncio.sleep(3.1)
        started = world.clock.monotonic()
        key = world.put(f"new-{number}", namespace="calm")
        await world.until(partial(is_ready, world, key))
        assert world.clock.monotonic() - started <= 3 * world.registry.latency


async def test_retry_after_of_one_repository_delays_that_one(world: World) -> None:
    """It is not asked again before the time that the registry named; others are served."""
    world.put("first", namespace="calm")
    await asyncio.sleep(1)
    limited = RegistryUnavailable(*LOOK_UP, "429 Too Many Requests", status=429, retry_after=100)
    world.registry.damaged["team/limited"] = limited
    world.put("limited")
    for number in range(9):
        await asyncio.sleep(10)
        assert world.registry.asked.count("team/limited") == 1
        key = world.put(f"new-{number}")
        await asyncio.sleep(0.1)
        assert world.ready(key)[0] == "True"
    await asyncio.sleep(70)
    assert world.registry.asked.count("team/limited") == 2


async def test_a_failure_of_one_repository_names_it(world: World) -> None:
    """The message has the path, which is perhaps the only one that fails; an outage is reported without one."""
    world.put("first", namespace="calm")
    world.registry.damaged["team/bad"] = DAMAGED
    key = world.put("bad")
    await asyncio.sleep(0.1)
    ready = world.store.read(key).condition(ConditionType.READY)
    assert (
        ready["message"]
        == "http://registry:5000: artifacts/team/bad: 500 Internal Server Error; check the registry's logs"
    )


async def test_a_dead_registry_does_not_slow_another_one_down() -> None:
    """While one registry times out, objects in another one are served at once."""
    world = World(make_config({"artifacts": URL, "other": URL}))
    world.registry.error = DOWN
    world.registry.latency = 10
    for number in range(100):
        world.put(f"stuck-{number}")
    await asyncio.sleep(60)
    started = world.clock.monotonic()
    key = world.put("quick", {"registry": "other"})
    await world.until(lambda: world.ready(key)[0] == "True")
    assert world.clock.monotonic() - started < 0.2
    await world.controller.stop(grace=0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TLSVerificationFailed(*LOOK_UP, "certificate has expired"), "TLSVerificationFailed"),
        (AuthenticationFailed(*LOOK_UP, "401 Unauthorized", status=401), "AuthenticationFailed"),
        (AccessDenied(*LOOK_UP, "403 Forbidden", status=403), "AccessDenied"),
        (RegistryReadOnly(*LOOK_UP, "405 Method Not Allowed", status=405), "RegistryReadOnly"),
        (NameRefused(*LOOK_UP, "404 Not Found", status=404), "NameNotSupported"),
        (ProtocolViolation(*LOOK_UP, "200 with text/html, not a manifest", status=200), "UnexpectedAnswer"),
        (RegistryError(*LOOK_UP, "400 Bad Request", status=400), "UnexpectedAnswer"),
    ],
)
async def test_each_error_has_its_reason_and_says_what_to_check(
    world: World, error: RegistryError, reason: str
) -> None:
    """What went wrong, what to do, and retried until it is mended."""
    world.registry.error = error
    key = world.put("web")
    await asyncio.sleep(20)
    assert world.ready(key) == ("False", reason)
    assert world.has(key, RECONCILING)
    message = world.store.read(key).condition(ConditionType.READY)["message"]
    assert message.startswith(f"http://registry:5000: {error.cause}; ")
    world.registry.error = None
    await asyncio.sleep(300)
    assert world.ready(key) == ("True", "RepositoryReady")


async def test_refusals_are_retried_slowly(world: World) -> None:
    """What a person has to mend is not asked for again every second."""
    world.registry.error = AccessDenied(*LOOK_UP, "403 Forbidden", status=403)
    world.put("web")
    await asyncio.sleep(3600)
    assert len(world.registry.asked) < 60


async def test_what_only_spec_can_mend_is_not_retried() -> None:
    """Stalled at once; a look costs nothing, and a namesake with a good name is served."""
    world = World(make_config({"artifacts": URL | {"repositoryPolicy": "Namespaced"}}))
    key = world.put("web", {"repositoryName": "other/x"})
    await asyncio.sleep(3600)
    assert world.ready(key) == ("False", "PolicyViolation")
    assert world.has(key, STALLED)
    assert world.registry.asked == []
    assert world.store.writes == [key]
    await world.controller.stop(grace=0)


async def test_a_registry_that_is_taken_from_a_namespace_and_given_back(world: World) -> None:
    """Stalled at once and without a request, in that namespace only; Ready again with the same repository."""
    key, other = world.put("web"), world.put("web", namespace="other")
    await asyncio.sleep(1)
    uri, asked = world.store.read(key).status["uri"], len(world.registry.asked)

    async def configure(**binding: list[str]) -> None:
        world.pool.configure(make_config({"artifacts": URL | binding}))
        await world.controller.reconfigured()
        await world.verify_all()
        await asyncio.sleep(1)

    await configure(namespaces=["oth*"])
    assert world.ready(key) == ("False", "RegistryNotAllowed")
    assert world.has(key, STALLED)
    assert world.ready(other) == ("True", "RepositoryReady")
    await asyncio.sleep(3600)
    assert world.registry.asked[asked:].count("team/web") == 0
    await configure()
    assert world.ready(key) == ("True", "RepositoryReady")
    assert world.store.read(key).status["uri"] == uri
    assert world.store.writes == [key, other, key, key]


async def test_a_namespace_that_creates_too_many_repositories() -> None:
    """Its objects wait with a reason of their own, one write each, and are created in turn; others are unaffected."""
    world = World(make_config(creations={"perSecond": 2, "burst": 5}))
    keys = [world.put(f"repo-{number}") for number in range(25)]
    await asyncio.sleep(1.2)
    other = world.put("web", namespace="other")
    await asyncio.sleep(0.2)
    assert world.ready(other) == ("True", "RepositoryReady")
    states = Counter(world.ready(key) for key in keys)
    assert states == {("True", "RepositoryReady"): 7, ("False", "CreationRateLimited"): 18}
    waiting = next(key for key in keys if not is_ready(world, key))
    assert world.has(waiting, RECONCILING)
    await asyncio.sleep(5)
    assert sum(is_ready(world, key) for key in keys) == 17
    await world.verify_all()  # verifications take no turn
    await asyncio.sleep(4.5)
    assert all(is_ready(world, key) for key in keys)
    assert len(world.store.writes) == 25 + 20 + 1
    await world.controller.stop(grace=0)


async def test_creating_and_deleting_in_a_loop() -> None:
    """Each repository counts that was created; an object that is deleted while it waits gives its turn back."""
    world = World(make_config(creations={"perSecond": 1, "burst": 5}))
    for number in range(100):
        key = world.put(f"loop-{number}")
        await asyncio.sleep(0.1)
        world.delete(key)
    assert len(world.registry.repositories) <= 5 + 10
    key = world.put("honest")
    await asyncio.sleep(2)
    assert is_ready(world, key)
    await world.controller.stop(grace=0)


async def test_only_creations_take_a_turn() -> None:
    """Repositories that exist are adopted without one, and failures of the registry take none."""
    world = World(make_config(creations={"perSecond": 0.001, "burst": 1}))
    world.registry.repositories |= {f"team/repo-{number}" for number in range(50)}
    for number in range(50):
        key = world.put(f"repo-{number}")
        await asyncio.sleep(0.1)
        assert is_ready(world, key)
    world.registry.error = DOWN
    key = world.put("new")
    await asyncio.sleep(100)
    assert world.ready(key) == ("False", "RegistryUnavailable")
    world.registry.error = None
    await asyncio.sleep(100)
    assert is_ready(world, key)
    await world.controller.stop(grace=0)


async def test_new_limits_apply_to_objects_that_wait() -> None:
    """As any other change of the configuration."""
    world = World(make_config(creations={"perSecond": 0.001, "burst": 1}))
    keys = [world.put(f"repo-{number}") for number in range(5)]
    await asyncio.sleep(1)
    assert sum(is_ready(world, key) for key in keys) == 1
    world.pool.configure(make_config())
    await world.controller.reconfigured()
    await world.verify_all()
    await asyncio.sleep(1)
    assert all(is_ready(world, key) for key in keys)
    await world.controller.stop(grace=0)


async def test_an_unknown_registry_is_found_when_it_is_configured(world: World) -> None:
    """The object waits, is told what there is, and goes on after the configuration has changed."""
    key = world.put("web", {"registry": "later"})
    await asyncio.sleep(20)
    assert world.ready(key) == ("False", "UnknownRegistry")
    world.pool.configure(make_config({"artifacts": URL, "later": URL}))
    await world.controller.reconfigured()
    await world.verify_all()
    await asyncio.sleep(1)
    assert world.ready(key) == ("True", "RepositoryReady")


async def test_reconfiguring_in_an_outage(world: World) -> None:
    """A registry that is down is given another address: objects that wait for it go on at once."""
    world.registry.error = DOWN
    key = world.put("web")
    await asyncio.sleep(60)
    world.registries["artifacts"].error = None
    world.pool.configure(make_config({"artifacts": {"registryUrl": "http://elsewhere:5000"}}))
    await world.controller.reconfigured()
    await asyncio.sleep(1)
    assert world.ready(key) == ("True", "RepositoryReady")
    assert world.store.read(key).status["uri"] == "elsewhere:5000/artifacts/team/web"


@pytest.mark.parametrize("error", [KubernetesUnavailable("500", status=500), KubernetesError("422", status=422)])
async def test_a_write_that_fails_is_tried_again(world: World, error: KubernetesError) -> None:
    """Nothing is lost when the API server has a bad moment."""
    world.store.errors = [error] * 5
    key = world.put("web")
    await asyncio.sleep(120)
    assert world.ready(key) == ("True", "RepositoryReady")
    assert world.store.writes == [key]


async def test_a_message_whose_write_was_not_answered_is_not_written_again(world: World) -> None:
    """The object has the message, but the operator has decided on others since: only their detail differs."""
    world.registry.error = RegistryUnavailable(*LOOK_UP, "503 Service Unavailable", status=503)
    answers = iter([False])

    def lose_the_first() -> None:
        if not next(answers, True):
            world.registry.error = DOWN
            raise KubernetesUnavailable("no response")

    world.store.after_write = lose_the_first
    key = world.put("web")
    await asyncio.sleep(60)
    assert world.ready(key) == ("False", "RegistryUnavailable")
    assert world.store.writes == [key]


async def test_who_may_not_write_any_more_does_not() -> None:
    """Asked between the registry's answer and the write: nothing is written, and the object is not lost."""
    world = World()
    world.may_write = False
    key = world.put("web")
    await asyncio.sleep(10)
    assert world.registry.asked
    assert world.store.writes == []
    world.may_write = True
    await asyncio.sleep(60)
    assert world.store.writes == [key]
    await world.controller.stop(grace=0)


async def test_failed_writes_do_not_count_as_failures_of_the_registry(world: World) -> None:
    """After minutes without the API server, a moment without the registry leaves a Ready object Ready."""
    key = world.put("web")
    await asyncio.sleep(1)
    world.store.touch(key, {**world.store.read(key).status, "uri": "edited"})
    world.store.errors = [KubernetesUnavailable("500", status=500)] * 1000
    await world.verify_all()
    await asyncio.sleep(300)
    world.store.errors = []
    world.registry.error = AccessDenied(*LOOK_UP, "403 Forbidden", status=403)
    await asyncio.sleep(40)
    assert world.ready(key) == ("True", "RepositoryReady")
    await asyncio.sleep(80)
    assert world.ready(key) == ("Unknown", "AccessDenied")


@pytest.mark.parametrize("failures", [3, 8])
async def test_backoffs_of_registry_and_api_server_are_separate(world: World, failures: int) -> None:
    """An object whose registry has failed often is written without delay when it can be, and the reverse."""
    world.controller._rng = NoLuck()
    world.registry.error = AccessDenied(*LOOK_UP, "403 Forbidden", status=403)
    key = world.put("web")
    for _ in range(failures):
        asked = len(world.registry.asked)
        await world.until(lambda asked=asked: len(world.registry.asked) > asked, every=0.1)  # type: ignore[misc]
    world.registry.error = None
    world.store.errors = [KubernetesUnavailable("500", status=500)]
    asked = len(world.registry.asked)
    await world.until(lambda: len(world.registry.asked) > asked, every=0.1)
    await asyncio.sleep(0.3)
    assert world.ready(key) == ("True", "RepositoryReady")


@pytest.mark.parametrize("reason", ["AccessDenied", "AuthenticationFailed", "UnexpectedAnswer", "UnknownRegistry"])
async def test_a_second_of_any_failure_leaves_a_ready_object_ready(world: World, reason: str) -> None:
    """Nothing is written before unavailableAfter has passed, and then it is Unknown."""
    errors: dict[str, RegistryError] = {
        "AccessDenied": AccessDenied(*LOOK_UP, "403 Forbidden", status=403),
        "AuthenticationFailed": AuthenticationFailed(*LOOK_UP, "401 Unauthorized", status=401),
        "UnexpectedAnswer": ProtocolViolation(*LOOK_UP, "200 with text/html, not a manifest", status=200),
    }
    key = world.put("web")
    await asyncio.sleep(1)
    for seconds, expected in ((1, ("True", "RepositoryReady")), (70, ("Unknown", reason))):
        world.registry.error = errors.get(reason)
        if reason == "UnknownRegistry":
            world.pool.configure(make_config({"other": URL}, defaultRegistry="other"))
            await world.controller.reconfigured()
        await world.verify_all()
        await asyncio.sleep(seconds)
        assert world.ready(key) == expected
        world.registry.error = None
        world.pool.configure(make_config())
        await world.controller.reconfigured()
        await world.verify_all()
        await asyncio.sleep(20)
        assert world.ready(key) == ("True", "RepositoryReady")
    assert world.store.writes == [key] * 3


async def test_a_fixed_spec_shows_progress_again(world: World) -> None:
    """An object that was Stalled is Reconciling for its new generation, for as long as the first time."""
    world.registry.error = AccessDenied(*LOOK_UP, "403 Forbidden", status=403)
    key = world.put("web")
    await asyncio.sleep(1000)
    assert world.has(key, STALLED)
    world.put("web", {"repositoryName": "team/fixed"})
    await asyncio.sleep(500)
    assert world.has(key, RECONCILING)
    assert not world.has(key, STALLED)
    await asyncio.sleep(150)
    assert world.has(key, STALLED)


async def test_a_failing_probe_that_nobody_foresaw(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The prober ends with a trace, and objects find their way back without it."""

    async def fail() -> None:
        raise ZeroDivisionError

    world.registry.error = DOWN
    key = world.put("web")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.registry, "ping", fail)
        await asyncio.sleep(60)
    world.registry.error = None
    await asyncio.sleep(600)
    assert world.ready(key) == ("True", "RepositoryReady")
    assert "Probing registry 'artifacts' failed unexpectedly" in caplog.text


async def test_an_unexpected_exception_after_a_conflict_loses_no_object(world: World) -> None:
    """Reading the object again fails in a way that nobody foresaw: its key is not in flight for ever."""

    async def fail(_: Key) -> ArtifactRepository:
        raise ZeroDivisionError

    world.store.errors = [Conflict("changed", status=409)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.store, "get", fail)
        key = world.put("web")
        await asyncio.sleep(1)
    await asyncio.sleep(30)
    assert world.ready(key) == ("True", "RepositoryReady")


async def test_a_cancelled_reconcile_is_not_in_flight(world: World) -> None:
    """Whatever ends a reconcile, its key can be reconciled again."""
    world.registry.latency = 10
    key = world.put("web")
    await asyncio.sleep(1)
    for task in world.controller._workers._tasks:
        task.cancel()
    await asyncio.sleep(30)
    assert world.ready(key) == ("True", "RepositoryReady")


async def test_a_registry_that_hangs_does_not_delay_a_change_for_another_one() -> None:
    """A new address of one registry is in the status of its objects while requests to the other one hang."""
    world = World(make_config({"artifacts": URL, "slow": URL}))
    key = world.put("web")
    await asyncio.sleep(1)
    world.registries["slow"].latency = 30
    world.put("stuck", {"registry": "slow"})
    await asyncio.sleep(1)
    world.pool.configure(make_config({"artifacts": {"registryUrl": "http://moved:5000"}, "slow": URL}))
    await world.controller.reconfigured()
    await world.verify_all()
    await asyncio.sleep(0.1)
    assert world.store.read(key).status["uri"] == "moved:5000/artifacts/team/web"
    assert world.pool.retired
    await asyncio.sleep(60)
    assert not world.pool.retired
    await world.controller.stop(grace=0)


async def test_a_change_reaches_objects_in_flight(world: World) -> None:
    """An object that is reconciled with the old configuration is reconciled again at once, without an event."""
    world.registry.latency = 5
    key = world.put("web")
    await asyncio.sleep(1)
    world.pool.configure(make_config({"artifacts": {"registryUrl": "http://moved:5000"}}))
    await world.controller.reconfigured()
    await world.verify_all()
    await asyncio.sleep(10)
    assert world.store.read(key).status["uri"] == "moved:5000/artifacts/team/web"


async def test_an_object_that_changes_its_registry_while_queued_is_served_at_once() -> None:
    """It leaves the queue of the registry that hangs."""
    world = World(make_config({"artifacts": URL, "slow": URL}), concurrent=2)
    world.registries["slow"].latency = 1000
    for number in range(5):
        world.put(f"stuck-{number}", {"registry": "slow"})
    await asyncio.sleep(1)
    key = world.put("stuck-4")
    await asyncio.sleep(0.1)
    assert world.ready(key) == ("True", "RepositoryReady")
    await world.controller.stop(grace=0)


async def test_shortened_timings_take_effect_at_once(world: World) -> None:
    """A prober, a patience and a deadline that were long end when the new ones do."""
    timings = {"probeInterval": "1h", "unavailableAfter": "24h", "progressDeadline": "168h"}
    world.pool.configure(make_config(timings=timings))
    ready = world.put("web")
    await asyncio.sleep(1)
    world.registry.error = DOWN
    new = world.put("new")
    await world.verify_all()
    await asyncio.sleep(100)
    assert (world.ready(ready)[0], world.has(new, RECONCILING), world.registry.pings) == ("True", True, 0)
    world.pool.configure(make_config(timings={"unavailableAfter": "1m", "progressDeadline": "2m"}))
    await world.controller.reconfigured()
    await world.verify_all()
    await asyncio.sleep(30)
    assert world.ready(ready)[0] == "Unknown"
    assert world.registry.pings > 2
    await asyncio.sleep(30)
    assert world.has(new, STALLED)
    assert sorted(world.events.seen) == [(name, "RegistryUnavailable") for name in ("new", "operator", "web")]


async def test_a_shortened_resync_interval_takes_effect_at_once(world: World) -> None:
    """A resync that would have been due in a week is due after the new interval."""
    interval = 7 * 24 * 3600.0
    key = world.put("web")
    resync = asyncio.create_task(world.resync(interval=lambda: interval).run())
    await asyncio.sleep(15)
    world.registry.repositories.clear()
    interval = 60.0
    await asyncio.sleep(120)
    resync.cancel()
    assert world.registry.repositories == {"team/web"}
    assert world.ready(key) == ("True", "RepositoryReady")


async def test_log_entries_about_an_object(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """One for the first Ready, each change of spec, recreation and new reason of a failure; none in between."""
    caplog.set_level("INFO", "controller.reconcile.reports")

    def logged() -> list[tuple[str, str, str, str, str]]:
        entries = [
            (record.levelname, record.__dict__["fields"]) for record in caplog.records if "fields" in vars(record)
        ]
        caplog.clear()
        return [(level, *(fields[n] for n in ("namespace", "name", "registry", "reason"))) for level, fields in entries]

    about = ("team", "web", "artifacts")
    world.put("web")
    await asyncio.sleep(1)
    assert logged() == [("INFO", *about, "RepositoryReady")]
    await world.verify_all()
    await asyncio.sleep(1)
    assert logged() == []
    world.registry.repositories.clear()
    await world.verify_all()
    await asyncio.sleep(1)
    assert logged() == [("INFO", *about, "RepositoryRecreated")]
    world.put("web", {"repositoryName": "team/web"})
    await asyncio.sleep(1)
    assert logged() == [("INFO", *about, "RepositoryReady")]
    world.registry.error = AccessDenied(*LOOK_UP, "403 Forbidden", status=403)
    await world.verify_all()
    await asyncio.sleep(1000)
    assert logged() == [("WARNING", *about, "AccessDenied")]
    world.registry.error = AuthenticationFailed(*LOOK_UP, "401 Unauthorized", status=401)
    await asyncio.sleep(1000)
    assert logged() == [("WARNING", *about, "AuthenticationFailed")]
    world.registry.error = None
    await asyncio.sleep(1000)
    assert logged() == []


async def test_events_about_an_object(world: World) -> None:
    """None when it is created and stays Ready; one for each new reason of a failure, and one when it is Ready again."""
    world.put("web")
    await asyncio.sleep(1)
    await world.verify_all()
    await asyncio.sleep(1)
    world.put("web", {"repositoryName": "team/web"})
    await asyncio.sleep(1)
    assert world.events.seen == []
    world.registry.error = AccessDenied(*LOOK_UP, "403 Forbidden", status=403)
    await world.verify_all()
    await asyncio.sleep(1000)
    assert world.events.seen == [("web", "AccessDenied")]
    world.registry.error = AuthenticationFailed(*LOOK_UP, "401 Unauthorized", status=401)
    await asyncio.sleep(1000)
    world.registry.error = None
    await asyncio.sleep(1000)
    assert world.events.seen[1:] == [("web", "AuthenticationFailed"), ("web", "RepositoryReady")]
    world.put("web", {"suspend": True})
    await asyncio.sleep(1)
    world.put("web")
    await asyncio.sleep(1)
    assert len(world.events.seen) == 3


async def test_a_blip_is_no_event(world: World) -> None:
    """A failure that passes before status says so is not reported, as it is not written."""
    world.put("web")
    await asyncio.sleep(1)
    world.registry.error = AccessDenied(*LOOK_UP, "403 Forbidden", status=403)
    await world.verify_all()
    await asyncio.sleep(5)
    world.registry.error = None
    await asyncio.sleep(1000)
    assert world.events.seen == []


async def test_a_foreign_condition_added_in_between_survives(world: World) -> None:
    """Somebody writes between our decision and our write: the newest state is read, and decided on anew."""
    foreign = {"type": "example.com/X", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "t"}
    key = Key("team", "web")

    def add_once() -> None:
        world.store.before_write = lambda: None
        world.store.touch(key, {"observedGeneration": -1, "conditions": [foreign]})

    world.store.before_write = add_once
    world.put("web")
    await asyncio.sleep(10)
    assert world.ready(key) == ("True", "RepositoryReady")
    assert foreign in world.store.read(key).status["conditions"]
    assert world.store.writes == [key]


async def test_who_has_changed_an_object_often_waits_no_longer(world: World) -> None:
    """Twenty changes, each between our decision and our write, and no event: served two seconds after the last one."""
    key = Key("team", "web")
    changes: list[ArtifactRepository] = []
    world.controller._rng = NoLuck()

    def change() -> None:
        if len(changes) < 20:
            changes.append(world.store.put("web"))

    world.store.before_write = change
    world.put("web")
    await world.until(lambda: len(changes) == 20)
    await asyncio.sleep(2.5)
    assert world.ready(key) == ("True", "RepositoryReady")
    assert world.store.writes == [key]


async def test_a_namesake_is_not_written_with_old_facts(world: World) -> None:
    """Deleted and created again between decision and write: the new object is decided on by its own spec."""
    key = Key("team", "web")

    def swap() -> None:
        world.store.before_write = lambda: None
        world.delete(key)
        world.put("web", {"suspend": True})

    world.store.before_write = swap
    world.put("web")
    await asyncio.sleep(10)
    assert world.ready(key) == ("False", "Suspended")
    assert len(world.store.writes) == 1


async def test_a_namesake_survives_news_of_the_one_before_it(world: World) -> None:
    """Deleted and created again; the watch tells of the new one first: it is served, counted, and not forgotten."""
    key = world.put("web")
    await asyncio.sleep(1)
    changed, gone = world.store.put("web"), world.store.remove(key)
    world.put("web", {"repositoryName": "team/new"})
    world.controller.enqueue(changed, Priority.HIGH)
    world.controller.deleted(gone)
    await asyncio.sleep(10)
    assert world.ready(key) == ("True", "RepositoryReady")
    assert world.store.read(key).status["repositoryName"] == "team/new"
    world.controller.deleted(gone)
    labels = {"condition": "Ready", "status": "True"}
    assert world.metrics.registry.get_sample_value("artifact_repository_objects", labels) == 1


async def test_a_deleted_object_is_forgotten(world: World) -> None:
    """Whether the watch tells, the write finds out, or only a list shows it."""
    told, found, missed = world.put("told"), world.put("found"), world.put("missed")
    await asyncio.sleep(1)
    world.delete(told)
    del world.store.bodies[found]
    world.controller.enqueue(world.store.put("found"), Priority.HIGH)
    del world.store.bodies[found]
    del world.store.bodies[missed]
    await asyncio.sleep(10)
    await world.verify_all()
    assert (
        world.metrics.registry.get_sample_value("artifact_repository_objects", {"condition": "Ready", "status": "True"})
        == 0
    )


async def test_an_object_that_is_being_deleted_gets_no_call(world: World) -> None:
    """Somebody's finalizer keeps it: neither the registry nor the object is touched."""
    key = Key("team", "web")
    world.store.put("web")
    world.store.bodies[key]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await world.verify_all()
    world.controller.enqueue_later(world.store.read(key), 1)
    await asyncio.sleep(60)
    assert world.registry.asked == []
    assert world.store.writes == []


async def test_an_object_that_turns_out_to_be_going_gets_no_further_call(world: World) -> None:
    """It is deleted while its status is on its way, and a finalizer keeps it: the conflict tells, no watch has to."""
    key = Key("team", "web")

    def begin_to_delete() -> None:
        world.store.before_write = lambda: None
        world.store.bodies[key]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        world.store.touch(key)

    world.store.before_write = begin_to_delete
    world.put("web")
    await asyncio.sleep(60)
    assert world.registry.asked == ["team/web"]
    assert world.store.writes == []


async def test_a_defect_takes_one_object_only(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody foresaw is logged; the object is tried again later, the others are served."""
    key, other = Key("team", "web"), Key("team", "other")

    def fail() -> None:
        world.store.before_write = lambda: None
        raise ZeroDivisionError

    world.store.before_write = fail
    world.put("web")
    await asyncio.sleep(0.1)
    world.put("other")
    await asyncio.sleep(1)
    assert world.ready(other) == ("True", "RepositoryReady")
    await asyncio.sleep(60)
    assert world.ready(key) == ("True", "RepositoryReady")
    assert "Reconciling team/web failed unexpectedly" in caplog.text


async def test_stopping_lets_what_is_under_way_finish() -> None:
    """No key is started any more; those in flight have their grace, and are cancelled after it."""
    world = World(concurrent=2)
    world.registry.latency = 5
    keys = [world.put(f"repo-{number}") for number in range(4)]
    await asyncio.sleep(1)
    await world.controller.stop(grace=10)
    assert [world.ready(key)[0] for key in keys] == ["True", "True", None, None]

    world = World(concurrent=2)
    world.registry.latency = 100
    world.put("web")
    await asyncio.sleep(1)
    started = world.clock.monotonic()
    await world.controller.stop(grace=10)
    assert world.clock.monotonic() - started < 11
    assert world.store.writes == []


async def test_resync_is_spread_over_its_interval(world: World) -> None:
    """Each object is verified about once an interval, and never all at the same time."""
    for number in range(100):
        world.put(f"repo-{number}")
    await asyncio.sleep(1)
    world.registry.asked.clear()
    resync = asyncio.create_task(world.resync(interval=Timings().resync_interval.total_seconds).run())
    await asyncio.sleep(15)
    world.registry.asked.clear()
    counts = []
    for _ in range(60):
        before = len(world.registry.asked)
        await asyncio.sleep(60)
        counts.append(len(world.registry.asked) - before)
    resync.cancel()
    assert 450 <= sum(counts) <= 700
    assert max(counts) < 40
    assert world.store.writes.count(Key("team", "repo-0")) == 1


async def test_throttled_writes_are_held_back(world: World) -> None:
    """After a Retry-After no reconcile starts before that time, and then one at a time until a write succeeds."""
    attempts: list[float] = []
    world.store.before_write = lambda: attempts.append(world.clock.monotonic())
    busy = KubernetesUnavailable("busy", status=429, retry_after=20)
    world.store.errors = [busy] * (MINIMUM + 2)
    started = world.clock.monotonic()
    keys = [world.put(f"repo-{number}") for number in range(400)]
    await world.until(lambda: not world.store.errors)
    assert len([at for at in attempts if at < started + 20]) == MINIMUM  # those that were in flight
    assert len(attempts) == MINIMUM + 2
    assert len(world.registry.asked) == MINIMUM + 2
    await world.until(lambda: all(world.ready(key)[0] == "True" for key in keys))
    assert attempts[-1] - started < 90


async def test_objects_that_are_not_reconciled_count_as_unknown(world: World) -> None:
    """Without the right to write status, no object is missing from the gauge, and the operator has a problem."""
    message = 'artifactrepositories "x" is forbidden: User "u" cannot patch resource "artifactrepositories/status"'
    world.store.errors = [KubernetesError(message, status=403)] * 1000
    for number in range(5):
        world.put(f"repo-{number}")
    await asyncio.sleep(30)
    rendered = world.metrics.render().decode()
    assert 'artifact_repository_objects{condition="Ready",status="Unknown"} 5.0' in rendered
    assert "cannot patch resource" in (world.writes.problem or "")
    assert world.events.seen.count(("operator", "StatusNotWritable")) == 1
    world.store.errors = []
    await asyncio.sleep(60)
    assert world.writes.problem is None
    assert 'artifact_repository_objects{condition="Ready",status="True"} 5.0' in world.metrics.render().decode()


async def test_a_write_that_a_webhook_rejects_is_no_problem_of_the_operator(world: World) -> None:
    """One object whose status is rejected is counted, but does not make the operator unready."""
    world.store.errors = [KubernetesError('admission webhook "x" denied the request', status=403)] * 1000
    world.put("web")
    await asyncio.sleep(30)
    assert world.writes.problem is None
    assert 'artifact_repository_status_write_failures_total{code="403"}' in world.metrics.render().decode()


async def test_unknown_is_not_absent(world: World) -> None:
    """While it is unknown what the cluster advertises, Ready objects keep their addresses; new ones do not wait."""
    world.pool.advertise(RegistryHosting(host="localhost:5001", host_from_cluster_network="registry:5000"))
    old = world.put("old")
    await asyncio.sleep(1)
    restarted = World(store=world.store)
    restarted.pool._hosting_known = False
    restarted.registries["artifacts"].repositories = world.registry.repositories
    writes = len(world.store.writes)
    restarted.controller.enqueue(world.store.read(old), Priority.LOW)
    new = restarted.put("new")
    await asyncio.sleep(1)
    assert world.store.writes[writes:] == [new]
    assert restarted.store.read(old).status["uri"].startswith("localhost:5001/")
    assert restarted.store.read(new).status["uri"].startswith("registry:5000/")
    restarted.pool.advertise(None)
    await restarted.verify_all()
    await asyncio.sleep(1)
    assert restarted.store.read(old).status["uri"].startswith("registry:5000/")
    await restarted.controller.stop(grace=0)


async def test_a_prober_survives_any_exception(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A prober that raises something unexpected is started again, and releases the objects in the end."""
    key = world.put("web")
    await asyncio.sleep(1)
    world.registry.error = DOWN
    world.registry.ping_error = KeyError("bug")
    for _ in range(4):
        world.controller.enqueue(world.store.touch(key), Priority.HIGH)
        await asyncio.sleep(60)
    assert "failed unexpectedly" in caplog.text
    world.registry.error = world.registry.ping_error = None
    pings = world.registry.pings
    await asyncio.sleep(60)
    assert world.registry.pings > pings
    assert world.registry.asked[-1] == "team/web"
    assert world.ready(key)[0] == "True"
