"""What is remembered of one pipeline's list."""

import pytest
from stores import from_us

from watcher.clerk.protocol import PAGE_ROWS
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot
from watcher.domain.timestamps import Micros, Monotonic
from watcher.domain.watch import Cursor, Watch
from watcher.polling.page_index import REMEMBERED_COUNT, STEP_ROWS
from watcher.polling.pagination.api_clock import ApiClock
from watcher.polling.pagination.coverage import CarryOver
from watcher.polling.pagination.paging import Paging
from watcher.polling.pagination.sort_order import Ordering
from watcher.polling.pagination.traversal import ListTraversal
from watcher.polling.pipeline_list import SEEK_EVERY_S, PipelineListState, PipelineStream
from watcher.polling.poll_queue import TrackedExecution

WATCH = Watch("default", "whole", ())


def listing() -> PipelineListState:
    scan = ListTraversal(
        CarryOver(Ordering(), Paging()),
        clock=ApiClock(),
        cursor=Cursor(Micros(0)),
        lookback_us=0,
        began_at=Micros(0),
        pages_at_most=10,
    )
    return PipelineListState(WATCH, Cursor(Micros(0)), PipelineStream(0), scan)


def on_page(listing: PipelineListState, page: int, *, at: float) -> list[TrackedExecution]:
    return list(listing.rows.on_page(page, at=Monotonic(at)))


def shown(listing: PipelineListState, name: str, *, index: int) -> TrackedExecution:
    entry = TrackedExecution(ExecutionRecord(name, "whole", found_at=Micros(5)), WATCH)
    listing.rows.enter(entry)
    listing.rows.put(entry, index=index, at=Monotonic(0.0), scanned=True)
    return entry


def test_what_a_page_shows_is_not_forgotten_for_others_of_the_same_page() -> None:
    known = listing()
    known.rows.remember({f"old {number}": Micros(1) for number in range(REMEMBERED_COUNT)})
    page = [f"old {number}" for number in range(25)] + [f"new {number}" for number in range(25)]
    unknown = known.rows.unknown(page)
    assert unknown == page[25:]
    known.rows.remember(dict.fromkeys(unknown, Micros(2)))
    assert [known.rows.found_at(name) for name in page] == [1] * 25 + [2] * 25


def test_the_longest_unseen_are_forgotten_first() -> None:
    known = listing()
    known.rows.remember({f"old {number}": Micros(1) for number in range(REMEMBERED_COUNT)})
    known.rows.remember({"new": Micros(2)})
    assert known.rows.unknown(["old 0", "old 1", "new"]) == ["old 0"]


def test_an_execution_that_ends_is_remembered_and_one_that_is_only_dropped_is_not() -> None:
    known = listing()
    ended, dropped = shown(known, "ended", index=0), shown(known, "dropped", index=1)
    ended.known = ExecutionRecord("ended", "whole", ended_at=Micros(9), found_at=Micros(5))
    known.rows.leave(ended)
    known.rows.leave(dropped)
    assert (known.rows.found_at("ended"), known.rows.found_at("dropped")) == (5, None)


def test_others_sink_by_what_a_scan_found_once_it_is_done() -> None:
    known = listing()
    entry = shown(known, "a", index=PAGE_ROWS - 1)
    known.scan_ended(known.scan)
    known.found(STEP_ROWS, scanned=False)
    assert on_page(known, 1, at=0.0) == [entry]
    known.scan_ended(known.scan)
    assert (on_page(known, 1, at=0.0), on_page(known, 2, at=0.0)) == ([], [entry])


def test_one_that_few_rows_have_moved_is_found_on_the_next_page_once_it_was_missed() -> None:
    known = listing()
    entry = shown(known, "a", index=PAGE_ROWS - 1)
    for _ in range(2):
        known.scan_ended(known.scan)
        known.found(1, scanned=False)
    known.scan_ended(known.scan)
    assert on_page(known, 1, at=0.0) == [entry]
    known.rows.miss(entry, page=1, at=Monotonic(0.0))
    assert on_page(known, 2, at=0.0) == [entry]
    assert entry.position is not None
    assert not entry.position.guessed


def test_who_has_left_is_on_no_page() -> None:
    known = listing()
    entry = shown(known, "a", index=3)
    known.rows.leave(entry)
    assert (on_page(known, 1, at=0.0), known.rows.page_of(entry, at=Monotonic(0.0))) == ([], None)


