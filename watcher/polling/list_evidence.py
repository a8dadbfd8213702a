"""The facts that the pages of a list have shown: in one scan, and over all scans of that list. Pure, no I/O."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from watcher.clerk.api import PAGE_ROWS, Reply
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic
from watcher.polling.sort_order import Ordering


def dated(row: ExecutionSnapshot) -> Micros | None:
    """Return when it ended, or at least began, `None` if its date says nothing (microseconds, steady)."""
    return row.began_at if row.finished_at is None else row.ended_at


@dataclass(slots=True)
class Confirmation:
    """The scans in a row, `count` of them, that ended with the same unconfirmed `reason`.

    The process had run for `since_s` seconds when the first of them ended. `is_explained` says that an API which
    deletes what is old may have deleted all rows that were known.
    """

    reason: str | None = None
    count: int = 0
    since_s: float = 0.0
    is_explained: bool = False


@dataclass(slots=True)
class ListMemory:
    """The facts about one list that its scans hand on. In memory: after a start all but `total` is learnt again.

    A scan is outrun after `pages_at_most` pages that led no further. Executions that ended before `lookback_us`
    (microseconds) are not read.

    `page_rows` is how many rows each page but the last has, `None` while that is not known. `length` is how many rows
    the list had when the last complete scan read it to its end, `total` how many the API said it had when that scan
    began. `dates` are the earliest and the latest of its rows, if any. `unconfirmed_new` are the new rows of the scans
    since that did not count. All of an ordered list may be read again from `whole_from` on.
    """

    lookback_us: int
    pages_at_most: int
    ordering: Ordering = field(default_factory=Ordering)
    confirmation: Confirmation = field(default_factory=Confirmation)
    page_rows: int | None = None
    length: int | None = None
    total: int | None = None
    dates: tuple[Micros, ...] = ()
    unconfirmed_new: set[str] = field(default_factory=set)
    whole_from: Monotonic = EARLIEST

    @property
    def rows_per_page(self) -> int:
        """The rows of each page but the last: as many as are asked for until fewer are known to be on one."""
        return self.page_rows or PAGE_ROWS

    def page_of(self, index: int) -> int:
        """Return the page on which the row of that index stands, counted from 0."""
        return max(0, index) // self.rows_per_page + 1

    def before(self, page: int) -> int:
        """Return how many rows the list has before a page."""
        return (page - 1) * self.rows_per_page

    def learn_page_rows(self, row_count: int, *, is_followed: bool) -> None:
        """Learn how many rows are on a page: as many as were asked for, or fewer if rows follow all the same."""
        if row_count >= PAGE_ROWS or is_followed:
            self.page_rows = max(row_count, self.page_rows or 0)


class ScanPage(NamedTuple):
    """A page as a scan read it: its rows in the API's order, and how many there are with those that cannot be read.

    `known_rows` are the ids of known rows on it. `unseen_count` rows were on no other page that this scan read before.
    Where it shows no row that was read before, the total has fallen by `fell_count` since.
    """

    number: int
    rows: Sequence[ExecutionSnapshot]
    row_count: int
    known_rows: Collection[str]
    unseen_count: int
    fell_count: int

    @property
    def ids(self) -> set[str]:
        """The executions that it shows."""
        return {row.id for row in self.rows}


class Evidence:
    """The rows, dates and totals that the pages of one scan showed, in whatever order these were read.

    Rows are `seen_on` the page that showed them first. `row_counts` are by page, `new` are the rows that no complete
    scan has found. `total` is the last that the API named, `highest_total` the highest, and `first_total` that of the
    page from which all others are read: by then `first_new_count` new rows were found. `is_total_steady` until another
    page names another one. New rows were on `new_pages_count` pages.
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
        """Take in how many rows a page has, and their dates, before they are judged."""
        rows = reply.rows or ()
        if number not in self.row_counts:
            self.unreadable_count += reply.skipped
        if row_count := len(rows) + reply.skipped:
            self.row_counts[number] = row_count
            above = [count for page, count in self.row_counts.items() if page < number]
            follows = bool(above) and any(row.id not in self.seen_on for row in rows)
            self._memory.learn_page_rows(max(row_count, *above, 0), is_followed=follows)
        if dates := [*self.dates, *(at for row in rows if (at := dated(row)) is not None)]:
            self.dates = min(dates), max(dates)

    def take(self, number: int, reply: Reply, *, known_rows: Collection[str], unsettled: Collection[str]) -> ScanPage:
        """Take in the rows of a page. `unsettled` are the ids of those that are known, but no known rows."""
        rows, before, seen_count = reply.rows or (), self.total or 0, len(self.seen_on)
        unseen = {row.id for row in rows if self.seen_on.setdefault(row.id, number) == number}
        new = unseen.difference(known_rows, unsettled) - self.new
        self.new |= new
        self.new_pages_count += bool(new)
        self.meets_known |= bool(known_rows or unsettled)
        self.total = self.total if reply.total is None else reply.total
        self.is_total_steady &= before == (self.total or 0)
        self.highest_total = max(self.highest_total, self.total or 0)
        is_apart = len(self.seen_on) - seen_count == len(rows)
        fell_count = max(0, before - (self.total or 0)) if is_apart else 0
        return ScanPage(number, rows, len(rows) + reply.skipped, known_rows, len(unseen), fell_count)

    def begin_here(self) -> None:
        """Note that the page which was taken in last is the first of those that are judged."""
        self.first_total, self.first_new_count, self.is_total_steady = self.total, len(self.new), True

    def came_count(self) -> int:
        """Return how many rows came since the first page was read, as far as this scan found them."""
        return min(len(self.new) - self.first_new_count, (self.total or 0) - (self.first_total or 0))

    def unshown_count(self) -> int:
        """Return how many rows of its total the list did not show."""
        return (self.first_total or 0) - len(self.seen_on) - self.unreadable_count
