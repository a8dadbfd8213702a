"""Which page of a list is read next, and where the list ends: a reader for each order that a list may have. Pure."""

from math import inf

from watcher.domain.timestamps import Micros
from watcher.polling.list_evidence import Evidence, ListMemory, ScanPage
from watcher.polling.sort_order import Order

SURE_AFTER = 3
"""Answers in a row that show the end of a list where no total and no earlier scan expects it, before it is believed."""


class UnorderedReader:
    """Reads a list without an order: from page 1 to its end.

    `page` is the page to be read. `stalled_count` is by how many more pages led no further than did. The list has
    `length` rows up to the end of the last page that was judged. A list that `shows_one_page` for all others has no
    known end. One `contradicts_memory` if known rows stand beyond the page on which it ended in the last scan.
    """

    def __init__(self, memory: ListMemory, evidence: Evidence) -> None:
        self.page = 1
        self.stalled_count = 0
        self.length = 0
        self.shows_one_page = self.contradicts_memory = False
        self._memory = memory
        self._evidence = evidence
        self._previous: ScanPage | None = None  # the last one that had rows
        self._answers_count = 0  # answers for `page` in a row that were not believed
        self._is_empty = False  # by these answers

    @property
    def head(self) -> int | None:
        """The page on which new rows show, if that is known."""
        return None

    def place(self, page: ScanPage) -> ScanPage | None:
        """Return the page that is to be judged now, `None` if another answer is needed first.

        Where the total fell, as many rows may have moved up to a page that was read: that one is read again.
        """
        page, previous = self._look_at(page), self._previous
        self._previous = page if page.row_count else previous
        is_in_turn = previous is not None and previous.number < page.number
        if page.fell_count and is_in_turn and page.row_count:
            self._go_to(max(1, page.number - -(-page.fell_count // self._memory.rows_per_page)))
            return None
        if page.number == 1:
            self._evidence.begin_here()
        self.length = self._memory.before(page.number) + page.row_count
        return page

    def is_proven_by(self, page: ScanPage) -> bool:
        """Return whether a page proves that all rows beyond it are known: none does without an order."""
        return False

    def may_end(self, page: ScanPage) -> bool:
        """Return whether the list may end with a page."""
        return not self._is_full(page)

    def is_end(self, page: ScanPage) -> bool:
        """Return whether the list ends with a page that is not full; if that is not sure, go to the page that shows it.

        It does where as many rows were promised, by a total or by the last scan. Else the page is asked for again, and
        one that has rows is the last only if the next one is empty.
        """
        length = self._memory.before(page.number) + page.row_count
        promised_count = max(self._memory.length or 0, self._evidence.highest_total)
        # Rows that are new show on a page that is not full: on this one, or on the one before an empty one.
        shown_on = page if page.row_count else self._previous
        shows_new = self._memory.page_rows is not None and shown_on is not None and not self._is_full(shown_on)
        if length >= promised_count and (self._evidence.total == length or (promised_count and shows_new)):
            return True
        if self._asks_again(page):
            return False
        if page.row_count:
            self._go_to(page.number + 1)
        return not page.row_count

    def go_on(self, page: ScanPage) -> None:
        """Go to the page that follows one that was judged."""
        self._go_to(page.number + 1)

    def _go_to(self, page: int) -> None:
        self.page, self._answers_count = page, 0

    def _asks_again(self, page: ScanPage) -> bool:
        """Return whether to ask for a page again: until `SURE_AFTER` answers in a row have rows, or have none."""
        is_empty = not page.row_count
        if is_empty is not self._is_empty:
            self._is_empty, self._answers_count = is_empty, 0
        self._answers_count = (self._answers_count + 1) % SURE_AFTER
        return self._answers_count > 0

    def _is_full(self, page: ScanPage) -> bool:
        return page.row_count >= self._memory.rows_per_page

    def _look_at(self, page: ScanPage) -> ScanPage:
        """Count a page that leads no further; return one beyond the end, where an API may show another, as empty."""
        if not self._answers_count:
            self.stalled_count = max(0, self.stalled_count + (-1 if self._leads_on(page) else 1))
        if not self._is_beyond(page):
            return page
        self.shows_one_page |= page.number == 2 and page.row_count > 0
        return page._replace(rows=(), row_count=0)

    def _is_beyond(self, page: ScanPage) -> bool:
        """Return whether a page lies beyond the end: it shows the rows of the one before, and no total has more."""
        above = self._previous
        repeats = above is not None and above.number < page.number and above.ids == page.ids
        return repeats and (self._evidence.total or 0) <= self._memory.before(page.number)

    def _leads_on(self, page: ScanPage) -> bool:
        """Return whether a page leads further: one whose rows all moved down from the pages above does not."""
        return page.unseen_count > 0


class NewestFirstReader(UnorderedReader):
    """Reads a list with the newest rows first: from page 1 until a page ends on a known row."""

    _oldest_at: Micros | None = None  # on the page that was read last

    @property
    def head(self) -> int:
        """The page on which new rows show."""
        return 1

    def is_proven_by(self, page: ScanPage) -> bool:
        """Return whether all rows below are known: the page ends on a known row."""
        return bool(page.rows) and page.rows[-1].id in page.known_rows

    def _leads_on(self, page: ScanPage) -> bool:
        """Return whether a page leads further. A page of younger rows than the one above it does not."""
        # an execution is not created after it starts or ends
        dates = [at for row in page.rows if (at := row.began_at or row.ended_at) is not None]
        above_at, self._oldest_at = self._oldest_at, min(dates, default=None)
        is_younger = above_at is not None and self._oldest_at is not None and self._oldest_at > above_at
        return super()._leads_on(page) and not is_younger


class OldestFirstReader(UnorderedReader):
    """Reads a list with the oldest rows first: it finds the last page, and reads back from it to a known row.

    It begins at the page on which the list ended last, and goes on to the page that the total names, else in steps that
    double, until a page is not full. From a page beyond the end it goes back by halves.
    """

    def __init__(self, memory: ListMemory, evidence: Evidence) -> None:
        super().__init__(memory, evidence)
        self.page = self._first = memory.page_of((memory.length or 0) - 1)
        self._is_reading_back = False
        self._beyond = inf  # the first page that is known to lie beyond the end

    @property
    def head(self) -> int | None:
        """The last page, once it is found."""
        return self._memory.page_of(self.length) if self._is_reading_back else None

    def place(self, page: ScanPage) -> ScanPage | None:
        """Return the page to be judged, `None` before the last page is found, or if this one is to be read again."""
        is_after_end = self._memory.length is not None and page.number > self._first
        if is_after_end and page.unseen_count and len(page.known_rows) == page.row_count:
            self.contradicts_memory = True
        if not self._is_reading_back:
            last = self._last_page(self._look_at(page))
            if last is not None:
                self._is_reading_back = True
                self._evidence.begin_here()  # no deletion moves what is read from here past others
                self.length = self._memory.before(last.number) + last.row_count
                self._go_to(last.number)
            return last
        if not page.row_count:  # there are rows below it, so it has some
            self.stalled_count += 1
            return None
        return None if not self._is_full(page) and self._asks_again(page) else page

    def is_proven_by(self, page: ScanPage) -> bool:
        """Return whether all rows above are known: the page begins with a known row."""
        return bool(page.rows) and page.rows[0].id in page.known_rows

    def may_end(self, page: ScanPage) -> bool:
        """Return whether the list ends, read back, with a page."""
        return page.number == 1

    def is_end(self, page: ScanPage) -> bool:
        """Return whether the list ends with a page: searched for as in any list, at page 1 once it is read back."""
        return self._is_reading_back or super().is_end(page)

    def go_on(self, page: ScanPage) -> None:
        """Go to the page that stands before one that was judged."""
        self._go_to(page.number - 1)

    def _last_page(self, page: ScanPage) -> ScanPage | None:
        """Return the last page once it is found; else go to the page to be read for that."""
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
        """Return whether a page lies beyond the end: it shows rows of other pages only."""
        return not page.unseen_count

    def _leads_on(self, page: ScanPage) -> bool:
        """Return whether a page leads further: none does while the list may grow faster than its end is looked for."""
        return self._beyond < inf


READERS = {Order.NEWEST: NewestFirstReader, Order.OLDEST: OldestFirstReader, None: UnorderedReader}
