"""The list of one pipeline that is watched whole, as far as it is known. In memory; what must last is in its cursor.

Which open executions each page should show, which have ended, and how far the scan under way is.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from watcher.clerk.api import Reply
from watcher.domain.event import GapReason
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot
from watcher.domain.timestamps import EARLIEST, NEVER, Micros, Monotonic
from watcher.domain.transitions import is_terminal
from watcher.domain.watch import Cursor, Watch
from watcher.polling.list_evidence import ListMemory
from watcher.polling.list_scan import SETTLED_AFTER_US, Scan
from watcher.polling.poll_item import PollItem, TrackedExecution
from watcher.polling.sort_order import Order

REMEMBERED_COUNT = 2_000
"""Ended executions of which is remembered that they are recorded: some pages, so that the store is not asked again."""


LIST_LAG_US = 60_000_000
"""For so long a list may go on to show that an execution runs which has ended."""


class Ended(NamedTuple):
    """An execution that has ended: when a list first showed it, how it ended, and when that was seen."""

    found_at: Micros
    status: str | None = None
    at: Micros = NEVER


class PageIndex:
    """Those of one pipeline: `entries` are open, and the index says on which page of the list each should be.

    That is where a page showed it last, and further down by as many rows as were found since, newest first. Who is not
    there is on no page, and asked for by itself, until other rows push it to the next one.

    Scans have found `found_count` new rows since the last complete one began, but for those that came since the scan
    under way did.
    """

    def __init__(self, memory: ListMemory) -> None:
        """Start empty. `memory` says how many rows are on a page, and in which order."""
        self.entries: dict[str, TrackedExecution] = {}
        self._memory = memory
        self._arrived = 0
        self.found_count = self._came_count = 0
        self._noted: set[TrackedExecution] = set()  # where the scan under way showed them
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        self._pages: dict[int, dict[TrackedExecution, None]] = {}
        self._page_of: dict[TrackedExecution, int] = {}
        self._laid_out = (0, 0)

    def enter(self, entry: TrackedExecution) -> None:
        """Count an open execution among those of this pipeline."""
        self.entries[entry.known.execution] = entry

    def leave(self, entry: TrackedExecution) -> None:
        """Count it no longer, and remember that it is recorded."""
        del self.entries[entry.known.execution]
        self._noted.discard(entry)
        self._move(entry, None)
        if entry.known.ended_at is not None:
            self.remember([entry.known])

    def page_of(self, entry: TrackedExecution) -> int | None:
        """Return the page that should show an entry."""
        self._lay_out()
        return self._page_of.get(entry)

    def on_page(self, page: int) -> Collection[TrackedExecution]:
        """Return who should be on that page."""
        self._lay_out()
        return self._pages.get(page, {}).keys()

    def put(self, entry: TrackedExecution, *, index: int, scanned: bool) -> None:
        """Note at which index of the list a page showed an execution; `scanned`: the scan under way read it."""
        entry.position, entry.missed_page = index - self._arrived, None
        if scanned:
            self._noted.add(entry)
        page = self._memory.page_of(index)
        if self._page_of.get(entry) != page:
            self._move(entry, page)

    def miss(self, entry: TrackedExecution, *, page: int) -> None:
        """Note that this page did not show an execution that should be there."""
        if self._page_of.get(entry) == page:
            entry.missed_page = page
            self._move(entry, None)

    def found(self, count: int, *, after_scan_began: bool) -> None:
        """Count new rows of a page that was read for the scan under way, or out of turn after that began."""
        if after_scan_began:
            self._came_count += count
        else:
            self.found_count += count

    def scan_ended(self) -> None:
        """Begin with another scan: newest first, all that the last one did not show has sunk by the rows it found."""
        if self.found_count and self._memory.ordering.order is Order.NEWEST:
            self._arrived += self.found_count
            for entry in self._noted:
                if entry.position is not None:
                    entry.position -= self.found_count
        self._noted.clear()
        self.found_count, self._came_count = self._came_count, 0

    def unlocated_count(self) -> int:
        """Return how many are on no page, as far as anybody knows."""
        self._lay_out()
        return len(self.entries) - len(self._page_of)

    def _move(self, entry: TrackedExecution, page: int | None) -> None:
        before = self._page_of.pop(entry, None)
        if before is not None:
            del self._pages[before][entry]
        if page is not None:
            self._page_of[entry] = page
            self._pages.setdefault(page, {})[entry] = None

    def _lay_out(self) -> None:
        """Let all be on the page that should show them, whenever rows have come."""
        laid_out = (self._arrived, self._memory.rows_per_page)
        if laid_out == self._laid_out:
            return
        self._laid_out, self._pages, self._page_of = laid_out, {}, {}
        for entry in self.entries.values():
            if entry.position is not None:
                page = self._memory.page_of(entry.position + self._arrived)
                self._move(entry, None if page == entry.missed_page else page)

    # Those that have ended

    def remember(self, ended: Iterable[ExecutionRecord], *, found_at: Micros = NEVER) -> None:
        """Remember executions that have ended, those without a time of their own as found at this."""
        for known in ended:
            status = None if known.lost else known.status
            self._ended[known.execution] = Ended(known.found_at or found_at, status, known.ended_at or NEVER)
            self._ended.move_to_end(known.execution)
        while len(self._ended) > REMEMBERED_COUNT:
            self._ended.popitem(last=False)

    def contradicts(self, row: ExecutionSnapshot, *, asked_at: Micros) -> bool:
        """Return whether a row denies that an execution has ended, or how: once of each, not while a list may lag."""
        ended = self._ended.get(row.id)
        if ended is None or ended.status in {None, row.status}:
            return False
        if not is_terminal(row) and asked_at < ended.at + LIST_LAG_US:
            return False
        self._ended[row.id] = ended._replace(status=None)
        return True

    def found_at(self, executions: Collection[str]) -> dict[str, Micros | None]:
        """Return when a list first showed these executions, `None` if one is unknown as far as memory goes."""
        found: dict[str, Micros | None] = {}
        for each in executions:
            entry, ended = self.entries.get(each), self._ended.get(each)
            found[each] = entry.known.found_at if entry is not None else None if ended is None else ended.found_at
        return found

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


@dataclass(slots=True)
class PipelineStream:
    """A pipeline's own events: the sequence of the last one, and who may write the next."""

    sequence: int
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class ScanTiming:
    """When the scans of one list began (monotonic seconds), and what is to be read next.

    The first page of a scan was asked for at `began_at`, of one that seeks executions at `sought_at`. That it
    `is_wanted` says that somebody asked for a scan which has not begun: then it is next, and follows the one under way
    at once. That one has asked for `pages_since_head` pages since the page on which new rows show. The last scan read
    `whole_pages` of a list that has to be read whole.
    """

    began_at: Monotonic = Monotonic(0.0)
    sought_at: Monotonic = EARLIEST
    is_wanted: bool = False
    pages_since_head: int = 0
    whole_pages: int = 0

    def begin(self, now: Monotonic) -> bool:
        """Note that a scan begins; return whether it seeks executions."""
        self.began_at, self.is_wanted, self.pages_since_head = now, False, 0
        seeks = now - self.sought_at >= SEEK_EVERY_S
        self.sought_at = now if seeks else self.sought_at
        return seeks

    def page_after(self, page: int, *, head: int | None) -> int:
        """Return the page to ask for: that one, or now and then `head`, the one on which new rows show."""
        if head is None or head == page or self.pages_since_head < HEAD_EVERY_PAGES:
            return page
        self.pages_since_head = 0
        return head

    def read_head_next(self) -> None:
        """Have the page on which new rows show read before the next page of a deep scan."""
        self.pages_since_head = HEAD_EVERY_PAGES


