"""How an API cuts a list into pages, as far as it has shown."""

from collections.abc import Sequence
from datetime import datetime

import pytest
from stores import from_us

from watcher.clerk.protocol import PAGE_ROWS
from watcher.domain.execution import ExecutionSnapshot
from watcher.polling.pagination.paging import Paging, ScannedPage

Read = Sequence[tuple[int, int]]
"""Pages in the order of reading: the number of each, and its rows."""


def paging_of(*scans: Read) -> Paging:
    paging = Paging()
    for scan in scans:
        paging.begin()
        for number, row_count in scan:
            paging.note(number, row_count)
    return paging


@pytest.mark.parametrize(
    ("scans", "rows"),
    [
        ([], PAGE_ROWS),
        ([[(1, 25)]], PAGE_ROWS),
        ([[(1, 25), (2, 3)]], 25),
        ([[(2, 3), (1, 25)]], 25),
        ([[(1, 25), (3, 0), (2, 25)]], 25),
        ([[(1, 25), (2, 0)]], PAGE_ROWS),
        ([[(1, 25), (1, 25)]], PAGE_ROWS),
        ([[(1, 3), (2, 25), (3, 7)]], 25),
        ([[(1, 25), (2, 3), (3, 1)]], 25),
        ([[(1, 25)], [(2, 3)]], PAGE_ROWS),
        ([[(1, 50), (2, 3)], [(1, 25), (2, 3)]], 25),
        ([[(1, 25), (2, 3)], [(1, 25)]], 25),
        ([[(1, 10), (2, 5)], [(1, 50)]], 50),
    ],
)
def test_the_lower_of_two_pages_that_hold_rows_is_full(scans: Sequence[Read], rows: int) -> None:
    assert paging_of(*scans).rows == rows


@pytest.mark.parametrize(
    ("scan", "page", "total", "ends"),
    [
        ([], (1, 50), 50, False),
        ([], (1, 3), 3, True),
        ([], (1, 25), None, False),
        ([], (1, 25), 0, False),
        ([], (1, 25), 26, False),
        ([], (2, 25), 75, True),
        ([(1, 50)], (2, 25), None, True),
        ([(1, 25), (2, 3)], (2, 3), None, True),
        ([(1, 25), (2, 3)], (2, 3), 0, True),
        ([(1, 25), (2, 3)], (2, 3), 28, True),
        ([(1, 25), (2, 3)], (2, 3), 29, False),
        ([(1, 25), (2, 3)], (3, 25), 75, False),
    ],
)
def test_a_page_ends_the_list_where_more_would_fit_and_nothing_says_that_there_is_more(
    scan: Read, page: tuple[int, int], total: int | None, *, ends: bool
) -> None:
    assert paging_of(scan).ends(*page, total) is ends


def test_rows_are_counted_by_what_pages_hold() -> None:
    paging = paging_of([(1, 10), (2, 4)])
    assert [paging.before(page) for page in (1, 2, 5)] == [0, 10, 40]
    assert paging.length(3, 7) == 27
    assert [paging.page_of(index) for index in (0, 9, 10, 25)] == [1, 1, 2, 3]


def at(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def test_a_page_has_an_oldest_and_a_newest_date() -> None:
    starts, ends = (5, 3, None, None), (9, None, 4, None)
    rows = [
        ExecutionSnapshot("e", "new", started_at=at(start), finished_at=at(end))
        for start, end in zip(starts, ends, strict=True)
    ]
    page = ScannedPage(1, rows, 4, None, (), (), ends_list=False)
    assert (page.oldest_at, page.newest_at) == (3, 9)
    empty = ScannedPage(1, rows[3:], 1, None, (), (), ends_list=False)
    assert (empty.oldest_at, empty.newest_at) == (None, None)
