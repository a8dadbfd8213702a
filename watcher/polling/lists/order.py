"""The order of a list, judged by the dates of its rows. Pure; it knows no scan and no request."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from watcher.domain.execution import ExecutionSnapshot


class Order(Enum):
    """The order in which the API sorts a list. Its documentation does not name it."""

    NEWEST = "newest first"
    OLDEST = "oldest first"


PAIRS_AT_LEAST = 20
"""The least number of pairs of rows in one order that proves the order."""

MAJORITY = 3
"""The least ratio of the pairs in the proven order to those in the other order."""

REMEMBERED_PAIRS = 100
"""The number of the latest pairs of a scan that count: the order may change while the list is read."""


COMPARED_COUNT = 256
"""The number of pages whose comparison is kept: idle lists show the same page again and again."""


class _Pairs(NamedTuple):
    """The number of pairs of rows in each of the two orders."""

    newest: float = 0.0
    oldest: float = 0.0

    @property
    def clear(self) -> Order | None:
        """The order that these pairs prove; `None` if they prove none."""
        few, many = sorted(self)
        if many < max(PAIRS_AT_LEAST, MAJORITY * few):
            return None
        return Order.NEWEST if self.newest == many else Order.OLDEST


def _sum(pages: Iterable[_Pairs]) -> _Pairs:
    return _Pairs(*map(sum, zip(*pages, strict=True)))


@lru_cache(COMPARED_COUNT)
def _compare(dates: tuple[datetime | None, ...]) -> _Pairs:
    """Compare all dates on a page with each other. Return the pairs in each order, scaled to the number of neighbours.

    Executions that are created almost at once may start in another order. Some neighbours are then out of order, but
    the page as a whole is not.
    """
    newest = oldest = 0
    above: list[datetime] = []
    for at in dates:
        if at is not None:
            first = bisect_left(above, at)
            after = bisect_right(above, at, first)
            oldest += first
            newest += len(above) - after
            above.insert(after, at)
    weight = (len(above) - 1) / (newest + oldest) if newest + oldest else 0.0
    return _Pairs(newest * weight, oldest * weight)


class Ordering:
    """The order of one list, judged by the pages of one scan. `order` stays until the pages prove another one.

    A list may be sorted by the start or by the end of its executions: either is an order. Rows of different pages are
    not compared: in a list that grows faster than it is read, the later page is the younger one, whatever the order.
    """

    def __init__(self, order: Order | None = None) -> None:
        self.order = order
        self.begin()

    def begin(self) -> None:
        """Begin another scan: the order may have changed since the last one."""
        self._read: tuple[list[_Pairs], list[_Pairs]] = ([], [])  # of each page, by starts and by ends
        self._pages: set[tuple[str, ...]] = set()

    def learn(self, rows: Sequence[ExecutionSnapshot]) -> None:
        """Count the pairs of a page, unless this scan has read the same page before."""
        page = tuple([row.id for row in rows])
        if page in self._pages:
            return
        self._pages.add(page)
        dates = tuple(row.started_at for row in rows), tuple(row.finished_at for row in rows)
        for pages, each in zip(self._read, dates, strict=True):
            pages.append(_compare(each))
            while sum(map(sum, pages[1:])) >= REMEMBERED_PAIRS:
                del pages[0]
        self.order = self._clear or self.order

    @property
    def is_mixed(self) -> bool:
        """Whether the pages have enough dates, but prove no order."""
        return self._clear is None and max(sum(_sum(pages)) for pages in self._read) >= PAIRS_AT_LEAST

    @property
    def is_uncertain(self) -> bool:
        """Whether no order is known, or the pages of this scan prove none and show more pairs in the other order."""
        if self.order is None or self._clear is not None:
            return self.order is None
        newest, oldest = _sum(map(_sum, self._read))
        against, speaks_for = (oldest, newest) if self.order is Order.NEWEST else (newest, oldest)
        return self.is_mixed or against > speaks_for

    @property
    def _clear(self) -> Order | None:
        """The order that the last page proves, else the one that the latest pages prove together; else `None`."""
        return next((order for pages in self._read if pages and (order := pages[-1].clear or _sum(pages).clear)), None)
