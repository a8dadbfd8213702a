"""The order in which executions are polled."""

import random
from collections.abc import Callable

import pytest
from virtual import RULES

from watcher.domain.execution import ExecutionRecord
from watcher.domain.timestamps import Monotonic
from watcher.domain.watch import Watch
from watcher.polling.poll_item import PolledList, PollItem, QueueKind, TrackedExecution
from watcher.polling.poll_queue import BY_DUE_AT, PollQueue

WATCH = Watch("default", "p", ())
Put = tuple[Callable[[], PollItem], float, str]
"""What makes an item, when that was asked for last, and why it waits."""


def an_entry(name: str = "e") -> TrackedExecution:
    return TrackedExecution(ExecutionRecord(name, "p"), WATCH)


def a_listing() -> PolledList:
    return PolledList(WATCH)


def a_poll_queue() -> PollQueue:
    return PollQueue(RULES)


def take(poll_queue: PollQueue, now: float) -> PollItem | None:
    """Take out what is asked for next."""
    return poll_queue.next(Monotonic(now))


def peek(poll_queue: PollQueue) -> PollItem | None:
    return min(poll_queue.heads(), key=BY_DUE_AT, default=None)


def names(poll_queue: PollQueue, *, now: float = 1e9) -> list[str]:
    taken = []
    while isinstance(entry := take(poll_queue, now), TrackedExecution):
        taken.append(entry.known.execution)
    return taken


def test_what_was_asked_for_longest_ago_comes_first_and_equals_in_turn() -> None:
    poll_queue = a_poll_queue()
    for name, asked_at in (("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0)):
        entry = an_entry(name)
        entry.asked_at = Monotonic(asked_at)
        poll_queue.put(entry, due_at=Monotonic(5.0))
    assert names(poll_queue) == ["a", "b1", "b2", "c"]


def test_a_thousand_random_moves_lose_and_double_nothing() -> None:
    draw = random.Random(3)
    poll_queue, entries = a_poll_queue(), [an_entry(str(number)) for number in range(50)]
    for entry in entries:
        poll_queue.put(entry, due_at=Monotonic(draw.random()))
    for _ in range(1000):
        entry = draw.choice(entries)
        if entry.is_queued and draw.random() < 0.5:
            poll_queue.take(entry)
        entry.asked_at = Monotonic(draw.random())
        poll_queue.put(entry, due_at=Monotonic(draw.random()))
    asked = sorted(entry.asked_at for entry in entries)
    taken = [taken.asked_at for _ in entries if (taken := take(poll_queue, 1)) is not None]
    assert taken == asked
    assert take(poll_queue, 1) is None


def test_what_is_due_and_what_has_grown_stale_go_by_turns() -> None:
    poll_queue = a_poll_queue()
    for name in ("d1", "d2"):
        poll_queue.put(an_entry(name), due_at=Monotonic(1))
    for name in ("s1", "s2", "s3"):
        poll_queue.put(an_entry(name), due_at=Monotonic(1), queue=QueueKind.STALE)
    assert names(poll_queue, now=9) == ["s1", "d1", "s2", "d2", "s3"]


@pytest.mark.parametrize(
    ("first", "second", "until"),
    [
        pytest.param((an_entry, 0, "stale"), (a_listing, 6, "stale"), 9, id="a list grows stale thrice as fast"),
        pytest.param((an_entry, 0, "stale"), (a_listing, 100, "stale"), 160, id="and so it does once it is late"),
        pytest.param((an_entry, 30, "stale"), (an_entry, 0, "due"), 60, id="what is late goes whoever has the turn"),
    ],
)
def test_one_goes_first_until_another_is_staler_or_late(first: Put, second: Put, until: float) -> None:
    for now in (until - 0.1, until + 0.1):
        poll_queue, items = a_poll_queue(), list[PollItem]()
        for make, asked_at, queue in (first, second):
            items.append(item := make())
            item.asked_at = Monotonic(asked_at)
            poll_queue.put(item, due_at=Monotonic(asked_at + 1), queue=QueueKind(queue))
        assert take(poll_queue, now) is items[now > until]


def test_scans_that_have_begun_take_every_second_turn_and_go_by_their_beginning() -> None:
    poll_queue, first, second = a_poll_queue(), a_listing(), a_listing()
    poll_queue.put(second, due_at=Monotonic(5), queue=QueueKind.BEGUN)
    poll_queue.put(first, due_at=Monotonic(4), queue=QueueKind.BEGUN)
    entry = an_entry()
    poll_queue.put(entry, due_at=Monotonic(1))
    assert [take(poll_queue, 9) for _ in range(4)] == [first, entry, second, None]


def test_lateness_counts_from_when_an_item_was_due_or_had_grown_stale_for_too_long() -> None:
    for queue, due_at, now, late_s in (
        (QueueKind.DUE, 60, 60, 0),
        (QueueKind.DUE, 60, 100, 40),
        (QueueKind.STALE, 1, 20, 0),
        (QueueKind.STALE, 1, 100, 40),
    ):
        poll_queue, entry = a_poll_queue(), an_entry()
        poll_queue.put(entry, due_at=Monotonic(due_at), queue=queue)
        assert take(poll_queue, now) is entry
        assert poll_queue.late_s(entry, Monotonic(now)) == late_s
        assert not entry.is_queued


def test_an_item_moves_from_one_heap_to_the_other_and_comes_once() -> None:
    poll_queue, entry = a_poll_queue(), an_entry()
    poll_queue.put(entry, due_at=Monotonic(1))
    other = an_entry("other")
    other.asked_at = Monotonic(-1)
    poll_queue.put(other, due_at=Monotonic(1))
    assert take(poll_queue, 1) is other  # the entry is among what is due from here on
    poll_queue.put(entry, due_at=Monotonic(2), queue=QueueKind.STALE)
    poll_queue.put(entry, due_at=Monotonic(3), queue=QueueKind.BEGUN)
    poll_queue.put(entry, due_at=Monotonic(3))
    assert peek(poll_queue) is entry
    assert names(poll_queue) == ["e"]


def test_what_was_taken_for_nothing_is_restored_as_it_was() -> None:
    poll_queue, entry = a_poll_queue(), an_entry()
    poll_queue.put(entry, due_at=Monotonic(2), queue=QueueKind.STALE)
    poll_queue.take(entry)
    poll_queue.put(entry, due_at=entry.due_at, queue=entry.queue)
    assert (take(poll_queue, 1), take(poll_queue, 2), entry.queue) == (None, entry, QueueKind.STALE)
