"""When the end of a scan is believed: tables of all cases. Seconds."""

import pytest

from watcher.domain.event import GapReason
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor, Watch
from watcher.polling.list_scans import EndCheck
from watcher.polling.pagination.api_clock import ApiClock
from watcher.polling.pagination.arrival_baseline import SETTLED_AFTER_US
from watcher.polling.pagination.coverage import CarryOver, TraversalResult
from watcher.polling.pagination.paging import Paging
from watcher.polling.pagination.sort_order import Ordering
from watcher.polling.pagination.traversal import ListTraversal
from watcher.polling.pipeline_list import PipelineListState, PipelineStream, Progress, RowAges

SECOND = 1_000_000
DELETED = TraversalResult(GapReason.DELETED)


def listing(*, total: int | None = None) -> PipelineListState:
    cursor = Cursor(Micros(0), Micros(900 * SECOND))
    scan = ListTraversal(
        CarryOver(Ordering(), Paging(), total),
        clock=ApiClock(),
        cursor=cursor,
        lookback_us=0,
        began_at=Micros(0),
        pages_at_most=10,
    )
    progress = Progress(began_at=Micros(1000 * SECOND))
    return PipelineListState(Watch("default", "whole", ()), cursor, PipelineStream(0), scan, progress=progress)


@pytest.fixture
def ending() -> EndCheck:
    return EndCheck(lost_after=3, lost_grace_s=60.0)


@pytest.mark.parametrize(
    ("result", "at_s", "believed"),
    [
        (DELETED, [0, 30, 59], False),
        (DELETED, [0, 30, 60], True),
        (DELETED, [0, 60], False),  # too few
        (TraversalResult(), [0, 5, 14], False),
        (TraversalResult(), [0, 5, 15], True),
    ],
)
def test_an_early_end_is_believed_once_it_came_so_often_for_so_long(
    ending: EndCheck, result: TraversalResult, at_s: list[float], *, believed: bool
) -> None:
    known = listing()
    seen = [ending.believed(known, result, now_s=each) for each in at_s]
    assert seen == [None] * (len(at_s) - 1) + [result if believed else None]


@pytest.mark.parametrize(
    ("total", "latest_s", "explained"),
    [
        (5, 500, True),
        (5, 501, False),
        (5, 0, False),
        (None, 500, False),
    ],  # half as old as the oldest at least, and fewer than before
)
def test_what_only_grew_too_old_is_no_gap(
    ending: EndCheck, total: int | None, latest_s: int, *, explained: bool
) -> None:
    known = listing(total=total)
    known.ages = RowAges(Micros(0), Micros(latest_s * SECOND)) if latest_s else RowAges()
    seen = [ending.believed(known, DELETED, now_s=each) for each in (0, 30, 60)]
    assert seen[-1] == (TraversalResult() if explained else DELETED)


def test_a_scan_ends_early_where_nothing_known_was_met(ending: EndCheck) -> None:
    ends = [
        ending.ends_early(listing(), each) for each in (DELETED, TraversalResult(), TraversalResult(GapReason.OUTRUN))
    ]
    assert ends == [True, False, False]


def test_an_end_that_may_be_new_or_not_is_a_gap_where_there_is_none(ending: EndCheck) -> None:
    known = listing()
    assert ending.with_unproven(known, TraversalResult(), now=Micros(0)) == TraversalResult()
    known.arrivals.unproven |= {"a", "b"}
    assert ending.with_unproven(known, TraversalResult(), now=Micros(0)) == TraversalResult(GapReason.UNORDERED, 2)
    assert ending.with_unproven(known, DELETED, now=Micros(0)) == DELETED


@pytest.mark.parametrize(
    ("cursor", "shows_any", "proven"),
    [
        (Cursor(Micros(0)), False, True),
        (Cursor(Micros(0)), True, False),
        (Cursor(Micros(0), found=True), False, False),
        (Cursor(Micros(0), newest_at=Micros(1)), False, False),
    ],
)
def test_a_list_that_never_showed_a_row_was_empty(
    ending: EndCheck, cursor: Cursor, *, shows_any: bool, proven: bool
) -> None:
    known = listing()
    known.cursor, known.progress.shows_any = cursor, shows_any
    seen = [ending.proves_empty(known, now=Micros(each)) for each in (0, 1, SETTLED_AFTER_US)]
    assert seen == [False, False, proven]


def test_a_list_is_empty_once_it_was_so_often_and_for_so_long(ending: EndCheck) -> None:
    known = listing()
    known.cursor = Cursor(Micros(0))
    seen = [ending.proves_empty(known, now=Micros(at)) for at in (5, 6, SETTLED_AFTER_US + 4, SETTLED_AFTER_US + 5)]
    assert seen == [False, False, False, True]
    more = EndCheck(lost_after=6, lost_grace_s=60.0)
    assert [more.proves_empty(known, now=Micros(9 * SETTLED_AFTER_US)) for _ in range(2)] == [False, True]
