"""What one pass over a list has seen of it, how the pass ended, and what it hands on to the next. Pure, no I/O.

How many rows the list has, which known rows were met, and where a list that begins with the oldest ends. Which page to
read, and when everything was seen, is the traversal's.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from watcher.domain.event import GapReason
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.polling.pagination.paging import Limits, Paging, ScannedPage
from watcher.polling.pagination.sort_order import Order, Ordering

DISTRUSTED_SCANS = 8
DISTRUSTED_SCANS_AT_MOST = 1024


@dataclass(frozen=True, slots=True)
class TotalTrust:
    """Whether the `total` that the API says is believed.

    Each time it is found untrue, for all of the list was read and was shorter, it is ignored for `pause` scans, twice
    as many as the last time; `scans_left` of them are still to come. It is not ignored for good: a row that moves to a
    page that was already read shows the same. A total that is far from true is ignored for the longest time at once.
    """

    scans_left: int = 0
    pause: int = 0

    @property
    def holds(self) -> bool:
        """Whether it is believed now."""
        return not self.scans_left

    def after(self, *, is_untrue: bool, is_far: bool = False) -> "TotalTrust":
        """Return what holds after one more scan. `is_far`: it was far from true."""
        if is_far:
            return TotalTrust(DISTRUSTED_SCANS_AT_MOST, DISTRUSTED_SCANS_AT_MOST)
        if is_untrue:
            pause = min(DISTRUSTED_SCANS_AT_MOST, max(DISTRUSTED_SCANS, 2 * self.pause))
            return TotalTrust(pause, pause)
        return TotalTrust(max(0, self.scans_left - 1), self.pause)


class Totals:
    """What is said in one scan, and how far it is believed.

    `before` is how many the list had when the last complete scan ended, or the one before that: what is said once may
    be untrue. `accepted` is how many it has: newest first what the first page says, or what is seen where that says it
    all; oldest first what must be there. `now` is what was said last, be it out of turn.
    It `is_untrue` once all of the list was read and had fewer.
    """

    def __init__(self, *before: int | None, trusted: bool) -> None:
        self.before = max((each for each in before if each is not None), default=None)
        self.trusted = self._was_trusted = trusted
        self.accepted: int | None = None
        self.is_untrue = False
        self._moved_count: int | None = None  # all that are known, where it seems untrue but rows may only have moved
        self.now: int | None = None
        self._most = 0  # that was said
        self._first = 0  # as it was first said by a page with rows
        self._begun: int | None = None  # by the page from which all others are read one after the other

    def hear(self, total: int | None, *, row_count: int) -> None:
        """Take in what a page says that has so many rows."""
        self.now, self._most = total, max(total or 0, self._most)
        self._first = self._first or (total or 0 if row_count else 0)

    def begin(self, accepted: int | None) -> None:
        """Note that the page that was heard last is the first that is evaluated, and how many rows that makes."""
        self.accepted, self._begun = accepted, self.now

    def expected(self, *, counts_before: bool) -> int:
        """Return how many rows the list has: by what it said first and, if that counts, what it had before.

        What came since may be on pages that were read before.
        """
        said = self._first if self.trusted else 0
        return max(said, (self.before or 0) if self.trusted or counts_before else 0)

    def says_more_than(self, length: int) -> bool:
        """Return whether any page said that there are more rows than so many."""
        return self.trusted and self._most > length

    def says_now_more_than(self, length: int) -> bool:
        """Return whether the last page did."""
        return self.trusted and self.now is not None and self.now > length

    def counts(self, seen_count: int, *, is_ordered: bool) -> bool:
        """Return whether as many rows were seen as were said to be there, no more and no fewer.

        In a list that `is_ordered` that is what the page says from which it is read: what comes later is not met.
        """
        said = self._begun if is_ordered else self._most
        return self.trusted and 0 < (said or 0) == seen_count

    def is_shorter(self, seen_count: int) -> bool:
        """Return whether a list that was read to its end is known to have fewer rows than before."""
        if self.before is None or seen_count >= self.before:
            return False
        return self.now is None or not self.trusted or self.now < self.before

    def unread(self, seen_count: int) -> int | None:
        """Return how many rows are said to be there that were not seen, `None` if nobody knows."""
        left = (self.now or 0) - seen_count
        return left if self.trusted and left > 0 else None

    def missing(self, *, new_count: int, is_backward: bool) -> int:
        """Return by how much it grew beyond what was found: something may have come to be seen further down.

        What a page says of it that is read later counts as well: an untrue word is not repeated.
        """
        if not self.trusted or self.accepted is None or self.before is None:
            return 0
        said = self.accepted if is_backward or self.now is None else min(self.accepted, self.now)
        return max(0, said - self.before - new_count)

    def read_all(self, seen_count: int, *, known_count: int, page_rows: int) -> None:
        """Take in that all of the list was read for what it says it has: it may have fewer rows than that.

        Of no more than a page of them it may be that they moved while it was read, and come next: then the list has
        what scans have seen, `known_count`.
        """
        unseen_count = (self.accepted or 0) - seen_count
        self.is_untrue = unseen_count > 0
        self.trusted = not self.is_untrue
        if 0 < unseen_count <= page_rows:
            self._moved_count = known_count

    def left(self, *, new_count: int, seen_count: int | None) -> int | None:
        """Return how many rows the list has once a scan is complete; `seen_count`, if that read all of it.

        While nothing that is said is believed, only what was found counts: the rest is searched for once it is again.
        """
        if self._moved_count is not None:
            return self._moved_count
        if seen_count is not None or self._was_trusted or self.before is None:
            return seen_count if self.accepted is None else self.accepted
        found = self.before + new_count
        return found if self.accepted is None else min(self.accepted, found)

    def leave_missing(self, *, new_count: int) -> None:
        """Count only what was found: the rest was searched for as far as may be."""
        if self.before is not None:
            self.accepted = self.before + new_count

    def count_arrivals(self, *, new_count: int) -> None:
        """Count what came, and was found, after the first page said how many there are."""
        if self.accepted is not None and self.before is not None:
            self.accepted = max(self.accepted, self.before + new_count)


TOP_ROWS = 50
"""So many of the rows that a scan met first the next one searches for: some of them may be deleted by then."""

ORDERED_ROWS = 5
"""So many rows do not stand in the same order by chance."""


class KnownRows:
    """What a scan has met of what complete scans have found.

    `top` are the ids of the rows that the last complete scan met first, if this process made one: all that is new
    stands above them, while the list is as it was. Where they are not met among the known rows, the list has turned
    over, or what was read is not the top of it.
    """

    def __init__(self, ordering: Ordering, *, top: Sequence[str]) -> None:
        self._ordering = ordering
        self._top_before = tuple(top)
        self._ranks = {row: rank for rank, row in enumerate(top)}
        self._top: dict[str, None] = {}
        self._meets_top = False
        self._met: list[int | None] = []  # where the first known rows that it met stand in the top, if they do
        self._is_on = False
        self.meets_known = False
        self.is_reached = False
        self.new_count = 0

    def begin_anew(self) -> None:
        """Begin at the other end of the list: who was first there is of no use."""
        self._top_before, self._ranks, self._top = (), {}, {}
        self._met = []
        self._meets_top = self._is_on = self.meets_known = self.is_reached = False

    def count(self, page: ScannedPage, unseen: Collection[str]) -> None:
        """Count what is new of what a page shows for the first time."""
        self.new_count += len(set(unseen).difference(page.known_rows, page.unsettled))

    def touch(self, page: ScannedPage) -> None:
        """Take in a page that is read for the second time."""
        self._is_on |= page.has_known_rows
        self.meets_known |= page.is_known

    def meet(self, page: ScannedPage) -> None:
        """Take in a page in its turn.

        A page that holds known rows but does not end on one leads on to the next: its last rows were late to be seen,
        or never asked for. A page without any then is beyond it.
        """
        was_on, self._is_on = self._is_on, self._is_on or page.has_known_rows
        self.meets_known |= page.is_known
        ends_on_known_row = bool(page.rows) and page.rows[-1].id in page.known_rows
        self.is_reached = ends_on_known_row or (was_on and not page.has_known_rows)
        self._meets_top |= not self._ranks.keys().isdisjoint([row.id for row in page.rows])
        ranks = [self._ranks.get(row.id) for row in page.rows if row.id in page.known_rows]
        self._met = (self._met + ranks)[:ORDERED_ROWS]
        if len(self._top) < TOP_ROWS:
            self._top |= dict.fromkeys([row.id for row in page.rows])

    @property
    def is_proof(self) -> bool:
        """Whether nothing new can be below the known rows that are reached.

        Where few dates are shown the top has to be met row by row, but for what is deleted by now. Else it is enough to
        have met any of it, and if nothing new was met above, that may have been an old page for once.
        """
        if self._ordering.order is None or self._ordering.is_uncertain:
            return False
        if not self._ordering.is_clear:
            located = [rank for rank in self._met if rank is not None]
            return bool(located) and len(located) >= min(ORDERED_ROWS, len(self._ranks)) and located == sorted(located)
        return self._meets_top or not (self._ranks and self.new_count)

    def top(self) -> tuple[str, ...]:
        """Return the rows that the next scan is to meet: where this one met only old ones, those that were first."""
        if self._ranks and not self._meets_top and not self.new_count:
            return self._top_before
        before = self._top_before if self._meets_top else ()
        return tuple(dict.fromkeys((*self._top, *before)))[:TOP_ROWS]


PROBES_AT_MOST = 64
"""So many pages find the end of any list, if it has one: up by doubling, then down by halves."""


class EndSearch:
    """Searches for the last page of a list: up from where it ended last time, then by halves between two bounds.

    An API may show its last page for all that are beyond it, or its first whatever page it is asked for. Then the end
    is the lowest page with those rows; where that is the first nobody knows which of both it is. `is_clamped` says
    that it does so. `last_page` is the page on which new rows show, once that is `found`, and `is_sure` says whether
    nothing is beyond it.
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
        self._empty_page: int | None = None  # the last one that held nothing
        self._asked_beyond = False
        self.page = paging.page_of(length)
        self.found = False
        self.is_clamped = False
        self.last_page: int | None = None
        self.is_sure = False

    @property
    def is_hopeless(self) -> bool:
        """Whether so many pages were read that there is no end."""
        return self._count >= PROBES_AT_MOST

    @property
    def is_first_for_all(self) -> bool:
        """Whether the first page is shown for those after it: there may be more rows, on none of them."""
        return self.found and self.is_clamped and self.page == 1

    def note(self, page: int, ids: Collection[str], *, row_count: int, total: int | None) -> bool:
        """Take in a page that was read and return `found`: `page` is now the last page, or else the next to read.

        `total` may lie: it says where to search, once.
        """
        self._count += 1
        self._take(page, ids, row_count=row_count)
        if row_count and not self.is_clamped and self._paging.ends(page, row_count, total):
            self._high = page + 1
        self.found = self._high is not None and self._high <= self._low + 1
        if self.found:
            self.page = max(1, self._high if self.is_clamped and self._high is not None else self._low)
            self.last_page = self.page
        elif 0 < row_count < self._paging.rows and not self.is_clamped:
            self.page = page + 1  # the last, or pages have fewer rows than was believed
        else:
            self.page = self._next(total)
        return self.found

    def note_empty(self, page: int) -> None:
        """Take in that a page held no row, and was not refused either."""
        self._empty_page = page

    def asks_beyond(self, page: ScannedPage, *, says_more: bool) -> bool:
        """Return whether to ask once more for the page after a full one that seems to be the last.

        What is beyond it was perhaps refused: `says_more` is whether the page says that there is more.
        """
        if self._asked_beyond or self.is_clamped or not says_more or page.row_count < self._paging.rows:
            return False
        self._asked_beyond, self.last_page = True, page.number + 1
        return True

    def settle(self, page: ScannedPage, *, is_uncertain: bool) -> None:
        """Take in the first page that counts: is it the last? It is not if more is said, or may be, to be there."""
        is_last = page.total == self._paging.length(page.number, page.row_count) or self.is_clamped
        is_last |= self._empty_page == page.number + 1 or self._paging.ends(page.number, page.row_count, page.total)
        self.is_sure = is_last and not is_uncertain

    def head_is_full(self) -> None:
        """Note that there is no more room on the last page: what is new shows on the one after it."""
        if self.last_page is not None:
            self.last_page += 1

    def _take(self, page: int, ids: Collection[str], *, row_count: int) -> None:
        """Draw the bounds closer; `page` is between them."""
        if not row_count:
            self._high, self._shown = page, frozenset() if self.is_clamped else self._shown
            self.is_clamped = False
        elif not ids or not self._shown.issuperset(ids):
            if not self.is_clamped:
                self._below, self._shown = self._low, frozenset(ids)
            self._low = page
        elif self.is_clamped:
            self._high = page
        else:
            self._high, self._low, self.is_clamped = self._low, self._below, True

    def _next(self, total: int | None) -> int:
        hinted = self._paging.page_of(total) if total else 0
        if self._step == 1 and self._low < hinted < (self._high or hinted + 1):
            self._step = 2
            return hinted
        step, self._step = self._step, self._step * 2
        if self._high is None:
            return self._low + step
        return (self._low + self._high) // 2 if self._low else max(1, self._high - step)


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
