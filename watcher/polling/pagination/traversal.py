"""One pass over the list of a pipeline: which page to read next, and when everything was seen. Pure, no I/O.

Newest first, it reads from page 1 on; oldest first, from the last page back. It ends at a *known row*: one that was
in the list when the last complete scan began reading, so that all below it was, too, and is recorded. That holds while
the list has an order, and the scan has met those that were first then (its `top`). Else all of the list is read.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from enum import Enum

from watcher.clerk.protocol import PageReply
from watcher.domain.models import Cursor, ExecutionSnapshot, GapReason
from watcher.polling.pagination.api_clock import ApiClock
from watcher.polling.pagination.known_rows import KnownRows
from watcher.polling.pagination.list_end import EndSearch
from watcher.polling.pagination.paging import Limits, ScannedPage
from watcher.polling.pagination.result import CarryOver, TraversalResult
from watcher.polling.pagination.sort_order import Order
from watcher.polling.pagination.totals import Totals

EMPTY_AT_LEAST = 3
"""So often in a row a page must be empty to be believed where nothing is known of the list, or more of it is."""


class Extent(Enum):
    """How much of the list a scan read."""

    PART = "down to what was known, or as far as anybody wants to know"
    WHOLE = "all of it"
    CUT_OFF = "as far as it may: rows that came further down were not found"


class ListTraversal:
    """One pass, made anew for each. Hand `page` to the API and what it answers to `read`, until that returns a result.

    `result` is there once everything was seen, though pages beyond may be read for more.
    """

    def __init__(
        self,
        before: CarryOver,
        *,
        clock: ApiClock,
        cursor: Cursor,
        lookback_us: int,
        began_at: int,
        pages_at_most: int,
    ) -> None:
        """Begin with what the last complete scan of this process learnt.

        `clock` knows the rows of each page that is read. `began_at` is microseconds UTC, steady. `pages_at_most` pages
        that lead no further are a race that is lost.
        """
        self.before = before
        self.clock = clock
        self.ordering = before.ordering
        self.paging = before.paging
        self.ordering.begin()
        self.paging.begin()
        self._cursor = cursor
        self._horizon = (began_at if cursor.complete_at else cursor.since_at) - lookback_us
        self._lookback_us = lookback_us
        self._limits = Limits(pages_at_most)
        self._totals = Totals(before.total, before.total_before, trusted=before.trust.holds)
        self._known_rows = KnownRows(self.ordering, top=before.top)
        self._end = EndSearch(before.total or 0, self.paging)
        self.result: TraversalResult | None = None
        self._extent = Extent.PART
        self._oldest_at: int | None = None  # how far down it read, by the API's clock
        self._seen: set[str] = set()
        self._found: set[str] = set()
        self._skipped: dict[int, int] = {}  # by page, the rows that cannot be read
        self._evaluated_page: ScannedPage | None = None  # the one that was evaluated last
        self._read_page: ScannedPage | None = None  # the one that was read last
        self._above_at: int | None = None  # its oldest date
        self._overlaps = False  # it holds rows that were seen before
        self._again = False  # the page before the one that was evaluated is read for the second time
        self._repeated_page: int | None = None  # the one after it showed the same
        self._empty_count = 0  # so often `page` was empty
        self._was_empty = False
        self.page = self._end.page if self._backward else 1

    @property
    def order(self) -> Order | None:
        """The order as learned so far, and while it holds."""
        return None if self._limits.turns_too_often else self.ordering.order

    @property
    def _backward(self) -> bool:
        """Whether it reads from the last page back."""
        return self.order is Order.OLDEST

    @property
    def probes(self) -> bool:
        """Whether `page` does not follow on what was read: what it shows for the first time may have come since."""
        return self._again or (self._backward and not self._end.found)

    @property
    def head(self) -> int | None:
        """The page on which new rows show, if that is known."""
        return self._end.last_page if self._backward else 1

    def head_is_full(self) -> None:
        """Note that there is no more room on `head`: oldest first, what is new shows on the page after it."""
        if self._backward:
            self._end.head_is_full()

    def hear(self, total: int | None) -> None:
        """Take in what a page that is read out of turn says of the length of the list."""
        self._totals.hear_aside(total)

    # What it saw

    @property
    def saw_newest(self) -> bool:
        """Whether it saw where new rows show: what looks like the end of a list may only have been refused."""
        if self.order is None:
            return self._is_whole and not self._totals.says_more_than(len(self._seen)) and not self._hides_rows()
        return self._evaluated_page is not None and (self.order is Order.NEWEST or self._end.is_sure)

    @property
    def is_as_long_as_said(self) -> bool:
        """Whether the API says how many rows there are, and no more than were seen, or, oldest first, must be there."""
        return self._totals.says_no_more_than((self._totals.accepted or 0) if self._backward else len(self._seen))

    @property
    def expects_page(self) -> bool:
        """Whether `page` must be there, by what the page before it said: a refusal of it is not the list's end."""
        read = self._read_page
        if read is None or not read.row_count:
            return False
        if self.page < read.number:
            return True
        if self.page != read.number + 1 or read.row_count < self.paging.rows:
            return False
        return self._totals.says_now_more_than(self.paging.before(self.page))

    @property
    def is_shorter(self) -> bool:
        """Whether the list, read to its end, is known to have fewer rows than the last complete scan left."""
        return self._totals.is_shorter(len(self._seen))

    @property
    def is_cut_short(self) -> bool:
        """Whether it read the list to an end that came before all was seen that should be there.

        Oldest first that is also what the pages before the last one should hold.
        """
        by_pages = self._totals.accepted or 0 if self._backward else 0
        return self._is_whole and self._seen_count < max(by_pages, self._expected_count)

    @property
    def is_counted(self) -> bool:
        """Whether it alone, that read all of the list, saw as many rows as that said it has: none was hidden."""
        return self._is_whole and self._totals.counts(len(self._seen), is_ordered=self.order is not None)

    @property
    def _is_whole(self) -> bool:
        return self._extent is Extent.WHOLE

    @property
    def _seen_count(self) -> int:
        return len(self._seen | self.before.seen) + sum(self._skipped.values())

    @property
    def _expected_count(self) -> int:
        return max(self.before.length, self._totals.expected(counts_before=self._backward))

    @property
    def _missing_count(self) -> int:
        if not self._cursor.complete_at:
            return 0
        return self._totals.missing(new_count=self._known_rows.new_count, is_backward=self._backward)

    def unread_count(self) -> int | None:
        """Return how many rows may be there that were not read, `None` if nobody can tell."""
        said = self._totals.unread(len(self._seen))
        return self.paging.before(self.page + 1) if said is None and self._backward else said

    def carry_over(self) -> CarryOver:
        """Return what the next scan begins with once this one is complete."""
        seen_count = self._seen_count if self._is_whole else None
        total = self._totals.left(new_count=self._known_rows.new_count, seen_count=seen_count)
        return CarryOver(
            self.ordering,
            self.paging,
            total,
            self.before.total,
            trust=self.before.trust.after(is_untrue=self._totals.is_untrue, is_far=self.is_cut_short),
            top=self._known_rows.top(),
            length=self._seen_count if self._is_whole else self.before.length,
            found=frozenset(self._found),
            is_too_long=self._extent is Extent.CUT_OFF,
        )

    def to_be_made_anew(self) -> CarryOver:
        """Return what the next scan begins with if this one does not count: what was before, and what was seen.

        Not as before is what the list has shown of its order and of its pages: that is learnt for good.
        """
        return replace(self.before, seen=self.before.seen | self._seen)

    # One page

    def read(
        self, reply: PageReply, *, known_rows: Collection[str], unsettled: Collection[str] = (), unlocated: int
    ) -> TraversalResult | None:
        """Take in `page`, and tell how the scan ended; `None`: `page` is to be read next. `paging` knows it already.

        Where the page was refused there may be rows on it, or none. `known_rows` are the ids on it of known rows,
        `unsettled` those that are known but so young that others may yet come to be seen below. `unlocated` is how many
        open executions no list has shown yet: for each of them a page more may be read.
        """
        rows, row_count = reply.rows or (), len(reply.rows or ()) + reply.skipped
        if self._repeats(rows):
            if self._repeated_page != self.page - 1:  # unless new rows pushed these along: that page tells
                self.page = self._repeated_page = self.page - 1
                self._again = True
                return None
            rows, row_count = (), 0
        elif self._is_uncertain(row_count, is_stated=reply.rows is None or reply.total is not None):
            return None
        self._skipped[self.page] = row_count - len(rows)
        if not row_count and reply.rows is not None:
            self._end.note_empty(self.page)
        turned = self.ordering.learn(rows) and self._limits.turn()
        page = self._page(rows, reply.total, row_count=row_count, known_rows=known_rows, unsettled=unsettled)
        self._note(page)
        if turned:
            self._begin_anew()
        if self._backward and not self._end.found:
            ids = {row.id for row in rows}
            found = self._end.note(page.number, ids, row_count=row_count, total=page.total)
            self.page = self._end.page
            if not found or self.page != page.number:
                return TraversalResult(GapReason.UNORDERED) if self._end.is_hopeless else None
        elif turned:
            return None
        return self._follow(page, unlocated=unlocated)

    def _repeats(self, rows: Sequence[ExecutionSnapshot]) -> bool:
        """Tell whether `page` shows what the one before it does: the API shows its last page, or its first, for all."""
        read = self._read_page
        if read is None or not rows or self._backward or self.page != read.number + 1:
            return False
        return {row.id for row in rows} == {row.id for row in read.rows}

    def _hides_rows(self) -> bool:
        """Tell whether the first page is shown for those after it, and there may be rows that are on none."""
        is_first_for_all = self._end.is_first_for_all if self._backward else self._repeated_page == 1
        return is_first_for_all and not self._totals.says_just(len(self._seen))

    def _is_uncertain(self, row_count: int, *, is_stated: bool) -> bool:
        """Tell whether to ask again for a page without rows: it may be empty for once, even if that `is_stated`.

        The first page is read again by the next scan.
        """
        if row_count or self.page == 1 or (self.result is not None and not self._missing_count):
            self._was_empty, self._empty_count = self._empty_count > 0, 0
            return False
        self._empty_count += 1
        return self._empty_count < self._empty_at_least(is_stated=is_stated)

    def _empty_at_least(self, *, is_stated: bool) -> int:
        """Return how often in a row `page` has to be empty to be believed; `is_stated`: the answer says that it is.

        Often where rows are known to be; and after the last page, as long as nothing is known of the list: what is open
        further down would never be seen. Twice after a full page, if nothing else would tell of new rows there.
        """
        before, expected = self.paging.before(self.page), self._expected_count
        if not (self._totals.before or self.before.length) or before < expected:
            return EMPTY_AT_LEAST
        return 2 if before == expected and not is_stated else 1

    def _page(
        self,
        rows: Sequence[ExecutionSnapshot],
        total: int | None,
        *,
        row_count: int,
        known_rows: Collection[str],
        unsettled: Collection[str],
    ) -> ScannedPage:
        if self._backward:
            return ScannedPage(self.page, rows[::-1], row_count, total, known_rows, unsettled, ends_list=self.page == 1)
        ends_list = not row_count or self._looks_last(rows, total, row_count=row_count)
        return ScannedPage(self.page, rows, row_count, total, known_rows, unsettled, ends_list)

    def _looks_last(self, rows: Sequence[ExecutionSnapshot], total: int | None, *, row_count: int) -> bool:
        """Tell whether a page that holds rows is the last, newest first.

        Without a total it may only be cut short: the page after it tells. One that was empty, and to which new rows
        then pushed others, was beyond the end.
        """
        if self._was_empty and row_count < self.paging.rows and self._seen.issuperset(row.id for row in rows):
            return True
        if not self.paging.ends(self.page, row_count, total):
            return False
        is_known = bool(self._totals.before) and self.paging.length(self.page, row_count) >= self._expected_count
        return total is not None or is_known

    def _note(self, page: ScannedPage) -> None:
        """Count what is seen for the first time, and whether the page leads further down."""
        shown = {row.id for row in page.rows}
        unseen = shown - self._seen
        self._seen |= unseen
        self._overlaps = len(unseen) < len(shown)
        self._known_rows.count(page, unseen - self.before.found)
        self._found |= unseen.difference(page.known_rows, page.unsettled)
        if not self.probes:
            self._limits.read(is_further=bool(unseen) and not _is_younger(page.oldest_at, self._above_at))
        self._oldest_at = min((at for at in (page.oldest_at, self._oldest_at) if at is not None), default=None)
        self._totals.hear(page.total, row_count=page.row_count)
        self._read_page, self._above_at = page, page.oldest_at

    def _begin_anew(self) -> None:
        """Read on from the other end: the order is not what was believed."""
        self._end = EndSearch(0, self.paging)
        self._evaluated_page, self.result, self._above_at = None, None, None
        self._again = False
        self._known_rows.begin_anew()
        self.page = 1

    # What is next

    def _follow(self, page: ScannedPage, *, unlocated: int) -> TraversalResult | None:
        """Evaluate a page in its turn. After a fall of the total the one before is read again first."""
        accepted = self._evaluated_page
        if self._again:
            self._again = False
            self._known_rows.touch(page)
            if not self._overlaps and page.number > 1:  # more fell than a page holds: back to what was read
                self._again, self.page = True, page.number - 1
                return None
            return self._go_on(accepted or page, unlocated=unlocated)
        if accepted is None and not self._begin_at(page):
            return None
        fell = self._fell(page)
        self._evaluated_page = page
        if fell:
            self._again, self.page = True, page.number - 1
            return None
        return self._go_on(page, unlocated=unlocated)

    def _begin_at(self, page: ScannedPage) -> bool:
        """Take in the first page that is evaluated, or tell that another one is read before."""
        length = self.paging.length(page.number, page.row_count)
        if self._backward and self._end.asks_beyond(page, says_more=self._totals.says_now_more_than(length)):
            self.page = page.number + 1
            return False
        is_known = self._backward or (page.total is None and page.ends_list)
        self._totals.begin(length if is_known else page.total)
        self._end.settle(page, is_uncertain=self._totals.says_more_than(length) or self._hides_rows())
        return True

    def _fell(self, page: ScannedPage) -> bool:
        """Tell whether rows may have moved from this page to the one before it while neither was read.

        Newest first, that is when more were deleted above than came. Oldest first it leads to rows read twice,
        which are the proof that none was passed over.
        """
        accepted = self._evaluated_page
        if self.result or accepted is None or self._overlaps or self._backward:
            return False
        return page.total is not None and accepted.total is not None and page.total < accepted.total

    def _go_on(self, page: ScannedPage, *, unlocated: int) -> TraversalResult | None:
        if self.result is None:
            self.result = self._evaluate(page)
        if page.ends_list and self._missing_count > 0:
            self._totals.read_all(len(self._seen), known_count=self._seen_count, page_rows=self.paging.rows)
        if self.result and (page.ends_list or not self._wants_more(self.result, unlocated=unlocated)):
            return self._conclude(self.result, is_end=page.ends_list)
        self._limits.extra_count += self.result is not None
        self.page = page.number + (-1 if self._backward else 1)
        return None

    def _evaluate(self, page: ScannedPage) -> TraversalResult | None:
        """Tell whether everything was seen."""
        self._known_rows.meet(page)
        if self._backward and self._hides_rows():
            return self._evaluate_end(page)
        if self._known_rows.is_reached and self.order is not None and self._known_rows.is_proof:
            return TraversalResult()
        if page.ends_list or self._is_past(page):
            return self._evaluate_end(page)
        self._limits.count_unproven(is_unproven=self.order is None or self.ordering.is_uncertain)
        if self._limits.is_unordered:
            return TraversalResult(GapReason.UNORDERED, self.unread_count())
        if self.order is not None and self._limits.is_outrun:
            return TraversalResult(GapReason.OUTRUN, self.unread_count())
        return None

    def _is_past(self, page: ScannedPage) -> bool:
        """Tell whether all that is further down is older than anybody wants to know.

        Known rows that are no older are read on for: only the API's clock dates the rows, and that may be behind. So
        the youngest row counts where that is older than our clock says.
        """
        latest_at = self.clock.latest_at
        if self.order is None or self.ordering.is_uncertain or page.newest_at is None or latest_at is None:
            return False
        if self._cursor.complete_at >= self._horizon:
            return False
        return page.newest_at < min(self._horizon, latest_at - self._lookback_us)

    def _evaluate_end(self, page: ScannedPage) -> TraversalResult:
        """Evaluate where no known row is to be expected any more: at the end of the list, or beyond `lookback`."""
        self._extent = Extent.WHOLE if page.ends_list else Extent.PART
        if page.ends_list and self.ordering.is_mixed:
            self.ordering.forget()
        if page.ends_list and self._limits.turns_too_often and not self.is_as_long_as_said:
            return TraversalResult(GapReason.UNORDERED, self.unread_count())
        if page.ends_list and self._hides_rows():
            return TraversalResult(GapReason.UNORDERED, self._totals.unread(len(self._seen)))
        before, since = self._cursor.complete_at, self._oldest_at
        if not before or self._known_rows.meets_known:
            return TraversalResult()
        if page.ends_list:
            shown_at = before if self.clock.shown_at is None else self.clock.shown_at
            whole = not self._cursor.found or (since is not None and since < shown_at)
            return TraversalResult() if whole else TraversalResult(GapReason.DELETED)
        return (
            TraversalResult() if before >= self._horizon else TraversalResult(GapReason.LOOKBACK, self.unread_count())
        )

    def _wants_more(self, result: TraversalResult, *, unlocated: int) -> bool:
        """Tell whether to read on beyond the end of a scan that saw everything.

        For what came further down all of the list is read, if need be: only that proves that its total is untrue.
        """
        if result.gap is not None:
            return False
        is_within = self._limits.may_read_on() and not self.before.is_too_long
        return (is_within and self._missing_count > 0) or self._limits.may_read_on(unlocated)

    def _conclude(self, result: TraversalResult, *, is_end: bool) -> TraversalResult:
        """End the scan; what came further down than may be read is a gap, however often it is tried."""
        missing, new_count = 0 if is_end or result.gap is not None else self._missing_count, self._known_rows.new_count
        if missing:
            self._extent = Extent.CUT_OFF
            self._totals.leave_missing(new_count=new_count)
            self.result = result = TraversalResult(GapReason.UNORDERED, missing)
        elif not self._backward:
            self._totals.count_arrivals(new_count=new_count)
        return result


def _is_younger(at: int | None, other: int | None) -> bool:
    return at is not None and other is not None and at > other
