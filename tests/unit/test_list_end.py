"""Where a list that begins with the oldest ends."""

import pytest

from watcher.list_end import PROBES_AT_MOST, EndSearch
from watcher.page import Paging


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
