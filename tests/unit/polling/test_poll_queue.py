"""The order in which executions are looked at."""

import random

import pytest

from watcher.domain.models import Cursor, Known, Watch
from watcher.polling.pagination.api_clock import ApiClock
from watcher.polling.pagination.paging import Paging
from watcher.polling.pagination.result import Learnt
from watcher.polling.pagination.sort_order import Ordering
from watcher.polling.pagination.traversal import Scan
from watcher.polling.pipeline_list import Listing
from watcher.polling.poll_queue import Agenda, Entry, Item

WATCH = Watch("default", "p", ())


def an_entry(name: str = "e") -> Entry:
    return Entry(Known(name, "p"), WATCH)


def a_listing() -> Listing:
    scan = Scan(
        Learnt(Ordering(), Paging()), clock=ApiClock(), cursor=Cursor(0), lookback_us=0, began_at=0, pages_at_most=10
    )
    return Listing(WATCH, Cursor(0), 0, scan)


def an_agenda() -> Agenda:
    return Agenda(max_interval_s=60.0)


def first_due(agenda: Agenda, now: float) -> Item | None:
    return agenda.due(agenda.ready(now))


def first_stale(agenda: Agenda, now: float) -> Item | None:
    return agenda.stalest(agenda.ready(now), now)


def first_late(agenda: Agenda, now: float) -> Item | None:
    return agenda.late(agenda.ready(now), now)


def take_due(agenda: Agenda, now: float) -> Item | None:
    first = first_due(agenda, now)
    if first is not None:
        agenda.take(first)
    return first


def names(agenda: Agenda, *, now: float = 1e9) -> list[str]:
    taken = []
    while isinstance(entry := take_due(agenda, now), Entry):
        taken.append(entry.known.execution)
    return taken


def test_an_empty_agenda_has_nothing() -> None:
    assert an_agenda().peek() is None
    assert take_due(an_agenda(), 1e9) is None


