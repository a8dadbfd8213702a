"""One pass over the list of a pipeline: which page to read next, and when everything was seen. Pure, no I/O.

Newest first it reads from page 1 on; oldest first it finds the last page and reads back from there. It is complete at a
*known row*: one that a complete scan has found, so that all below it had been there, and was seen. A list without an
order is read whole. What a page seems to say is believed once no other answer speaks against it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from watcher.clerk.api import PAGE_ROWS, Reply
from watcher.domain.event import GapReason
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import EARLIEST, NEVER, Micros, Monotonic
from watcher.domain.watch import Cursor
from watcher.polling.sort_order import Order, Ordering

SURE_AFTER = 3
"""So many answers in a row say that a list ends where more was expected, before that is believed."""

SETTLED_AFTER_US = 15_000_000
"""A row may come to be seen this long after others that began with it: what was first seen since is read again."""

TURNS_AT_MOST = 3
"""A list that turns over more often than that, in scans one after the other, has no order."""

STEPS_BACK_AT_MOST = 8
"""So often a scan reads a page again that had fewer rows than it must have."""


def dated(row: ExecutionSnapshot) -> Micros | None:
    """Return when it ended, or at least began, `None` if its date says nothing (microseconds, steady)."""
    return row.began_at if row.finished_at is None else row.ended_at


class ScanResult(NamedTuple):
    """How a scan ended: with everything seen, or with a gap in which `at_most` executions (if known) may be missing.

    `doubt` is a word for what speaks against it: then it is made anew at once, and counts if it ends like this again.
    """

    gap: GapReason | None = None
    at_most: int | None = None
    doubt: str | None = None


ONE_PAGE_FOR_ALL = "the first page for all"
"""Why a list may have no end to read to, unless its only page shows late what its total counts."""

TURNED_OVER = ScanResult(doubt="turned over")
"""The list has another order than was believed."""


@dataclass(slots=True)
class ListMemory:
    """What scans of one list hand on to each other. In memory: after a start all but the total is learnt anew.

    After `pages_at_most` pages that lead no further a scan is a race that is lost; how far back anybody wants to know
    is `lookback_us` (microseconds).

    `page_rows` are on each page but the last, once that `is_cut` so. `length` is how many rows the list had when the
    last complete scan read it to its end, `total` what it was said to have when that began. `dates` are the earliest
    and latest of its rows, if any. `new` are those found since by scans that did not count, `doubts` how often in a row
    the last ended with one `doubt`, since `doubted_since_s` (seconds for which the process ran). All of a list may be
    read again from `whole_from` on.
    """

    lookback_us: int
    pages_at_most: int
    ordering: Ordering = field(default_factory=Ordering)
    page_rows: int = PAGE_ROWS
    is_cut: bool = False
    length: int | None = None
    total: int | None = None
    dates: tuple[Micros, ...] = ()
    new: set[str] = field(default_factory=set)
    turn_count: int = 0
    doubts: int = 0
    doubt: str | None = None
    doubted_since_s: float = 0.0
    is_explained: bool = False
    whole_from: Monotonic = EARLIEST

    @property
    def order(self) -> Order | None:
        """The order that is believed."""
        return None if self.turn_count > TURNS_AT_MOST else self.ordering.order

    def page_of(self, index: int) -> int:
        """Return the page on which the row of that index stands, counted from 0."""
        return max(0, index) // self.page_rows + 1

    def before(self, page: int) -> int:
        """Return how many rows the list has before a page."""
        return (page - 1) * self.page_rows


class _Page(NamedTuple):
    """A page as it was read: its rows in the API's order, and how many there are with those that cannot be read."""

    number: int
    rows: Sequence[ExecutionSnapshot]
    row_count: int
    known_rows: Collection[str]

    def repeats(self, other: "_Page | None") -> bool:
        """Return whether it shows what the page before it did: an API may show its last page for all beyond it."""
        if other is None or other.number >= self.number or not self.row_count:
            return False
        return {row.id for row in self.rows} == {row.id for row in other.rows}


