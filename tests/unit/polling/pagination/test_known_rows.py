"""When known rows proves that nothing new is below it: a table of all cases."""

from datetime import UTC, datetime, timedelta

import pytest

from watcher.domain.execution import ExecutionSnapshot
from watcher.polling.pagination.known_rows import TOP_ROWS, KnownRows
from watcher.polling.pagination.paging import ScannedPage
from watcher.polling.pagination.sort_order import Order, Ordering

BEGIN = datetime(2026, 11, 24, tzinfo=UTC)


def rows(*names: str) -> list[ExecutionSnapshot]:
    return [ExecutionSnapshot(name, "new") for name in names]


def dated(*seconds: int) -> list[ExecutionSnapshot]:
    return [ExecutionSnapshot(f"at {each}", "new", started_at=BEGIN + timedelta(seconds=each)) for each in seconds]


def page(*names: str, known_rows: str = "", unsettled: str = "") -> ScannedPage:
    return ScannedPage(1, rows(*names), len(names), None, known_rows.split(), unsettled.split(), ends_list=False)


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
def test_known_rows_are_proof_where_the_order_is_plain_or_the_top_stands_there(
    order: Order | None, shown: list[ExecutionSnapshot], top: str, *, meets: bool, new: bool, proof: bool
) -> None:
    ordering = Ordering(order)
    ordering.learn(shown)
    known_rows = KnownRows(ordering, top=top.split())
    known_rows.count(page("a", "g", known_rows="g"), {"a", "g"} if new else {"g"})
    known_rows.meet(page("a", "t" if meets else "u", known_rows="t u"))
    assert (known_rows.is_reached, known_rows.is_proof) == (True, proof)


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
    known_rows = KnownRows(Ordering(Order.NEWEST), top=tuple("uvwxyz"))
    for each in pages:
        known_rows.meet(page(*each.split(), known_rows="old u v w x y z"))
    assert known_rows.is_proof is in_place


def test_a_known_row_is_reached_on_a_page_that_ends_on_it_or_after_one_that_holds_some() -> None:
    seen = []
    known_rows = KnownRows(Ordering(), top=())
    for each in (page("a"), page("b", "g", known_rows="g"), page("g", "c", known_rows="g"), page("d"), page("e")):
        known_rows.meet(each)
        seen.append((known_rows.is_reached, known_rows.meets_known))
    assert seen == [(False, False), (True, True), (False, True), (True, True), (True, True)]
    touched = KnownRows(Ordering(), top=())
    touched.touch(page("a", unsettled="a"))
    touched.meet(page("b"))
    assert (touched.is_reached, touched.meets_known) == (False, True)
    touched.touch(page("g", "h", known_rows="g"))
    touched.meet(page("b"))
    assert touched.is_reached


def test_only_what_no_scan_has_found_is_new() -> None:
    known_rows = KnownRows(Ordering(), top=())
    known_rows.count(page("a", "g", "u", known_rows="g", unsettled="u"), {"a", "g", "u"})
    known_rows.count(page("a", "b"), {"b"})
    assert known_rows.new_count == 2


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
    known_rows = KnownRows(Ordering(), top=("x", "y", "z"))
    known_rows.new_count = int(new)
    known_rows.meet(page(*shown))
    assert known_rows.top() == top


def test_the_top_is_no_more_than_a_page() -> None:
    known_rows = KnownRows(Ordering(), top=())
    for number in range(3):
        known_rows.meet(page(*(f"{number}/{each}" for each in range(30))))
    assert len(known_rows.top()) == TOP_ROWS
    assert "2/0" not in known_rows.top()


def test_at_the_other_end_nothing_is_known_yet() -> None:
    known_rows = KnownRows(Ordering(), top=("t",))
    known_rows.meet(page("t", "g", known_rows="g"))
    known_rows.begin_anew()
    assert (known_rows.is_reached, known_rows.meets_known, known_rows.top()) == (False, False, ())
    known_rows.meet(page("b"))
    assert (known_rows.is_reached, known_rows.top()) == (False, ("b",))
