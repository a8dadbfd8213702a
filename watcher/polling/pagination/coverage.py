"""What one pass over a list has seen of it, how the pass ended, and what it hands on to the next. Pure, no I/O.

Which page to read, and when everything was seen, is the traversal's.
"""

from dataclasses import dataclass, field, replace
from enum import Enum

from watcher.domain.event import GapReason
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.polling.pagination.known_rows import KnownRows
from watcher.polling.pagination.list_end import EndSearch
from watcher.polling.pagination.paging import Limits, Paging, ScannedPage
from watcher.polling.pagination.sort_order import Order, Ordering
from watcher.polling.pagination.totals import Totals, TotalTrust


@dataclass(frozen=True, slots=True)
class TraversalResult:
    """How a scan ended: with everything seen, or with a gap in which `at_most` executions (if known) may be missing."""

    gap: GapReason | None = None
    at_most: int | None = None


@dataclass(frozen=True, slots=True)
class CarryOver:
    """What one complete scan hands on to the next.

    `total` is how many rows the list has (newest first: what the API says, or what its only page shows; oldest first:
    what was seen), `total_before` what that was a scan earlier: what is said once may be untrue. `trust` is
    whether what is said is believed. `top` are the ids of the rows that it met first. `length` is how many rows were
    seen when all of the list was read last. `seen` are the ids of those that scans saw since which were made anew, for
    they ended too early: together they count. `found` are those that it counted as new: where it probed for the end
    they are not yet known when the next one begins. The list `is_too_long` where it grew by rows that are so far down
    that they were not found: `total` is without these.
    """

    ordering: Ordering
    paging: Paging
    total: int | None = None
    total_before: int | None = None
    trust: TotalTrust = field(default_factory=TotalTrust)
    top: tuple[str, ...] = ()
    length: int = 0
    seen: frozenset[str] = frozenset()
    found: frozenset[str] = frozenset()
    is_too_long: bool = False


class Extent(Enum):
    """How much of the list a scan read."""

    PART = "down to what was known, or as far as anybody wants to know"
    WHOLE = "all of it"
    CUT_OFF = "as far as it may: rows that came further down were not found"


