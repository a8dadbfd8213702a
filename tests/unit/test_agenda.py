"""The order in which executions are looked at."""

import random

from watcher.agenda import Agenda, Entry, Item
from watcher.models import Known, Watch

WATCH = Watch("default", "p", ())


def an_entry(name: str = "e") -> Entry:
    return Entry(Known(name, "p"), WATCH)


def take_due(agenda: Agenda, now: float) -> Item | None:
    first = agenda.first(now)
    if first is not None:
        agenda.take(first)
    return first


def names(agenda: Agenda, *, now: float = 1e9) -> list[str]:
    taken = []
    while isinstance(entry := take_due(agenda, now), Entry):
        taken.append(entry.known.execution)
    return taken


def test_an_empty_agenda_has_nothing() -> None:
    assert Agenda().peek() is None
    assert take_due(Agenda(), 1e9) is None


def test_what_has_been_due_longest_comes_first_and_equals_in_turn() -> None:
    agenda = Agenda()
    for name, due_at in (("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0)):
        agenda.put(an_entry(name), due_at=due_at)
    assert names(agenda) == ["a", "b1", "b2", "c"]


def test_nothing_is_taken_before_it_is_due() -> None:
    agenda, entry = Agenda(), an_entry()
    agenda.put(entry, due_at=10)
    assert take_due(agenda, 9.999) is None
    assert take_due(agenda, 10) is entry


def test_an_entry_that_is_taken_is_not_taken_again_until_it_is_put_back() -> None:
    agenda, entry = Agenda(), an_entry()
    agenda.put(entry, due_at=1)
    assert take_due(agenda, 5) is entry
    assert take_due(agenda, 5) is None
    agenda.put(entry, due_at=2)
    assert names(agenda) == ["e"]


def test_an_entry_may_be_moved_both_ways_and_comes_once() -> None:
    agenda, early, late = Agenda(), an_entry("early"), an_entry("late")
    agenda.put(early, due_at=10)
    agenda.put(late, due_at=5)
    agenda.put(early, due_at=1)
    agenda.put(late, due_at=20)
    assert agenda.peek() is early
    assert names(agenda) == ["early", "late"]


def test_an_entry_may_be_taken_before_it_is_due() -> None:
    agenda, first, second = Agenda(), an_entry("first"), an_entry("second")
    agenda.put(first, due_at=1)
    agenda.put(second, due_at=100)
    agenda.take(second)
    assert names(agenda) == ["first"]


def test_an_entry_taken_early_and_put_back_comes_at_its_new_time_only() -> None:
    agenda, entry, other = Agenda(), an_entry(), an_entry("other")
    agenda.put(entry, due_at=1)
    agenda.put(other, due_at=50)
    agenda.take(entry)
    agenda.put(entry, due_at=100)
    assert names(agenda) == ["other", "e"]


def test_an_entry_knows_whether_it_is_queued() -> None:
    agenda, entry = Agenda(), an_entry()
    queued = [entry.queued]
    agenda.put(entry, due_at=1)
    queued.append(entry.queued)
    take_due(agenda, 1)
    assert [*queued, entry.queued] == [False, True, False]


def test_peeking_takes_nothing() -> None:
    agenda, entry = Agenda(), an_entry()
    agenda.put(entry, due_at=1)
    assert agenda.peek() is agenda.peek() is entry
    assert take_due(agenda, 1) is entry


def test_a_thousand_random_moves_lose_and_double_nothing() -> None:
    draw = random.Random(3)
    agenda, entries = Agenda(), [an_entry(str(number)) for number in range(50)]
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


def test_what_is_due_goes_before_what_is_only_stale() -> None:
    agenda, due, stale = Agenda(patience_s=50), an_entry("due"), an_entry("stale")
    agenda.put_stale(stale, from_at=1)
    agenda.put(due, due_at=20)
    assert agenda.first(0.5) is None
    assert agenda.first(10) is stale
    assert agenda.first(20) is due
    assert names(agenda, now=20) == ["due", "stale"]


def test_what_has_grown_stale_for_too_long_is_due_itself_and_goes_by_lateness() -> None:
    agenda, due, stale = Agenda(patience_s=50), an_entry("due"), an_entry("stale")
    agenda.put(due, due_at=60)
    agenda.put_stale(stale, from_at=1)
    assert names(agenda, now=100) == ["stale", "due"]
    assert agenda.late_s(stale, 100) == 49
    assert agenda.late_s(stale, 20) == 0
    assert agenda.late_s(due, 100) == 40


def test_an_item_moves_from_one_heap_to_the_other_and_comes_once() -> None:
    agenda, entry = Agenda(patience_s=50), an_entry()
    agenda.put(entry, due_at=1)
    agenda.put_stale(entry, from_at=2)
    agenda.put(entry, due_at=3)
    assert agenda.peek() is entry
    assert names(agenda) == ["e"]
