"""Which execution `watcher wait --next` follows, in lists of any order."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any, cast

import pytest
from virtual import EPOCH, PIPELINE, FakeClock, ScriptedApi, pages_of, said

from watcher.cli.wait.next_execution import NextSearch
from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.timestamps import Micros

ORDERS = pytest.mark.parametrize("newest_first", [True, False])

CLOCK_S = 1000.0
"""What the clock shows at the beginning, in seconds since the epoch of the tests."""


def id_of(nth: int) -> str:
    return f"9a1b0000-0000-4000-8000-{nth:012}"


def row(nth: int, *, at_s: float | None, status: str = "running", **facts: Any) -> ExecutionSnapshot:
    """Return a row that started so many seconds after the command, by the API's clock."""
    started_at = None if at_s is None else EPOCH + timedelta(seconds=CLOCK_S + at_s)
    return said(id_of(nth), status, started_at=started_at, **facts)


OLD = tuple(row(1000 + nth, at_s=-7200.0 + nth, status="success") for nth in range(120))


def listed(*rows: ExecutionSnapshot, newest_first: bool = True) -> Sequence[ExecutionSnapshot]:
    """Return rows, which are given oldest first, in the order of a list."""
    return rows[::-1] if newest_first else rows


def api_of(*rows: ExecutionSnapshot, newest_first: bool = True) -> ScriptedApi:
    return ScriptedApi(FakeClock(), pages=pages_of(*listed(*rows, newest_first=newest_first)))


def search_of(*, since_s: float = 30.0, conversation: str | None = None) -> NextSearch:
    now = FakeClock().steady_us()
    return NextSearch(Micros(now - round(since_s * 1_000_000)), now, conversation)


async def found_by(search: NextSearch, api: ScriptedApi) -> str | None:
    """Return what one round finds."""
    while True:
        found = search.take(await api.list(pipeline=PIPELINE, page=search.page))
        if found is not None or search.page == 1:
            return found


@ORDERS
@pytest.mark.parametrize("old", [(), OLD[:3], OLD[:49], OLD[:50], OLD])
async def test_the_earliest_since_then_is_found(old: Sequence[ExecutionSnapshot], *, newest_first: bool) -> None:
    search, api = search_of(), api_of(*old, newest_first=newest_first)
    assert await found_by(search, api) is None
    api.pages = pages_of(*listed(*old, row(2, at_s=3.0), row(1, at_s=3.5), newest_first=newest_first))
    assert await found_by(search, api) == id_of(2)


async def test_of_a_list_without_order_the_earliest_on_its_first_and_last_page_is_found(dice: Random) -> None:
    new = [row(nth, at_s=float(nth)) for nth in range(1, 9)]
    first, last = [*OLD[:46], *new[4:]], [*OLD[46:50], *new[:4]]
    dice.shuffle(first)
    dice.shuffle(last)
    assert await found_by(search_of(), api_of(*first, *last, newest_first=False)) == id_of(1)


@ORDERS
@pytest.mark.parametrize(("since_s", "found"), [(30.0, 2), (31.0, 1), (0.0, 3)])
async def test_it_may_have_ended_before_the_command(since_s: float, found: int, *, newest_first: bool) -> None:
    starts_s = (-30.5, -30.0, 0.0)
    rows = [row(nth, at_s=at_s, status="failed") for nth, at_s in enumerate(starts_s, start=1)]
    assert await found_by(search_of(since_s=since_s), api_of(*OLD, *rows, newest_first=newest_first)) == id_of(found)


async def test_equal_starts_go_by_id_and_an_end_during_the_start_counts(dice: Random) -> None:
    rows = [row(nth, at_s=1.0) for nth in range(1, 9)]
    dice.shuffle(rows)
    assert await found_by(search_of(), api_of(*rows)) == id_of(1)
    ended = row(1, at_s=-2.0, status="failed", finished_at=EPOCH + timedelta(seconds=CLOCK_S))
    assert await found_by(search_of(), api_of(*OLD, ended)) == id_of(1)


@pytest.mark.parametrize("offset_s", [-7200.0, 7200.0])
@pytest.mark.parametrize(("at_s", "found"), [(-29.0, id_of(1)), (-31.0, None)])
async def test_dates_are_by_the_clock_of_the_api_however_off(at_s: float, found: str | None, offset_s: float) -> None:
    api = api_of(row(1, at_s=at_s + offset_s, status="success"))
    api.offset_s = offset_s
    assert await found_by(search_of(), api) == found


SALES, SUPPORT = "c0000000-0000-4000-8000-00000000000a", "c0000000-0000-4000-8000-00000000000b"


@ORDERS
async def test_only_an_execution_of_the_conversation_is_found(*, newest_first: bool) -> None:
    others = (row(1, at_s=1.0, conversation_id=SALES), row(2, at_s=2.0), row(3, at_s=None, conversation_id=SALES))
    search, api = search_of(conversation=SUPPORT), api_of(*OLD, newest_first=newest_first)
    assert await found_by(search, api) is None
    api.pages = pages_of(*listed(*OLD, *others, newest_first=newest_first))
    assert await found_by(search, api) is None
    mine = row(4, at_s=4.0, conversation_id=SUPPORT.upper())
    api.pages = pages_of(*listed(*OLD, *others, mine, newest_first=newest_first))
    assert await found_by(search, api) == id_of(4)