def test_what_a_poll_finds_while_a_scan_is_under_way_came_after_it_began() -> None:
    known = listing()
    known.progress.began_at = Micros(1)
    known.found(2, scanned=True)
    known.found(3, scanned=False)
    assert known.progress.found_count == 2
    known.scan_ended(known.scan)
    known.found(4, scanned=False)
    assert known.progress.found_count == 7


def test_one_that_is_not_where_it_should_be_may_be_on_the_page_beside_and_else_has_no_known_position() -> None:
    known = listing()
    entry = shown(known, "a", index=PAGE_ROWS - 2)
    known.rows.miss(entry, page=1, at=Monotonic(0.0))
    assert on_page(known, 2, at=0.0) == [entry]
    known.rows.miss(entry, page=2, at=Monotonic(0.0))
    assert entry.position is None
    known.scan_asked(Monotonic(0.0))
    assert known.sought_count() == 1


def test_one_that_is_expected_elsewhere_after_all_is_not_missed() -> None:
    known = listing()
    known.scan_asked(Monotonic(0.0))
    entry, other = shown(known, "a", index=PAGE_ROWS - 2), shown(known, "b", index=10)
    known.rows.find_displaced({other.known.execution: 15, "stranger": 1}, at=Monotonic(0.0))
    known.rows.miss(entry, page=1, at=Monotonic(0.0))
    assert on_page(known, 2, at=0.0) == [entry]
    assert entry.position is not None
    assert not entry.position.guessed


def test_the_pages_are_laid_out_anew_once_rows_have_come() -> None:
    known = listing()
    known.scan_asked(Monotonic(100.0))
    known.scan_ended(known.scan)
    known.scan_asked(Monotonic(110.0))
    known.found(20, scanned=True)
    entry = shown(known, "a", index=PAGE_ROWS - 4)
    known.scan_ended(known.scan)
    assert on_page(known, 1, at=110.0) == [entry]
    assert on_page(known, 2, at=113.0) == [entry]


@pytest.mark.parametrize(
    ("started_s", "found_s", "now_s", "is_known_row"),
    [
        (80, 100, 100, True),  # old enough by the API's own clock when it was found
        (85, 100, 100, True),
        (86, 100, 114, False),  # others that began with it may come to be seen yet
        (86, 100, 115, True),
        (None, 100, 114, False),
        (None, 100, 115, True),
        (80, 101, 200, False),  # the scan that found it is not complete
    ],
)
def test_a_known_row_is_what_nothing_can_come_to_be_seen_below_of(
    started_s: int | None, found_s: int, now_s: int, *, is_known_row: bool
) -> None:
    known, second = listing(), 1_000_000
    known.cursor = Cursor(Micros(0), Micros(100 * second))
    known.scan.clock.shown_at = Micros(100 * second)
    row = ExecutionSnapshot("e", "new", started_at=None if started_s is None else from_us(started_s * second))
    assert known.is_known_row(row, found_at=Micros(found_s * second), now=Micros(now_s * second)) is is_known_row


def test_who_has_no_known_position_is_sought_every_ten_minutes() -> None:
    known = listing()
    entry = TrackedExecution(ExecutionRecord("a", "whole", found_at=Micros(5)), WATCH)
    known.rows.enter(entry)
    sought = []
    for at in (0.0, 1.0, SEEK_EVERY_S, SEEK_EVERY_S + 1):
        known.scan_asked(Monotonic(at))
        sought.append(known.sought_count())
        known.scan_ended(known.scan)
    assert sought == [1, 0, 1, 0]


def test_a_known_row_is_not_what_only_our_clock_says_was_old() -> None:
    known, second = listing(), 1_000_000
    known.cursor = Cursor(Micros(0), Micros(100 * second))
    row = ExecutionSnapshot("e", "new", started_at=from_us(10 * second))
    assert not known.is_known_row(row, found_at=Micros(100 * second), now=Micros(114 * second))
    known.scan.clock.shown_at = Micros(24 * second)  # its clock is behind
    assert not known.is_known_row(row, found_at=Micros(100 * second), now=Micros(114 * second))
    known.scan.clock.shown_at = Micros(25 * second)
    assert known.is_known_row(row, found_at=Micros(100 * second), now=Micros(100 * second))
