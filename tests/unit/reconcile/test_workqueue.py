"""The work queue: its promises one by one, and then all of them against random use.

The time is a number that the test passes in: nothing sleeps.
"""

from collections.abc import Hashable, Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.reconcile.workqueue import Item, Priority, WorkQueue

HIGH, LOW = Priority.HIGH, Priority.LOW


def is_newer(one: int, other: int) -> bool:
    """Order states by their number."""
    return one > other


@pytest.fixture
def queue() -> WorkQueue[str, int]:
    """Return an empty queue whose items are numbered states."""
    return WorkQueue(newer=is_newer)


def namespace_of(key: str) -> str:
    """Return the part of a key before the slash: its flow."""
    return key.partition("/")[0]


def taken(queue: WorkQueue[str, int], now: float = 0.0) -> Iterator[str]:
    """Take and finish keys until none is ready."""
    while (work := queue.get(now=now)) is not None:
        yield work.key
        queue.done(work.key, work.state, now=now)


def take(queue: WorkQueue[str, int], now: float = 0.0) -> Item[str, int]:
    """Take a key that must be there."""
    work = queue.get(now=now)
    assert work is not None
    return work


def test_first_come_first_served(queue: WorkQueue[str, int]) -> None:
    """Keys of a kind keep their order."""
    for key in "cab":
        queue.add(key, 1, now=0)
    assert list(taken(queue)) == ["c", "a", "b"]
    assert len(queue) == 0


def test_a_key_is_queued_once_with_its_newest_state(queue: WorkQueue[str, int]) -> None:
    """Whatever the order in which states arrive, the newest is handed out, once."""
    for state in (2, 3, 1):
        queue.add("a", state, now=0)
    assert take(queue).state == 3
    assert queue.get(now=0) is None


def test_a_key_is_in_flight_once(queue: WorkQueue[str, int]) -> None:
    """What arrives for a key in flight waits until it has landed."""
    queue.add("a", 1, now=0)
    take(queue)
    queue.add("a", 2, now=0)
    assert queue.get(now=0) is None
    queue.done("a", 1, now=0)
    assert take(queue).state == 2


def test_what_the_flight_has_seen_already_is_not_looked_at_again(queue: WorkQueue[str, int]) -> None:
    """An event that is older than what the flight wrote itself is answered by that."""
    queue.add("a", 1, now=0)
    take(queue)
    queue.add("a", 2, now=0)
    queue.done("a", 5, now=0)
    assert len(queue) == 0


def test_urgent_keys_overtake(queue: WorkQueue[str, int]) -> None:
    """A create does not stand behind ten thousand resumes."""
    for key in "abc":
        queue.add(key, 1, now=0, priority=LOW)
    queue.add("new", 1, now=0, priority=HIGH)
    assert next(taken(queue)) == "new"


def test_the_others_are_not_starved(queue: WorkQueue[str, int]) -> None:
    """Under a stream of urgent keys, every ninth is one that can wait."""
    queue.add("patient", 1, now=0, priority=LOW)
    for number in range(20):
        queue.add(f"urgent{number}", 1, now=0, priority=HIGH)
    assert list(taken(queue)).index("patient") == 8


def test_a_key_that_becomes_urgent_moves_up(queue: WorkQueue[str, int]) -> None:
    """The more urgent of two requests counts, in either order."""
    queue.add("a", 1, now=0, priority=LOW)
    queue.add("b", 1, now=0, priority=LOW)
    queue.add("b", 2, now=0, priority=HIGH)
    queue.add("b", 3, now=0, priority=LOW)
    assert list(taken(queue)) == ["b", "a"]


def test_a_requeued_key_is_delayed(queue: WorkQueue[str, int]) -> None:
    """It is not ready before its delay is over."""
    queue.add("a", 1, now=5)
    take(queue, 5)
    queue.requeue("a", 1, 3, now=5)
    assert queue.next_due() == 8
    assert queue.get(now=7.999) is None
    assert take(queue, 8).key == "a"


