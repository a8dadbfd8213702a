"""Rows that say an execution has ended, and who is confirmed when."""

from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot
from watcher.domain.timestamps import Micros, Monotonic
from watcher.domain.watch import Details, Watch
from watcher.polling.confirmations import ConfirmationOrder, ConfirmationQueue, Confirmed, selects
from watcher.polling.evaluator import Evaluation
from watcher.polling.poll_queue import CONFIRM_WITHIN_S, PendingConfirmation, TrackedExecution

ENDED = datetime(2026, 11, 24, tzinfo=UTC)


START = Monotonic(0.0)
WATCH = Watch("default", "p", ())


def waiting(*, at: float = 0.0, pipeline: str = "p") -> TrackedExecution:
    return TrackedExecution(
        ExecutionRecord("e", pipeline),
        WATCH,
        pending=PendingConfirmation(pipeline, ExecutionSnapshot("e", "failed"), Monotonic(at), Monotonic(at)),
    )


def queue_of(*waiting: TrackedExecution, in_time_count: float = 100.0) -> ConfirmationQueue:
    queue = ConfirmationQueue(in_time_count=in_time_count)
    for each in waiting:
        queue.add(each)
    return queue


def take(queue: ConfirmationQueue, now: float = 0.0) -> TrackedExecution | None:
    first = queue.first(Monotonic(now))
    if first is not None:
        queue.take(first)
    return first


@pytest.mark.parametrize("details", Details)
@pytest.mark.parametrize("status", ["new", "running", "paused", "success", "failed", "odd"])
def test_only_ends_are_fetched_and_only_those_that_are_wanted(details: Details, status: str) -> None:
    wanted = {
        Details.NEVER: set(),
        Details.FAILED: {"failed"},
        Details.ALWAYS: {"success", "failed", "odd"},
    }
    execution = ExecutionSnapshot("e", status, finished_at=ENDED if status == "odd" else None)
    assert selects(details, execution) is (status in wanted[details])


def test_the_oldest_pending_confirmation_is_confirmed_first() -> None:
    one, other = waiting(), waiting()
    queue = queue_of(one, other)
    assert [take(queue) for _ in range(3)] == [one, other, None]


def test_pipelines_take_turns() -> None:
    many, few = [waiting(pipeline="busy") for _ in range(4)], [waiting(pipeline="quiet") for _ in range(2)]
    queue = queue_of(*many, *few)
    order = [take(queue) for _ in range(7)]
    assert order == [many[0], few[0], many[1], few[1], many[2], many[3], None]


def test_one_whose_turn_cannot_come_in_time_has_waited_long_enough() -> None:
    many, one, late = [waiting(pipeline="busy") for _ in range(8)], waiting(pipeline="quiet"), waiting()
    queue = queue_of(*many[:7], one, in_time_count=5.0)
    assert queue.next_expiry_at() == float("-inf")
    assert queue.expired(Monotonic(0.0)) == many[5:7]
    assert queue.next_expiry_at() == CONFIRM_WITHIN_S
    queue.add(many[7])  # its turn would be the seventh: one of the quiet pipeline comes in between
    queue.add(late)  # and this one's the third
    assert queue.expired(Monotonic(0.0)) == [many[7]]
    assert [take(queue) for _ in range(3)] == [many[0], one, late]


def test_however_few_there_may_be_one_can_be_confirmed() -> None:
    one, other = waiting(), waiting()
    queue = queue_of(one, other, in_time_count=0.1)
    assert queue.expired(Monotonic(0.0)) == [other]
    assert take(queue) is one


def test_one_that_could_not_be_asked_waits_and_holds_nobody_up() -> None:
    one, other = waiting(), waiting()
    queue = queue_of(one, other)
    assert take(queue) is one
    assert one.pending is not None
    one.pending.retry_after(5.0, now=Monotonic(1.0))
    queue.add(one)
    assert queue.wanted_at() == float("-inf")
    assert [take(queue, 2.0) for _ in range(2)] == [other, None]
    assert queue.wanted_at() == 6.0
    assert take(queue, 6.0) is one


def test_a_pending_confirmation_expires_and_what_cannot_be_written_then_waits_a_little() -> None:
    one, young = waiting(), waiting(at=10.0)
    queue = queue_of(one, young)
    assert queue.expired(Monotonic(CONFIRM_WITHIN_S - 0.1)) == []
    assert queue.next_expiry_at() == CONFIRM_WITHIN_S
    assert queue.expired(Monotonic(CONFIRM_WITHIN_S)) == [one]
    assert one.pending is not None
    one.pending.retry_after(2.0, now=Monotonic(CONFIRM_WITHIN_S))
    queue.add(one)
    assert queue.expired(Monotonic(CONFIRM_WITHIN_S + 1)) == []
    assert queue.expired(Monotonic(CONFIRM_WITHIN_S + 2)) == [one]


def test_a_try_that_waits_long_does_not_put_off_the_end_of_a_pending_confirmation() -> None:
    pending = PendingConfirmation("p", ExecutionSnapshot("e", "failed"), Monotonic(0.0), Monotonic(0.0))
    pending.retry_after(60.0, now=Monotonic(20.0))
    assert pending.expires_at == pending.retry_at == CONFIRM_WITHIN_S


