"""The circuit breaker: when calls are let through, and what their results say about a registry."""

import random
from collections.abc import Awaitable, Callable

import pytest

from controller.api.v1alpha1 import Key
from controller.errors import AccessDenied, LeadershipLost, LoginRefused, PushFailed, RegistryUnavailable
from controller.reconcile.breaker import FAILURES_TO_OPEN, BreakerState, CircuitBreaker, CircuitOpen, retry_after
from controller.reconcile.interfaces import SystemClock
from controller.registry.protocol import Ensured, Origin

ONE, TWO, OTHER = Key("team-a", "one"), Key("team-a", "two"), Key("team-b", "one")
OBJECTS = (ONE, TWO, OTHER)
REGISTRY = "http://registry:5000"
DAMAGED = RegistryUnavailable("look up latest of a/b", REGISTRY, "500 Internal Server Error", status=500)
DOWN = RegistryUnavailable("ping the registry", REGISTRY, "connection refused")
FULL_DISK = PushFailed("push latest", REGISTRY, "507 Insufficient Storage", status=507)


class ManualClock(SystemClock):
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        """Return the time that the test has set."""
        return self.time


@pytest.fixture
def clock() -> ManualClock:
    """Return the breaker's clock."""
    return ManualClock()


class Registry:
    """Counts the pings of a registry, and answers them as the test says."""

    def __init__(self) -> None:
        self.pings = 0
        self.error: Exception | None = None

    async def ping(self) -> None:
        """Answer a ping."""
        self.pings += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def registry() -> Registry:
    """Return the breaker's registry."""
    return Registry()


@pytest.fixture
def breaker(clock: ManualClock, registry: Registry) -> CircuitBreaker:
    """Return a breaker that probes every five seconds on average."""
    return CircuitBreaker(probe_interval=5, ping=registry.ping, clock=clock, rng=random.Random(1))


def succeed(*, created: bool = True) -> Callable[[], Awaitable[Ensured]]:
    """Return an operation that succeeds."""

    async def operation() -> Ensured:
        return Ensured(Origin.CREATED, created)

    return operation


def fail(error: BaseException) -> Callable[[], Awaitable[Ensured]]:
    """Return an operation that fails."""

    async def operation() -> Ensured:
        raise error

    return operation


def open_(breaker: CircuitBreaker) -> None:
    """Open a closed breaker."""
    for key in OBJECTS:
        breaker.record_failure(key, DOWN)


def state(breaker: CircuitBreaker) -> BreakerState:
    """Return its state; a function, because mypy narrows the attribute."""
    return breaker.state


async def is_let_through(breaker: CircuitBreaker, *, may_push: bool = True) -> bool:
    """Tell whether a call is run; it ends in a way that says nothing about the registry."""
    try:
        await breaker.call(ONE, fail(ZeroDivisionError()), may_push=may_push)
    except ZeroDivisionError:
        return True
    except CircuitOpen:
        return False
    raise AssertionError


async def test_consecutive_failures_open_it(breaker: CircuitBreaker) -> None:
    """One failure may be chance; a success in between starts the count anew."""
    for _ in range(10):
        breaker.record_failure(ONE, DOWN)
        breaker.record_failure(ONE, DOWN)
        await breaker.call(ONE, succeed(), may_push=True)
    assert state(breaker) is BreakerState.CLOSED
    for key in OBJECTS:
        with pytest.raises(RegistryUnavailable, match="refused"):
            await breaker.call(key, fail(DOWN), may_push=True)
    assert state(breaker) is BreakerState.OPEN
    with pytest.raises(CircuitOpen, match="connection refused") as rejected:
        await breaker.call(ONE, succeed(), may_push=True)
    assert str(rejected.value) == "cannot use the registry: http://registry:5000: connection refused"