def test_a_change_ends_a_delay(queue: WorkQueue[str, int]) -> None:
    """A changed object is reconciled now, not when its old state would have been retried."""
    queue.add("a", 1, now=0)
    take(queue)
    queue.requeue("a", 1, 1000, now=0)
    queue.add("a", 2, now=1)
    assert take(queue, 1).state == 2
    assert queue.next_due() is None


def test_delayed_keys_can_be_expedited(queue: WorkQueue[str, int]) -> None:
    """Expediting makes a waiting key ready; it does nothing to others."""
    queue.add("a", 1, now=0)
    take(queue)
    queue.requeue("a", 1, 1000, now=0)
    queue.expedite("a", now=1)
    queue.expedite("unknown", now=1)
    assert take(queue, 1).key == "a"
    queue.expedite("a", now=1)
    assert queue.get(now=1) is None


def test_later_keys_come_later_and_do_not_disturb(queue: WorkQueue[str, int]) -> None:
    """A resync adds what is not there, and leaves alone what is to be looked at anyway."""
    queue.add("busy", 1, now=0)
    queue.add_after("busy", 2, 100, now=0)
    queue.add_after("idle", 1, 100, now=0)
    assert list(taken(queue)) == ["busy"]
    assert list(taken(queue, 100)) == ["idle"]


@pytest.mark.parametrize("where", ["ready", "waiting", "in flight"])
def test_forgotten_keys_are_gone(queue: WorkQueue[str, int], where: str) -> None:
    """Wherever a key is when its object is deleted, nothing is left of it in the end."""
    queue.add("a", 1, now=0)
    if where != "ready":
        take(queue)
    if where == "waiting":
        queue.requeue("a", 1, 1, now=0)
    queue.forget("a")
    if where == "in flight":
        queue.requeue("a", 1, 1, now=0)
    assert len(queue) == 0
    assert queue.depth == 0
    assert queue.get(now=1000) is None
    queue.forget("a")


def test_a_namesake_waits_for_the_flight_of_the_old_one(queue: WorkQueue[str, int]) -> None:
    """Deleted and created again while in flight: the new one is looked at, but never beside the old one."""
    queue.add("a", 1, now=0)
    take(queue)
    queue.forget("a")
    queue.add("a", 2, now=0)
    assert queue.get(now=0) is None
    queue.requeue("a", 1, 1, now=0)
    assert take(queue).state == 2


def test_timers_do_not_pile_up(queue: WorkQueue[str, int]) -> None:
    """A key that is put off a thousand times leaves no thousand timers behind."""
    for number in range(1000):
        queue.add("a", number, now=0)
        work = take(queue)
        queue.requeue("a", work.state, 1000, now=0)
    assert len(queue._timers._heap) < 100


def test_waiting_time_is_measured(queue: WorkQueue[str, int]) -> None:
    """How long a key was ready before it was taken."""
    queue.add("a", 1, now=3)
    assert take(queue, 5).waited == 2


def test_a_full_lane_holds_nobody_else_up() -> None:
    """Keys of a lane that takes no more stay where they are; those of other lanes are handed out in turn."""
    queue: WorkQueue[str, int] = WorkQueue(newer=is_newer, lane=lambda item: item % 2)
    for key, item in (("odd", 1), ("even", 2), ("odd too", 3), ("even too", 4)):
        queue.add(key, item, now=0)
    work = [queue.get(now=0, full=lambda lane, _: lane == 1) for _ in range(3)]
    assert [each and each.key for each in work] == ["even", "even too", None]
    assert [take(queue).key for _ in range(2)] == ["odd", "odd too"]


