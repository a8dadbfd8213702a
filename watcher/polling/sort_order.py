"""In which order a list is, by its dates. Pure; knows no scan and no request."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from watcher.domain.execution import ExecutionSnapshot


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
        self.order = order
        self._compared: tuple[tuple[str, ...], _Pairs, _Pairs] = ((), _Pairs(), _Pairs())  # an idle list's first page
        self.begin()

    def begin(self) -> None:
        """Begin another scan: the list may have been turned over since the last."""
        self._begun, self._ended = _Evidence(), _Evidence()
        self._pages: set[tuple[str, ...]] = set()

    def learn(self, rows: Sequence[ExecutionSnapshot]) -> bool:
        """Take in a page, and return whether the list is to be read from the other end than was believed."""
        page = tuple([row.id for row in rows])
        if page in self._pages:
            return False
        self._pages.add(page)
        if page != self._compared[0]:
            self._compared = (
                page,
                _compare([row.started_at for row in rows]),
                _compare([row.finished_at for row in rows]),
            )
        _, begun, ended = self._compared
        self._begun.learn(begun)
        self._ended.learn(ended)
        believed, self.order = self.order, self._clear or self.order
        return self.order is not believed and Order.OLDEST in {self.order, believed}

    @property
    def is_mixed(self) -> bool:
        """Whether they show dates enough, but no order."""
        return self._clear is None and max(self._begun.all.count, self._ended.all.count) >= PAIRS_AT_LEAST

    @property
    def is_uncertain(self) -> bool:
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
