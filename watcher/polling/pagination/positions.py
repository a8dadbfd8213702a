"""Where the open executions of one pipeline stand in its list, so that one page answers for many. Pure arithmetic."""

from collections.abc import Collection
from dataclasses import dataclass
from statistics import median

from watcher.domain.timestamps import Monotonic
from watcher.polling.pagination.paging import Paging
from watcher.polling.pagination.sort_order import Order

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