def test_urgent_keys_do_not_wait_for_places_of_others(queue: WorkQueue[str, int]) -> None:
    """Where no more of what can wait is taken, urgent keys are, even when it would be the others' turn."""
    for number in range(10):
        queue.add(f"urgent {number}", 1, now=0)
    queue.add("can wait", 1, now=0, priority=Priority.LOW)
    work = [queue.get(now=0, full=lambda _, priority: priority is Priority.LOW) for _ in range(11)]
    assert [each and each.key for each in work] == [*(f"urgent {number}" for number in range(10)), None]
    assert take(queue).priority is Priority.LOW


@pytest.mark.parametrize("priority", Priority)
def test_a_queued_key_moves_to_the_lane_of_its_new_state(priority: Priority) -> None:
    """Whether it is added again or only seen in a list: it does not wait for workers of its old lane."""
    queue: WorkQueue[str, int] = WorkQueue(newer=is_newer, lane=lambda item: item % 2)
    for key in ("added", "seen"):
        queue.add(key, 1, now=0, priority=priority)
    queue.add("added", 2, now=1, priority=priority)
    queue.add_after("seen", 2, 100, now=1)
    work = [queue.get(now=2, full=lambda lane, _: lane == 1) for _ in range(3)]
    assert [each and (each.key, each.lane, each.waited) for each in work] == [("added", 0, 2), ("seen", 0, 2), None]
    assert queue.depth == 0


def test_a_queued_key_moves_when_lanes_have_changed() -> None:
    """As after a change of the configuration, with the same state."""
    lanes = {1: "old"}
    queue: WorkQueue[str, int] = WorkQueue(newer=is_newer, lane=lambda item: lanes[item])
    queue.add("a", 1, now=0)
    lanes[1] = "new"
    queue.add("a", 1, now=0, priority=Priority.LOW)
    assert (take(queue).lane, queue.depth) == ("new", 0)


@pytest.mark.parametrize("priority", Priority)
def test_namespaces_take_turns(priority: Priority) -> None:
    """Whoever comes behind three hundred keys of one namespace is served next, and then every other time."""
    queue: WorkQueue[str, int] = WorkQueue(newer=is_newer, flow=namespace_of)
    for number in range(300):
        queue.add(f"many/{number}", 1, now=0, priority=priority)
    assert [take(queue).key for _ in range(2)] == ["many/0", "many/1"]
    for key in ("few/0", "few/1", "other/0"):
        queue.add(key, 1, now=0, priority=priority)
    served = ["many/2", "few/0", "other/0", "many/3", "few/1", "many/4", "many/5"]
    assert [take(queue).key for _ in served] == served


def test_namespaces_take_turns_within_a_priority() -> None:
    """What can wait in one namespace does not come before what is urgent in another one."""
    queue: WorkQueue[str, int] = WorkQueue(newer=is_newer, flow=namespace_of)
    queue.add("calm/0", 1, now=0, priority=LOW)
    for number in range(3):
        queue.add(f"busy/{number}", 1, now=0)
    assert list(taken(queue)) == ["busy/0", "busy/1", "busy/2", "calm/0"]


def test_namespaces_without_keys_leave_nothing_behind() -> None:
    """However a key leaves the queue, its namespace is forgotten with its last one."""
    queue: WorkQueue[str, int] = WorkQueue(newer=is_newer, flow=namespace_of)
    queue.add("here/0", 1, now=0)
    for number in range(1000):
        queue.add(f"gone-{number}/0", 1, now=0)
        queue.forget(f"gone-{number}/0")
        queue.add(f"urgent-{number}/0", 1, now=0, priority=LOW)
        queue.add(f"urgent-{number}/0", 1, now=0)
        queue.forget(f"urgent-{number}/0")
    assert flows(queue, HIGH) == {"here"}
    assert flows(queue, LOW) == set()


def flows(queue: WorkQueue[str, int], priority: Priority) -> set[Hashable]:
    """Return the flows with ready keys of a priority."""
    return {flow for lane in queue._lanes.values() for flow in lane.ready[priority]._flows}


