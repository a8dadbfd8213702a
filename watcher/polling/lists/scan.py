"""One scan of a pipeline's list: the next page, and whether all executions were seen. Pure, no I/O.

A list with an order is read until a known row: a complete scan has found that row before, and with it all rows beyond
it. A list without an order is read whole. A result that other facts contradict is unconfirmed: the list is rescanned at
once, and the result counts once rescans end with the same one.
"""

from collections.abc import Collection
from typing import NamedTuple

from watcher.clerk.api import Reply
from watcher.domain.event import GapReason
from watcher.domain.timestamps import NEVER, Micros
from watcher.domain.watch import Cursor
from watcher.polling.lists.evidence import Evidence, ListMemory, ScanPage
from watcher.polling.lists.order import Order
from watcher.polling.lists.readers import READERS, SURE_AFTER, UnorderedReader

SETTLED_AFTER_US = 15_000_000
"""The longest delay (microseconds) with which a row appears in a list.

Rows that were found less than this before the last complete scan began are no known rows yet.
"""


class ScanResult(NamedTuple):
    """The result of a scan: all executions were seen, or there is a `gap`, in which at most `at_most` are missing.

    `at_most` is `None` if their number is unknown. `unconfirmed` is the reason why the list must be rescanned before
    this result counts.
    """

    gap: GapReason | None = None
    at_most: int | None = None
    unconfirmed: str | None = None


