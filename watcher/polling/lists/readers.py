"""Readers that choose the next page of a list and find its end: one reader for each order a list may have. Pure."""

from math import inf

from watcher.domain.timestamps import Micros
from watcher.polling.lists.evidence import Evidence, ListMemory, ScanPage
from watcher.polling.lists.order import Order

SURE_AFTER = 3
"""The number of equal answers in a row that prove the end of a list if neither a total nor an earlier scan does."""


class UnorderedReader:
    """The reader of a list without an order: it reads from page 1 to the end.

    `page` is the page to read next. `stalled_count` is the number of pages without progress, less the number of those
    with progress, and at least 0. The list has `length` rows up to the end of the last page that was judged.
    `shows_one_page` means that page 2 repeated page 1. `contradicts_memory` means that known rows stand beyond the end
    that the last scan found.
    """

    head: int | None = None
    """The page that shows new rows first, `None` if it is unknown."""

    def __init__(self, memory: ListMemory, evidence: Evidence) -> None:
        self.page = 1
        self.stalled_count = 0
        self.length = 0
        self.shows_one_page = self.contradicts_memory = False
        self._memory = memory
        self._evidence = evidence
        self._previous: ScanPage | None = None  # the last page that had rows
        self._answers_count = 0  # equal answers in a row for `page`, which may be the end
        self._is_empty = False  # whether these answers had no rows

    def place(self, page: ScanPage) -> ScanPage | None:
        """Return the page to judge now; `None` if another page must be read first.

        If the total has fallen, rows may have moved up to a page that was already read. The scan then reads that page
        again.
        """
        page, previous = self._count_stalled(page), self._previous
        self._previous = page if page.row_count else previous
        is_in_turn = previous is not None and previous.number < page.number
        if page.fell_count and is_in_turn and page.row_count:
            self._go_to(max(1, page.number - -(-page.fell_count // self._memory.rows_per_page)))
            return None
        if page.number == 1:
            self._evidence.mark_first()
        self.length = self._end_of(page)
        return page

    def note_head(self, page: int, row_count: int) -> None:
        """Record how many rows a page has that was read as the head."""
        self.length = max(self.length, self._memory.before(page) + row_count)

    def is_proven_by(self, page: ScanPage) -> bool:
        """Return whether a page proves that all rows beyond it are known. Without an order no page does."""
        return False

    def may_end(self, page: ScanPage) -> bool:
        """Return whether the list may end with this page: the page is not full."""
        return not self._is_full(page)

    def is_end(self, page: ScanPage) -> bool:
        """Return whether the list ends with a page that is not full. If unsure, choose the page that decides it.

        The list ends there if a total, or the last scan, expects no more rows. Otherwise the page is requested again. A
        page with rows is the last one only if the next page is empty.
        """
        if page.number == 1 and 0 < page.row_count == self._evidence.total and not self._memory.counts_all:
            self._go_to(2)  # the total may count the rows of each page alone
            return False
        length = self._end_of(page)
        expected_count = max(self._memory.length or 0, self._evidence.highest_total)
        # New rows would be on the page that is not full: on this page, or if it is empty, on the page before.
        shown_on = page if page.row_count else self._previous
        shows_new = self._memory.page_rows is not None and shown_on is not None and not self._is_full(shown_on)
        if length >= expected_count and (self._evidence.total == length or (expected_count and shows_new)):
            return True
        if self._asks_again(page):
            return False
        if page.row_count:
            self._go_to(page.number + 1)
        return not page.row_count

    def go_on(self, page: ScanPage) -> None:
        """Choose the page after the judged page."""
        self._go_to(page.number + 1)

    def _go_to(self, page: int) -> None:
        self.page, self._answers_count = page, 0

    def _asks_again(self, page: ScanPage) -> bool:
        """Return whether to request a page again: until `SURE_AFTER` answers in a row have rows, or have none."""
        is_empty = not page.row_count
        if is_empty is not self._is_empty:
            self._is_empty, self._answers_count = is_empty, 0
        self._answers_count = (self._answers_count + 1) % SURE_AFTER
        return self._answers_count > 0

    def _end_of(self, page: ScanPage) -> int:
        """Return the number of rows up to the end of a page, or if it is empty, of the last page with rows."""
        last = page if page.row_count else self._previous or page
        return self._memory.before(last.number) + last.row_count

    def _is_full(self, page: ScanPage) -> bool:
        return page.row_count >= self._memory.rows_per_page

    def _count_stalled(self, page: ScanPage) -> ScanPage:
        """Update `stalled_count` by a page. Return the page, without its rows if it lies beyond the end."""
        if not self._answers_count:
            self.stalled_count = max(0, self.stalled_count + (-1 if self._leads_on(page) else 1))
        if not self._is_beyond(page):
            return page
        self.shows_one_page |= page.number == 2 and page.row_count > 0
        return page._replace(rows=(), row_count=0)

    def _is_beyond(self, page: ScanPage) -> bool:
        """Return whether a page lies beyond the end: it repeats the page before, and no total counts more rows."""
        above = self._previous
        repeats = above is not None and above.number < page.number and above.ids == page.ids
        return repeats and (self._evidence.total or 0) <= self._memory.before(page.number)

    def _leads_on(self, page: ScanPage) -> bool:
        """Return whether a page is progress: it has a row that was on no earlier page of the scan."""
        return page.unseen_count > 0


class NewestFirstReader(UnorderedReader):
    """The reader of a list with the newest rows first: it reads from page 1 until a page ends with a known row."""

    head = 1
    _oldest_at: Micros | None = None  # the earliest date on the last page

    def is_proven_by(self, page: ScanPage) -> bool:
        """Return whether all rows below a page are known: the page ends with a known row."""
        return bool(page.rows) and page.rows[-1].id in page.known_rows

    def _leads_on(self, page: ScanPage) -> bool:
        """Return whether a page is progress. It is none if its rows are younger than those of the page before."""
        # Executions start and end after they were created, so the earliest date is nearest to a creation.
        dates = [at for row in page.rows if (at := row.began_at or row.ended_at) is not None]
        above_at, self._oldest_at = self._oldest_at, min(dates, default=None)
        is_younger = above_at is not None and self._oldest_at is not None and self._oldest_at > above_at
        return super()._leads_on(page) and not is_younger


class OldestFirstReader(UnorderedReader):
    """The reader of a list with the oldest rows first: it finds the last page, and reads back to a known row.

    It begins at the page on which the list ended last time. From there it goes to the page that the total names, else
    forward in steps that double, until a page is not full. Between a page with rows and a page beyond the end it
    searches by halves.
    """

    def __init__(self, memory: ListMemory, evidence: Evidence) -> None:
        super().__init__(memory, evidence)
        self.page = self._first = memory.page_of((memory.length or 0) - 1)
        self._beyond = inf  # the first page known to be beyond the end

    def place(self, page: ScanPage) -> ScanPage | None:
        """Return the page to judge; `None` while the last page is not found, or if this page must be read again."""
        is_after_end = self._memory.length is not None and page.number > self._first
        if is_after_end and page.unseen_count and len(page.known_rows) == page.row_count:
            self.contradicts_memory = True
        if self.head is None:
            last = self._last_page(self._count_stalled(page))
            if last is not None:
                self._evidence.mark_first()  # a deletion moves rows up, to pages yet to be read
                self.note_head(last.number, last.row_count)
                self._go_to(last.number)
            return last
        if not page.row_count:  # a wrong answer: the page after this one has rows
            self.stalled_count += 1
            return None
        return None if not self._is_full(page) and self._asks_again(page) else page

    def note_head(self, page: int, row_count: int) -> None:
        """Record how many rows the last page has. If it is full, the next page is the head."""
        super().note_head(page, row_count)
        self.head = self._memory.page_of(self.length)

    def is_proven_by(self, page: ScanPage) -> bool:
        """Return whether all rows above a page are known: the page begins with a known row."""
        return bool(page.rows) and page.rows[0].id in page.known_rows

    def may_end(self, page: ScanPage) -> bool:
        """Return whether reading back ends with a page: it ends with page 1."""
        return page.number == 1

    def is_end(self, page: ScanPage) -> bool:
        """Return whether reading ends with a page: with page 1 while it reads back, else where the list ends."""
        return self.head is not None or super().is_end(page)

    def go_on(self, page: ScanPage) -> None:
        """Choose the page before the judged page."""
        self._go_to(page.number - 1)

    def _last_page(self, page: ScanPage) -> ScanPage | None:
        """Return the last page if this page has shown it. Otherwise choose the next page of the search."""
        self._previous = page if page.row_count else self._previous
        if not self._is_full(page):
            if self._beyond != page.number + 1 and not self.is_end(page):
                return None
            self._beyond = page.number + (page.row_count > 0)
        last_number = 0 if self._previous is None else self._previous.number
        if self._beyond <= last_number + 1:
            return self._previous or page
        named = self._memory.page_of((self._evidence.total or 0) - 1)
        if last_number < named < self._beyond:
            self._go_to(named)
        elif self._beyond < inf:
            self._go_to(int(last_number + self._beyond) // 2)
        else:
            self._go_to(max(last_number, 2 * last_number - self._first) + 1)
        return None

    def _is_beyond(self, page: ScanPage) -> bool:
        """Return whether a page lies beyond the end: it has only rows of other pages, or none."""
        return not page.unseen_count

    def _leads_on(self, page: ScanPage) -> bool:
        """Return whether a page is progress. While no page beyond the end is known, the list may outgrow the search."""
        return self._beyond < inf


READERS = {Order.NEWEST: NewestFirstReader, Order.OLDEST: OldestFirstReader, None: UnorderedReader}
