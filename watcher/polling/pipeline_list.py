"""The list of one pipeline that is watched whole, as far as it is known. In memory; what must last is in its cursor.

Which open executions each page should show, which have ended, and how far the scan under way is.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from watcher.clerk.protocol import PageReply
from watcher.domain.event import GapReason
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import EARLIEST, NEVER, Micros, Monotonic, from_us, to_us
from watcher.domain.watch import Cursor, Watch
from watcher.polling.pagination.arrival_baseline import SETTLED_AFTER_US, ArrivalBaseline, Dates, shown_dates
from watcher.polling.pagination.paging import PositionEstimator, RowPosition, TraversalStart
from watcher.polling.pagination.sort_order import Order
from watcher.polling.pagination.traversal import ListTraversal
from watcher.polling.poll_item import PollItem, TrackedExecution

REMEMBERED_COUNT = 2_000
"""Ended executions of which is remembered that they are recorded: some pages, so that the store is not asked again."""

STEP_ROWS = 5
"""After so many rows have come all pages are laid out anew: until then few rows are not where they are expected."""


class PageIndex:
    """Those of one pipeline: `entries` are open, `positions` says where rows are, and the index on which page.

    Who has no known position is on no page. Times are monotonic seconds, but when an execution was found.
    """

    def __init__(self, positions: PositionEstimator) -> None:
        self.entries: dict[str, TrackedExecution] = {}
        self.positions = positions
        self._ended: OrderedDict[str, Micros] = OrderedDict()
        self._pages: dict[int, dict[TrackedExecution, None]] = {}
        self._page_of: dict[TrackedExecution, int] = {}
        self._step = 0

    def enter(self, entry: TrackedExecution) -> None:
        """Count an open execution among those of this pipeline."""
        self.entries[entry.known.execution] = entry

    def leave(self, entry: TrackedExecution) -> None:
        """Count it no longer, and remember that it is recorded."""
        del self.entries[entry.known.execution]
        self._drop(entry)
        if entry.known.ended_at is not None:
            self.remember({entry.known.execution: entry.known.found_at})

    def page_of(self, entry: TrackedExecution, *, at: Monotonic) -> int | None:
        """Return the page that should show an entry."""
        self._keep_up(at)
        return self._page_of.get(entry)

    def on_page(self, page: int, *, at: Monotonic) -> Collection[TrackedExecution]:
        """Return who should be on that page."""
        self._keep_up(at)
        return self._pages.get(page, {}).keys()

    def put(self, entry: TrackedExecution, *, index: int, start: TraversalStart, shift: float) -> None:
        """Note at which index a page showed an execution; `start` and `shift` are the same for all on that page."""
        entry.position = RowPosition(index - shift, start)
        page = self.positions.page_at(index)
        if self._page_of.get(entry) != page:
            self._drop(entry)
            self._add(entry, page)

    def miss(self, entry: TrackedExecution, *, page: int, at: Monotonic) -> None:
        """Note that this page did not show an execution, which may be elsewhere by what the page did show."""
        position = entry.position
        if position is not None and self.positions.page_of(position, at=at) == page:
            entry.position = None if position.guessed else self.positions.beside(position, at=at)
        self._drop(entry)
        if entry.position is not None:
            self._add(entry, self.positions.page_of(entry.position, at=at))

    def find_displaced(self, rows: Mapping[str, tuple[int, object]], *, at: Monotonic) -> None:
        """Learn from where a page showed executions how far off they were expected."""
        located = [
            (entry.position, index)
            for execution, (index, _) in rows.items()
            if (entry := self.entries.get(execution)) is not None and entry.position is not None
        ]
        self.positions.found_displaced(located, at=at)

    def _drop(self, entry: TrackedExecution) -> None:
        page = self._page_of.pop(entry, None)
        if page is not None:
            del self._pages[page][entry]

    def _add(self, entry: TrackedExecution, page: int) -> None:
        self._page_of[entry] = page
        self._pages.setdefault(page, {})[entry] = None

    def _keep_up(self, at: Monotonic) -> None:
        step = round(self.positions.come_by(at) / STEP_ROWS)
        if step == self._step:
            return
        self._step, self._pages = step, {}
        for entry in self._page_of:
            assert entry.position is not None
            self._add(entry, self.positions.page_of(entry.position, at=at))

    # Those that have ended

    def remember(self, ended: dict[str, Micros]) -> None:
        """Remember of ended executions when they were found (microseconds, steady)."""
        for execution, found_at in ended.items():
            self._ended[execution] = found_at
            self._ended.move_to_end(execution)
        while len(self._ended) > REMEMBERED_COUNT:
            self._ended.popitem(last=False)

    def found_at(self, executions: Collection[str]) -> dict[str, Micros | None]:
        """Return when a list first showed these executions, `None` if one is unknown as far as memory goes."""
        return {
            each: entry.known.found_at if (entry := self.entries.get(each)) is not None else self._ended.get(each)
            for each in executions
        }

    def unknown(self, executions: Collection[str]) -> list[str]:
        """Return those of which only the store may know; what is remembered of the others is not forgotten next."""
        for execution in executions:
            if execution in self._ended:
                self._ended.move_to_end(execution)
        return [execution for execution in executions if execution not in self.entries and execution not in self._ended]


LIST_WEIGHT = 3.0
"""First pages hold three quarters of all ends: read so much more often than others, an end is seen soonest.

