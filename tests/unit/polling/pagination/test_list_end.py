"""Where a list that begins with the oldest ends."""

import pytest

from watcher.polling.pagination.list_end import PROBES_AT_MOST, EndSearch
from watcher.polling.pagination.paging import Paging, ScannedPage


def paging() -> Paging:
    """Return what pages of ten rows, and no fewer, have shown."""
    known = Paging()
    for number in (1, 2):
        known.note(number, 10)
    return known


@pytest.mark.parametrize("last", [1, 2, 3, 7, 12, 40])
@pytest.mark.parametrize("begin", [1, 2, 3, 12, 60])
@pytest.mark.parametrize(("beyond", "last_rows"), [("empty", 3), ("empty", 10), ("clamped", 10)])
def test_the_last_page_is_found_from_wherever_the_search_begins(
    last: int, begin: int, beyond: str, last_rows: int
) -> None:
    search, asked = EndSearch((begin - 1) * 10, paging()), list[int]()
    while not search.found:
        asked.append(search.page)
        shown = min(search.page, last) if beyond == "clamped" else search.page
        count = 0 if shown > last else last_rows if shown == last else 10
        search.note(search.page, {f"{shown}/{each}" for each in range(count)}, row_count=count, total=None)
    assert len(asked) <= 14
    assert (search.page, search.is_first_for_all) == (last, beyond == "clamped" and last == 1)


def test_a_search_ends_though_every_page_shows_other_rows() -> None:
    search = EndSearch(0, paging())
    for number in range(PROBES_AT_MOST):
        assert not search.is_hopeless
        search.note(search.page, {f"{number}"}, row_count=10, total=None)
    assert search.is_hopeless


def test_a_last_page_that_was_shown_for_others_and_is_empty_then_is_looked_for_further_down() -> None:
    search, shown = EndSearch(50, paging()), []
    for ids in ("a", "a", "", "b", "c", "d"):  # of pages 6, 7, 4 and so on
        shown.append(search.page)
        search.note(search.page, set(ids), row_count=10 * len(ids), total=None)
    assert (shown[:3], search.found, search.is_clamped, search.page) == ([6, 7, 4], True, False, 3)


def of(page: int, *, row_count: int, total: int | None) -> ScannedPage:
    return ScannedPage(page, (), row_count, total, (), (), ends_list=False)


@pytest.mark.parametrize(
    ("page", "empty", "uncertain", "sure"),
    [
        (of(3, row_count=7, total=27), None, False, True),
        (of(3, row_count=7, total=None), None, False, True),
        (of(3, row_count=10, total=None), None, False, False),
        (of(3, row_count=10, total=None), 4, False, True),
        (of(3, row_count=10, total=None), 5, False, False),
        (of(3, row_count=10, total=30), None, False, True),
        (of(3, row_count=10, total=30), None, True, False),
    ],
)
def test_a_page_is_the_last_for_sure_where_nothing_is_beyond_it(
    page: ScannedPage, empty: int | None, *, uncertain: bool, sure: bool
) -> None:
    search = EndSearch(0, paging())
    if empty is not None:
        search.note_empty(empty)
    search.settle(page, is_uncertain=uncertain)
    assert search.is_sure is sure


@pytest.mark.parametrize(
    ("row_count", "says_more", "asked"), [(10, True, [True, False]), (10, False, [False] * 2), (9, True, [False] * 2)]
)
def test_beyond_a_full_page_is_asked_once_more_where_more_is_said_to_be(
    row_count: int, asked: list[bool], *, says_more: bool
) -> None:
    search = EndSearch(0, paging())
    assert [search.asks_beyond(of(3, row_count=row_count, total=None), says_more=says_more) for _ in "ab"] == asked
    assert search.last_page == (4 if asked[0] else None)


def test_where_the_last_page_is_full_new_rows_show_on_the_one_after_it() -> None:
    search = EndSearch(0, paging())
    search.head_is_full()
    assert search.last_page is None
    search.note(1, {"a"}, row_count=1, total=None)
    search.head_is_full()
    assert search.last_page == 2


@pytest.mark.parametrize(
    ("row_count", "total", "following"),
    [(10, None, 2), (10, 75, 8), (10, 10, 2), (7, None, 1), (7, 9, 2)],
)
def test_a_total_says_where_to_look_and_a_page_that_is_not_full_that_little_is_beyond(
    row_count: int, total: int | None, following: int
) -> None:
    search = EndSearch(0, paging())
    search.note(1, {"a"}, row_count=row_count, total=total)
    assert search.page == following
