"""One pass over the list of a pipeline: which page to read next, and when everything was seen. Pure, no I/O.

Newest first, it reads from page 1 on; oldest first, from the last page back. It ends at *known ground*: a row that was
in the list when the last complete scan began reading, so that all below it was, too, and is recorded. That holds while
the list has an order, and the scan has met those that were first then (its `top`). Else all of the list is read.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from watcher.api_clock import ApiClock
from watcher.ground import Ground
from watcher.models import Cursor, Execution, GapReason
from watcher.ordering import EndSearch, Order, Ordering
from watcher.page import Page, Paging

EMPTY_AT_LEAST = 3
"""So often in a row a page must be empty to be believed where nothing is known of the list, or more of it is."""

TURNS_AT_MOST = 3
"""A list that turns over more often than that while it is read has no order."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How a scan ended: with everything seen, or with a gap in which `at_most` executions (if known) may be missing."""

    gap: GapReason | None = None
    at_most: int | None = None


@dataclass(frozen=True, slots=True)
class Learnt:
    """What one complete scan hands on to the next.

    `total` is how many rows the list has (newest first: what the API says, or what its only page shows; oldest first:
    what was seen), `total_before` what that was a scan earlier: what is said once may be untrue. `trusted` tells
    whether `total` is believed. `top` are the ids of the rows that it met first. `length` is how many rows were seen
    when all of the list was read last. `seen` are the ids of those that scans saw since which were made anew, for they
    ended too early: together they count. `found` are those that it counted as new: where it probed for the end they are
    not yet known when the next one begins. The list `is_too_long` where it grew by rows that are so far down that they
    were not found: `total` is without these.
    """

    ordering: Ordering
    paging: Paging
    total: int | None = None
    total_before: int | None = None
    trusted: bool = True
    top: tuple[str, ...] = ()
    length: int = 0
    seen: frozenset[str] = frozenset()
    found: frozenset[str] = frozenset()
    is_too_long: bool = False


