"""What the API's clock showed, by the dates that scans met. Seconds; ours says 1,000."""

from collections.abc import Sequence

import pytest
from stores import from_us

from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import Micros
from watcher.polling.pagination.api_clock import ApiClock

SECOND = 1_000_000
NOW_S = 1000


def page(*ends_s: int | None) -> list[ExecutionSnapshot]:
    dates = [None if each is None else from_us(each * SECOND) for each in ends_s]
    return [ExecutionSnapshot("e", "success", finished_at=each) for each in dates]


def scan(clock: ApiClock, pages: Sequence[Sequence[int | None]]) -> None:
    for each in pages:
        clock.note(page(*each), now=Micros(NOW_S * SECOND))


@pytest.mark.parametrize(
    ("pages", "latest_s", "shown_s"),
    [
        ([], None, None),
        ([[], [None]], None, None),
        ([[900, 950], [990]], 990, 950),
        ([[None], [900], [990, 1015]], 1015, 900),
        ([[900, 950, 9999], [800]], 950, 950),  # one date is wrong
        ([[900, 9999], [800]], 900, None),  # and may have been half of the first page
        ([[9999]], 9999, 9999),  # or all that is there
        ([[5000, 5100], [4900]], 5100, 5100),  # the API's clock is ahead
        ([[900], [9999, 800]], 900, 900),
    ],
)
def test_the_clock_showed_the_latest_date_that_is_not_wrong(
    pages: Sequence[Sequence[int | None]], latest_s: int | None, shown_s: int | None
) -> None:
    clock = ApiClock()
    scan(clock, pages)
    assert clock.latest_at == (None if latest_s is None else latest_s * SECOND)
    clock.scan_ended()
    assert (clock.shown_at, clock.latest_at) == (None if shown_s is None else shown_s * SECOND, None)


def test_a_scan_that_meets_no_date_or_is_made_anew_says_nothing() -> None:
    clock = ApiClock()
    scan(clock, [[900]])
    clock.scan_ended()
    clock.scan_ended()
    scan(clock, [[950]])
    clock.begin()
    assert (clock.shown_at, clock.latest_at) == (900 * SECOND, None)
