"""Where rows stand in a list that grows while it is read."""

import pytest

from watcher.domain.timestamps import Monotonic
from watcher.polling.pagination.paging import Paging
from watcher.polling.pagination.positions import FORGETTING, PositionEstimator, RowPosition
from watcher.polling.pagination.sort_order import Order


def positions(order: Order | None = Order.NEWEST, *, paging: Paging | None = None) -> PositionEstimator:
    made = PositionEstimator(paging or Paging())
    made.order = order
    return made


def scan(list_: PositionEstimator, *, at: float, found: int) -> None:
    list_.scan_begins(Monotonic(at))
    list_.scan_ended(found)


def seen(list_: PositionEstimator, position: RowPosition, *, at: float) -> tuple[int, int]:
    return round(list_.index_of(position, at=Monotonic(at))), list_.page_of(position, at=Monotonic(at))


@pytest.mark.parametrize("order", [Order.NEWEST, None])
def test_newest_first_a_row_sinks_by_one_for_each_that_comes(order: Order | None) -> None:
    list_ = positions(order)
    list_.scan_begins(Monotonic(0.0))
    position = list_.position(40, at=Monotonic(0.0), scanned=True)
    assert seen(list_, position, at=0.0) == (40, 1)
    list_.scan_ended(9)
    assert seen(list_, position, at=0.0) == (40, 1)
    list_.scan_begins(Monotonic(10.0))
    list_.scan_ended(10)
    assert seen(list_, position, at=10.0) == (50, 2)


def test_oldest_first_a_row_stays() -> None:
    list_ = positions(Order.OLDEST)
    position = list_.position(49, at=Monotonic(0.0), scanned=True)
    scan(list_, at=0.0, found=9)
    scan(list_, at=1.0, found=100)
    assert seen(list_, position, at=50.0) == (49, 1)


def test_a_row_does_not_sink_by_what_its_own_scan_finds() -> None:
    list_ = positions()
    positions_ = []
    for at, index, found in ((0.0, 10, 0), (1.0, 70, 120), (2.0, 70, 0)):
        list_.scan_begins(Monotonic(at))
        positions_.append(list_.position(index, at=Monotonic(at), scanned=True))
        list_.scan_ended(found)
    list_._per_s = 0.0
    assert [round(list_.index_of(position, at=Monotonic(2.0))) for position in positions_] == [130, 70, 70]


def test_between_scans_as_many_are_taken_to_come_as_came_before() -> None:
    list_ = positions()
    scan(list_, at=0.0, found=5_000)  # who knows since when
    scan(list_, at=10.0, found=20)
    position = list_.position(30, at=Monotonic(15.0), scanned=False)
    assert seen(list_, position, at=15.0) == (30, 1)
    assert seen(list_, position, at=25.0) == (50, 2)
    scan(list_, at=30.0, found=20)
    pace = 2 + FORGETTING * (1 - 2)
    assert list_.index_of(position, at=Monotonic(30.0)) == pytest.approx(30 - 10 + 20)
    assert list_.index_of(position, at=Monotonic(40.0)) == pytest.approx(40 + 10 * pace)


def test_rows_found_elsewhere_show_how_far_all_have_sunk() -> None:
    list_ = positions()
    scan(list_, at=0.0, found=0)
    several = [list_.position(index, at=Monotonic(0.0), scanned=False) for index in (10, 20, 30, 70)]
    list_.found_displaced([(several[0], 13), (several[1], 23), (several[2], 99)], at=Monotonic(5.0))
    assert [round(list_.index_of(position, at=Monotonic(5.0))) for position in several] == [13, 23, 33, 73]
    scan(list_, at=5.0, found=3)
    assert [round(list_.index_of(position, at=Monotonic(5.0))) for position in several] == [13, 23, 33, 73]


def test_what_the_scan_under_way_has_noted_goes_astray_by_itself() -> None:
    list_ = positions()
    scan(list_, at=0.0, found=0)
    before = list_.position(10, at=Monotonic(0.0), scanned=False)
    list_.scan_begins(Monotonic(5.0))
    during = list_.position(60, at=Monotonic(5.0), scanned=True)
    list_.found_displaced([(during, 62)], at=Monotonic(6.0))
    assert [round(list_.index_of(position, at=Monotonic(6.0))) for position in (before, during)] == [10, 62]
    list_.scan_ended(4)
    assert [round(list_.index_of(position, at=Monotonic(5.0))) for position in (before, during)] == [16, 62]


def test_nothing_found_says_nothing() -> None:
    list_ = positions()
    position = list_.position(10, at=Monotonic(0.0), scanned=True)
    list_.found_displaced([], at=Monotonic(1.0))
    assert seen(list_, position, at=1.0) == (10, 1)


def test_before_the_first_scan_is_complete_a_poll_notes_for_it() -> None:
    list_ = positions()
    list_.scan_begins(Monotonic(0.0))
    position = list_.position(60, at=Monotonic(1.0), scanned=False)
    list_.scan_ended(9_000)
    assert seen(list_, position, at=1.0) == (60, 2)


@pytest.mark.parametrize(("index", "beside"), [(10, 50), (49, 50), (50, 49), (74, 49), (75, 100), (99, 100)])
def test_the_page_beside_is_the_nearer_one(index: int, beside: int) -> None:
    list_ = positions()
    position = list_.beside(list_.position(index, at=Monotonic(0.0), scanned=True), at=Monotonic(0.0))
    assert position.guessed
    assert seen(list_, position, at=0.0)[0] == beside


@pytest.mark.parametrize(("index", "page", "beside"), [(7, 1, 10), (10, 2, 9), (24, 3, 19), (25, 3, 30)])
def test_positions_are_on_pages_as_the_api_cuts_them(index: int, page: int, beside: int) -> None:
    paging = Paging()
    list_ = positions(paging=paging)
    position = list_.position(index, at=Monotonic(0.0), scanned=True)
    paging.note(1, 10)
    paging.note(2, 10)
    assert seen(list_, position, at=0.0) == (index, page)
    assert round(list_.index_of(list_.beside(position, at=Monotonic(0.0)), at=Monotonic(0.0))) == beside