class Plainly:
    """What is asked of `ConfirmationQueue`, in the plainest way: whoever asks has all of them polled."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[str, dict[TrackedExecution, PendingConfirmation]] = OrderedDict()

    def add(self, someone: TrackedExecution) -> None:
        assert someone.pending is not None
        self.waiting.setdefault(someone.pending.pipeline, {})[someone] = someone.pending

    def first(self, now: float) -> TrackedExecution | None:
        everyone = (pair for several in self.waiting.values() for pair in several.items())
        return next((each for each, pending in everyone if pending.retry_at <= now), None)

    def take(self, someone: TrackedExecution) -> None:
        assert someone.pending is not None
        several = self.waiting[someone.pending.pipeline]
        del several[someone]
        self.waiting.move_to_end(someone.pending.pipeline)
        if not several:
            del self.waiting[someone.pending.pipeline]

    def expired(self, now: float) -> set[TrackedExecution]:
        return {
            each for several in self.waiting.values() for each, pending in several.items() if pending.expires_at <= now
        }

    def pending(self) -> list[PendingConfirmation]:
        return [pending for several in self.waiting.values() for pending in several.values()]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_it_is_as_if_all_were_polled(seed: int) -> None:
    dice, now = Random(seed), 0.0
    plainly, queue = Plainly(), queue_of(in_time_count=1e9)
    for _ in range(400):
        now += dice.choice((0.0, 0.1, 1.0, 9.0))
        for _ in range(dice.randrange(4)):
            someone = waiting(at=now, pipeline=dice.choice("abc"))
            plainly.add(someone)
            queue.add(someone)
        expired = plainly.expired(now)
        old = queue.expired(Monotonic(now))
        assert expired == set(old)
        for each in old:  # they leave in any order
            plainly.take(each)
        first = queue.first(Monotonic(now))
        assert first is plainly.first(now)
        wanted_at = min((pending.retry_at for pending in plainly.pending()), default=float("inf"))
        assert max(now, queue.wanted_at()) == max(now, wanted_at)
        assert queue.next_expiry_at() == min((each.expires_at for each in plainly.pending()), default=float("inf"))
        if first is not None and dice.random() < 0.8:
            plainly.take(first)
            queue.take(first)
            if dice.random() < 0.5:  # it could not be asked
                assert first.pending is not None
                first.pending.retry_after(dice.choice((1.0, 4.0, 40.0)), now=Monotonic(now))
                plainly.add(first)
                queue.add(first)


class CountedNumber(float):
    """A time that counts how often it is compared."""

    compared_count = 0

    def __lt__(self, other: float) -> bool:
        CountedNumber.compared_count += 1
        return float(self) < other

    def __le__(self, other: float) -> bool:
        CountedNumber.compared_count += 1
        return float(self) <= other


def test_a_turn_takes_a_few_steps_however_many_wait() -> None:
    queue, waiting_count = queue_of(in_time_count=1e9), 15_000
    for number in range(waiting_count):
        someone = waiting(at=CountedNumber(number / 1e3), pipeline=f"p{number % 20}")
        assert someone.pending is not None
        someone.pending.retry_at = Monotonic(CountedNumber(number / 1e3))
        queue.add(someone)
    CountedNumber.compared_count = 0
    for number in range(1000):
        now = number / 1e3
        assert queue.expired(Monotonic(now)) == []
        assert take(queue, now) is not None
        assert queue.wanted_at() > now
        assert queue.next_expiry_at() > now
    assert CountedNumber.compared_count < 1000 * 100


def test_nobody_waits_at_first() -> None:
    queue = queue_of()
    assert queue.first(Monotonic(0.0)) is None
    assert queue.wanted_at() == queue.next_expiry_at() == float("inf")


class Ends:
    """Ends of one pipeline that are to be confirmed, by when they ended."""

    def __init__(self, *seconds: int) -> None:
        self.order = ConfirmationOrder()
        self.entries = {second: self.ended(second) for second in seconds}
        for entry in self.entries.values():
            self.order.begin(entry)

    def ended(self, second: int) -> TrackedExecution:
        entry = waiting()
        finished_at = ENDED + timedelta(seconds=second)
        entry.pending = PendingConfirmation(
            "p", ExecutionSnapshot("e", "failed", finished_at=finished_at), START, START
        )
        return entry

    def keeps(self, second: int, *, denied: bool = False) -> bool:
        entry = self.entries[second]
        known = replace(entry.known, ended_at=None if denied else Micros(1))
        return self.order.keeps(Confirmed(entry, Evaluation(known, None, None), ExecutionSnapshot("e", "failed")))

    def end(self, second: int) -> list[int]:
        self.order.end(self.entries[second])
        released = {confirmed.entry for confirmed in self.order.released()}
        return [each for each, entry in self.entries.items() if entry in released]


def test_the_oldest_end_waits_for_nobody() -> None:
    assert not Ends(1, 2, 3).keeps(1)
    assert not Ends(1, 1).keeps(1)


def test_confirmed_ends_wait_for_older_ones_and_go_together() -> None:
    ends = Ends(1, 2, 3, 4, 5)
    assert [ends.keeps(second) for second in (5, 2, 3)] == [True] * 3
    assert ends.order.holds(ends.entries[3])
    assert ends.end(1) == [2, 3]
    assert not ends.order.holds(ends.entries[3])
    assert [ends.end(second) for second in (2, 3)] == [[], []]
    assert ends.end(4) == [5]
    assert ends.order.waiting() == {ends.entries[5]}


def test_what_is_denied_waits_for_nobody() -> None:
    assert not Ends(1, 2).keeps(2, denied=True)


def test_what_is_not_to_be_confirmed_waits_for_nobody() -> None:
    ends = Ends(1)
    ends.entries[2] = ends.ended(2)
    assert not ends.keeps(2)


def test_all_that_is_confirmed_may_be_had_at_once() -> None:
    ends = Ends(1, 2, 3)
    assert ends.keeps(3)
    assert [confirmed.entry for confirmed in ends.order.all_confirmed()] == [ends.entries[3]]