class Scan:
    """One scan of a list. Request `page` and pass its answer to `read`, until `read` returns a result.

    The scan began at `began_at` (microseconds UTC, steady; 0 before its first answer). With `seeks` the scan reads on
    for open executions that no page has shown yet. `is_whole` means that it read to the end of the list. `result` is
    set once all executions were seen, even if the scan then reads on.
    """

    def __init__(self, memory: ListMemory, cursor: Cursor) -> None:
        self.memory = memory
        self.began_at = NEVER
        self.seeks = True
        self.is_whole = False
        self.result: ScanResult | None = None
        self._cursor = cursor
        self._evidence = Evidence(memory)
        self._answers_count = 0
        self._skips_old = False
        # Whether this scan looks for rows that the total counts and no page showed, `None` if there are none.
        self._seeks_missing: bool | None = None
        self._extra_count = 0  # pages read after all executions were seen
        self._unproven_count = 0  # pages that could not prove what is beyond them
        memory.ordering.begin()
        self._reader: UnorderedReader = READERS[self.order](memory, self._evidence)

    # Read by others

    @property
    def page(self) -> int:
        """The page to read next."""
        return self._reader.page

    @property
    def order(self) -> Order | None:
        """The order of the list, `None` if it has none or it is unknown."""
        return self.memory.ordering.order

    @property
    def head(self) -> int | None:
        """The page that shows new rows first, `None` if it is unknown."""
        return self._reader.head

    @property
    def shows_any(self) -> bool:
        """Whether any page had a row."""
        return bool(self._evidence.row_counts)

    @property
    def unordered_pages(self) -> int:
        """The number of answers of a scan that had to read the whole list; 0 for other scans and for a single page."""
        return self._answers_count if self._reads_whole and len(self._evidence.row_counts) > 1 else 0

    @property
    def expects_page(self) -> bool:
        """Whether `page` must exist according to other pages, so that its refusal does not mean the end of the list."""
        is_lower = self.page < max(self._evidence.row_counts, default=0)
        return is_lower or (self._evidence.total or 0) > self.memory.before(self.page)

    @property
    def horizon(self) -> Micros:
        """The earliest date that matters: `lookback` before the scan or, for the first scan, before the watch began."""
        return Micros((self.began_at if self._cursor.complete_at else self._cursor.since_at) - self.memory.lookback_us)

    def unread_count(self) -> int | None:
        """Return how many rows may be left unread; `None` if that is unknown."""
        left = (self._evidence.total or 0) - len(self._evidence.seen_on)
        if left > 0:
            return left
        return self.memory.before(self.page + 1) if self.order is Order.OLDEST and self.head is not None else None

    def is_beyond_lookback(self, at: Micros) -> bool:
        """Return whether an execution ended (`at`) too early to be reported after a long downtime: a gap covers it."""
        is_old = NEVER < self._cursor.complete_at < self.horizon and at < self.horizon
        self._skips_old |= is_old
        return is_old

    # One page

    def note_head(self, page: int, *, row_count: int, total: int | None) -> None:
        """Record a page that was read out of turn because it may be the head."""
        self._evidence.note_total(total)
        if page == self.head:
            self._reader.note_head(page, row_count)

    def note(self, reply: Reply) -> None:
        """Record the number of rows on `page` and the dates of these rows, before the rows are evaluated."""
        self._answers_count += 1
        self._evidence.note(self.page, reply)

    def read(
        self,
        reply: Reply,
        *,
        known_rows: Collection[str] = (),
        unsettled: Collection[str] = (),
        unlocated: int = 0,
        may_read_whole: bool = True,
    ) -> ScanResult | None:
        """Take the answer for `page`. Return the result of the scan; `None` if the scan goes on with another `page`.

        A refusal counts as a page without rows. `known_rows` are the ids of the known rows on the page. `unsettled` are
        the ids of executions that were found so recently that rows may still appear below them. `unlocated` open
        executions are on no known page: the scan reads one more page for each. `may_read_whole` allows the scan to read
        a list with an order whole if the total counts rows that no page showed.
        """
        memory, order_before = self.memory, self.order
        page = self._evidence.take(self.page, reply, known_rows=known_rows, unsettled=unsettled)
        memory.ordering.learn(page.rows)
        if self.order is not order_before:
            memory.length = None
            # A list whose order has changed is read whole: its first pages may be the oldest now.
            reader = READERS[self.order] if order_before is None else UnorderedReader
            if type(self._reader) is not reader:
                self._reader = reader(memory, self._evidence)
                if self.page != page.number:
                    return None
        page_to_judge = self._reader.place(page)
        if self._reader.contradicts_memory:
            memory.length = None
            return ScanResult(unconfirmed="longer than known")
        if self._reader.stalled_count >= memory.pages_at_most:
            gap = GapReason.UNORDERED if self.order is None else GapReason.OUTRUN
            return ScanResult(gap, self.unread_count(), unconfirmed="outrun")
        if page_to_judge is None:
            return None
        return self._judge(page_to_judge, unlocated=unlocated, may_read_whole=may_read_whole)

    def _judge(self, page: ScanPage, *, unlocated: int, may_read_whole: bool) -> ScanResult | None:
        """Judge a page. Return the result of the scan, or choose the next page and return `None`."""
        reader = self._reader
        if self.result is None and self._is_ordered and reader.is_proven_by(page):
            self._seeks_missing = may_read_whole if self._missing_count > 0 else None
            if not self._seeks_missing:
                self.result = self._check_totals()
        may_end = reader.may_end(page)
        if may_end and self.result is None and not reader.is_end(page):
            return None
        if self.result is None:
            self.result = self._stop_at_end() if may_end else self._stop_at_limit(page)
        if self.result is not None and (may_end or self._extra_count >= unlocated or self.result != ScanResult()):
            return self.result
        self._extra_count += self.result is not None
        reader.go_on(page)
        return None

    @property
    def _is_ordered(self) -> bool:
        return self.head is not None and not self.memory.ordering.is_uncertain

    @property
    def _reads_whole(self) -> bool:
        """Whether the scan reads to the end of the list: a known row does not prove that the rows beyond are known."""
        return not self._is_ordered or bool(self._seeks_missing)

    @property
    def _new_ids(self) -> set[str]:
        return self._evidence.new | self.memory.unconfirmed_new

    @property
    def _missing_count(self) -> int:
        """The number of rows by which the total grew, less the new rows found; it is negative if more were found.

        Pages read out of turn may have shown some of these rows. None of them is missing if a whole scan shows as many
        rows as the total counts.
        """
        before, first_total = self.memory.total, self._evidence.first_total
        if before is None or first_total is None:
            return 0
        missing_count = first_total - before - len(self._new_ids)
        return min(missing_count, self._evidence.unshown_count()) if self.is_whole else missing_count

    @property
    def total(self) -> int | None:
        """The list's total when the scan began, plus the new rows that arrived later and were found.

        Rows are left out if the total counts them and no gap says that they are missing: a later scan looks for them.
        """
        before, evidence = self.memory.total, self._evidence
        is_left_out = self._missing_count > 0 and self.result is not None and self.result.gap is None
        if before is not None and is_left_out:
            return before + len(self._new_ids)
        if evidence.first_total is None:
            return before
        arrived_count = evidence.arrived_count()
        if before is not None:
            arrived_count = min(arrived_count, -self._missing_count)
        return evidence.first_total + max(0, arrived_count)

    # The end

    def _stop_at_limit(self, page: ScanPage) -> ScanResult | None:
        """Return the result if the scan has reached a limit: `lookback`, or `pages_at_most` pages without proof."""
        latest_at = max((at for row in page.rows if (at := row.dated_at) is not None), default=None)
        if self._is_ordered and latest_at is not None and latest_at < self.horizon:
            is_gap = NEVER < self._cursor.complete_at < self.horizon
            return ScanResult(GapReason.LOOKBACK, self.unread_count()) if is_gap else ScanResult()
        self._unproven_count += self._reads_whole
        if self._unproven_count < self.memory.pages_at_most:
            return None
        at_most = self._missing_count if self._seeks_missing else self.unread_count()
        return ScanResult(GapReason.UNORDERED, at_most, unconfirmed="too long")

    def _stop_at_end(self) -> ScanResult:
        """Return the result of a scan at the end of the list."""
        self.is_whole = True
        if self.memory.ordering.is_mixed:
            self.memory.ordering.order = None
        evidence, cursor = self._evidence, self._cursor
        is_newer = not evidence.dates or evidence.dates[0] >= cursor.complete_at
        if cursor.found and is_newer and not evidence.meets_known:
            return ScanResult(GapReason.DELETED, unconfirmed="deleted")
        return self._check_totals()

    def _check_totals(self) -> ScanResult:
        """Return that all executions were seen, or an unconfirmed result or a gap if a fact contradicts that."""
        evidence, is_first = self._evidence, not self._cursor.complete_at
        if self._skips_old:
            return ScanResult(GapReason.LOOKBACK)
        if self._reader.shows_one_page and not evidence.total:
            self.is_whole = True  # oldest first, a known row proves nothing about new rows that no page shows
            # A page that had fewer rows before was not full, so no other rows can have been on a second page.
            confirmation, shown_count = self.memory.confirmation, len(evidence.seen_on)
            before, confirmation.row_count = confirmation.row_count, shown_count
            if before in {0, shown_count}:
                return ScanResult(GapReason.UNORDERED, unconfirmed="one page for all")
        unshown_count = evidence.unshown_count() if self.memory.total is None else self._missing_count
        if self.is_whole and unshown_count > 0:
            gap = GapReason.UNORDERED if evidence.is_total_steady else None
            return ScanResult(gap, unshown_count, unconfirmed="total too high")
        shown_count = len(evidence.seen_on) + evidence.unreadable_count
        if self.is_whole and is_first and not shown_count:
            return ScanResult(unconfirmed="empty")
        # Rows with equal dates may have changed places between two pages. A total that is too low cannot show that.
        is_too_low = evidence.highest_total < shown_count and evidence.new_pages_count > 1
        if is_too_low and self.order is not None and evidence.new - self.memory.unconfirmed_new:
            return ScanResult(unconfirmed="total too low")
        return ScanResult()

    def _explains_emptiness(self) -> bool:
        """Return whether an API that deletes by age may have deleted all known rows, and no row that came after them.

        For that the list must be shorter than before. The newest of the known rows must be at least half as old as the
        oldest one: such an API may delete only once a day.
        """
        memory = self.memory
        before = memory.length if memory.total is None else memory.total
        if not memory.dates or before is None or len(self._evidence.seen_on) >= before:
            return False
        retained_us = self.began_at - memory.dates[0]
        return self.began_at - self._cursor.complete_at < retained_us <= 2 * (self.began_at - memory.dates[1])

    def is_confirmed(self, result: ScanResult, *, ran_s: float) -> bool:
        """Return whether a result counts. Count the scans in a row that ended with it. `ran_s` is the running time.

        An unconfirmed result without a gap counts after three scans, one with a gap after two. If the list was read to
        its end, a gap needs `lost_after` scans over at least `lost_grace`: rows may be gone only for a while.
        """
        memory, confirmation = self.memory, self.memory.confirmation
        if result.unconfirmed is None:
            if self._seeks_missing is not False:  # otherwise rows are still missing
                confirmation.reason = None
            return True
        if confirmation.reason != result.unconfirmed:
            confirmation.reason, confirmation.count, confirmation.since_s = result.unconfirmed, 0, ran_s
            confirmation.is_explained = self._explains_emptiness()
        confirmation.count += 1
        if result.gap is None:
            return confirmation.count >= SURE_AFTER
        if self.is_whole:
            return ran_s - confirmation.since_s >= memory.lost_grace_s and confirmation.count >= memory.lost_after
        return confirmation.count > 1

    def complete(self) -> None:
        """Pass the facts of this scan to the next one, because the result of this scan counts."""
        memory, is_read_back = self.memory, self.order is Order.OLDEST and self.head is not None
        memory.total = self.total
        if self.is_whole or is_read_back or self.order is not Order.OLDEST:
            memory.length = self._reader.length if self.is_whole or is_read_back else None
        memory.dates = self._evidence.dates
        memory.unconfirmed_new.clear()

    def break_off(self) -> None:
        """Pass the new rows of this scan to the next one, because the result of this scan does not count."""
        self.memory.unconfirmed_new |= self._evidence.new