class Scan:
    """One pass, made anew for each. Hand `page` to the API and its answer to `read`, until that returns a result.

    It began at `began_at` (microseconds, steady; 0: not yet). Its last `depth` pages were not the one on
    which new rows show. That it `seeks` says that it reads on for executions of which nobody knows where they are.
    `is_whole` says whether it read to the end of the list. `result` is there once everything was seen, though pages
    beyond may be read for more.
    """

    def __init__(self, memory: ListMemory, cursor: Cursor) -> None:
        self.memory = memory
        self.began_at = NEVER
        self.depth = 0
        self.seeks = True
        self.is_whole = False
        self.result: ScanResult | None = None
        self._cursor = cursor
        # what it has seen
        self._seen: set[str] = set()
        self._new: set[str] = set()  # that no complete scan has found
        self._new_page_count = self._later_count = 0
        self._oldest_at: Micros | None = None  # on the page that was read last
        self._dates: tuple[Micros, ...] = ()  # the earliest and latest
        self._counts: dict[int, int] = {}  # the rows of its pages
        self._length = 0  # by where the last page is
        self._most_said = 0  # the highest total
        self._said: int | None = None  # the last total
        self._said_first: int | None = None  # by the page from which all others are read
        self._overlaps = self._is_first_look = self._is_pushed = False  # by rows that came above
        self._meets_known = self._skips_old = False
        # where it is
        self._previous: _Page | None = None
        self._search_step = 1
        self._reads_back = False
        self._reads_whole = False
        self._keeps_total = False
        self._beyond: int | None = None  # a page that holds nothing, while the end is searched for
        self._is_beyond_refused = False  # the end of the list seems to be where a page was refused
        self._answers = 0  # of `page`, in a row, that were not believed
        self._answered_count = 0
        self._fresh_until = 0  # the last page with a row that was not expected to be there
        self._steps_back = self._stalled_count = self._unproven_count = self._extra_count = 0
        memory.ordering.begin()
        self.page = memory.page_of((memory.length or 0) - 1) if self.order is Order.OLDEST else 1

    # What others ask

    @property
    def order(self) -> Order | None:
        """The order that is believed."""
        return self.memory.order

    @property
    def head(self) -> int | None:
        """The page on which new rows show, if that is known."""
        if self.order is Order.OLDEST:
            return self.memory.page_of(self._length) if self._reads_back else None
        return 1 if self.order is Order.NEWEST else None

    @property
    def shows_any(self) -> bool:
        """Whether it met any row."""
        return bool(self._counts)

    @property
    def unordered_pages(self) -> int:
        """How many answers it took for a list that has to be read whole, and has more than one page; else 0."""
        is_unordered = self.order is None or self._reads_whole or self.memory.ordering.is_uncertain
        return self._answered_count if is_unordered and len(self._counts) > 1 else 0

    @property
    def expects_page(self) -> bool:
        """Whether `page` must be there, by what the page before it said: a refusal of it is not the list's end."""
        read = self._previous
        if read is None or not read.row_count:
            return False
        return self.page < read.number or (self.page == read.number + 1 and self._expects_page_after(read))

    def _expects_page_after(self, page: _Page) -> bool:
        is_full = page.row_count >= self.memory.page_rows
        return is_full and (self._said or 0) > self.memory.before(page.number + 1)

    def unread_count(self) -> int | None:
        """Return how many rows may be there that were not read, `None` if nobody knows."""
        left = (self._said or 0) - len(self._seen)
        if left > 0:
            return left
        return self.memory.before(self.page + 1) if self._reads_back else None

    def note_aside(self, page: int, *, row_count: int, total: int | None) -> None:
        """Take in a page read out of turn: oldest first, what is new shows on the one after it once it is full."""
        self._said = self._said if total is None else total
        if self._reads_back and page == self.head:
            self._length = max(self._length, self.memory.before(page) + row_count)

    def note(self, reply: Reply) -> None:
        """Take in how many rows `page` has, and their dates, before they are judged."""
        rows = reply.rows or ()
        self._answered_count += 1
        self._is_first_look = self.page not in self._counts
        if row_count := len(rows) + reply.skipped:
            self._counts[self.page] = row_count
            self._learn_page_rows(row_count)
        if dates := [*self._dates, *(at for row in rows if (at := dated(row)) is not None)]:
            self._dates = min(dates), max(dates)

    def is_beyond_lookback(self, at: Micros) -> bool:
        """Return whether something ended too long ago to be reported after a long downtime: a gap is, instead."""
        is_old = NEVER < self._cursor.complete_at < self.horizon and at < self.horizon
        self._skips_old |= is_old
        return is_old

    @property
    def horizon(self) -> Micros:
        """How far back anybody wants to know."""
        return Micros((self.began_at if self._cursor.complete_at else self._cursor.since_at) - self.memory.lookback_us)

    # One page

    def read(
        self,
        reply: Reply,
        *,
        known_rows: Collection[str] = (),
        unsettled: Collection[str] = (),
        unlocated: int = 0,
        may_read_whole: bool = True,
    ) -> ScanResult | None:
        """Take in `page`, and return how the scan ended; `None`: `page` is to be read next.

        Where the page was refused there are no rows. `known_rows` are the ids on it of known rows, `unsettled` those
        that are known but so young that others may yet come to be seen below. `unlocated` is how many open executions
        no list has shown yet: for each of them a page more may be read. `may_read_whole`: an ordered list may be, for
        what its total says that was not found.
        """
        rows, believed = reply.rows or (), self.order
        self._is_beyond_refused |= reply.rows is None
        page = _Page(self.page, rows, len(rows) + reply.skipped, known_rows)
        self.memory.ordering.learn(rows)
        if self.order is not believed and Order.OLDEST in {self.order, believed}:
            self.memory.turn_count += 1
            self.memory.length = None
            if page.number > 1:
                return TURNED_OVER
        previous_said = self._said
        self._meets_known |= bool(known_rows or unsettled)
        self._count(page, reply.total, unsettled=unsettled)
        if self._stalled_count >= self.memory.pages_at_most:
            gap = GapReason.UNORDERED if self.order is None else GapReason.OUTRUN
            return ScanResult(gap, self.unread_count(), doubt="outrun")
        if not self._reads_back and (page.repeats(self._previous) or self._is_beyond(page)):
            is_all_seen = self._said is not None and len(self._seen) >= self._said > 0
            if page.number == 2 and page.repeats(self._previous) and not is_all_seen:
                return ScanResult(GapReason.UNORDERED, self.unread_count(), doubt=ONE_PAGE_FOR_ALL)
            page = page._replace(rows=(), row_count=0)
        if self.order is Order.OLDEST and not self._reads_back:
            last = self._find_last(page, reply.total)
            if last is None:
                return None
            page, self._reads_back, self._said_first = last, True, self._said  # so nothing deleted moves it past others
            self._length = self.memory.before(last.number) + last.row_count
            self._go_to(last.number)
        elif self._must_step_back(page, fell=(previous_said or 0) - (reply.total or previous_said or 0)):
            return None
        return self._follow(page, reply.total, unlocated=unlocated, may_read_whole=may_read_whole)

    def _count(self, page: _Page, total: int | None, *, unsettled: Collection[str]) -> None:
        ids = {row.id for row in page.rows}
        unseen = ids - self._seen
        if not self._answers and not self._reads_back:
            self._count_stall(page, is_new=bool(unseen))
        self._seen |= ids
        self._overlaps = len(unseen) < len(ids)
        self._is_pushed = self._is_first_look and bool(ids) and not unseen
        new = unseen.difference(page.known_rows, unsettled)
        if unseen if self.memory.length is None else new:
            self._fresh_until = max(self._fresh_until, page.number)
        self._new |= new
        self._later_count += len(new)
        self._new_page_count += bool(new)
        self._said = self._said if total is None else total
        self._most_said = max(self._most_said, total or 0)

    def _is_beyond(self, page: _Page) -> bool:
        """Return whether the list has ended before it: the API shows another page again, which has nothing new.

        Only oldest first, where no row speaks against that: there every row is new beyond the end of the last scan.
        """
        if self.order is not Order.OLDEST or self.memory.ordering.is_uncertain:
            return False
        was_beyond = self.memory.before(page.number) >= (self.memory.length or 0)
        return was_beyond and page.number > max(1, self._fresh_until)

    def _count_stall(self, page: _Page, *, is_new: bool) -> None:
        """Count a page that led no further: new rows push others along, or the end away."""
        # an execution is not created after it starts or ends
        dates = [at for row in page.rows if (at := row.began_at or row.ended_at) is not None]
        above_at, self._oldest_at = self._oldest_at, min(dates, default=None)
        is_younger = above_at is not None and self._oldest_at is not None and self._oldest_at > above_at
        if self.order is Order.OLDEST:  # whose end is searched for
            self._stalled_count += page.row_count >= self.memory.page_rows or bool(page.row_count and not is_new)
        elif is_new and not (is_younger and self.order is not None):
            self._stalled_count = max(0, self._stalled_count - 1)
        else:
            self._stalled_count += 1

    def _learn_page_rows(self, row_count: int) -> None:
        """Learn how many rows are on a page: as many as were asked for, or on each that others follow."""
        memory, lower = self.memory, [count for number, count in self._counts.items() if number < self.page]
        is_cut_anew = self._steps_back >= STEPS_BACK_AT_MOST
        if lower and (is_cut_anew or not memory.is_cut):
            memory.page_rows, memory.is_cut = max(row_count, *lower), True
        memory.page_rows = max(memory.page_rows, row_count) if memory.is_cut else PAGE_ROWS
        memory.is_cut |= row_count >= PAGE_ROWS

    def _must_step_back(self, page: _Page, *, fell: int) -> bool:
        """Return whether another page is read first, or this one again: something may be missing.

        A page that is followed by others is full, else it was cut short for once. Where the total `fell`, as many rows
        may have moved to pages that were read before.
        """
        rows = self.memory.page_rows
        if self._reads_back:
            return page.row_count < rows and self._ask_again()
        short = [number for number, count in self._counts.items() if count < rows and number < page.number]
        if page.row_count and short and self._steps_back < STEPS_BACK_AT_MOST:
            self._steps_back += 1
            self._go_to(min(short))
            return True
        is_in_turn = self._previous is not None and self._previous.number < page.number
        if fell > 0 and page.row_count and is_in_turn and not self._overlaps:
            self._previous = page
            self._go_to(max(1, page.number - -(-fell // rows)))
            return True
        return False

    def _ask_again(self) -> bool:
        """Return whether to ask for `page` again: so often as it takes to believe what it says."""
        self._answers = (self._answers + 1) % SURE_AFTER
        return self._answers > 0

    def _go_to(self, page: int) -> None:
        self.page, self._answers = page, 0

    def _seems_last(self, page: _Page, total: int | None) -> bool:
        """Return whether the list ends with a page that is not full; if nobody knows yet, go to the page that shows it.

        It does not where more rows are expected, unless that page says so again and again.
        """
        length = self.memory.before(page.number) + page.row_count
        expected = max(self.memory.length or 0, self._most_said)
        is_known = self.memory.length is not None or self._most_said > 0
        if self._is_pushed and self.order is not Order.OLDEST:
            return True
        if length < expected:
            if (self.memory.is_cut or not page.row_count) and self._ask_again():
                return False
        elif not page.row_count:
            previous = self._previous  # if it is full what is new shows here, else there
            is_new_there = previous is not None and previous.row_count < self.memory.page_rows
            return total == length or (is_known and is_new_there) or not self._ask_again()
        elif is_known and (self.memory.is_cut or total == length):
            return True
        if page.row_count:  # it may be cut short, or pages have fewer rows than was believed: the next one shows it
            self._go_to(page.number + 1)
            return False
        return True

    # Oldest first

    def _find_last(self, page: _Page, total: int | None) -> _Page | None:
        """Return the last page once it is found, from the one on which the list ended last, or that its total names.

        Where neither leads to it the steps double, until a page lies beyond it; then it is searched for in between.
        """
        number, previous = page.number, self._previous
        if not page.row_count:
            if not self._seems_last(page, total):
                return None
            self._beyond = number
        elif page.row_count < self.memory.page_rows:
            self._previous = page
            return page if self._beyond == number + 1 or self._seems_last(page, total) else None
        else:
            self._previous = previous = page
        full = 0 if previous is None else previous.number
        is_refused = self._is_beyond_refused and self._expects_page_after(page)
        if self._beyond == 1 or (full and self._beyond == full + 1 and not is_refused):
            return page if previous is None else previous
        self._go_to(self._search_on(full, total))
        return None

    def _search_on(self, full: int, total: int | None) -> int:
        """Return the page to read next, between the last one that is full and the first beyond the end, if known."""
        if self._beyond is not None:
            return max(full + 1, (full + self._beyond) // 2)
        named = self.memory.page_of((total or 0) - 1) if self.memory.is_cut else 0
        step, self._search_step = self._search_step, 1 if named > full else 2 * self._search_step
        return max(named, full + step)

    # How it ends

    def _follow(self, page: _Page, total: int | None, *, unlocated: int, may_read_whole: bool) -> ScanResult | None:
        """Evaluate a page in its turn, and go on to the next one or return how the scan ended."""
        if not self._reads_back:
            self._length = self.memory.before(page.number) + page.row_count
            if page.number == 1:
                self._said_first, self._later_count = self._said, 0
        self._previous = page
        if self.result is None and self._is_proven(page):
            self._reads_whole = self._missing > 0 and may_read_whole
            self._keeps_total = self._missing > 0 and not may_read_whole
            if not self._reads_whole:
                self.result = self._checked()
        ends_list = page.number == 1 if self._reads_back else page.row_count < self.memory.page_rows
        if ends_list and not self._reads_back and self.result is None and not self._seems_last(page, total):
            return None
        if self.result is None:
            self.result = self._at_end() if ends_list else self._too_far(page)
        is_enough = ends_list or self._extra_count >= unlocated
        if self.result is not None and (is_enough or self.result.gap is not None or self.result.doubt is not None):
            return self.result
        self._extra_count += self.result is not None
        self._go_to(page.number + (-1 if self._reads_back else 1))
        return None

    def _is_proven(self, page: _Page) -> bool:
        """Return whether all below a page is known: it ends on a known row, not on one that was late to be seen."""
        if self.order is None or self.memory.ordering.is_uncertain or not page.rows:
            return False
        return page.rows[0 if self._reads_back else -1].id in page.known_rows

    @property
    def _missing(self) -> int:
        """By how many rows the list grew, by what it says, beyond what was found; below 0 if more were."""
        if self.memory.total is None or self._said_first is None:
            return 0
        return self._said_first - self.memory.total - len(self._new | self.memory.new)

    @property
    def total(self) -> int | None:
        """How many rows the list had when the scan began, with those it found of what came since."""
        before = self.memory.total
        if self._keeps_total and before is not None:
            return before + len(self._new | self.memory.new)
        if self._said_first is None:
            return before
        # Some rows that it found came only after it began: no later scan finds them.
        came = min(self._later_count, (self._said or 0) - self._said_first)
        return self._said_first + max(0, came if before is None else min(came, -self._missing))

    def _too_far(self, page: _Page) -> ScanResult | None:
        """Return how a scan ends that has read as far as it may, or as anybody wants to know."""
        is_ordered = self.order is not None and not self.memory.ordering.is_uncertain
        latest_at = max((at for row in page.rows if (at := dated(row)) is not None), default=None)
        if is_ordered and latest_at is not None and latest_at < self.horizon:
            is_gap = NEVER < self._cursor.complete_at < self.horizon
            return ScanResult(GapReason.LOOKBACK, self.unread_count()) if is_gap else ScanResult()
        self._unproven_count += not is_ordered or self._reads_whole
        if self._unproven_count < self.memory.pages_at_most:
            return None
        at_most = self._missing if self._reads_whole else self.unread_count()
        return ScanResult(GapReason.UNORDERED, at_most, doubt="too long")

    def _at_end(self) -> ScanResult:
        """Return how a scan ends at the end of the list."""
        self.is_whole = True
        if self.memory.ordering.is_mixed:
            self.memory.ordering.order = None
        before = self._cursor.complete_at
        if before and self._cursor.found and not self._meets_known and (not self._dates or self._dates[0] >= before):
            return ScanResult(GapReason.DELETED, doubt="deleted")
        return self._checked()

    def _explains_emptiness(self) -> bool:
        """Return whether an API that forgets by age may have forgotten all that was there, and nothing that came since.

        The list is shorter, and what it lost was at least half as old as what it kept before: it may do so once a day.
        """
        memory = self.memory
        before = memory.length if memory.total is None else memory.total
        if not memory.dates or before is None or len(self._seen) >= before:
            return False
        retained_us = self.began_at - memory.dates[0]
        return self.began_at - self._cursor.complete_at < retained_us <= 2 * (self.began_at - memory.dates[1])

    def _checked(self) -> ScanResult:
        """Return that everything was seen, and what speaks against it."""
        if not self._cursor.complete_at:
            is_counted = self._most_said == len(self._seen) > 0  # as many rows as the list said it has
            return ScanResult(doubt="perhaps not all" if self.is_whole and not is_counted else None)
        if self._skips_old:
            return ScanResult(GapReason.LOOKBACK)
        if self.order is None:
            return ScanResult()
        if self._missing > 0 and self.is_whole:
            return ScanResult(doubt="fewer than said")
        if not self._most_said and self._new_page_count > 1 and self._new - self.memory.new:
            return ScanResult(doubt="nothing says how many")
        return ScanResult()

    def believes(self, result: ScanResult, *, ran_s: float, lost_after: int, lost_grace_s: float) -> bool:
        """Return whether scans ended like this so often that it counts, though something speaks against it.

        Where all that was known is gone, or rows that show late may explain it, it takes longer. It is no gap if what
        is gone only grew too old. The process has run for `ran_s`.
        """
        memory = self.memory
        if result.doubt is None:
            return True
        if result is TURNED_OVER:
            return False
        if memory.doubt != result.doubt:
            memory.doubt, memory.doubts, memory.doubted_since_s = result.doubt, 0, ran_s
            memory.is_explained = self._explains_emptiness()
        memory.doubts += 1
        if result.gap is GapReason.DELETED or result.doubt == ONE_PAGE_FOR_ALL:
            return memory.doubts >= lost_after and ran_s - memory.doubted_since_s >= lost_grace_s
        return memory.doubts >= (SURE_AFTER if result.gap is None else 2)

    def complete(self) -> None:
        """Hand on what it learnt, once it counts."""
        memory, has_end = self.memory, self.is_whole or self._reads_back
        memory.total = self.total
        if has_end or self.order is not Order.OLDEST:
            memory.length = self._length if has_end else None
        memory.dates = self._dates
        memory.new.clear()
        memory.turn_count = 0
        if not self._keeps_total:  # else what the list says is still to be looked for
            memory.doubts, memory.doubt = 0, None

    def make_anew(self) -> None:
        """Hand on that it does not count: what it found counts with what the next one finds."""
        self.memory.new |= self._new
