"""When known ground proves that nothing new is below it: a table of all cases."""

from datetime import UTC, datetime, timedelta

import pytest

from watcher.domain.models import Execution
from watcher.polling.pagination.known_rows import TOP_ROWS, Ground
from watcher.polling.pagination.paging import Page
from watcher.polling.pagination.sort_order import Order, Ordering

BEGIN = datetime(2026, 11, 24, tzinfo=UTC)


def rows(*names: str) -> list[Execution]:
    return [Execution(name, "new") for name in names]


def dated(*seconds: int) -> list[Execution]:
    return [Execution(f"at {each}", "new", started_at=BEGIN + timedelta(seconds=each)) for each in seconds]


def page(*names: str, ground: str = "", unsettled: str = "") -> Page:
    return Page(1, rows(*names), len(names), None, ground.split(), unsettled.split(), ends_list=False)


FALLING = dated(*range(50, 0, -1))
RISING = dated(*range(50))
MIXED = dated(*range(25), *range(24, -1, -1))


@pytest.mark.parametrize(
    ("order", "shown", "top", "meets", "new", "proof"),
    [
        (Order.NEWEST, FALLING, "t", True, True, True),
        (Order.NEWEST, FALLING, "t", False, False, True),  # an old page, for once
        (Order.NEWEST, FALLING, "t", False, True, False),
        (Order.NEWEST, FALLING, "", False, True, True),
        (Order.NEWEST, FALLING[:5], "t", True, True, True),
        (Order.NEWEST, FALLING[:5], "t", False, False, False),
        (Order.NEWEST, FALLING[:5], "", False, False, False),
        (Order.NEWEST, RISING[:5], "t", True, False, False),
        (Order.OLDEST, RISING[:5], "t", True, True, True),
        (Order.OLDEST, FALLING[:5], "t", True, True, False),
        (Order.NEWEST, [], "t", True, True, True),
        (Order.NEWEST, MIXED, "t", True, True, False),
        (None, [], "t", True, False, False),
    ],
)
def test_ground_is_proof_where_the_order_is_plain_or_the_top_stands_there(
    order: Order | None, shown: list[Execution], top: str, *, meets: bool, new: bool, proof: bool
) -> None:
    ordering = Ordering(order)
    ordering.learn(shown)
    ground = Ground(ordering, top=top.split())
    ground.count(page("a", "g", ground="g"), {"a", "g"} if new else {"g"})
    ground.meet(page("a", "t" if meets else "u", ground="t u"))
    assert (ground.is_reached, ground.is_proof) == (True, proof)


@pytest.mark.parametrize(
    ("pages", "in_place"),
    [
        (["new u v w x y z"], True),
        (["u v w x y"], True),
        (["v w x y z"], True),  # the first is deleted
        (["u new w x y z"], True),
        (["u v w x"], False),  # too few
        (["u v", "w x y z"], True),
        (["u v", "w x z y"], True),
        (["u v", "w y x"], False),
        (["z y x w v u"], False),
        (["old u v w x y"], False),
        (["u v w x old"], False),
        (["u v w x y old"], True),
    ],
)
def test_where_few_dates_are_shown_the_top_has_to_stand_there_row_by_row(pages: list[str], *, in_place: bool) -> None:
    ground = Ground(Ordering(Order.NEWEST), top=tuple("uvwxyz"))
    for each in pages:
        ground.meet(page(*each.split(), ground="old u v w x y z"))
    assert ground.is_proof is in_place


def test_ground_is_reached_on_a_page_that_ends_on_it_or_after_one_that_holds_some() -> None:
    seen = []
    ground = Ground(Ordering(), top=())
    for each in (page("a"), page("b", "g", ground="g"), page("g", "c", ground="g"), page("d"), page("e")):
        ground.meet(each)
        seen.append((ground.is_reached, ground.meets_known))
    assert seen == [(False, False), (True, True), (False, True), (True, True), (True, True)]
    touched = Ground(Ordering(), top=())
    touched.touch(page("a", unsettled="a"))
    touched.meet(page("b"))
    assert (touched.is_reached, touched.meets_known) == (False, True)
    touched.touch(page("g", "h", ground="g"))
    touched.meet(page("b"))
    assert touched.is_reached


def test_only_what_no_scan_has_found_is_new() -> None:
    ground = Ground(Ordering(), top=())
    ground.count(page("a", "g", "u", ground="g", unsettled="u"), {"a", "g", "u"})
    ground.count(page("a", "b"), {"b"})
    assert ground.new_count == 2


@pytest.mark.parametrize(
    ("shown", "new", "top"),
    [
        (["a", "x"], True, ("a", "x", "y", "z")),
        (["x", "y"], False, ("x", "y", "z")),
        (["old", "older"], False, ("x", "y", "z")),
        (["a", "old"], True, ("a", "old")),
    ],
)
def test_the_top_is_what_was_met_first_and_below_it_what_was_before(
    shown: list[str], top: tuple[str, ...], *, new: bool
) -> None:
    ground = Ground(Ordering(), top=("x", "y", "z"))
    ground.new_count = int(new)
    ground.meet(page(*shown))
    assert ground.top() == top


def test_the_top_is_no_more_than_a_page() -> None:
    ground = Ground(Ordering(), top=())
    for number in range(3):
        ground.meet(page(*(f"{number}/{each}" for each in range(30))))
    assert len(ground.top()) == TOP_ROWS
    assert "2/0" not in ground.top()


def test_at_the_other_end_nothing_is_known_yet() -> None:
    ground = Ground(Ordering(), top=("t",))
    ground.meet(page("t", "g", ground="g"))
    ground.begin_anew()
    assert (ground.is_reached, ground.meets_known, ground.top()) == (False, False, ())
    ground.meet(page("b"))
    assert (ground.is_reached, ground.top()) == (False, ("b",))
