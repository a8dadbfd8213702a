"""How an API cuts a list into pages, a page as a scan sees it, and where the open executions stand. Pure, no I/O.

An API may give fewer rows than it is asked for. Where rows stand is estimated, so that one page answers for many.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median

from watcher.clerk.protocol import PAGE_ROWS
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import Micros, Monotonic, to_us
from watcher.polling.pagination.sort_order import Order

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


FORGETTING = 0.3
"""How much the pace of the last scan counts against that of those before."""


@dataclass(slots=True, eq=False)
class TraversalStart:
    """When one scan began, and how many rows had come by then; all positions it noted share it.

    `displaced` is how many more have come since than were taken to.
    """

    arrivals: int = 0
    began_at: Monotonic | None = None
    displaced: float = 0.0


@dataclass(frozen=True, slots=True)
class RowPosition:
    """Where a row was when a scan began: its index in the whole list, below 0 if it came only later.

    `guessed` where it was not found, and may be on the page beside.
    """

    index: float
    start: TraversalStart
    guessed: bool = False


class PositionEstimator:
    """Estimates where a row is: newest first it sinks by one for each row that comes, oldest first it stays.

    How many have come is known whenever a scan is complete. In between, as many are taken to have come as came before
    in so long, until a row is found elsewhere. While the order is unknown the list is taken to be newest first. Times
    are monotonic seconds.
    """

    def __init__(self, paging: Paging) -> None:
        self._paging = paging
        self.order: Order | None = None
        self._settled = TraversalStart()  # of the last complete scan
        self._rising = TraversalStart()  # of the one under way, or the next
        self._per_s = 0.0

    def scan_begins(self, now: Monotonic) -> None:
        """Count from here on what the scan under way does not find."""
        self._rising.began_at = now

    def scan_ended(self, found_count: int) -> None:
        """Count the rows that came, at the end of the scan that found them."""
        before, rising = self._settled, self._rising
        if before.began_at is not None and rising.began_at is not None:
            per_s = found_count / max(1e-3, rising.began_at - before.began_at)
            self._per_s += (FORGETTING if self._per_s else 1.0) * (per_s - self._per_s)
        rising.arrivals = before.arrivals + found_count
        self._settled, self._rising = rising, TraversalStart(rising.arrivals)

    def start(self, *, scanned: bool) -> TraversalStart:
        """Return the scan as of whose beginning a page's rows are noted: `scanned`, the one under way, else the last.

        The index at which one of them was then is what it is now without `shift`.
        """
        return self._rising if scanned or self._settled.began_at is None else self._settled

    def shift(self, start: TraversalStart, *, at: Monotonic) -> float:
        """Return by how much all rows that were noted as of that scan are taken to have sunk by then."""
        if start is self._rising:
            return self._came_since(start, at)
        return 0.0 if self.order is Order.OLDEST else self.come_by(at) - start.arrivals

    def page_of(self, position: RowPosition, *, at: Monotonic) -> int:
        """Return the page on which the row is to be expected; the first is 1."""
        return self.page_at(position.index + self.shift(position.start, at=at))

    def page_at(self, index: float) -> int:
        """Return the page that shows the row of that index in the whole list, counted from 0."""
        return self._paging.page_of(max(0, round(index)))

    def beside(self, position: RowPosition, *, at: Monotonic) -> RowPosition:
        """Return the nearest position on another page: rows move between two polls."""
        index = max(0, round(position.index + self.shift(position.start, at=at)))
        page = self._paging.page_of(index)
        first, after = self._paging.before(page), self._paging.before(page + 1)
        beside = first - 1 if first and index - first < after - index else after
        return RowPosition(position.index + beside - index, position.start, guessed=True)

    def come_by(self, at: Monotonic) -> float:
        """Return how many rows are taken to have come by then, since the first was seen."""
        return self._settled.arrivals + self._came_since(self._settled, at)

    def found_displaced(self, found: Collection[tuple[RowPosition, int]], *, at: Monotonic) -> None:
        """Take in at which indexes rows were found that were noted before: so much have all sunk, or risen."""
        shifts = {start: self.shift(start, at=at) for start in {position.start for position, _ in found}}
        for start in (self._settled, self._rising):
            rises = start is self._rising
            by = [
                index - position.index - shifts[position.start]
                for position, index in found
                if (position.start is self._rising) is rises
            ]
            start.displaced += median(by) if by else 0.0

    def _came_since(self, start: TraversalStart, at: Monotonic) -> float:
        if self.order is Order.OLDEST or start.began_at is None:
            return 0.0
        return self._per_s * max(0.0, at - start.began_at) + start.displaced
