"""A page of a list as a scan sees it: its rows in the order of reading, and which of them were known. No I/O.

And how many rows a page has, for an API may give fewer than it is asked for; and how many pages a scan may read.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from watcher.clerk.protocol import PAGE_ROWS
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import Micros, to_us

TURNS_AT_MOST = 3
"""A list that turns over more often than that while it is read has no order."""


class Paging:
    """How the API cuts a list into pages, as far as it has shown: `rows` are on each but the last."""

    def __init__(self) -> None:
        """Believe that it gives as many rows as it is asked for."""
        self.rows = PAGE_ROWS
        self._is_shown = False  # whether a page has shown how many fit
        self._full_count = 0  # the most rows of a page of this scan that was not the last
        self._last = (0, 0)  # the page that was read last, and its rows

    def begin(self) -> None:
        """Begin another scan: what the pages before held by then is no longer true, nor perhaps how many they hold."""
        self._full_count, self._last = 0, (0, 0)

    def note(self, number: int, row_count: int) -> None:
        """Take in a page that was read: the lower of two that hold rows is not the last."""
        if not row_count:
            return
        last, last_count = self._last
        self._last = (number, row_count)
        if last and number != last:
            self._full_count = max(self._full_count, last_count if last < number else row_count)
            self.rows = self._full_count
        self.rows = max(self.rows, row_count)
        self._is_shown |= self._full_count > 0 or row_count >= PAGE_ROWS

    def before(self, number: int) -> int:
        """Return how many rows the list has before this page."""
        return (number - 1) * self.rows

    def length(self, number: int, row_count: int) -> int:
        """Return how many rows a list has whose last page is this one."""
        return self.before(number) + row_count

    def page_of(self, index: int) -> int:
        """Return the page on which the row of that index stands, counted from 0."""
        return index // self.rows + 1

    def ends(self, number: int, row_count: int, total: int | None) -> bool:
        """Return whether a page seems to be the last: it is not full, and `total` does not say that there is more.

        While no page has shown how many fit, that is no more than `total` says: it has to be the list's length.
        """
        if row_count >= self.rows:
            return False
        length = self.length(number, row_count)
        return (total or 0) <= length if self._is_shown else total == length


@dataclass(frozen=True, slots=True)
class ScannedPage:
    """A page as it was read: its rows in the order of reading, how many there are with those that cannot be read."""

    number: int
    rows: Sequence[ExecutionSnapshot]
    row_count: int
    total: int | None
    known_rows: Collection[str]
    unsettled: Collection[str]
    ends_list: bool

    @property
    def is_known(self) -> bool:
        """Whether it holds anything a complete scan has found."""
        return self.has_known_rows or bool(self.unsettled)

    @property
    def has_known_rows(self) -> bool:
        """Whether it holds known rows."""
        return bool(self.rows and self.known_rows)

    @property
    def oldest_at(self) -> Micros | None:
        """The earliest date on it; an execution is not created after it starts or ends."""
        dates = [at for row in self.rows if (at := row.started_at or row.finished_at) is not None]
        return to_us(min(dates)) if dates else None

    @property
    def newest_at(self) -> Micros | None:
        """The latest date on it, be it right or wrong."""
        dates = [at for row in self.rows if (at := row.finished_at or row.started_at) is not None]
        return to_us(max(dates)) if dates else None


class Limits:
    """Counts the pages of one scan that lead no further, against how many there may be.

    `extra_count` were read though everything was seen.
    """

    def __init__(self, pages_at_most: int) -> None:
        self._pages_at_most = pages_at_most
        self._turn_count = 0
        self._stalled_count = 0
        self._unproven_count = 0
        self.extra_count = 0

    def turn(self) -> bool:
        """Count that the list turned over, and return whether to follow it, once more too often."""
        self._turn_count += 1
        return self._turn_count <= TURNS_AT_MOST + 1

    def read(self, *, is_further: bool) -> None:
        """Count a page that led further down, or did not: new rows push pages along."""
        self._stalled_count = max(0, self._stalled_count - 1) if is_further else self._stalled_count + 1

    def count_unproven(self, *, is_unproven: bool) -> None:
        """Count a page at which no order shows."""
        self._unproven_count += is_unproven

    @property
    def turns_too_often(self) -> bool:
        """Whether the list turns over so often that it has no order."""
        return self._turn_count > TURNS_AT_MOST

    @property
    def is_unordered(self) -> bool:
        """Whether more pages were read without an order than may be."""
        return self._unproven_count >= self._pages_at_most

    @property
    def is_outrun(self) -> bool:
        """Whether more pages led no further down than may be."""
        return self._stalled_count >= self._pages_at_most

    def may_read_on(self, count: int | None = None) -> bool:
        """Return whether fewer pages than so many, or than may be, were read though everything was seen."""
        return self.extra_count < (self._pages_at_most if count is None else count)


def begun(execution: ExecutionSnapshot) -> Micros | None:
    """Return when it began, or at least ended (microseconds)."""
    at = execution.started_at or execution.finished_at
    return None if at is None else to_us(at)


def dated(execution: ExecutionSnapshot) -> Micros | None:
    """Return when it ended, or at least began (microseconds)."""
    at = execution.finished_at or execution.started_at
    return None if at is None else to_us(at)
