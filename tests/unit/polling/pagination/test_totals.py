"""How many rows a list has, by what is said of it."""

import pytest

from watcher.polling.pagination.totals import DISTRUSTED_SCANS, DISTRUSTED_SCANS_AT_MOST, Totals, TotalTrust


def totals(*before: int | None, trusted: bool = True, said: int | None = None, accepted: int | None = None) -> Totals:
    known = Totals(*before, trusted=trusted)
    known.hear(said, row_count=1)
    known.accepted = accepted
    return known


@pytest.mark.parametrize(
    ("known", "counts_before", "expected"),
    [
        (totals(), False, 0),
        (totals(said=7), False, 7),
        (totals(said=7, trusted=False), False, 0),
        (totals(9, None, said=7), False, 9),
        (totals(5, 9, said=7), False, 9),
        (totals(9, None, trusted=False), False, 0),
        (totals(9, None, trusted=False), True, 9),
    ],
)
def test_as_many_rows_are_expected_as_were_said_or_there_before(
    known: Totals, *, counts_before: bool, expected: int
) -> None:
    assert known.expected(counts_before=counts_before) == expected


def test_what_a_page_without_rows_says_first_does_not_count() -> None:
    known = Totals(trusted=True)
    known.hear(9, row_count=0)
    known.hear(5, row_count=1)
    assert (known.expected(counts_before=False), known.says_more_than(8), known.says_more_than(9)) == (5, True, False)


def test_what_is_said_last_may_be_said_out_of_turn() -> None:
    known = totals(said=9)
    known.now = 5
    assert [known.says_now_more_than(each) for each in (4, 5)] == [True, False]
    assert not totals(said=9, trusted=False).says_now_more_than(4)


@pytest.mark.parametrize(
    ("known", "seen", "shorter", "unread", "counts"),
    [
        (totals(said=5), 5, False, None, True),
        (totals(said=5), 6, False, None, False),
        (totals(said=5), 3, False, 2, False),
        (totals(said=5, trusted=False), 3, False, None, False),
        (totals(8, said=5), 5, True, None, True),
        (totals(8, said=8), 5, False, 3, False),
        (totals(8, said=8, trusted=False), 5, True, None, False),
        (totals(8), 5, True, None, False),
        (totals(8), 8, False, None, False),
    ],
)
def test_what_was_seen_is_held_against_what_is_said(
    known: Totals, seen: int, unread: int | None, *, shorter: bool, counts: bool
) -> None:
    assert (known.is_shorter(seen), known.unread(seen), known.counts(seen, is_ordered=False)) == (
        shorter,
        unread,
        counts,
    )


def test_what_comes_once_a_list_in_order_is_read_does_not_count() -> None:
    known = totals(said=5)
    known.begin(5)
    known.hear(6, row_count=1)
    assert [known.counts(5, is_ordered=each) for each in (True, False)] == [True, False]
    assert [known.counts(6, is_ordered=each) for each in (True, False)] == [False, True]
    assert not totals(said=5).counts(5, is_ordered=True)


@pytest.mark.parametrize(
    ("known", "backward", "missing"),
    [
        (totals(10, said=15, accepted=15), False, 3),
        (totals(10, said=13, accepted=15), False, 1),  # an untrue word is not repeated
        (totals(10, said=13, accepted=15), True, 3),
        (totals(10, accepted=15), False, 3),
        (totals(10, said=12, accepted=12), False, 0),
        (totals(10, said=15, accepted=15, trusted=False), False, 0),
        (totals(10, said=15), False, 0),
        (totals(said=15, accepted=15), False, 0),
    ],
)
def test_what_a_list_grew_by_beyond_what_was_found_is_unreported(
    known: Totals, *, backward: bool, missing: int
) -> None:
    assert known.missing(new_count=2, is_backward=backward) == missing


def test_a_scan_leaves_what_it_found() -> None:
    known, first = totals(10, accepted=11), totals(accepted=11)
    for each in (known, first):
        each.count_arrivals(new_count=4)
    assert (known.accepted, first.accepted) == (14, 11)
    for each in (known, first):
        each.leave_missing(new_count=2)
    assert (known.accepted, first.accepted) == (12, 11)


def test_what_was_untrue_is_believed_again_after_a_while_and_later_each_time() -> None:
    trust, waited = TotalTrust(), []
    for _ in range(10):
        trust = trust.after(is_untrue=True)
        count = 0
        while not trust.holds:
            trust, count = trust.after(is_untrue=False), count + 1
        waited.append(count)
    assert TotalTrust().after(is_untrue=False, is_far=True).scans_left == DISTRUSTED_SCANS_AT_MOST
    assert waited == [min(DISTRUSTED_SCANS * 2**number, DISTRUSTED_SCANS_AT_MOST) for number in range(10)]


@pytest.mark.parametrize(
    ("known", "seen_count", "left"),
    [
        (totals(10, accepted=15), None, 15),
        (totals(10, accepted=15, trusted=False), None, 12),
        (totals(10, accepted=11, trusted=False), None, 11),
        (totals(10, trusted=False), None, 12),
        (totals(10, accepted=15, trusted=False), 14, 15),
        (totals(10, trusted=False), 14, 14),
        (totals(accepted=15, trusted=False), None, 15),
        (totals(), None, None),
    ],
)
def test_while_nothing_is_believed_a_list_has_what_was_found(
    known: Totals, seen_count: int | None, left: int | None
) -> None:
    assert known.left(new_count=2, seen_count=seen_count) == left


@pytest.mark.parametrize(
    ("seen_count", "is_untrue", "left"),
    [
        (15, False, 15),
        (16, False, 15),
        (14, True, 13),  # one may have moved while the list was read
        (5, True, 13),
        (4, True, 15),  # more than a page holds have not
    ],
)
def test_what_all_of_a_list_does_not_show_is_untrue_and_a_page_of_it_may_have_moved(
    seen_count: int, left: int, *, is_untrue: bool
) -> None:
    known = totals(10, accepted=15)
    known.read_all(seen_count, known_count=13, page_rows=10)
    assert (known.is_untrue, known.trusted) == (is_untrue, not is_untrue)
    assert known.left(new_count=2, seen_count=None) == left
