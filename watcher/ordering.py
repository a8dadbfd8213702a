"""In which order a list is, and where one that begins with the oldest ends. Pure; knows no scan and no request."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from watcher.models import Execution
from watcher.page import Paging


class Order(Enum):
    """How the API sorts a list; the documentation does not say."""

    NEWEST = "newest first"
    OLDEST = "oldest first"


PAIRS_AT_LEAST = 20
MAJORITY = 3
"""So many pairs must be known, and so many times as many stand in one order as in the other, for that to be clear."""

REMEMBERED_PAIRS = 100
"""Of what a scan saw, so much counts, the latest: a list may turn over while it is read."""


@dataclass(frozen=True, slots=True)
class _Pairs:
    """How many pairs of rows stand in either order."""

    newest: float = 0.0
    oldest: float = 0.0

    @property
    def count(self) -> float:
        """How many there are."""
        return self.newest + self.oldest

    @property
    def clear(self) -> Order | None:
        """The order these show, if they do."""
        few, many = sorted((self.newest, self.oldest))
        if many < max(PAIRS_AT_LEAST, MAJORITY * few):
            return None
        return Order.NEWEST if self.newest == many else Order.OLDEST


class _Evidence:
    """What the dates of one kind on the pages of one scan say."""

    def __init__(self) -> None:
        self._pages: deque[_Pairs] = deque()
        self.latest = _Pairs()  # of the page that was read last
        self.all = _Pairs()

    def learn(self, latest: _Pairs) -> None:
        """Take in the dates on a page, compared."""
        self.latest = latest
        self._pages.append(self.latest)
        total = sum(page.count for page in self._pages)
        while total - self._pages[0].count >= REMEMBERED_PAIRS:
            total -= self._pages.popleft().count
        self.all = _Pairs(sum(page.newest for page in self._pages), sum(page.oldest for page in self._pages))

    @property
    def clear(self) -> Order | None:
        """The order these show: one page may do, else those read last together."""
        return self.latest.clear or self.all.clear


def _compare(dates: Iterable[datetime | None]) -> _Pairs:
    """Compare each date on a page with each: it counts as many pairs as there are neighbours, in that proportion.

    Executions that begin almost at once may start in another order than they were created, which upsets neighbours,
    not a page.
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
    """The order of one list, by the dates on the pages that one scan reads of it; `order` is believed until then.

    A list may be sorted by when its executions began, or ended: either will do. Rows of different pages are not
    compared: these are read one after the other, and in a list that grows faster than it is read the later page is the
    younger one whatever the order.
    """

    def __init__(self, order: Order | None = None) -> None:
        """Begin with what is believed."""
        self.order = order
        self._compared: tuple[tuple[str, ...], _Pairs, _Pairs] = ((), _Pairs(), _Pairs())  # an idle list's first page
        self.begin()

    def begin(self) -> None:
        """Begin another scan: the list may have been turned over since the last."""
        self._begun, self._ended = _Evidence(), _Evidence()
        self._pages: set[tuple[str, ...]] = set()

    def learn(self, rows: Sequence[Execution]) -> bool:
        """Take in a page, and tell whether the list is to be read from the other end than was believed."""
        page = tuple(row.id for row in rows)
        if page in self._pages:
            return False
        self._pages.add(page)
        if page != self._compared[0]:
            self._compared = page, _compare(row.started_at for row in rows), _compare(row.finished_at for row in rows)
        _, begun, ended = self._compared
        self._begun.learn(begun)
        self._ended.learn(ended)
        believed, self.order = self.order, self._clear or self.order
        return self.order is not believed and Order.OLDEST in {self.order, believed}

    def forget(self) -> None:
        """Believe nothing any more."""
        self.order = None

    @property
    def is_clear(self) -> bool:
        """Whether the pages of this scan show the order that is believed."""
        return self.order is not None and self._clear is self.order

    @property
    def is_mixed(self) -> bool:
        """Whether they show dates enough, but no order."""
        return self._clear is None and max(self._begun.all.count, self._ended.all.count) >= PAIRS_AT_LEAST

    @property
    def is_in_doubt(self) -> bool:
        """Whether they show no order, or, few as they are, another one than is believed."""
        if self.order is None or self._clear is not None:
            return self._clear is not self.order or self.order is None
        newest = self._begun.all.newest + self._ended.all.newest
        oldest = self._begun.all.oldest + self._ended.all.oldest
        against, speaks_for = (oldest, newest) if self.order is Order.NEWEST else (newest, oldest)
        return self.is_mixed or against > speaks_for

    @property
    def _clear(self) -> Order | None:
        return self._begun.clear or self._ended.clear


PROBES_AT_MOST = 64
"""So many pages find the end of any list, if it has one: up by doubling, then down by halves."""


class EndSearch:
    """Looks for the last page of a list: up from where it ended last time, then by halves between two bounds.

    An API may show its last page for all that are beyond it, or its first whatever page it is asked for. Then the end
    is the lowest page with those rows; where that is the first nobody can tell which of both it is. `is_clamped` tells
    that it does so.
    """

    def __init__(self, length: int, paging: Paging) -> None:
        """Begin where the row after `length` rows would be."""
        self._paging = paging
        self._below = 0  # the highest page that held rows, but for `_low`
        self._low = 0  # the highest page that held rows
        self._shown: frozenset[str] = frozenset()  # these, of `_low`
        self._high: int | None = None  # the lowest that is beyond the end, or shows what the last one does
        self._step = 1
        self._count = 0
        self.page = paging.page_of(length)
        self.found = False
        self.is_clamped = False

    @property
    def is_hopeless(self) -> bool:
        """Whether so many pages were read that there is no end."""
        return self._count >= PROBES_AT_MOST

    @property
    def is_first_for_all(self) -> bool:
        """Whether the first page is shown for those after it: there may be more rows, on none of them."""
        return self.found and self.is_clamped and self.page == 1

    def note(self, page: int, ids: Collection[str], *, row_count: int, total: int | None) -> bool:
        """Take in a page that was read and return `found`: `page` is now the last page, or else where to look next.

        `total` may lie: it says where to look, once.
        """
        self._count += 1
        self._take(page, ids, row_count=row_count)
        if row_count and not self.is_clamped and self._paging.ends(page, row_count, total):
            self._high = page + 1
        self.found = self._high is not None and self._high <= self._low + 1
        if self.found:
            self.page = max(1, self._high if self.is_clamped and self._high is not None else self._low)
        elif 0 < row_count < self._paging.rows and not self.is_clamped:
            self.page = page + 1  # the last, or pages have fewer rows than was believed
        else:
            self.page = self._next(total)
        return self.found

    def _take(self, page: int, ids: Collection[str], *, row_count: int) -> None:
        if not row_count:
            self._low, self._below, self._high = min(self._low, page - 1), min(self._below, page - 1), page
            self._shown, self.is_clamped = frozenset(), False
        elif ids and page > self._low and self._shown.issuperset(ids):
            self._high = page if self.is_clamped else self._low
            self._low, self.is_clamped = (self._low if self.is_clamped else self._below), True
        elif self.is_clamped:
            self._low = max(self._low, page)
        elif page >= self._low:
            self._below, self._low, self._shown = (self._low if page > self._low else self._below), page, frozenset(ids)

    def _next(self, total: int | None) -> int:
        hinted = self._paging.page_of(total) if total else 0
        if self._step == 1 and self._low < hinted < (self._high or hinted + 1):
            self._step = 2
            return hinted
        step, self._step = self._step, self._step * 2
        if self._high is None:
            return self._low + step
        return (self._low + self._high) // 2 if self._low else max(1, self._high - step)