Measured by `make bench`: 20 pipelines with 1,000 open executions at 10 requests/s, 7.6 s on average without, 4.9 with.
"""

SEEK_EVERY_S = 600.0
"""So often a scan reads on, beyond what is known, for executions that it does not know the position of."""

HEAD_EVERY_PAGES = 10
"""So often a scan that goes deep has the page read again on which new rows show: they need not wait for its end."""


@dataclass(frozen=True, slots=True)
class RowAges:
    """How old the rows of a list were, by their ends, else their beginnings: the earliest and latest (microseconds)."""

    earliest_at: Micros | None = None
    latest_at: Micros | None = None

    def explain_emptiness(self, *, since: Micros, now: Micros) -> bool:
        """Return whether an API that forgets by age may have forgotten all of these, and nothing that came `since`.

        What it forgot was at least half as old as what it kept before: it may do so once a day. What came since is
        younger than that.
        """
        if self.earliest_at is None or self.latest_at is None:
            return False
        retained_us = now - self.earliest_at
        return now - since < retained_us and now - self.latest_at >= retained_us / 2


@dataclass(frozen=True, slots=True)
class EarlyEnd:
    """That a list ended too early: so many scans in a row, since then (seconds for which the process ran).

    They met nothing that is known, or fewer rows than it has: it may have shown nothing, or half of it, for once.
    `is_explained` says that what is gone may have grown too old.
    """

    count: int
    since_s: float
    is_explained: bool


@dataclass(slots=True)
class PipelineStream:
    """A pipeline's own events: the sequence of the last one, and who may write the next."""

    sequence: int
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class Progress:
    """How far the scan under way is: it began at `began_at` (0: not yet).

    It has found `found_count` new rows; `came_count` others came since. `shows_any` says whether it met any row,
    `earliest_at` is the earliest date of those. Its last `depth` pages were not the one on which new rows show. That it
    `seeks` says that it reads on for executions that have no known position.
    """

    began_at: Micros = NEVER
    found_count: int = 0
    came_count: int = 0
    shows_any: bool = False
    earliest_at: Micros | None = None
    depth: int = 0
    seeks: bool = True