class QueueMachine(RuleBasedStateMachine):
    """Random use, against a model of what has to be true."""

    keys = st.sampled_from(["a/1", "a/2", "a/3", "a/4", "b/1", "b/2", "c/1", "d/1"])

    def __init__(self) -> None:
        super().__init__()
        self.queue: WorkQueue[str, int] = WorkQueue(newer=is_newer, flow=namespace_of)
        self.now = 0.0
        self.state = 0
        self.flying: dict[str, Item[str, int]] = {}
        self.wanted: dict[str, int] = {}
        """The state that each key still has to be looked at with, at least."""
        self.passed: set[tuple[Priority, Hashable, Hashable]] = set()
        """Flows that wait at a priority, each with one that was served there since."""

    @rule(key=keys, priority=st.sampled_from(Priority))
    def add(self, key: str, priority: Priority) -> None:
        """Something happened to an object."""
        self.state += 1
        self.queue.add(key, self.state, now=self.now, priority=priority)
        self.wanted[key] = self.state

    @rule(key=keys, delay=st.floats(0, 100))
    def add_after(self, key: str, delay: float) -> None:
        """A resync saw an object."""
        self.state += 1
        known = key in self.queue and not (key in self.flying and key not in self.wanted)
        self.queue.add_after(key, self.state, delay, now=self.now)
        if not known:
            self.wanted[key] = self.state

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule()
    def take(self) -> None:
        """A worker asks for a key."""
        work = self.queue.get(now=self.now)
        if work is not None:
            assert work.key not in self.flying, "in flight twice"
            assert work.state >= self.wanted.get(work.key, 0), "an old state was handed out"
            self.flying[work.key] = work
            self.take_turns(work.priority, namespace_of(work.key))

    def take_turns(self, priority: Priority, served: str) -> None:
        """Check that no flow is served twice while another one waits."""
        self.passed = {each for each in self.passed if each[:2] != (priority, served)}
        for waiting in flows(self.queue, priority) - {served}:
            assert (priority, waiting, served) not in self.passed, f"{served} was served twice while {waiting} waited"
            self.passed.add((priority, waiting, served))

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), how=st.sampled_from(["done", "requeue"]), read_again=st.booleans())
    def land(self, data: st.DataObject, how: str, read_again: bool) -> None:
        """A worker has finished; after a conflict it has read the newest state."""
        work = self.flying.pop(data.draw(st.sampled_from(sorted(self.flying))))
        item = self.state if read_again else work.state
        if how == "done":
            self.queue.done(work.key, item, now=self.now)
            if self.wanted.get(work.key, 0) <= item:
                self.wanted.pop(work.key, None)
        else:
            self.queue.requeue(work.key, item, 10, now=self.now)

    @rule(key=keys)
    def forget(self, key: str) -> None:
        """An object was deleted."""
        self.queue.forget(key)
        self.wanted.pop(key, None)

    @invariant()
    def nothing_is_lost_and_nothing_is_left(self) -> None:
        """What is wanted is in the queue, counters add up, and memory is bounded by the keys."""
        assert all(key in self.queue for key in self.wanted)
        assert self.queue.depth + len(self.flying) <= len(self.queue)
        assert len(self.queue) <= 8
        assert len(self.queue._timers._heap) <= 2 * 8 + 65
        self.passed = {each for each in self.passed if each[1] in flows(self.queue, each[0])}

    def teardown(self) -> None:
        """Left alone, everything that is wanted gets looked at."""
        for work in self.flying.values():
            self.queue.done(work.key, work.state, now=self.now)
            if self.wanted.get(work.key, 0) <= work.state:
                self.wanted.pop(work.key, None)
        served = set(taken(self.queue, self.now + 1000))
        assert served >= self.wanted.keys()
        assert len(self.queue) == 0
        assert not any(flows(self.queue, priority) for priority in Priority)


TestQueueUnderRandomUse = QueueMachine.TestCase
