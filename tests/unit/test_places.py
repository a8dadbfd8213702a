"""Where rows stand in a list that grows while it is read."""

import pytest

from watcher.ordering import Order
from watcher.places import Places


def places(order: Order | None) -> Places:
    made = Places()
    made.order = order
    return made


@pytest.mark.parametrize("order", [Order.NEWEST, None])
def test_newest_first_a_row_sinks_by_one_for_each_that_comes(order: Order | None) -> None:
    list_ = places(order)
    place = list_.place(40)
    assert (list_.index_of(place), list_.page_of(place)) == (40, 1)
    list_.arrived(9)
    assert (list_.index_of(place), list_.page_of(place)) == (40, 1)
    list_.arrived(9)
    list_.arrived(1)
    assert (list_.index_of(place), list_.page_of(place)) == (50, 2)


def test_oldest_first_a_row_stays() -> None:
    list_ = places(Order.OLDEST)
    place = list_.place(49)
    list_.arrived(9)
    list_.arrived(100)
    assert (list_.index_of(place), list_.page_of(place)) == (49, 1)


def test_a_row_does_not_sink_by_what_its_own_scan_finds() -> None:
    list_ = places(Order.NEWEST)
    earlier = list_.place(10)
    list_.arrived(0)
    during = list_.place(70)
    list_.arrived(120)
    later = list_.place(70)
    assert [list_.index_of(place) for place in (earlier, during, later)] == [130, 70, 70]
    list_.arrived(5)
    assert [list_.index_of(place) for place in (earlier, during, later)] == [135, 75, 70]
