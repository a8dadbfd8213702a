"""What had ended before a pipeline was watched, by dates: a table of all cases. Seconds, watched since 1,000."""

from dataclasses import replace

import pytest
from stores import from_us

from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.polling.pagination.api_clock import Dates, shown_dates
from watcher.polling.pagination.arrival_baseline import (
    BASELINE_US,
    COMPARED_AFTER_US,
    ArrivalBaseline,
    FirstSeen,
    had_ended,
    proves_new,
)

SECOND = 1_000_000
FIRST = Cursor(Micros(1000 * SECOND))
"""Before the first scan has read where new rows show."""
HEAD = Cursor(Micros(1000 * SECOND), newest_at=Micros(900 * SECOND))
"""While it goes on further down."""
DONE = Cursor(Micros(1000 * SECOND), complete_at=Micros(1001 * SECOND), found=True, newest_at=Micros(900 * SECOND))


def ended(began_s: int | None, ended_s: int | None) -> ExecutionSnapshot:
    at = [None if each is None else from_us(each * SECOND) for each in (began_s, ended_s)]
    return ExecutionSnapshot("e", "success", started_at=at[0], finished_at=at[1])


@pytest.mark.parametrize(
    ("cursor", "ended_by", "row", "found_s", "lookback_s", "history"),
    [
        # our clock decides where nothing else does
        (FIRST, None, (990, 999), 1000, 0, True),
        (FIRST, None, (990, 1000), 1000, 0, False),
        (FIRST, None, (990, 999), 1000, 10, False),
        (FIRST, None, (980, 989), 1000, 10, True),
        (FIRST, None, (980, 990), 1000, 10, False),
        (FIRST, None, (None, None), 1000, 0, False),
        # the API's dates prove it
        (FIRST, 2000, (1990, 2000), 3000, 0, True),
        (FIRST, 2000, (1990, 2001), 3000, 0, False),
        (FIRST, 2000, (1980, 1990), 3000, 10, True),
        (FIRST, 2000, (1980, 1991), 3000, 10, False),
        # a date that is yet to come proves that its clock is ahead
        (FIRST, None, (1990, 1001), 1000, 0, True),
        (FIRST, None, (1990, 2000), 1000, 10, False),
        (HEAD, None, (900, 2000), 1000, 0, True),
        (HEAD, None, (901, 2000), 1000, 0, False),
        (DONE, None, (800, 2000), 1000, 0, False),
        # it began after the newest rows were read
        (HEAD, None, (901, 902), 1015, 0, False),
        (HEAD, None, (985, 986), 1014, 0, False),
        (HEAD, None, (986, 987), 1014, 0, True),
        (HEAD, None, (986, 987), 1015, 0, False),
        (HEAD, None, (900, 902), 1015, 0, True),
        # it ended after that, and all has been read
        (DONE, None, (800, 900), 1015, 0, False),
        (DONE, None, (800, 899), 1015, 0, True),
        (DONE, None, (800, 900), 1014, 0, True),
        (DONE, 950, (800, 940), 1015, 0, False),
    ],
)
def test_what_is_new_is_known_by_the_apis_own_dates(
    cursor: Cursor,
    ended_by: int | None,
    row: tuple[int | None, int | None],
    found_s: int,
    lookback_s: int,
    *,
    history: bool,
) -> None:
    arrivals = ArrivalBaseline(None if ended_by is None else Micros(ended_by * SECOND))
    seen = FirstSeen(Micros(found_s * SECOND), Micros(found_s * SECOND))
    assert had_ended(cursor, ended(*row), arrivals, seen=seen, lookback_us=lookback_s * SECOND) is history


