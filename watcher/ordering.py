"""In which order a list is, and where one that begins with the oldest ends. Pure; knows no scan and no request."""

from collections.abc import Sequence
from enum import Enum
from itertools import pairwise

from watcher.models import Execution
from watcher.page import Paging


class Order(Enum):
    """How the API sorts a list; the documentation does not say."""

    NEWEST = "newest first"
    OLDEST = "oldest first"


PAIRS_AT_LEAST = 20
MAJORITY = 3
"""So many neighbours must stand in one order, and so many times as many as in the other, for that to be the list's."""

REMEMBERED_PAIRS = 5_000
"""Beyond this, what was seen long ago counts half."""

REMEMBERED_ROWS = 500
"""The rows of some pages: where nothing comes, the same ones are read over and over, and count once."""


class Ordering:
    """The order of one list, by the neighbours on the pages that were read of it.

    Executions that begin almost at once may start in another order than they were created, so only a clear majority
    counts. Rows of different pages are not compared: these are read one after the other, and in a list that grows
    faster than it is read the later page is the younger one whatever the order.
    """

    def __init__(self, order: Order | None = None) -> None:
        """Begin with what is believed."""
        self.order = order
        self._counts = dict.fromkeys(Order, 0)
        self._counted: dict[str, None] = {}  # the ids of rows, in the order in which they were counted

    def learn(self, rows: Sequence[Execution]) -> bool:
        """Take in a page, and tell whether the list is to be read from the other end than was believed."""
        self._count(rows)
        believed, self.order = self.order, self._majority() or self.order
        return self.order is not believed and Order.OLDEST in {self.order, believed}

    def _count(self, rows: Sequence[Execution]) -> None:
        """Count the neighbours of which at least one is new here."""
        for above, below in pairwise(row for row in rows if row.started_at is not None):
            assert above.started_at is not None and below.started_at is not None  # noqa: S101, PT018 (filtered)
            if above.id not in self._counted or below.id not in self._counted:
                self._counts[Order.NEWEST] += above.started_at > below.started_at
                self._counts[Order.OLDEST] += above.started_at < below.started_at
        self._counted |= dict.fromkeys(row.id for row in rows)
        for old in list(self._counted)[:-REMEMBERED_ROWS]:
            del self._counted[old]
        if sum(self._counts.values()) > REMEMBERED_PAIRS:
            self._counts = {each: count // 2 for each, count in self._counts.items()}

    def _majority(self) -> Order | None:
        (few, _), (many, order) = sorted(((count, order) for order, count in self._counts.items()), key=_count)
        return order if many >= max(PAIRS_AT_LEAST, MAJORITY * few) else None


def _count(counted: tuple[int, Order]) -> int:
    return counted[0]


class EndSearch:
    """Looks for the last page of a list: up from where it ended last time, then by halves between two bounds."""

    def __init__(self, length: int, paging: Paging) -> None:
        """Begin where the row after `length` rows would be."""
        self._paging = paging
        self._low = 0  # the highest page that held rows
        self._high: int | None = None  # the lowest that is beyond the end
        self._step = 1
        self.page = paging.page_of(length)
        self.found = False

    def note(self, page: int, row_count: int, total: int | None) -> bool:
        """Take in a page that was read and return `found`: `page` is now the last page, or else where to look next.

        `total` may lie: it says where to look, once.
        """
        if row_count:
            self._low = max(self._low, page)
        else:
            self._low, self._high = min(self._low, page - 1), page
        if row_count and self._paging.ends(page, row_count, total):
            self._high = page + 1
        self.found = self._high is not None and self._high <= self._low + 1
        if self.found:
            self.page = max(1, self._low)
        elif 0 < row_count < self._paging.rows:
            self.page = page + 1  # the last, or pages have fewer rows than was believed
        else:
            self.page = self._next(total)
        return self.found

    def _next(self, total: int | None) -> int:
        hinted = self._paging.page_of(total) if total else 0
        if self._step == 1 and self._low < hinted < (self._high or hinted + 1):
            self._step = 2
            return hinted
        step, self._step = self._step, self._step * 2
        if self._high is None:
            return self._low + step
        return (self._low + self._high) // 2 if self._low else max(1, self._high - step)