async def test_refused_login_opens_it(breaker: CircuitBreaker) -> None:
    """A login that is refused for all repositories counts like an outage; its trial fails until it is accepted."""
    refused = LoginRefused("log in", REGISTRY, "401 Unauthorized", status=401)
    for _ in range(FAILURES_TO_OPEN):
        with pytest.raises(LoginRefused):
            await breaker.call(ONE, fail(refused), may_push=True)
    with pytest.raises(CircuitOpen):
        await breaker.call(ONE, succeed(), may_push=True)
    breaker.probe_succeeded()
    with pytest.raises(LoginRefused):
        await breaker.call(ONE, fail(refused), may_push=True)
    assert state(breaker) is BreakerState.OPEN


async def test_the_outage_starts_with_the_first_failure(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """It goes on through a trial that fails, and ends with one that succeeds."""
    clock.time = 3
    breaker.record_failure(ONE, DOWN)
    clock.time = 4
    open_(breaker)
    breaker.probe_succeeded()
    clock.time = 9
    with pytest.raises(RegistryUnavailable):
        await breaker.call(ONE, fail(DOWN), may_push=True)
    assert state(breaker) is BreakerState.OPEN
    assert breaker.failing_since == 3
    breaker.probe_succeeded()
    await breaker.call(ONE, succeed(), may_push=True)
    assert breaker.failing_since is None


def test_probes_are_jittered(breaker: CircuitBreaker) -> None:
    """Operators that lost the same registry do not probe it in step."""
    moments = set()
    for _ in range(100):
        open_(breaker)
        assert breaker.next_probe is not None
        moments.add(breaker.next_probe)
        breaker.probe_succeeded()
        breaker.close()
    assert 2.5 <= min(moments) < 3.5
    assert 6.5 < max(moments) <= 7.5


async def test_one_trial_at_a_time_while_half_open(breaker: CircuitBreaker) -> None:
    """A registry may answer a probe and still fail every push: one object tries, the others wait."""
    open_(breaker)
    breaker.probe_succeeded()
    assert state(breaker) is BreakerState.HALF_OPEN
    others = []

    async def trial() -> Ensured:
        others.extend([await is_let_through(breaker), await is_let_through(breaker, may_push=False)])
        return await succeed()()

    await breaker.call(ONE, trial, may_push=True)
    assert others == [False, False]
    assert state(breaker) is BreakerState.CLOSED
    assert await is_let_through(breaker)


@pytest.mark.parametrize("may_push", [True, False])
@pytest.mark.parametrize("error", [ZeroDivisionError(), LeadershipLost("lost"), KeyboardInterrupt()])
async def test_a_trial_that_ends_unexpectedly_makes_room_for_another(
    breaker: CircuitBreaker, error: BaseException, may_push: bool
) -> None:
    """Whatever it ends with: a trial that stays occupied would block a healthy registry for good."""
    open_(breaker)
    breaker.probe_succeeded()
    with pytest.raises(type(error)):
        await breaker.call(ONE, fail(error), may_push=may_push)
    assert state(breaker) is BreakerState.HALF_OPEN
    await breaker.call(ONE, succeed(), may_push=True)
    assert state(breaker) is BreakerState.CLOSED


async def test_an_answer_closes_it(breaker: CircuitBreaker) -> None:
    """An answer that is bad for one object still shows that the registry is there."""
    open_(breaker)
    breaker.probe_succeeded()
    with pytest.raises(AccessDenied):
        await breaker.call(ONE, fail(AccessDenied("push latest", REGISTRY, "403 Forbidden", status=403)), may_push=True)
    assert state(breaker) is BreakerState.CLOSED


async def test_retry_after_is_obeyed(breaker: CircuitBreaker, clock: ManualClock, registry: Registry) -> None:
    """A registry that says when to come back, to a ping as well, is not probed before."""
    await breaker.call(OTHER, succeed(), may_push=True)
    limited = RegistryUnavailable("look up x", REGISTRY, "429 Too Many Requests", status=429, retry_after=30)
    registry.error = limited
    with pytest.raises(RegistryUnavailable):
        await breaker.call(ONE, fail(limited), may_push=True)
    assert breaker.next_probe == 30
    clock.time = 50
    breaker.probe_failed(RegistryUnavailable("ping the registry", REGISTRY, "429 Too Many Requests", retry_after=60))
    assert breaker.next_probe == 110


def test_a_late_failure_can_ask_for_more_patience(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """Of several calls in progress the longest Retry-After counts."""
    open_(breaker)
    clock.time = 1
    limited = RegistryUnavailable("ping the registry", REGISTRY, "429 Too Many Requests", retry_after=60)
    breaker.record_failure(ONE, limited)
    assert breaker.next_probe == 61


async def repeat_failures(breaker: CircuitBreaker, clock: ManualClock, keys: list[Key], error: Exception) -> None:
    """Have calls fail, one a second."""
    for key in keys:
        clock.time += 1
        with pytest.raises(type(error)):
            await breaker.call(key, fail(error), may_push=False)


TENANT = [Key("team-a", f"bad-{number}") for number in range(100)]


@pytest.mark.parametrize(
    "failing", [[ONE] * 100, [ONE, TWO] * 50, TENANT, [ONE, ONE, OTHER] * 20], ids=["one", "two", "tenant", "each"]
)
async def test_bad_repositories_do_not_open_it(
    breaker: CircuitBreaker, clock: ManualClock, registry: Registry, failing: list[Key]
) -> None:
    """Failures of a few objects, or of one namespace among several, leave it closed while the registry responds."""
    for key in OBJECTS:
        await breaker.call(key, succeed(), may_push=True)
    for key in failing:
        await repeat_failures(breaker, clock, [key], DAMAGED)
        assert state(breaker) is BreakerState.CLOSED
    assert 0 < registry.pings <= 20  # at most one per probe interval
    registry.error = DOWN
    with pytest.raises(CircuitOpen, match="refused"):
        await repeat_failures(breaker, clock, failing, DAMAGED)
    assert state(breaker) is BreakerState.OPEN


async def test_failures_of_several_namespaces_open_it(
    breaker: CircuitBreaker, clock: ManualClock, registry: Registry
) -> None:
    """A registry may respond to a ping and fail every read."""
    await repeat_failures(breaker, clock, [ONE, TWO, OTHER], DAMAGED)
    assert state(breaker) is BreakerState.OPEN
    assert registry.pings == 0


async def test_failures_of_the_only_namespace_open_it(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """Where no other namespace uses the registry, none is affected."""
    await repeat_failures(breaker, clock, TENANT[:3], DAMAGED)
    assert state(breaker) is BreakerState.OPEN


async def test_a_lonely_push_opens_it(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """While only pushes fail, one object is enough if there is no other: nothing else is affected."""
    await repeat_failures(breaker, clock, [ONE] * 3, FULL_DISK)
    assert state(breaker) is BreakerState.OPEN


async def test_one_429_concerns_one_object(breaker: CircuitBreaker, clock: ManualClock, registry: Registry) -> None:
    """Before another namespace waits for a Retry-After, a ping confirms it, at most one per probe interval."""
    limited = RegistryUnavailable("look up x", REGISTRY, "429 Too Many Requests", status=429, retry_after=300)
    await breaker.call(OTHER, succeed(), may_push=True)
    await repeat_failures(breaker, clock, [ONE, TWO] * 5, limited)
    assert state(breaker) is BreakerState.CLOSED
    assert registry.pings == 2
    assert retry_after(limited) == 300


async def test_a_ping_that_answers_ends_the_outage(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """When it opens later, the outage counts from then."""
    await breaker.call(OTHER, succeed(), may_push=True)
    await repeat_failures(breaker, clock, [ONE] * 3, DAMAGED)
    assert breaker.failing_since is None
    clock.time = 1000
    open_(breaker)
    assert breaker.failing_since == 1000


async def test_a_ping_does_not_overrule_other_calls(clock: ManualClock) -> None:
    """What happens while the ping is under way counts."""

    async def ping() -> None:
        open_(subject)

    subject = CircuitBreaker(probe_interval=5, ping=ping, clock=clock, rng=random.Random(1))
    await subject.call(OTHER, succeed(), may_push=True)
    await repeat_failures(subject, clock, [ONE] * 3, DAMAGED)
    assert state(subject) is BreakerState.OPEN


async def test_an_unexpected_answer_to_the_ping_is_an_answer(
    breaker: CircuitBreaker, clock: ManualClock, registry: Registry
) -> None:
    """The registry responds, so the failures are those of the repositories."""
    await breaker.call(OTHER, succeed(), may_push=True)
    registry.error = AccessDenied("ping the registry", REGISTRY, "403 Forbidden", status=403)
    await repeat_failures(breaker, clock, [ONE] * 3, DAMAGED)
    assert state(breaker) is BreakerState.CLOSED


async def test_another_namespace_has_a_trial(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """A trial of a bad repository decides nothing alone; a second namespace or a third trial does."""
    for key in OBJECTS:
        await breaker.call(key, succeed(), may_push=True)
    open_(breaker)
    breaker.probe_succeeded()
    await repeat_failures(breaker, clock, [ONE, TWO], DAMAGED)
    assert state(breaker) is BreakerState.HALF_OPEN
    await repeat_failures(breaker, clock, [ONE], DAMAGED)
    assert state(breaker) is BreakerState.OPEN
    breaker.probe_succeeded()
    await repeat_failures(breaker, clock, [ONE, OTHER], DAMAGED)
    assert state(breaker) is BreakerState.OPEN
    breaker.probe_succeeded()
    await repeat_failures(breaker, clock, [ONE], DAMAGED)
    await breaker.call(OTHER, succeed(), may_push=True)
    assert state(breaker) is BreakerState.CLOSED


async def test_a_late_success_closes_it(breaker: CircuitBreaker) -> None:
    """A call that was in progress when the breaker opened, and was answered: the registry is there."""

    async def operation() -> Ensured:
        open_(breaker)
        return await succeed()()

    await breaker.call(ONE, operation, may_push=True)
    assert state(breaker) is BreakerState.CLOSED
    breaker.probe_failed(DOWN)
    assert await is_let_through(breaker)


async def test_while_only_pushes_fail_verification_goes_on(breaker: CircuitBreaker) -> None:
    """Calls that verify are let through in every state, and neither close it nor make pushes look healthy."""
    for _ in range(FAILURES_TO_OPEN):
        await breaker.call(ONE, succeed(created=False), may_push=False)
        with pytest.raises(PushFailed):
            await breaker.call(ONE, fail(FULL_DISK), may_push=True)
    assert state(breaker) is BreakerState.OPEN
    assert await is_let_through(breaker, may_push=False)
    assert not await is_let_through(breaker)
    await breaker.call(ONE, succeed(created=False), may_push=False)
    assert state(breaker) is BreakerState.OPEN
    breaker.probe_succeeded()
    await breaker.call(ONE, succeed(created=False), may_push=True)  # adopted: says nothing about pushes
    assert state(breaker) is BreakerState.HALF_OPEN
    await breaker.call(ONE, succeed(), may_push=True)
    assert state(breaker) is BreakerState.CLOSED


async def test_when_reads_fail_too_the_outage_starts_then(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """Ready objects are patient from then on, not from the first push that failed, however long ago."""
    for time, key, error in ((0, ONE, FULL_DISK), (100, ONE, DOWN), (101, TWO, FULL_DISK), (102, OTHER, DOWN)):
        clock.time = time
        breaker.record_failure(key, error)
    assert breaker.failing_since == 100
    assert state(breaker) is BreakerState.OPEN
    assert not await is_let_through(breaker, may_push=False)