def test_the_latest_dates_bound_what_the_apis_clock_showed_at_first() -> None:
    arrivals = ArrivalBaseline()
    arrivals.note([], now=Micros(99_000 * SECOND), watched_us=5 * SECOND, is_read=False)
    assert arrivals == ArrivalBaseline()
    arrivals.note(
        [ended(10, 20), ended(30, None), ended(1, 2)], now=Micros(99_000 * SECOND), watched_us=5 * SECOND, is_read=False
    )
    assert (arrivals.ended_by_at, arrivals.first_at) == (25 * SECOND, 30 * SECOND)
    arrivals.note([ended(10, 40)], now=Micros(99_000 * SECOND), watched_us=20 * SECOND, is_read=False)
    assert (arrivals.ended_by_at, arrivals.first_at) == (25 * SECOND, 30 * SECOND)
    arrivals.note([ended(10, 50)], now=Micros(99_000 * SECOND), watched_us=20 * SECOND, is_read=False)
    assert arrivals.ended_by_at == 30 * SECOND
    arrivals.note([ended(10, 5000)], now=Micros(99_000 * SECOND), watched_us=BASELINE_US, is_read=False)
    assert arrivals.ended_by_at == 4400 * SECOND
    arrivals.note([ended(10, 99_000)], now=Micros(99_000 * SECOND), watched_us=BASELINE_US + 1, is_read=False)
    assert arrivals.ended_by_at == 4400 * SECOND


@pytest.mark.parametrize(
    ("ends", "latest_s"),
    [
        ([], None),
        ([900, 990], 990),
        ([900, 1015], 1015),
        ([900, 950, 1016], 950),  # one that is wrong
        ([900, 1016], 1016),  # half of them: our clock may be behind
        ([1016], 1016),
    ],
)
def test_single_dates_that_are_yet_to_come_say_nothing_of_the_apis_clock(ends: list[int], latest_s: int | None) -> None:
    rows = [ended(800, end) for end in ends]
    assert Dates(shown_dates(rows), now=Micros(1000 * SECOND)).latest_at == (
        None if latest_s is None else latest_s * SECOND
    )


def test_when_one_that_has_not_begun_is_to_begin_says_nothing_of_the_apis_clock() -> None:
    planned = replace(ended(950, None), status="new")
    assert Dates(shown_dates([ended(930, None), planned]), now=Micros(1000 * SECOND)).latest_at == 930 * SECOND


@pytest.mark.parametrize(
    ("is_counted", "found_s", "is_new"),
    [(True, 1015, True), (True, 1014, False), (False, 1015, False), (True, 1099, True), (True, 1100, False)],
)
def test_a_row_is_new_whatever_its_dates_say_once_all_that_were_there_were_known(
    found_s: int, *, is_counted: bool, is_new: bool
) -> None:
    arrivals = ArrivalBaseline(is_counted=is_counted)
    assert proves_new(DONE, arrivals, found_at=Micros(found_s * SECOND), history_us=100 * SECOND) is is_new


UNREAD = Cursor(Micros(1000 * SECOND), complete_at=Micros(1001 * SECOND), found=True)
"""All has been read, but perhaps not where new rows show."""


@pytest.mark.parametrize(
    ("cursor", "found_s", "ended_s", "unproven"),
    [
        # where a complete scan saw nothing of it, it is new, or was hidden then
        (DONE, 1015, 899, True),
        (DONE, 1015, 890, True),
        (DONE, 1015, 889, False),  # the first scan did not read so far back
        (UNREAD, 1015, 990, True),
        (UNREAD, 1015, 989, False),
        (DONE, 1014, 899, False),  # it may have come late to be seen
        (HEAD, 1015, 899, False),
        (DONE, 1015, None, False),
    ],
)
def test_an_end_that_was_not_there_when_all_was_read_is_unproven(
    cursor: Cursor, found_s: int, ended_s: int | None, *, unproven: bool
) -> None:
    arrivals = ArrivalBaseline(ended_by_at=Micros(950 * SECOND))
    arrivals.note_uncertain(cursor, ended(None, ended_s), found_at=Micros(found_s * SECOND), lookback_us=10 * SECOND)
    assert arrivals.compare(watched_us=0) == unproven