def test_what_has_been_due_longest_comes_first_and_equals_in_turn() -> None:
    agenda = an_agenda()
    for name, due_at in (("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0)):
        agenda.put(an_entry(name), due_at=due_at)
    assert names(agenda) == ["a", "b1", "b2", "c"]


def test_nothing_is_taken_before_it_is_due() -> None:
    agenda, entry = an_agenda(), an_entry()
    agenda.put(entry, due_at=10)
    assert take_due(agenda, 9.999) is None
    assert take_due(agenda, 10) is entry


def test_an_entry_that_is_taken_is_not_taken_again_until_it_is_put_back() -> None:
    agenda, entry = an_agenda(), an_entry()
    agenda.put(entry, due_at=1)
    assert take_due(agenda, 5) is entry
    assert take_due(agenda, 5) is None
    agenda.put(entry, due_at=2)
    assert names(agenda) == ["e"]


def test_an_entry_may_be_moved_both_ways_and_comes_once() -> None:
    agenda, early, late = an_agenda(), an_entry("early"), an_entry("late")
    agenda.put(early, due_at=10)
    agenda.put(late, due_at=5)
    agenda.put(early, due_at=1)
    agenda.put(late, due_at=20)
    assert agenda.peek() is early
    assert names(agenda) == ["early", "late"]


def test_an_entry_may_be_taken_before_it_is_due() -> None:
    agenda, first, second = an_agenda(), an_entry("first"), an_entry("second")
    agenda.put(first, due_at=1)
    agenda.put(second, due_at=100)
    agenda.take(second)
    assert names(agenda) == ["first"]


def test_an_entry_taken_early_and_put_back_comes_at_its_new_time_only() -> None:
    agenda, entry, other = an_agenda(), an_entry(), an_entry("other")
    agenda.put(entry, due_at=1)
    agenda.put(other, due_at=50)
    agenda.take(entry)
    agenda.put(entry, due_at=100)
    assert names(agenda) == ["other", "e"]


def test_an_entry_knows_whether_it_is_queued() -> None:
    agenda, entry = an_agenda(), an_entry()
    queued = [entry.queued]
    agenda.put(entry, due_at=1)
    queued.append(entry.queued)
    take_due(agenda, 1)
    assert [*queued, entry.queued] == [False, True, False]


def test_peeking_takes_nothing() -> None:
    agenda, entry = an_agenda(), an_entry()
    agenda.put(entry, due_at=1)
    assert agenda.peek() is agenda.peek() is entry
    assert take_due(agenda, 1) is entry


def test_a_thousand_random_moves_lose_and_double_nothing() -> None:
    draw = random.Random(3)
    agenda, entries = an_agenda(), [an_entry(str(number)) for number in range(50)]
    for entry in entries:
        agenda.put(entry, due_at=draw.random())
    for _ in range(1000):
        entry = draw.choice(entries)
        if entry.queued and draw.random() < 0.5:
            agenda.take(entry)
        agenda.put(entry, due_at=draw.random())
    due = [entry.due_at for entry in sorted(entries, key=lambda entry: entry.due_at)]
    taken = [taken.due_at for _ in entries if (taken := take_due(agenda, 1)) is not None]
    assert taken == due
    assert take_due(agenda, 1) is None


def test_what_grows_stale_is_another_matter_than_what_is_due() -> None:
    agenda, due, stale = an_agenda(), an_entry("due"), an_entry("stale")
    agenda.put_stale(stale, from_at=1)
    agenda.put(due, due_at=20)
    assert (first_stale(agenda, 0.5), first_due(agenda, 0.5)) == (None, None)
    assert (first_stale(agenda, 10), first_due(agenda, 10)) == (stale, None)
    assert (first_stale(agenda, 20), first_due(agenda, 20)) == (stale, due)
    assert agenda.peek() is stale


def test_a_list_grows_stale_three_times_as_fast() -> None:
    agenda, entry, list_ = an_agenda(), an_entry(), a_listing()
    agenda.put_stale(entry, from_at=1)
    agenda.put_stale(list_, from_at=7)
    assert first_stale(agenda, 9.9) is entry
    assert first_stale(agenda, 10.1) is list_


@pytest.mark.parametrize("due_at", [1, 20, 59, 60])
def test_what_was_asked_for_longest_ago_is_late_first_however_long_it_has_been_due(due_at: float) -> None:
    agenda, old, young = an_agenda(), an_entry("old"), an_entry("young")
    old.asked_at, young.asked_at = 0, 1
    agenda.put(young, due_at=1)
    agenda.put(old, due_at=due_at)
    assert first_late(agenda, 59.9) is None
    assert first_late(agenda, 60) is old
    agenda.take(old)
    assert first_late(agenda, 60) is None
    assert first_late(agenda, 61) is young


def test_what_is_not_due_is_not_late() -> None:
    agenda, entry = an_agenda(), an_entry()
    agenda.put(entry, due_at=600)
    assert first_late(agenda, 599) is None
    assert first_late(agenda, 600) is entry


def test_a_late_list_goes_before_others_that_are_not_three_times_as_late() -> None:
    agenda, entry, list_ = an_agenda(), an_entry(), a_listing()
    entry.asked_at, list_.asked_at = 0, 100
    agenda.put_stale(entry, from_at=1)
    agenda.put_stale(list_, from_at=101)
    assert first_late(agenda, 159) is entry
    assert first_late(agenda, 160) is list_


def test_a_scan_that_has_begun_waits_by_itself_and_goes_by_its_beginning() -> None:
    agenda, first, second = an_agenda(), a_listing(), a_listing()
    agenda.put_begun(second, since=5)
    agenda.put_begun(first, since=4)
    assert (first_due(agenda, 1e9), first_stale(agenda, 1e9), first_late(agenda, 1e9)) == (None, None, None)
    assert agenda.begun() is agenda.peek() is first
    agenda.take(first)
    assert agenda.begun() is second


def test_lateness_counts_from_when_an_item_was_due_or_had_grown_stale_for_too_long() -> None:
    agenda, due, stale = an_agenda(), an_entry("due"), an_entry("stale")
    agenda.put(due, due_at=60)
    agenda.put_stale(stale, from_at=1)
    assert [agenda.late_s(item, 100) for item in (due, stale)] == [40, 40]
    assert [agenda.late_s(item, 20) for item in (due, stale)] == [0, 0]


def test_an_item_moves_from_one_heap_to_the_other_and_comes_once() -> None:
    agenda, entry = an_agenda(), an_entry()
    agenda.put(entry, due_at=1)
    agenda.put_stale(entry, from_at=2)
    agenda.put_begun(entry, since=3)
    agenda.put(entry, due_at=3)
    assert agenda.peek() is entry
    assert (first_stale(agenda, 9), agenda.begun()) == (None, None)
    assert names(agenda) == ["e"]


def test_what_was_taken_for_nothing_is_restored_as_it_was() -> None:
    agenda, entry = an_agenda(), an_entry()
    agenda.put_stale(entry, from_at=2)
    agenda.take(entry)
    agenda.restore(entry)
    assert (first_stale(agenda, 1), first_stale(agenda, 2)) == (None, entry)
