"""Where rows stand in a list that grows while it is read."""

import pytest

from watcher.polling.pagination.paging import Paging
from watcher.polling.pagination.positions import FORGETTING, Place, Places
from watcher.polling.pagination.sort_order import Order


def places(order: Order | None = Order.NEWEST, *, paging: Paging | None = None) -> Places:
    made = Places(paging or Paging())
    made.order = order
    return made


def scan(list_: Places, *, at: float, found: int) -> None:
    list_.scan_begins(at)
    list_.scan_ended(found)


def seen(list_: Places, place: Place, *, at: float) -> tuple[int, int]:
    return round(list_.index_of(place, at=at)), list_.page_of(place, at=at)


@pytest.mark.parametrize("order", [Order.NEWEST, None])
def test_newest_first_a_row_sinks_by_one_for_each_that_comes(order: Order | None) -> None:
    list_ = places(order)
    list_.scan_begins(0.0)
    place = list_.place(40, at=0.0, scanned=True)
    assert seen(list_, place, at=0.0) == (40, 1)
    list_.scan_ended(9)
    assert seen(list_, place, at=0.0) == (40, 1)
    list_.scan_begins(10.0)
    list_.scan_ended(10)
    assert seen(list_, place, at=10.0) == (50, 2)


def test_oldest_first_a_row_stays() -> None:
    list_ = places(Order.OLDEST)
    place = list_.place(49, at=0.0, scanned=True)
    scan(list_, at=0.0, found=9)
    scan(list_, at=1.0, found=100)
    assert seen(list_, place, at=50.0) == (49, 1)


def test_a_row_does_not_sink_by_what_its_own_scan_finds() -> None:
    list_ = places()
    places_ = []
    for at, index, found in ((0.0, 10, 0), (1.0, 70, 120), (2.0, 70, 0)):
        list_.scan_begins(at)
        places_.append(list_.place(index, at=at, scanned=True))
        list_.scan_ended(found)
    list_._per_s = 0.0
    assert [round(list_.index_of(place, at=2.0)) for place in places_] == [130, 70, 70]


def test_between_scans_as_many_are_taken_to_come_as_came_before() -> None:
    list_ = places()
    scan(list_, at=0.0, found=5_000)  # who knows since when
    scan(list_, at=10.0, found=20)
    place = list_.place(30, at=15.0, scanned=False)
    assert seen(list_, place, at=15.0) == (30, 1)
    assert seen(list_, place, at=25.0) == (50, 2)
    scan(list_, at=30.0, found=20)
    pace = 2 + FORGETTING * (1 - 2)
    assert list_.index_of(place, at=30.0) == pytest.approx(30 - 10 + 20)
    assert list_.index_of(place, at=40.0) == pytest.approx(40 + 10 * pace)


def test_rows_found_elsewhere_show_how_far_all_have_sunk() -> None:
    list_ = places()
    scan(list_, at=0.0, found=0)
    several = [list_.place(index, at=0.0, scanned=False) for index in (10, 20, 30, 70)]
    list_.found_astray([(several[0], 13), (several[1], 23), (several[2], 99)], at=5.0)
    assert [round(list_.index_of(place, at=5.0)) for place in several] == [13, 23, 33, 73]
    scan(list_, at=5.0, found=3)
    assert [round(list_.index_of(place, at=5.0)) for place in several] == [13, 23, 33, 73]


def test_what_the_scan_under_way_has_noted_goes_astray_by_itself() -> None:
    list_ = places()
    scan(list_, at=0.0, found=0)
    before = list_.place(10, at=0.0, scanned=False)
    list_.scan_begins(5.0)
    during = list_.place(60, at=5.0, scanned=True)
    list_.found_astray([(during, 62)], at=6.0)
    assert [round(list_.index_of(place, at=6.0)) for place in (before, during)] == [10, 62]
    list_.scan_ended(4)
    assert [round(list_.index_of(place, at=5.0)) for place in (before, during)] == [16, 62]


def test_nothing_found_says_nothing() -> None:
    list_ = places()
    place = list_.place(10, at=0.0, scanned=True)
    list_.found_astray([], at=1.0)
    assert seen(list_, place, at=1.0) == (10, 1)


def test_before_the_first_scan_is_complete_a_look_notes_for_it() -> None:
    list_ = places()
    list_.scan_begins(0.0)
    place = list_.place(60, at=1.0, scanned=False)
    list_.scan_ended(9_000)
    assert seen(list_, place, at=1.0) == (60, 2)


@pytest.mark.parametrize(("index", "beside"), [(10, 50), (49, 50), (50, 49), (74, 49), (75, 100), (99, 100)])
def test_the_page_beside_is_the_nearer_one(index: int, beside: int) -> None:
    list_ = places()
    place = list_.beside(list_.place(index, at=0.0, scanned=True), at=0.0)
    assert place.guessed
    assert seen(list_, place, at=0.0)[0] == beside


@pytest.mark.parametrize(("index", "page", "beside"), [(7, 1, 10), (10, 2, 9), (24, 3, 19), (25, 3, 30)])
def test_places_are_on_pages_as_the_api_cuts_them(index: int, page: int, beside: int) -> None:
    paging = Paging()
    list_ = places(paging=paging)
    place = list_.place(index, at=0.0, scanned=True)
    paging.note(1, 10)
    paging.note(2, 10)
    assert seen(list_, place, at=0.0) == (index, page)
    assert round(list_.index_of(list_.beside(place, at=0.0), at=0.0)) == beside
