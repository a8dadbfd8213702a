"""One pass over the list of a pipeline: which page to read next, and when everything was seen. Pure, no I/O.

Newest first, it reads from page 1 on; oldest first, from the last page back. It ends at a *known row*: one that was
in the list when the last complete scan began reading, so that all below it was, too, and is recorded. That holds while
the list has an order, and the scan has met those that were first then (its `top`). Else all of the list is read.
"""

from collections.abc import Collection, Sequence

from watcher.clerk.protocol import PageReply
from watcher.domain.event import GapReason
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.polling.pagination.arrival_baseline import ApiClock
from watcher.polling.pagination.coverage import CarryOver, Coverage, EndSearch, Extent, TraversalResult
from watcher.polling.pagination.paging import ScannedPage

EMPTY_AT_LEAST = 3
"""So often in a row a page must be empty to be believed where nothing is known of the list, or more of it is."""


class ListTraversal(Coverage):
    """One pass, made anew for each. Hand `page` to the API and its answer to `read`, until that returns a result."""

    def __init__(
        self,
        before: CarryOver,
        *,
        clock: ApiClock,
        cursor: Cursor,
        lookback_us: int,
        began_at: Micros,
        pages_at_most: int,
    ) -> None:
        """Begin with what the last complete scan of this process learnt.

        `clock` knows the rows of each page that is read. `began_at` is microseconds UTC, steady. `pages_at_most` pages
        that lead no further are a race that is lost.
        """
        super().__init__(before, cursor=cursor, pages_at_most=pages_at_most)
        self.clock = clock
        self._horizon = (began_at if cursor.complete_at else cursor.since_at) - lookback_us
        self._lookback_us = lookback_us
        self._above_at: Micros | None = None  # the oldest date of the page that was read last
        self._empty_count = 0  # so often `page` was empty
        self._was_empty = False

    def note_aside(self, page: int, *, row_count: int, total: int | None) -> None:
        """Take in a page that is read out of turn: what it says of the list's length, and whether `head` has no room.

        Oldest first, what is new then shows on the page after it.
        """
        self._totals.now = total
        if self._backward and page == self.head and row_count >= self.paging.rows:
            self._end.head_is_full()

    # One page

    def read(
        self, reply: PageReply, *, known_rows: Collection[str], unsettled: Collection[str] = (), unlocated: int
    ) -> TraversalResult | None:
        """Take in `page`, and return how the scan ended; `None`: `page` is to be read next. `paging` knows it already.

        Where the page was refused there may be rows on it, or none. `known_rows` are the ids on it of known rows,
        `unsettled` those that are known but so young that others may yet come to be seen below. `unlocated` is how many
        open executions no list has shown yet: for each of them a page more may be read.
        """
        rows, row_count = reply.rows or (), len(reply.rows or ()) + reply.skipped
        if self._repeats(rows):
            if self._repeated_page != self.page - 1:  # unless new rows pushed these along: that page shows it
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
        ends_list = self.page == 1 if self._backward else self._seems_last(rows, reply.total, row_count=row_count)
        in_turn = rows[::-1] if self._backward else rows
        page = ScannedPage(self.page, in_turn, row_count, reply.total, known_rows, unsettled, ends_list)
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
        """Return whether `page` repeats the one before it: the API shows its last page, or its first, for all."""
        read = self._read_page
        if read is None or not rows or self._backward or self.page != read.number + 1:
            return False
        return {row.id for row in rows} == {row.id for row in read.rows}

    def _is_uncertain(self, row_count: int, *, is_stated: bool) -> bool:
        """Return whether to ask again for a page without rows: it may be empty for once, even if that `is_stated`.

        It has to be empty often in a row where rows are known to be; and after the last page, as long as nothing is
        known of the list: what is open further down would never be seen. Twice after a full page, if nothing else would
        show new rows there. The first page is read again by the next scan.
        """
        if row_count or self.page == 1 or (self.result is not None and not self._missing_count):
            self._was_empty, self._empty_count = self._empty_count > 0, 0
            return False
        self._empty_count += 1
        before, expected = self.paging.before(self.page), self._expected_count
        if not (self._totals.before or self.before.length) or before < expected:
            return self._empty_count < EMPTY_AT_LEAST
        return self._empty_count < (2 if before == expected and not is_stated else 1)

    def _seems_last(self, rows: Sequence[ExecutionSnapshot], total: int | None, *, row_count: int) -> bool:
        """Return whether a page is the last, newest first.

        Without a total it may only be cut short: the page after it shows. One that was empty, and to which new rows
        then pushed others, was beyond the end.
        """
        if not row_count:
            return True
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
        oldest_at = page.oldest_at
        if not self.probes:
            is_younger = oldest_at is not None and self._above_at is not None and oldest_at > self._above_at
            self._limits.read(is_further=bool(unseen) and not is_younger)
        self._oldest_at = min((at for at in (oldest_at, self._oldest_at) if at is not None), default=None)
        self._totals.hear(page.total, row_count=page.row_count)
        self._read_page, self._above_at = page, oldest_at

    def _begin_anew(self) -> None:
        """Read on from the other end: the order is not what was believed."""
        self._end = EndSearch(0, self.paging)
        self._evaluated_page = self.result = self._above_at = None
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
        """Take in the first page that is evaluated, or return that another one is read before."""
        length = self.paging.length(page.number, page.row_count)
        if self._backward and self._end.asks_beyond(page, says_more=self._totals.says_now_more_than(length)):
            self.page = page.number + 1
            return False
        is_known = self._backward or (page.total is None and page.ends_list)
        self._totals.begin(length if is_known else page.total)
        self._end.settle(page, is_uncertain=self._totals.says_more_than(length) or self._hides_rows())
        return True

    def _fell(self, page: ScannedPage) -> bool:
        """Return whether rows may have moved from this page to the one before it while neither was read.

        Newest first, that is when more were deleted above than came. Oldest first it leads to rows read twice,
        which are the proof that none was passed over.
        """
        accepted = self._evaluated_page
        if self.result or accepted is None or self._overlaps or self._backward:
            return False
        return page.total is not None and accepted.total is not None and page.total < accepted.total

    def _go_on(self, page: ScannedPage, *, unlocated: int) -> TraversalResult | None:
        """Read on, or end the scan; what came further down than may be read is a gap, however often it is tried."""
        if self.result is None:
            self.result = self._evaluate(page)
        if page.ends_list and self._missing_count > 0:
            self._totals.read_all(len(self._seen), known_count=self._seen_count, page_rows=self.paging.rows)
        if self.result is None or (not page.ends_list and self._wants_more(self.result, unlocated=unlocated)):
            self._limits.extra_count += self.result is not None
            self.page = page.number + (-1 if self._backward else 1)
            return None
        new_count = self._known_rows.new_count
        missing = 0 if page.ends_list or self.result.gap is not None else self._missing_count
        if missing:
            self._extent = Extent.CUT_OFF
            self._totals.leave_missing(new_count=new_count)
            self.result = TraversalResult(GapReason.UNORDERED, missing)
        elif not self._backward:
            self._totals.count_arrivals(new_count=new_count)
        return self.result

    def _evaluate(self, page: ScannedPage) -> TraversalResult | None:
        """Return whether everything was seen."""
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
        """Return whether all that is further down is older than anybody wants to know.

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
            self.ordering.order = None
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
        """Return whether to read on beyond the end of a scan that saw everything.

        For what came further down all of the list is read, if need be: only that proves that its total is untrue.
        """
        if result.gap is not None:
            return False
        is_within = self._limits.may_read_on() and not self.before.is_too_long
        return (is_within and self._missing_count > 0) or self._limits.may_read_on(unlocated)