@dataclass(slots=True, eq=False)
class PipelineListState(PollItem):
    """One pipeline's list.

    `cursor` says up to where it is known, `stream` are the pipeline's own events; the former was last written at
    `recorded_at` (monotonic seconds). `scan` is the one under way, or the next. `nameless` is a page
    that was read before the pipeline's name was known, and an execution on it that has it; `named` is set then. A
    list that fails answers nobody until `failing_until`. `gaps_emitted` is why the last scans could not be completed,
    where that goes on and was reported: deeper pages are refused, or there is no order.
    """

    weight: ClassVar[float] = LIST_WEIGHT
    any_failure_counts: ClassVar[bool] = True

    watch: Watch
    cursor: Cursor
    stream: PipelineStream
    memory: ListMemory
    scan: Scan = field(init=False)
    rows: PageIndex = field(init=False)
    recorded_at: Monotonic = EARLIEST
    named: bool = False
    nameless: tuple[Reply, str] | None = None
    gaps_emitted: frozenset[GapReason] = frozenset()
    failing_until: Monotonic = EARLIEST
    timing: ScanTiming = field(default_factory=ScanTiming)

    def __post_init__(self) -> None:
        """Begin its first scan, and have its pages cut as the scans learn to."""
        self.scan = Scan(self.memory, self.cursor)
        self.rows = PageIndex(self.memory)

    def known_rows(self, found_at: Mapping[str, Micros]) -> set[str]:
        """Return which rows are known rows, of those that a complete scan found, by when they were first seen here.

        The last complete scan began so long after that that no row was still to come below them.
        """
        return {each for each, at in found_at.items() if at <= self.cursor.complete_at - SETTLED_AFTER_US}

    def works(self) -> None:
        """Note that it answered."""
        self.failures, self.failing_until = None, EARLIEST

    def scan_asked(self, now: Monotonic) -> None:
        """Note that a page is asked for by the scan, which begins with the first that is answered."""
        self.asked_at = now
        if not self.scan.began_at:
            self.scan.seeks = self.timing.begin(now)
        else:
            self.timing.pages_since_head += 1

    def scan_ended(self) -> None:
        """Begin another scan: what was not on the pages of this one has sunk by what it found."""
        self.scan.complete()
        self.rows.scan_ended()
        self.scan = Scan(self.memory, self.cursor)

    def scan_again(self) -> None:
        """Begin another scan, as if this one had not been made."""
        self.scan.break_off()
        self.scan = Scan(self.memory, self.cursor)