@pytest.mark.parametrize(
    ("ended_s", "new_s", "watched_s", "is_read", "unproven"),
    [
        (991, 1020, 30, True, 1),  # when it began to be watched the API's clock showed 990 at least
        (990, 1020, 30, True, 0),
        (980, 990, 30, True, 0),  # it had ended by the time of the first answer
        (991, 1020, 30, False, 0),  # nothing new has shown yet
        (991, 1019, 29, True, 0),  # too early to know
        (991, 1004, 14, True, 0),  # it may be the one in doubt itself
    ],
)
def test_an_end_that_only_our_clock_says_had_come_before_is_evaluated_once_both_can_be_compared(
    ended_s: int, new_s: int, watched_s: int, unproven: int, *, is_read: bool
) -> None:
    assert COMPARED_AFTER_US == 30 * SECOND
    arrivals = ArrivalBaseline()
    arrivals.note([ended(970, 980)], now=Micros(99_000 * SECOND), watched_us=0, is_read=False)
    arrivals.note_uncertain(HEAD, ended(900, ended_s), found_at=Micros(1003 * SECOND), lookback_us=10 * SECOND)
    arrivals.note([ended(new_s, None)], now=Micros(99_000 * SECOND), watched_us=watched_s * SECOND, is_read=is_read)
    assert [arrivals.compare(watched_us=watched_s * SECOND) for _ in range(2)] == [unproven] * 2
    assert arrivals.compare(watched_us=30 * SECOND) == (unproven or watched_s == 29)


@pytest.mark.parametrize(
    ("first_s", "next_s", "watched_s", "unsure", "corrected", "ended_by_s"),
    [
        ([9000], [1020], 20, False, True, 1000),
        ([900, 9000], [1020], 20, False, True, 1000),
        ([900, 9000], [1020], 14, True, False, 9000),  # it may have been there before
        ([9000], [9020], 20, False, False, 9000),  # the API's clock is ahead
        ([800, 900, 9000], [1020], 20, False, False, 1000),
        ([8000, 8500, 9000], [1020], 20, False, False, 9000),
        ([900], [1020], 20, False, False, 1000),
    ],
)
def test_few_dates_that_are_yet_to_come_count_until_new_rows_show_another_clock(
    first_s: list[int], next_s: list[int], watched_s: int, ended_by_s: int, *, unsure: bool, corrected: bool
) -> None:
    arrivals = ArrivalBaseline()
    arrivals.note([ended(800, each) for each in first_s], now=Micros(1000 * SECOND), watched_us=0, is_read=False)
    now, watched_us = (1000 + watched_s) * SECOND, watched_s * SECOND
    arrivals.note([ended(None, each) for each in next_s], now=Micros(now), watched_us=watched_us, is_read=True)
    assert (arrivals.is_unsure, arrivals.is_corrected) == (unsure, corrected)
    assert arrivals.ended_by_at == ended_by_s * SECOND


def test_an_end_in_the_first_seconds_is_unproven_where_the_date_that_spoke_against_it_was_wrong() -> None:
    arrivals = ArrivalBaseline()
    arrivals.note([ended(800, 9000)], now=Micros(1000 * SECOND), watched_us=0, is_read=False)
    arrivals.note_uncertain(HEAD, ended(900, 1004), found_at=Micros(1004 * SECOND), lookback_us=10 * SECOND)
    arrivals.note([ended(1020, 1030)], now=Micros(1030 * SECOND), watched_us=30 * SECOND, is_read=True)
    assert arrivals.compare(watched_us=30 * SECOND) == 1


def test_what_the_first_scan_meets_further_on_was_there_though_it_began_after_the_newest() -> None:
    row = ended(901, 902)
    assert not had_ended(
        HEAD, row, ArrivalBaseline(), seen=FirstSeen(Micros(1005 * SECOND), Micros(1005 * SECOND)), lookback_us=0
    )
    assert had_ended(
        HEAD,
        row,
        ArrivalBaseline(),
        seen=FirstSeen(Micros(1005 * SECOND), Micros(1005 * SECOND), in_turn=True),
        lookback_us=0,
    )
