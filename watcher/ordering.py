"""In which order a list is, and where one that begins with the oldest ends. Pure; knows no scan and no request."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum

from watcher.models import Execution
from watcher.ports.api import PAGE_ROWS


class Order(Enum):
    """How the API sorts a list; the documentation does not say."""

    NEWEST = "newest first"
    OLDEST = "oldest first"


def order_of(rows: Sequence[Execution]) -> Order | None:
    """Compare `startedAt` at both ends, passing over rows without; `None` where they do not differ."""
    dates = [row.started_at for row in rows if row.started_at is not None]
    return _order_between(dates[0], dates[-1]) if dates else None


def _order_between(first: datetime, last: datetime) -> Order | None:
    if first == last:
        return None
    return Order.NEWEST if first > last else Order.OLDEST


class Ordering:
    """The order of one list, as the widest stretch of it that was read shows it.

    Executions that begin almost at once may start in another order than they were created, so less than a full page
    shows nothing, and several pages are believed over one.
    """

    def __init__(self, order: Order | None) -> None:
        """Begin with what an earlier scan learned."""
        self.order = order
        self._span = 0 if order is None else 1
        self._first: tuple[int, datetime] | None = None
        self._last: tuple[int, datetime] | None = None

    def learn(self, page: int, rows: Sequence[Execution]) -> bool:
        """Take in a page that was read, and tell whether the order is another now than was believed."""
        dates = [row.started_at for row in rows if row.started_at is not None]
        if not dates:
            return False
        if self._first is None or page < self._first[0]:
            self._first = (page, dates[0])
        if self._last is None or page > self._last[0]:
            self._last = (page, dates[-1])
        return self._judge(*self._first, *self._last, full=len(rows) == PAGE_ROWS)

    def _judge(self, low: int, first: datetime, high: int, last: datetime, *, full: bool) -> bool:
        span, order = high - low + 1, _order_between(first, last)
        if order is None or span <= self._span or (span == 1 and not full):
            return False
        believed, self._span, self.order = self.order, span, order
        return order is not believed and Order.OLDEST in {order, believed}


class EndSearch:
    """Looks for the last page of a list: up from where it ended last time, then by halves between two bounds."""

    def __init__(self, length: int) -> None:
        """Begin where the row after `length` rows would be."""
        self._low = 0  # the highest page that held rows
        self._high: int | None = None  # the lowest that is beyond the end
        self._step = 1
        self.page = length // PAGE_ROWS + 1
        self.found = False

    def note(self, page: int, row_count: int, total: int | None) -> bool:
        """Take in a page that was read and return `found`: `page` is now the last page, or else where to look next.

        `total` may lie: it says where to look, once.
        """
        if row_count:
            self._low = max(self._low, page)
        else:
            self._low, self._high = min(self._low, page - 1), page
        if 0 < row_count < PAGE_ROWS:
            self._high = page + 1
        self.found = self._high is not None and self._high <= self._low + 1
        self.page = max(1, self._low) if self.found else self._next(total)
        return self.found

    def _next(self, total: int | None) -> int:
        hinted = (total or 0) // PAGE_ROWS + 1
        if self._step == 1 and self._low < hinted < (self._high or hinted + 1):
            self._step = 2
            return hinted
        step, self._step = self._step, self._step * 2
        if self._high is None:
            return self._low + step
        return (self._low + self._high) // 2 if self._low else max(1, self._high - step)