@dataclass(slots=True, eq=False)
class PipelineListState(PollItem):
    """One pipeline's list.

    `cursor` says up to where it is known, `stream` are the pipeline's own events; the former was last written at
    `recorded_at` (microseconds, steady; 0: long ago). `scan` is the one under way, or the next. `nameless` is a page
    that was read before the pipeline's name was known, and an execution on it that has it; `named` is set then. A
    list that fails answers nobody until `failing_until`. The first page of a scan was asked for at `scanned_at`, of one
    that seeks at `sought_at` (monotonic seconds). `gaps_emitted` is why the last scans could not be completed, where
    that goes on and was reported: deeper pages are refused, or there is no order.

    `arrivals` is what is known of how the list began, `ages` those of the rows that the last complete scan met: so long
    the API keeps what has ended. `early_end` is there while the last scans ended too early. `newest_at` is the latest
    date where new rows show, once that was read.
    """

    weight: ClassVar[float] = LIST_WEIGHT
    any_failure_counts: ClassVar[bool] = True

    watch: Watch
    cursor: Cursor
    stream: PipelineStream
    scan: ListTraversal
    rows: PageIndex = field(init=False)
    progress: Progress = field(default_factory=Progress)
    arrivals: ArrivalBaseline = field(default_factory=ArrivalBaseline)
    ages: RowAges = RowAges()
    early_end: EarlyEnd | None = None
    newest_at: Micros | None = None
    recorded_at: Micros = NEVER
    named: bool = False
    nameless: tuple[PageReply, str] | None = None
    gaps_emitted: frozenset[GapReason] = frozenset()
    failing_until: Monotonic = EARLIEST
    scanned_at: Monotonic = Monotonic(0.0)
    sought_at: Monotonic = EARLIEST

    def __post_init__(self) -> None:
        """Have its pages cut as the scan learns to."""
        self.rows = PageIndex(PositionEstimator(self.scan.paging))

    def known_rows(self, rows: Sequence[ExecutionSnapshot], *, found_at: Mapping[str, Micros], now: Micros) -> set[str]:
        """Return which rows are known rows, of those that a complete scan found, by when it did (steady).

        What may come to be seen late below one was there by then: it was old by the API's own clock when that scan
        began, or scans have been there since.
        """
        known = {each for each, at in found_at.items() if at + SETTLED_AFTER_US <= now}
        shown_at = self.scan.clock.shown_at
        if shown_at is not None:
            old_at = from_us(Micros(shown_at - SETTLED_AFTER_US))
            known |= {row.id for row in rows if row.id in found_at and row.started_at and row.started_at <= old_at}
        return known

    def scan_asked(self, now: Monotonic) -> None:
        """Note that a page is asked for by the scan, which begins with the first that is answered."""
        self.asked_at = now
        self.progress.depth += 1
        if not self.progress.began_at:
            self.scanned_at = now
            self.rows.positions.scan_begins(now)
            self.progress.seeks = now - self.sought_at >= SEEK_EVERY_S
            self.sought_at = now if self.progress.seeks else self.sought_at

    def found(self, count: int, *, scanned: bool) -> None:
        """Count new rows of a page. Those of a page that is read out of turn came after the scan under way began."""
        if scanned or not self.progress.began_at:
            self.progress.found_count += count
        else:
            self.progress.came_count += count

    def met(self, rows: Sequence[ExecutionSnapshot], *, now: Micros) -> None:
        """Take in what a page of the scan shows of the list's age, and of the API's clock, before the scan reads it."""
        self.scan.clock.note(rows, now=now)
        self.progress.shows_any |= bool(rows)
        dates = [at for row in rows if (at := row.finished_at or row.started_at) is not None]
        if dates:
            earliest_at, before_at = to_us(min(dates)), self.progress.earliest_at
            self.progress.earliest_at = earliest_at if before_at is None else min(earliest_at, before_at)

    def head_newest_at(self, rows: Sequence[ExecutionSnapshot], *, now: Micros) -> Micros | None:
        """Return the latest date where new rows show, once that is read, until it is written; `rows` are the last page.

        Newest first that was the first page, which is where it should be; without an order it may be any. Where the end
        had to be found, and no total proves it, an answer may have been empty for once: that is believed after a while.
        Where no row has begun yet, those further on show it.
        """
        if self.cursor.newest_at is not None:
            return None
        if self.newest_at is None:
            self.newest_at = self._read_newest_at(rows, now=now)
        return self.newest_at

    def _read_newest_at(self, rows: Sequence[ExecutionSnapshot], *, now: Micros) -> Micros | None:
        arrivals, scan, order = self.arrivals, self.scan, self.scan.order
        if not self.progress.shows_any or arrivals.is_unsure or not scan.saw_newest:
            return None
        is_settled = self.progress.began_at - self.cursor.since_at >= SETTLED_AFTER_US
        if order is not Order.NEWEST and not scan.is_as_long_as_said and not is_settled:
            return None
        if (order is Order.NEWEST or arrivals.is_corrected) and arrivals.first_at is not None:
            return arrivals.first_at
        newest_at = Dates(shown_dates(rows), now=now).latest_at if order is Order.OLDEST else scan.clock.latest_at
        return newest_at if newest_at is not None or scan.result is None else NEVER

    def scan_ended(self, following: ListTraversal) -> None:
        """Begin another scan: what was not on the pages of this one has sunk by what it found."""
        progress, clock = self.progress, self.scan.clock
        self.rows.positions.scan_ended(progress.found_count)
        self.ages, self.early_end = RowAges(progress.earliest_at, clock.latest_at), None
        clock.scan_ended()
        self.scan, self.progress = following, Progress(found_count=progress.came_count)

    def scan_again(self, following: ListTraversal) -> None:
        """Begin another scan, as if this one had not been made."""
        self.scan.clock.begin()
        self.newest_at = None
        progress = self.progress
        self.scan, self.progress = following, Progress(NEVER, progress.found_count, progress.came_count)

    def sought_count(self) -> int:
        """Return how many open executions the scan is to search for: nobody knows where in the list they are."""
        return sum(entry.position is None for entry in self.rows.entries.values()) if self.progress.seeks else 0
