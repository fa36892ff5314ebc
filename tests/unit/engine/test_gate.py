"""The registry gate: when it closes, when it is asked again, and when it opens."""

import random

import pytest

from controller.engine.gate import FAILURES_TO_CLOSE, GateState, RegistryGate
from controller.engine.pacer import WritePacer
from controller.errors import RegistryUnavailable
from controller.resource import Key

DOWN = RegistryUnavailable("refused")


@pytest.fixture
def gate() -> RegistryGate:
    """Return an open gate."""
    return RegistryGate(probe_interval=5, rng=random.Random(1))


def close(gate: RegistryGate, now: float = 0) -> None:
    """Let enough requests fail."""
    for _ in range(FAILURES_TO_CLOSE):
        gate.failed(DOWN, now=now)
    assert gate.state is GateState.CLOSED


def test_a_few_failures_in_a_row_close_it(gate: RegistryGate) -> None:
    """One failure may be chance; a success in between starts the count anew."""
    for _ in range(10):
        gate.failed(DOWN, now=0)
        gate.failed(DOWN, now=0)
        gate.succeeded(verifying=False)
    assert gate.admits(verifying=False)
    close(gate)
    assert not gate.admits(verifying=False)


def test_closing_is_told_once(gate: RegistryGate) -> None:
    """Requests that were under way fail after it has closed; that is no second outage."""
    told = [gate.failed(DOWN, now=0) for _ in range(6)]
    assert told == [False, False, True, False, False, False]


def test_it_remembers_since_when(gate: RegistryGate) -> None:
    """The outage began with the first failure, and goes on through a trial that fails."""
    gate.failed(DOWN, now=3)
    close(gate, now=4)
    assert gate.failing_since == 3
    gate.probe_answered()
    assert gate.admits(verifying=False)
    gate.failed(DOWN, now=9)
    assert gate.state is GateState.CLOSED
    assert gate.failing_since == 3
    gate.probe_answered()
    assert gate.admits(verifying=False)
    assert gate.succeeded(verifying=False)
    assert gate.failing_since is None


def test_probes_are_jittered(gate: RegistryGate) -> None:
    """Operators that lost the same registry do not ask in step."""
    moments = set()
    for _ in range(100):
        close(gate, now=100)
        assert gate.next_probe is not None
        moments.add(gate.next_probe - 100)
        gate.succeeded(verifying=False)
    assert 2.5 <= min(moments) < 3.5
    assert 6.5 < max(moments) <= 7.5


def test_one_trial_before_all_go_on(gate: RegistryGate) -> None:
    """A registry may answer a probe and still fail every write: one object tries, the others wait."""
    close(gate)
    gate.probe_answered()
    assert gate.state is GateState.TRIAL
    assert [gate.admits(verifying=False) for _ in range(3)] == [True, False, False]
    assert gate.succeeded(verifying=False)
    assert [gate.admits(verifying=False) for _ in range(3)] == [True, True, True]


def test_a_trial_that_told_nothing_makes_room_for_another(gate: RegistryGate) -> None:
    """A cancelled request does not keep the place for ever."""
    close(gate)
    gate.probe_answered()
    assert gate.admits(verifying=False)
    gate.released()
    assert gate.admits(verifying=False)


def test_retry_after_is_obeyed(gate: RegistryGate) -> None:
    """A registry that says when to come back is not asked before."""
    assert gate.failed(RegistryUnavailable("busy", status=429, retry_after=30), now=0)
    assert gate.next_probe == 30
    gate.probe_failed(RegistryUnavailable("busy", retry_after=60), now=50)
    assert gate.next_probe == 110


def test_a_late_request_can_ask_for_more_patience(gate: RegistryGate) -> None:
    """Of several requests under way the longest Retry-After counts."""
    close(gate)
    gate.failed(RegistryUnavailable("busy", retry_after=60), now=1)
    assert gate.next_probe == 61


def test_a_success_that_comes_late_opens_it(gate: RegistryGate) -> None:
    """A request that was under way when the gate closed, and was answered: the registry is there."""
    close(gate)
    assert gate.succeeded(verifying=False)
    assert gate.admits(verifying=False)
    gate.probe_failed(DOWN, now=0)
    assert gate.admits(verifying=False)


def full_disk() -> RegistryUnavailable:
    """Return what a registry says to a push for which it has no place."""
    error = RegistryUnavailable("507", status=507)
    error.pushing = True
    return error


def test_while_only_pushes_fail_the_rest_goes_on(gate: RegistryGate) -> None:
    """Verifying is admitted in every state, and neither opens the gate nor makes pushes look well."""
    for _ in range(FAILURES_TO_CLOSE):
        gate.succeeded(verifying=True)
        gate.failed(full_disk(), now=0)
    assert gate.state is GateState.CLOSED
    assert gate.admits(verifying=True)
    assert not gate.admits(verifying=False)
    assert not gate.succeeded(verifying=True)
    gate.probe_answered()
    assert [gate.admits(verifying=True), gate.admits(verifying=False), gate.admits(verifying=False)] == [
        True,
        True,
        False,
    ]
    assert gate.succeeded(verifying=False)
    assert gate.admits(verifying=False)


def test_when_questions_fail_too_that_outage_begins_then(gate: RegistryGate) -> None:
    """Ready objects are patient from then on, not from the first push that failed, however long ago."""
    gate.failed(full_disk(), now=0)
    gate.failed(DOWN, now=100)
    assert gate.failing_since == 100
    gate.failed(full_disk(), now=101)
    assert gate.failing_since == 100
    gate.failed(DOWN, now=102)
    assert not gate.admits(verifying=True)


def test_the_pacer_spreads_writes() -> None:
    """A thousand objects that want to write at once get their moments one after the other, and are let through then."""
    pacer = WritePacer(rate=100)
    keys = [Key("team", str(number)) for number in range(1000)]
    waits = [pacer.wait(key, now=0) for key in keys]
    assert waits[0] == 0
    assert waits[-1] == pytest.approx(9.99)
    assert pacer.wait(keys[500], now=5) == 0
    assert pacer.wait(keys[-1], now=5) == pytest.approx(4.99)
    pacer.drop(keys[-1])
    assert pacer.wait(keys[-1], now=100) == 0