class Coverage:
    """What one pass has seen of its list. `page` is the one to be read next, `before` what the last pass handed on.

    `result` is there once everything was seen, though pages beyond may be read for more.
    """

    def __init__(self, before: CarryOver, *, cursor: Cursor, pages_at_most: int) -> None:
        self.before = before
        self.ordering = before.ordering
        self.paging = before.paging
        self.ordering.begin()
        self.paging.begin()
        self.result: TraversalResult | None = None
        self._cursor = cursor
        self._limits = Limits(pages_at_most)
        self._totals = Totals(before.total, before.total_before, trusted=before.trust.holds)
        self._known_rows = KnownRows(self.ordering, top=before.top)
        self._end = EndSearch(before.total or 0, self.paging)
        self._extent = Extent.PART
        self._oldest_at: Micros | None = None  # how far down it read, by the API's clock
        self._seen: set[str] = set()
        self._found: set[str] = set()
        self._skipped: dict[int, int] = {}  # by page, the rows that cannot be read
        self._evaluated_page: ScannedPage | None = None  # the one that was evaluated last
        self._read_page: ScannedPage | None = None  # the one that was read last
        self._overlaps = False  # it holds rows that were seen before
        self._again = False  # the page before the one that was evaluated is read for the second time
        self._repeated_page: int | None = None  # the one after it showed the same
        self.page = self._end.page if self._backward else 1

    @property
    def order(self) -> Order | None:
        """The order as learned so far, and while it holds."""
        return None if self._limits.turns_too_often else self.ordering.order

    @property
    def _backward(self) -> bool:
        """Whether it reads from the last page back."""
        return self.order is Order.OLDEST

    @property
    def probes(self) -> bool:
        """Whether `page` does not follow on what was read: what it shows for the first time may have come since."""
        return self._again or (self._backward and not self._end.found)

    @property
    def head(self) -> int | None:
        """The page on which new rows show, if that is known."""
        return self._end.last_page if self._backward else 1

    @property
    def saw_newest(self) -> bool:
        """Whether it saw where new rows show: what seems to be the end of a list may only have been refused."""
        if self.order is None:
            may_be_more = self._totals.says_more_than(len(self._seen)) or self._hides_rows()
            return self._extent is Extent.WHOLE and not may_be_more
        return self._evaluated_page is not None and (self.order is Order.NEWEST or self._end.is_sure)

    @property
    def is_as_long_as_said(self) -> bool:
        """Whether the API says how many rows there are, and no more than were seen, or, oldest first, must be there."""
        length = (self._totals.accepted or 0) if self._backward else len(self._seen)
        return self._totals.now is not None and self._totals.now <= length

    @property
    def expects_page(self) -> bool:
        """Whether `page` must be there, by what the page before it said: a refusal of it is not the list's end."""
        read = self._read_page
        if read is None or not read.row_count:
            return False
        if self.page < read.number:
            return True
        if self.page != read.number + 1 or read.row_count < self.paging.rows:
            return False
        return self._totals.says_now_more_than(self.paging.before(self.page))

    @property
    def is_shorter(self) -> bool:
        """Whether the list, read to its end, is known to have fewer rows than the last complete scan left."""
        return self._totals.is_shorter(len(self._seen))

    @property
    def is_cut_short(self) -> bool:
        """Whether it read the list to an end that came before all was seen that should be there.

        Oldest first that is also what the pages before the last one should hold.
        """
        by_pages = self._totals.accepted or 0 if self._backward else 0
        return self._extent is Extent.WHOLE and self._seen_count < max(by_pages, self._expected_count)

    @property
    def is_counted(self) -> bool:
        """Whether it alone, that read all of the list, saw as many rows as that said it has: none was hidden."""
        return self._extent is Extent.WHOLE and self._totals.counts(len(self._seen), is_ordered=self.order is not None)

    @property
    def _seen_count(self) -> int:
        return len(self._seen | self.before.seen) + sum(self._skipped.values())

    @property
    def _expected_count(self) -> int:
        return max(self.before.length, self._totals.expected(counts_before=self._backward))

    @property
    def _missing_count(self) -> int:
        if not self._cursor.complete_at:
            return 0
        return self._totals.missing(new_count=self._known_rows.new_count, is_backward=self._backward)

    def unread_count(self) -> int | None:
        """Return how many rows may be there that were not read, `None` if nobody knows."""
        said = self._totals.unread(len(self._seen))
        return self.paging.before(self.page + 1) if said is None and self._backward else said

    def carry_over(self) -> CarryOver:
        """Return what the next scan begins with once this one is complete."""
        seen_count = self._seen_count if self._extent is Extent.WHOLE else None
        total = self._totals.left(new_count=self._known_rows.new_count, seen_count=seen_count)
        return CarryOver(
            self.ordering,
            self.paging,
            total,
            self.before.total,
            trust=self.before.trust.after(is_untrue=self._totals.is_untrue, is_far=self.is_cut_short),
            top=self._known_rows.top(),
            length=self._seen_count if self._extent is Extent.WHOLE else self.before.length,
            found=frozenset(self._found),
            is_too_long=self._extent is Extent.CUT_OFF,
        )

    def to_be_made_anew(self) -> CarryOver:
        """Return what the next scan begins with if this one does not count: what was before, and what was seen.

        Not as before is what the list has shown of its order and of its pages: that is learnt for good.
        """
        return replace(self.before, seen=self.before.seen | self._seen)

    def _hides_rows(self) -> bool:
        """Return whether the first page is shown for those after it, and there may be rows that are on none."""
        is_first_for_all = self._end.is_first_for_all if self._backward else self._repeated_page == 1
        return is_first_for_all and self._totals.now != len(self._seen)
