"""When a scan is a race that is lost, or its list has no order."""

from watcher.polling.pagination.paging import TURNS_AT_MOST, Limits


def test_a_list_that_turns_over_too_often_is_followed_once_more() -> None:
    limits = Limits(2)
    seen = [(limits.turn(), limits.turns_too_often) for _ in range(TURNS_AT_MOST + 2)]
    assert seen == [(True, False)] * TURNS_AT_MOST + [(True, True), (False, True)]


def test_a_scan_is_outrun_once_so_many_more_pages_led_no_further_than_did() -> None:
    limits, seen = Limits(2), []
    for is_further in (True, False, True, False, False):
        limits.read(is_further=is_further)
        seen.append(limits.is_outrun)
    assert seen == [False] * 4 + [True]


def test_a_scan_is_unordered_once_so_many_pages_showed_no_order() -> None:
    limits, seen = Limits(2), []
    for is_unproven in (True, False, True):
        limits.count_unproven(is_unproven=is_unproven)
        seen.append(limits.is_unordered)
    assert seen == [False, False, True]


def test_no_more_pages_are_read_beyond_the_end_than_may_be_or_are_wanted() -> None:
    limits, seen = Limits(2), []
    for _ in range(3):
        seen.append((limits.may_read_on(), limits.may_read_on(1), limits.may_read_on(0)))
        limits.extra_count += 1
    assert seen == [(True, True, False), (True, False, False), (False, False, False)]
