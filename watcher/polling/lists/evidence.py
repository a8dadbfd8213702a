"""The facts that the pages of a list have shown: in one scan, and over all scans of that list. Pure, no I/O."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from watcher.clerk.api import PAGE_ROWS, Reply
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic
from watcher.polling.lists.order import Order, Ordering


@dataclass(slots=True)
class Confirmation:
    """The unconfirmed result with which the last scans in a row ended.

    `count` scans ended with the same `reason`. The first of them ended at `since_s` (running time). `is_explained`
    means that the API may have deleted all known rows because they were old. The last scan saw `row_count` rows if the
    API showed one page for all, else 0.
    """

    reason: str | None = None
    count: int = 0
    since_s: float = 0.0
    is_explained: bool = False
    row_count: int = 0


@dataclass(slots=True)
class ListMemory:
    """The facts about one list that each scan passes to the next one, in memory only.

    After a start they are learnt again, except for `total`, which the cursor records. A scan is outrun after
    `pages_at_most` pages without progress. Executions that ended more than `lookback_us` microseconds ago are not read.
    Rows count as missing once `lost_after` scans over at least `lost_grace_s` seconds did not show them.

    Each page but the last has `page_rows` rows; `None` while that is unknown. The list had `length` rows when a
    complete scan last read it to the end. `total` is the API's number of rows at the last complete scan. `dates` are
    the earliest and the latest date of that scan's rows, if they had any. `unconfirmed_new` are the ids of new rows in
    later scans that did not count. A list with an order may not be read whole again before `whole_from` (monotonic
    seconds). `counts_all` is true once a total was other than the number of rows on its page. It is false once a total
    counted only the rows of its page: then no total counts.
    """

    lookback_us: int
    pages_at_most: int
    lost_after: int
    lost_grace_s: float
    ordering: Ordering = field(default_factory=Ordering)
    confirmation: Confirmation = field(default_factory=Confirmation)
    page_rows: int | None = None
    length: int | None = None
    total: int | None = None
    dates: tuple[Micros, ...] = ()
    unconfirmed_new: set[str] = field(default_factory=set)
    whole_from: Monotonic = EARLIEST
    counts_all: bool | None = None

    @property
    def rows_per_page(self) -> int:
        """The number of rows on each page but the last: as many as requested, until a full page shows fewer."""
        return self.page_rows or PAGE_ROWS

    @property
    def is_newest_first(self) -> bool:
        """Whether new rows come before the others."""
        return self.ordering.order is Order.NEWEST

    def page_of(self, index: int) -> int:
        """Return the page that shows the row with this index. Pages count from 1, indices from 0."""
        return max(0, index) // self.rows_per_page + 1

    def before(self, page: int) -> int:
        """Return the number of rows on the pages before a page."""
        return (page - 1) * self.rows_per_page

    def learn_page_rows(self, row_count: int, *, is_followed: bool) -> None:
        """Learn how many rows a full page has: as many as requested, or fewer if another page follows."""
        if row_count >= PAGE_ROWS or is_followed:
            self.page_rows = max(row_count, self.page_rows or 0)


class ScanPage(NamedTuple):
    """A page as a scan read it: `rows` in the API's order, and `row_count` with those that cannot be parsed.

    `known_rows` are the ids of the known rows on the page. `unseen_count` of its rows were on no other page of this
    scan. The total has fallen by `fell_count` since the page that was read before. `fell_count` is 0 if the page
    repeats a row of an earlier page.
    """

    number: int
    rows: Sequence[ExecutionSnapshot]
    row_count: int
    known_rows: Collection[str]
    unseen_count: int
    fell_count: int

    @property
    def ids(self) -> set[str]:
        """The ids of the executions on the page."""
        return {row.id for row in self.rows}


class Evidence:
    """The rows, dates and totals on the pages of one scan, in whatever order the pages were read.

    `seen_on` maps the id of each row to the page that showed it first, `row_counts` each page to its number of rows.
    `new` are the ids of the rows that no complete scan has found; `new_pages_count` pages had some. `meets_known` means
    that a page had other rows. `total` is the total that the last page named, `highest_total` the highest total of all
    pages.

    The first page of a scan is page 1, or the last page if a scan reads back from there. It named `first_total`; the
    scan had found `first_new_count` new rows by then. `is_total_steady` is true until a page after the first one names
    another total.
    """

    def __init__(self, memory: ListMemory) -> None:
        self.seen_on: dict[str, int] = {}
        self.new: set[str] = set()
        self.row_counts: dict[int, int] = {}
        self.unreadable_count = 0
        self.dates: tuple[Micros, ...] = ()
        self.total: int | None = None
        self.first_total: int | None = None
        self.first_new_count = 0
        self.is_total_steady = True
        self.new_pages_count = 0
        self.highest_total = 0
        self.meets_known = False
        self._memory = memory

    def note(self, number: int, reply: Reply) -> None:
        """Record the number of rows on a page and the dates of these rows, before the rows are evaluated."""
        rows = reply.rows or ()
        if number not in self.row_counts:
            self.unreadable_count += reply.skipped
        if row_count := len(rows) + reply.skipped:
            self.row_counts[number] = row_count
            above = [count for page, count in self.row_counts.items() if page < number]
            follows = bool(above) and any(row.id not in self.seen_on for row in rows)
            self._memory.learn_page_rows(max(row_count, *above, 0), is_followed=follows)
        if dates := [*self.dates, *(at for row in rows if (at := row.dated_at) is not None)]:
            self.dates = min(dates), max(dates)

    def take(self, number: int, reply: Reply, *, known_rows: Collection[str], unsettled: Collection[str]) -> ScanPage:
        """Record the rows of a page. `unsettled` are the ids of known executions that are not yet known rows."""
        rows, before, seen_count = reply.rows or (), self.total or 0, len(self.seen_on)
        unseen = {row.id for row in rows if self.seen_on.setdefault(row.id, number) == number}
        new = unseen.difference(known_rows, unsettled) - self.new
        self.new |= new
        self.new_pages_count += bool(new)
        self.meets_known |= bool(known_rows or unsettled)
        memory, row_count = self._memory, len(rows) + reply.skipped
        if not memory.counts_all and reply.total == row_count and 0 < row_count < len(self.seen_on):
            memory.counts_all, self.highest_total = False, 0
            memory.total = self.first_total = self.total = None
        elif reply.total not in {None, row_count} and memory.counts_all is None:
            memory.counts_all = True
        self.note_total(reply.total)
        self.is_total_steady &= before == (self.total or 0)
        self.highest_total = max(self.highest_total, self.total or 0)
        is_disjoint = len(self.seen_on) - seen_count == len(rows)
        fell_count = max(0, before - (self.total or 0)) if is_disjoint else 0
        return ScanPage(number, rows, row_count, known_rows, len(unseen), fell_count)

    def note_total(self, total: int | None) -> None:
        """Record the total that a page named, unless such a total counts the rows of its page alone."""
        self.total = self.total if total is None or self._memory.counts_all is False else total

    def mark_first(self) -> None:
        """Record that the page that was just read is the first page of the scan."""
        self.first_total, self.first_new_count, self.is_total_steady = self.total, len(self.new), True

    def arrived_count(self) -> int:
        """Return how many of the new rows were added to the list after the first page was read."""
        return min(len(self.new) - self.first_new_count, (self.total or 0) - (self.first_total or 0))

    def unshown_count(self) -> int:
        """Return how many rows are counted by the first total, but were on no page."""
        return (self.first_total or 0) - len(self.seen_on) - self.unreadable_count
