"""In which order a list is."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from watcher.domain.execution import ExecutionSnapshot
from watcher.polling.sort_order import PAIRS_AT_LEAST, Order, Ordering

BEGIN = datetime(2026, 11, 24, tzinfo=UTC)


NUMBERS = count()


def rows(seconds: Sequence[int | None]) -> list[ExecutionSnapshot]:
    dates = [None if each is None else BEGIN + timedelta(seconds=each) for each in seconds]
    return [ExecutionSnapshot(f"e{next(NUMBERS)}", "new", started_at=date) for date in dates]


def learnt(ordering: Ordering, page: Sequence[ExecutionSnapshot]) -> Order | None:
    ordering.learn(page)
    return ordering.order


RISING = list(range(50))
FALLING = RISING[::-1]
NEAR_MAJORITY = [*range(20, 50), *range(20)]
"""Of 1,225 pairs 625 stand in one order, 600 in the other; of neighbours 48 and 1."""
JITTERED = [second + (9, 0, 6)[second % 3] for second in FALLING]
"""Half of the neighbours stand the other way round."""


@pytest.mark.parametrize(
    ("seconds", "order"),
    [
        (FALLING, Order.NEWEST),
        (RISING, Order.OLDEST),
        (RISING[: PAIRS_AT_LEAST + 1], Order.OLDEST),
        (RISING[:PAIRS_AT_LEAST], None),
        ([7] * 50, None),
        ([None] * 50, None),
        ([None, *FALLING, None], Order.NEWEST),
        (NEAR_MAJORITY, None),
        ([*range(31), *range(29, 19, -1)], Order.OLDEST),
        (JITTERED, Order.NEWEST),
        ([], None),
    ],
)
def test_a_clear_majority_of_pairs_shows_the_order(seconds: Sequence[int | None], order: Order | None) -> None:
    ordering = Ordering()
    ordering.learn(rows(seconds))
    assert ordering.order is order


def test_pages_count_together() -> None:
    ordering = Ordering()
    found = [learnt(ordering, rows(RISING[first : first + 6])) for first in (0, 6, 12, 18)]
    assert found == [None, None, None, Order.OLDEST]


def test_a_younger_page_is_no_sign_of_another_order() -> None:
    ordering = Ordering()
    ordering.learn(rows(FALLING))
    assert learnt(ordering, rows([each + 100 for each in FALLING])) is Order.NEWEST


def test_the_same_rows_count_once() -> None:
    ordering, page = Ordering(), rows(RISING[:PAIRS_AT_LEAST])
    for _ in range(10):
        ordering.learn(page)
    assert ordering.order is None
    ordering.learn([*page, *rows([99])])
    assert ordering.order is Order.OLDEST


def test_a_belief_holds_until_a_majority_speaks_against_it() -> None:
    ordering = Ordering(Order.OLDEST)
    assert [learnt(ordering, rows(page)) for page in ([3, 2, 1], FALLING)] == [Order.OLDEST, Order.NEWEST]


@pytest.mark.parametrize(
    ("believed", "seconds", "mixed", "uncertain"),
    [
        (None, [], False, True),
        (None, FALLING, False, False),
        (Order.NEWEST, [], False, False),
        (Order.NEWEST, FALLING, False, False),
        (Order.NEWEST, [3, 2, 1], False, False),
        (Order.NEWEST, [1, 2], False, True),
        (Order.NEWEST, [7] * 50, False, False),
        (Order.NEWEST, NEAR_MAJORITY, True, True),
        (Order.NEWEST, [*range(25), *range(24, 0, -1)], True, True),
        (Order.OLDEST, [1, 2], False, False),
        (Order.OLDEST, [2, 1], False, True),
        (Order.OLDEST, [1, 2, 1], False, False),
    ],
)
def test_a_scan_knows_whether_its_pages_show_what_is_believed(
    believed: Order | None, seconds: Sequence[int | None], *, mixed: bool, uncertain: bool
) -> None:
    ordering = Ordering(believed)
    ordering.learn(rows(seconds))
    assert (ordering.is_mixed, ordering.is_uncertain) == (mixed, uncertain)


def test_each_scan_starts_anew() -> None:
    ordering, page = Ordering(), rows(FALLING)
    ordering.learn(page)
    ordering.begin()
    assert ordering.order is Order.NEWEST
    ordering.order = None
    assert (ordering.order, ordering.is_uncertain) == (None, True)


def test_a_list_sorted_by_its_ends_is_in_order_too() -> None:
    ends = [replace(row, finished_at=BEGIN + timedelta(seconds=900 - at)) for at, row in enumerate(rows(NEAR_MAJORITY))]
    ordering = Ordering()
    ordering.learn(ends)
    assert (ordering.order, ordering.is_uncertain) == (Order.NEWEST, False)


def test_small_pages_show_that_the_list_has_turned_over_while_it_is_read() -> None:
    ordering = Ordering()
    for first in range(200, 0, -10):
        ordering.learn(rows(range(first, first - 10, -1)))
    found = [learnt(ordering, rows(range(first, first + 10))) for first in range(0, 120, 10)]
    assert found == sorted(found, key=lambda order: order is Order.OLDEST)
    assert found.index(Order.OLDEST) < 9
