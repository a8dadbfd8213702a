"""What had ended before a pipeline was watched, by dates: a table of all cases. Seconds, watched since 1,000."""

import pytest
from stores import from_us

from watcher.beginning import BEGINNING_US, SETTLED_AFTER_US, Beginning, Seen, had_ended
from watcher.models import Cursor, Execution

SECOND = 1_000_000
FIRST = Cursor(1000 * SECOND)
"""Before the first scan has read where new rows show."""
HEAD = Cursor(1000 * SECOND, newest_at=900 * SECOND)
"""While it goes on further down."""
DONE = Cursor(1000 * SECOND, complete_at=1001 * SECOND, found=True, newest_at=900 * SECOND)


def ended(began_s: int | None, ended_s: int | None) -> Execution:
    at = [None if each is None else from_us(each * SECOND) for each in (began_s, ended_s)]
    return Execution("e", "success", started_at=at[0], finished_at=at[1])


@pytest.mark.parametrize(
    ("cursor", "ended_by", "row", "found_s", "told_s", "history"),
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
    told_s: int,
    *,
    history: bool,
) -> None:
    beginning = Beginning(None if ended_by is None else ended_by * SECOND)
    seen = Seen(found_s * SECOND, found_s * SECOND)
    assert had_ended(cursor, ended(*row), beginning, seen=seen, told_us=told_s * SECOND) is history


def test_the_latest_dates_bound_what_the_apis_clock_showed_at_first() -> None:
    beginning = Beginning()
    beginning.note([], watched_us=5 * SECOND)
    assert beginning == Beginning()
    beginning.note([ended(10, 20), ended(30, None), ended(1, 2)], watched_us=5 * SECOND)
    assert (beginning.ended_by_at, beginning.first_at) == (25 * SECOND, 30 * SECOND)
    beginning.note([ended(10, 40)], watched_us=20 * SECOND)
    assert (beginning.ended_by_at, beginning.first_at) == (25 * SECOND, 30 * SECOND)
    beginning.note([ended(10, 50)], watched_us=20 * SECOND)
    assert beginning.ended_by_at == 30 * SECOND
    beginning.note([ended(10, 5000)], watched_us=BEGINNING_US)
    assert beginning.ended_by_at == 4400 * SECOND
    beginning.note([ended(10, 99_000)], watched_us=BEGINNING_US + 1)
    assert beginning.ended_by_at == 4400 * SECOND


def test_a_list_is_empty_once_it_was_so_often_and_for_so_long() -> None:
    beginning, seen = Beginning(), []
    for at in (5, SETTLED_AFTER_US + 4, SETTLED_AFTER_US + 5):
        beginning.note_empty(at=at)
        seen.append(beginning.is_empty(after=3, at=at))
    assert seen == [False, False, True]
    assert not beginning.is_empty(after=4, at=9 * SETTLED_AFTER_US)