class Scan:
    """One pass, made anew for each. Hand `page` to the API and what it answers to `read`, until that returns a finding.

    `finding` is there once everything was seen, though pages beyond may be read for more. `is_whole` tells whether all
    of the list was read, `oldest_at` how far down (microseconds, by the API's clock).
    """

    def __init__(
        self,
        before: Learnt,
        *,
        clock: ApiClock,
        cursor: Cursor,
        lookback_us: int,
        began_at: int,
        pages_at_most: int,
    ) -> None:
        """Begin with what the last complete scan of this process learnt.

        `clock` knows the rows of each page that is read. `began_at` is microseconds UTC, steady. `pages_at_most` pages
        that lead no further are a race that is lost.
        """
        self.before = before
        self.clock = clock
        self.ordering = before.ordering
        self.paging = before.paging
        self.ordering.begin()
        self.paging.begin()
        self._trusted = before.trusted
        self._total: int | None = None
        self._search = EndSearch(before.total or 0, self.paging)
        totals = (before.total, before.total_before)
        self._length_before = max((each for each in totals if each is not None), default=None)
        self._cursor = cursor
        self._horizon = (began_at if cursor.complete_at else cursor.since_at) - lookback_us
        self._lookback_us = lookback_us
        self._pages_at_most = pages_at_most
        self.finding: Finding | None = None
        self.is_whole = False
        self.oldest_at: int | None = None
        self._ground = Ground(self.ordering, top=before.top)
        self._seen: set[str] = set()
        self._overlaps = False
        self._empty_count = 0
        self._was_empty = False  # this page, when it was asked for before
        self._skipped: dict[int, int] = {}  # by page, the rows that cannot be read
        self._empty_page: int | None = None  # the last one that held nothing
        self._last_oldest_at: int | None = None  # of the page that was read last
        self._turn_count = 0
        self._stalled_count = 0
        self._unproven_count = 0
        self._extra_count = 0
        self._found: set[str] = set()
        self._is_too_long = False
        self._last: Page | None = None  # the last one that was judged
        self._latest: Page | None = None  # the last one that was read
        self._total_now: int | None = None  # as it was last said
        self._total_most = 0  # that was said
        self._total_first = 0  # as it was first said by a page with rows
        self._end_page: int | None = None  # oldest first: the last page
        self._saw_end = False  # where it began, nothing is beyond
        self._asked_beyond = False  # the page after that, once more
        self._again = False  # the page before it is read for the second time
        self._repeated_page: int | None = None  # the one after it showed the same
        self.page = self._search.page if self._backward else 1

    @property
    def order(self) -> Order | None:
        """The order as learned so far, and while it holds."""
        return None if self._turn_count > TURNS_AT_MOST else self.ordering.order

    @property
    def _backward(self) -> bool:
        """Whether it reads from the last page back."""
        return self.order is Order.OLDEST

    @property
    def probes(self) -> bool:
        """Whether `page` does not follow on what was read: what it shows for the first time may have come since."""
        return self._again or (self._backward and not self._search.found)

    @property
    def head(self) -> int | None:
        """The page on which new rows show, if that is known."""
        return self._end_page if self._backward else 1

    def head_is_full(self) -> None:
        """Note that there is no more room on `head`: oldest first, what is new shows on the page after it."""
        if self._backward and self._end_page is not None:
            self._end_page += 1

    @property
    def saw_newest(self) -> bool:
        """Whether it saw where new rows show: what looks like the end of a list may only have been refused."""
        if self.order is None:
            is_said = self._trusted and self._total_most > len(self._seen)
            return self.is_whole and not is_said and not self._hides_rows()
        return self._last is not None and (self.order is Order.NEWEST or self._saw_end)

    @property
    def is_as_long_as_said(self) -> bool:
        """Whether the API says how many rows there are, and no more than were seen, or, oldest first, must be there."""
        length = (self._total or 0) if self._backward else len(self._seen)
        return self._total_now is not None and length >= self._total_now

    @property
    def expects_page(self) -> bool:
        """Whether `page` must be there, by what the page before it said: a refusal of it is not the list's end."""
        latest, total = self._latest, self._total_now
        if latest is None or not latest.row_count:
            return False
        if self.page < latest.number:
            return True
        if total is None or not self._trusted or self.page != latest.number + 1:
            return False
        return latest.row_count >= self.paging.rows and total > self.paging.before(self.page)

    def hear(self, total: int | None) -> None:
        """Take in what a page that is read out of turn says of the length of the list."""
        self._total_now = total

    @property
    def is_shorter(self) -> bool:
        """Whether the list, read to its end, is known to have fewer rows than the last complete scan left."""
        before, total = self._length_before, self._total_now
        if before is None or len(self._seen) >= before:
            return False
        return total is None or not self._trusted or total < before

    def learnt(self) -> Learnt:
        """Return what the next scan begins with once this one is complete."""
        total = self._seen_count if self._total is None and self.is_whole else self._total
        return Learnt(
            self.ordering,
            self.paging,
            total,
            self.before.total,
            trusted=self._trusted and not self.is_cut_short,
            top=self._ground.top(),
            length=self._seen_count if self.is_whole else self.before.length,
            found=frozenset(self._found),
            is_too_long=self._is_too_long,
        )

    def unread_count(self) -> int | None:
        """Return how many rows may be there that were not read, `None` if nobody can tell."""
        left = self._left_count()
        if left is None and self._backward:
            return self.paging.before(self.page + 1)
        return left

    def _left_count(self) -> int | None:
        left = (self._total_now or 0) - len(self._seen)
        return left if self._trusted and left > 0 else None

    def read(
        self,
        rows: Sequence[Execution],
        *,
        total: int | None,
        skipped: int = 0,
        refused: bool = False,
        ground: Collection[str],
        unsettled: Collection[str] = (),
        unplaced: int,
    ) -> Finding | None:
        """Take in `page`, and tell how the scan ended; `None`: `page` is to be read next. `paging` knows it already.

        `skipped` rows of it cannot be read; where it was `refused` there may be some, or none. `ground` are the ids on
        it that are known ground, `unsettled` those that are known but so young that others may yet come to be seen
        below. `unplaced` is how many open executions no list has shown yet: for each of them a page more may be read.
        """
        if self._repeats(rows):
            if self._repeated_page != self.page - 1:  # unless new rows pushed these along: that page tells
                self.page = self._repeated_page = self.page - 1
                self._again = True
                return None
            rows, skipped = (), 0
        elif self._is_doubtful(total, row_count=len(rows) + skipped, refused=refused):
            return None
        self._skipped[self.page] = skipped
        if not rows and not skipped and not refused:
            self._empty_page = self.page
        turned = self._learn(rows)
        page = self._page(rows, total, row_count=len(rows) + skipped, ground=ground, unsettled=unsettled)
        self._note(page)
        self._latest, self._total_now, self._total_most = page, total, max(total or 0, self._total_most)
        self._total_first = self._total_first or (total or 0 if page.row_count else 0)
        if turned:
            self._begin_anew()
        if self._backward and not self._search.found:
            ids = {row.id for row in rows}
            found = self._search.note(page.number, ids, row_count=page.row_count, total=total)
            self.page = self._search.page
            self._end_page = self.page if found else None
            if not found or self.page != page.number:
                return Finding(GapReason.UNORDERED) if self._search.is_hopeless else None
        elif turned:
            return None
        return self._follow(page, unplaced=unplaced)

    def _repeats(self, rows: Sequence[Execution]) -> bool:
        """Tell whether `page` shows what the one before it does: the API shows its last page, or its first, for all."""
        latest = self._latest
        if latest is None or not rows or self._backward or self.page != latest.number + 1:
            return False
        return {row.id for row in rows} == {row.id for row in latest.rows}

    def _hides_rows(self) -> bool:
        """Tell whether the first page is shown for those after it, and there may be rows that are on none."""
        is_first_for_all = self._search.is_first_for_all if self._backward else self._repeated_page == 1
        return is_first_for_all and self._total_now != len(self._seen)

    def _is_doubtful(self, total: int | None, *, row_count: int, refused: bool) -> bool:
        """Tell whether to ask again for a page without rows: its answer may be empty for once.

        The first page is read again by the next scan.
        """
        if row_count or self.page == 1 or (self.finding is not None and not self._untold_count()):
            self._was_empty, self._empty_count = self._empty_count > 0, 0
            return False
        self._empty_count += 1
        return self._empty_count < self._empty_at_least(is_told=refused or total is not None)

    def _empty_at_least(self, *, is_told: bool) -> int:
        """Return how often in a row `page` has to be empty to be believed; `is_told`: the answer says that it is.

        Often where rows are known to be; and after the last page, as long as nothing is known of the list: what is open
        further down would never be seen. Twice after a full page, if nothing else would tell of new rows there.
        """
        before, expected = self.paging.before(self.page), self._expected_count
        if not (self._length_before or self.before.length) or before < expected:
            return EMPTY_AT_LEAST
        return 2 if before == expected and not is_told else 1

    @property
    def _expected_count(self) -> int:
        """How many rows the list has: when this scan began, by what it said then, and when the last one ended.

        What came since may be on pages that were read before.
        """
        said, before = self._total_first if self._trusted else 0, self.before.length
        return max(said, before, (self._length_before or 0) if self._trusted or self._backward else 0)

    @property
    def is_cut_short(self) -> bool:
        """Whether it read the list to an end that came before all was seen that should be there.

        Oldest first that is also what the pages before the last one should hold.
        """
        by_pages = self._total or 0 if self._backward else 0
        return self.is_whole and self._seen_count < max(by_pages, self._expected_count)

    @property
    def is_counted(self) -> bool:
        """Whether it alone, that read all of the list, saw as many rows as that said it has: none was hidden."""
        return self.is_whole and self._trusted and 0 < self._total_most == len(self._seen)

    def to_be_made_anew(self) -> Learnt:
        """Return what the next scan begins with if this one does not count: what was before, and what was seen.

        Not as before is what the list has shown of its order and of its pages: that is learnt for good.
        """
        return replace(self.before, seen=self.before.seen | self._seen)

    @property
    def _seen_count(self) -> int:
        return len(self._seen | self.before.seen) + sum(self._skipped.values())

    def _learn(self, rows: Sequence[Execution]) -> bool:
        """Learn from a page how the list is sorted, and tell whether to begin anew from where the new rows are."""
        turned = self.ordering.learn(rows)
        self._turn_count += turned
        return turned and self._turn_count <= TURNS_AT_MOST + 1

    def _says_more_beyond(self, page: Page) -> bool:
        """Tell whether what seems to be the last page is not: what is beyond it was perhaps refused."""
        if not self._backward or self._search.is_clamped:
            return False
        full = page.row_count >= self.paging.rows
        length = self.paging.length(page.number, page.row_count)
        return full and self._trusted and page.total is not None and page.total > length

    def _page(
        self,
        rows: Sequence[Execution],
        total: int | None,
        *,
        row_count: int,
        ground: Collection[str],
        unsettled: Collection[str],
    ) -> Page:
        if self._backward:
            return Page(self.page, rows[::-1], row_count, total, ground, unsettled, ends_list=self.page == 1)
        ends_list = not row_count or self._looks_last(rows, total, row_count=row_count)
        return Page(self.page, rows, row_count, total, ground, unsettled, ends_list)

    def _looks_last(self, rows: Sequence[Execution], total: int | None, *, row_count: int) -> bool:
        """Tell whether a page that holds rows is the last, newest first.

        Without a total it may only be cut short: the page after it tells. One that was empty, and to which new rows
        then pushed others, was beyond the end.
        """
        if self._was_empty and row_count < self.paging.rows and self._seen.issuperset(row.id for row in rows):
            return True
        if not self.paging.ends(self.page, row_count, total):
            return False
        return total is not None or (
            bool(self._length_before) and self.paging.length(self.page, row_count) >= self._expected_count
        )

    def _note(self, page: Page) -> None:
        """Count what is seen for the first time, and the pages that lead no further down: new rows push them along."""
        shown = {row.id for row in page.rows}
        unseen = shown - self._seen
        self._seen |= unseen
        self._overlaps = len(unseen) < len(shown)
        self._ground.count(page, unseen - self.before.found)
        self._found |= unseen.difference(page.ground, page.unsettled)
        if not self.probes:
            further = bool(unseen) and not _is_younger(page.oldest_at, self._last_oldest_at)
            self._stalled_count = max(0, self._stalled_count - 1) if further else self._stalled_count + 1
        self._last_oldest_at = page.oldest_at
        self.oldest_at = min((at for at in (page.oldest_at, self.oldest_at) if at is not None), default=None)

    def _begin_anew(self) -> None:
        """Read on from the other end: the order is not what was believed."""
        self._search = EndSearch(0, self.paging)
        self._last, self.finding, self._last_oldest_at = None, None, None
        self._again = self._asked_beyond = False
        self._ground.begin_anew()
        self.page = 1

    def _follow(self, page: Page, *, unplaced: int) -> Finding | None:
        """Judge a page in its turn. After a fall of the total the one before is read again first."""
        if self._again:
            self._again = False
            self._ground.touch(page)
            if not self._overlaps and page.number > 1:  # more fell than a page holds: back to what was read
                self._again, self.page = True, page.number - 1
                return None
            return self._go_on(self._last or page, unplaced=unplaced)
        if self._last is None and not self._asked_beyond and self._says_more_beyond(page):
            self._asked_beyond = True
            self._end_page = self.page = page.number + 1
            return None
        fell = self._fell(page)
        if self._last is None:
            seen_length = self.paging.length(page.number, page.row_count)
            is_known = self._backward or (page.total is None and page.ends_list)
            self._total = seen_length if is_known else page.total
            self._saw_end = self._is_end(page, seen_length)
        elif not self._backward and not page.row_count:
            self._saw_end = True
        self._last = page
        if fell:
            self._again, self.page = True, page.number - 1
            return None
        return self._go_on(page, unplaced=unplaced)

    def _is_end(self, page: Page, length: int) -> bool:
        """Tell whether the first page that is judged is the last of the list, and no page said that there is more."""
        if (self._trusted and self._total_most > length) or self._hides_rows():
            return False
        if page.total == length or self.paging.ends(page.number, page.row_count, page.total):
            return True
        return self._backward and (self._search.is_clamped or self._empty_page == page.number + 1)

    def _fell(self, page: Page) -> bool:
        """Tell whether rows may have moved from this page to the one before it while neither was read.

        Newest first, that is when more were deleted above than came. Oldest first it leads to rows read twice,
        which are the proof that none was passed over.
        """
        if self.finding or self._last is None or self._overlaps or self._backward:
            return False
        return page.total is not None and self._last.total is not None and page.total < self._last.total

    def _go_on(self, page: Page, *, unplaced: int) -> Finding | None:
        if self.finding is None:
            self.finding = self._judge(page)
        if page.ends_list and self._untold_count() > 0:
            self._trusted = len(self._seen) >= (self._total or 0)
        if self.finding and (page.ends_list or not self._wants_more(self.finding, unplaced=unplaced)):
            return self._conclude(self.finding, is_end=page.ends_list)
        self._extra_count += self.finding is not None
        self.page = page.number + (-1 if self._backward else 1)
        return None

    def _judge(self, page: Page) -> Finding | None:
        """Tell whether everything was seen."""
        self._ground.meet(page)
        if self._backward and self._hides_rows():
            return self._judge_end(page)
        if self._ground.is_reached and self.order is not None and self._ground.is_proof:
            return Finding()
        if page.ends_list or self._is_past(page):
            return self._judge_end(page)
        self._unproven_count += self.order is None or self.ordering.is_in_doubt
        if self._unproven_count >= self._pages_at_most:
            return Finding(GapReason.UNORDERED, self.unread_count())
        if self.order is not None and self._stalled_count >= self._pages_at_most:
            return Finding(GapReason.OUTRUN, self.unread_count())
        return None

    def _is_past(self, page: Page) -> bool:
        """Tell whether all that is further down is older than anybody wants to know.

        Known ground that is no older is read on for: only the API's clock dates the rows, and that may be behind. So
        the youngest row counts where that is older than our clock says.
        """
        latest_at = self.clock.latest_at
        if self.order is None or self.ordering.is_in_doubt or page.newest_at is None or latest_at is None:
            return False
        if self._cursor.complete_at >= self._horizon:
            return False
        return page.newest_at < min(self._horizon, latest_at - self._lookback_us)

    def _judge_end(self, page: Page) -> Finding:
        """Judge where no ground is to be expected any more: at the end of the list, or beyond `lookback`."""
        self.is_whole = page.ends_list
        if page.ends_list and self.ordering.is_mixed:
            self.ordering.forget()
        if page.ends_list and self._turn_count > TURNS_AT_MOST and not self.is_as_long_as_said:
            return Finding(GapReason.UNORDERED, self.unread_count())
        if page.ends_list and self._hides_rows():
            return Finding(GapReason.UNORDERED, self._left_count())
        before, since = self._cursor.complete_at, self.oldest_at
        if not before or self._ground.meets_known:
            return Finding()
        if page.ends_list:
            shown_at = before if self.clock.shown_at is None else self.clock.shown_at
            whole = not self._cursor.found or (since is not None and since < shown_at)
            return Finding() if whole else Finding(GapReason.DELETED)
        return Finding() if before >= self._horizon else Finding(GapReason.LOOKBACK, self.unread_count())

    def _wants_more(self, finding: Finding, *, unplaced: int) -> bool:
        """Tell whether to read on beyond the end of a scan that saw everything.

        For what came further down all of the list is read, if need be: only that proves that `total` is untrue.
        """
        if finding.gap is not None:
            return False
        is_within = self._extra_count < self._pages_at_most and not self.before.is_too_long
        return (is_within and self._untold_count() > 0) or self._extra_count < unplaced

    def _conclude(self, finding: Finding, *, is_end: bool) -> Finding:
        """End the scan; what came further down than may be read is a gap, however often it is tried."""
        untold = 0 if is_end or finding.gap is not None else self._untold_count()
        self._is_too_long = untold > 0
        if untold and self._length_before is not None:
            self._total = self._length_before + self._ground.new_count
            self.finding = Finding(GapReason.UNORDERED, untold)
            return self.finding
        self._count_arrivals()
        return finding

    def _untold_count(self) -> int:
        """Return by how much `total` grew beyond what was found: something may have come to be seen further down.

        What a page says of it that is read later counts as well: an untrue word is not repeated.
        """
        before, total, now = self._length_before, self._total, self._total_now
        if not self._trusted or not self._cursor.complete_at or total is None or before is None:
            return 0
        said = total if self._backward or now is None else min(total, now)
        return max(0, said - before - self._ground.new_count)

    def _count_arrivals(self) -> None:
        """Count what came, and was found, after the first page said how many there are."""
        if not self._backward and self._total is not None and self._length_before is not None:
            self._total = max(self._total, self._length_before + self._ground.new_count)


def _is_younger(at: int | None, other: int | None) -> bool:
    return at is not None and other is not None and at > other
