"""The list of one pipeline that is watched whole, as far as it is known. In memory; what must last is in its cursor."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from watcher.clerk.protocol import PageReply
from watcher.domain.event import GapReason
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import EARLIEST, NEVER, Micros, Monotonic, from_us, to_us
from watcher.domain.watch import Cursor, Watch
from watcher.polling.page_index import PageIndex
from watcher.polling.pagination.api_clock import Dates, shown_dates
from watcher.polling.pagination.arrival_baseline import SETTLED_AFTER_US, ArrivalBaseline
from watcher.polling.pagination.positions import PositionEstimator
from watcher.polling.pagination.sort_order import Order
from watcher.polling.pagination.traversal import ListTraversal
from watcher.polling.poll_queue import PollItem

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