# Without a start


@ORDERS
async def test_what_has_ended_or_has_no_start_is_found_if_there_is_no_other(newest_first: bool) -> None:
    ended = row(1, at_s=-20.0, status="success", finished_at=EPOCH + timedelta(seconds=CLOCK_S - 5.0))
    search, api = search_of(), api_of(*OLD, ended, newest_first=newest_first)
    assert await found_by(search, api) is None
    assert await found_by(search, api) == id_of(1)
    api.pages = pages_of(*listed(*OLD, ended, row(2, at_s=-1.0), newest_first=newest_first))
    assert await found_by(search, api) == id_of(2)
    assert await found_by(search_of(), api) == id_of(2)
    waiting = row(1, at_s=None, status="new")
    search, api = search_of(), api_of(*OLD, waiting, newest_first=newest_first)
    assert await found_by(search, api) is None
    assert await found_by(search, api) is None
    api.pages = pages_of(*listed(*OLD, waiting, row(2, at_s=None, status="new"), newest_first=newest_first))
    assert await found_by(search, api) == id_of(2)


UNSTARTED = row(1, at_s=None, status="new")


@pytest.mark.parametrize(
    ("first", "then", "found"),
    [
        ([*OLD, UNSTARTED], [*OLD, row(1, at_s=2.0)], id_of(1)),  # once it has a start
        ([], [UNSTARTED, row(2, at_s=2.0)], id_of(2)),  # what has started goes first
        (OLD, [*OLD[:-1], replace(OLD[-1], started_at=None)], None),  # a start that comes and goes
        ([row(1, at_s=3600.0)], [row(1, at_s=3600.0)], None),  # a start in the future of the API
    ],
)
async def test_what_has_no_start_is_found_by_what_the_next_answer_says(
    first: Sequence[ExecutionSnapshot], then: Sequence[ExecutionSnapshot], found: str | None
) -> None:
    search, api = search_of(), api_of(*first)
    assert await found_by(search, api) is None
    api.pages = pages_of(*listed(*then))
    assert await found_by(search, api) == found


async def test_an_old_execution_without_a_start_that_moves_onto_the_last_page_is_not_found() -> None:
    unstarted = row(1, at_s=None, status="failed")
    old = (*OLD[:25], unstarted, *OLD[25:])
    search, api = search_of(), api_of(*old)
    assert unstarted not in cast("Sequence[ExecutionSnapshot]", api.pages[3])
    assert await found_by(search, api) is None
    later = [row(2000 + nth, at_s=-31.0, status="success") for nth in range(20)]
    api.pages = pages_of(*listed(*old, *later))
    assert unstarted in cast("Sequence[ExecutionSnapshot]", api.pages[3])
    assert await found_by(search, api) is None


# Pages


@ORDERS
async def test_a_last_page_that_cannot_be_read_is_left_out(*, newest_first: bool) -> None:
    search, api = search_of(), api_of(*OLD, newest_first=newest_first)
    pages = dict(api.pages)
    for answer in (Outcome.SERVER_ERROR, Outcome.NOT_FOUND):
        api.pages[3] = answer
        api.total = len(OLD)
        assert await found_by(search, api) is None
    waiting = row(1, at_s=None)
    api.pages = pages_of(*listed(*OLD, waiting, newest_first=newest_first))
    assert await found_by(search, api) is None  # the first whole answer
    api.pages, api.total = pages | {1: (row(2, at_s=1.0), *OLD[1:50]), 3: Outcome.SERVER_ERROR}, len(OLD)
    assert await found_by(search, api) == id_of(2)


@pytest.mark.parametrize(
    ("count", "page_rows", "asked"),
    [(0, 50, [1]), (50, 50, [1]), (51, 50, [1, 2]), (100, 50, [1, 2]), (120, 50, [1, 3]), (50, 20, [1, 3])],
)
async def test_the_last_page_is_by_total_and_rows_of_the_first(count: int, page_rows: int, asked: list[int]) -> None:
    api = ScriptedApi(FakeClock(), pages=pages_of(*OLD[:count], page_rows=page_rows))
    assert await found_by(search_of(), api) is None
    assert [name for _, name in api.asked] == [f"page {number}" for number in asked]


async def test_an_unread_first_page_is_read_again_and_without_a_total_it_is_all() -> None:
    search, api = search_of(), api_of(*OLD, row(1, at_s=1.0))
    page, api.pages[1] = api.pages[1], Outcome.TIMEOUT
    assert await found_by(search, api) is None
    api.pages[1] = page
    assert await found_by(search, api) == id_of(1)
    api = api_of(*OLD)
    api.states_total = False
    assert await found_by(search_of(), api) is None
    assert [name for _, name in api.asked] == ["page 1"]
