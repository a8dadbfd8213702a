"""The list of one pipeline that is watched whole, in memory: its scan, and the page that should show each execution.

The facts that must survive a restart are in the cursor.
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
"""Ended executions that are remembered, so that the store is not asked about them again: several pages."""


LIST_LAG_US = 60_000_000
"""The time for which a list may still show an execution as open after its end."""


class Ended(NamedTuple):
    """An execution that has ended: when a list first showed it, its last status, and when its end was seen."""

    found_at: Micros
    status: str | None = None
    at: Micros = NEVER


class PageIndex:
    """The executions of one pipeline. `entries` are the open ones, by id, each on the page that should show it.

    An execution is expected on the page that showed it last. With the newest rows first it sinks by the rows that were
    added since. If a page does not show it, it is on no page, and polled by itself, until it should be on the next
    page.

    `found_count` counts the new rows since the last complete scan, without those that arrived during the current one.
    """

    def __init__(self, memory: ListMemory) -> None:
        """Start empty. `memory` knows the rows of a page, and the order of the list."""
        self.entries: dict[str, TrackedExecution] = {}
        self._memory = memory
        self._arrived = 0
        self.found_count = self._came_count = 0
        self._noted: set[TrackedExecution] = set()  # those that the current scan has shown
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        self._pages: dict[int, dict[TrackedExecution, None]] = {}
        self._page_of: dict[TrackedExecution, int] = {}
        self._laid_out = (0, 0)

    def enter(self, entry: TrackedExecution) -> None:
        """Add an open execution."""
        self.entries[entry.known.execution] = entry

    def leave(self, entry: TrackedExecution) -> None:
        """Remove an execution. If it has ended, remember that."""
        del self.entries[entry.known.execution]
        self._noted.discard(entry)
        self._move(entry, None)
        if entry.known.ended_at is not None:
            self.remember([entry.known])

    def page_of(self, entry: TrackedExecution) -> int | None:
        """Return the page that should show an entry, `None` if it is unknown."""
        self._lay_out()
        return self._page_of.get(entry)

    def on_page(self, page: int) -> Collection[TrackedExecution]:
        """Return the entries that a page should show."""
        self._lay_out()
        return self._pages.get(page, {}).keys()

    def put(self, entry: TrackedExecution, *, index: int, scanned: bool) -> None:
        """Record the index in the list at which a page showed an entry. `scanned` marks a page of the current scan."""
        entry.position, entry.missed_page = index - self._arrived, None
        if scanned:
            self._noted.add(entry)
        page = self._memory.page_of(index)
        if self._page_of.get(entry) != page:
            self._move(entry, page)

    def miss(self, entry: TrackedExecution, *, page: int) -> None:
        """Record that a page did not show an entry that should be there."""
        if self._page_of.get(entry) == page:
            entry.missed_page = page
            self._move(entry, None)

    def count_new(self, count: int, *, after_scan_began: bool) -> None:
        """Count the new rows of a page: for the current scan, or for the next one if they arrived after it began."""
        if after_scan_began:
            self._came_count += count
        else:
            self.found_count += count

    def start_next_scan(self) -> None:
        """Start with another scan. With the newest rows first, let the entries sink that the last scan did not show."""
        if self.found_count and self._memory.ordering.order is Order.NEWEST:
            self._arrived += self.found_count
            for entry in self._noted:
                if entry.position is not None:
                    entry.position -= self.found_count
        self._noted.clear()
        self.found_count, self._came_count = self._came_count, 0

    def unlocated_count(self) -> int:
        """Return how many entries are on no page."""
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
        """Place all entries on their pages again, if rows were added or the size of a page has changed."""
        laid_out = (self._arrived, self._memory.rows_per_page)
        if laid_out == self._laid_out:
            return
        self._laid_out, self._pages, self._page_of = laid_out, {}, {}
        for entry in self.entries.values():
            if entry.position is not None:
                page = self._memory.page_of(entry.position + self._arrived)
                self._move(entry, None if page == entry.missed_page else page)

    # Ended executions

    def remember(self, ended: Iterable[ExecutionRecord], *, found_at: Micros = NEVER) -> None:
        """Remember ended executions. Those without a time of their own count as found at `found_at`."""
        for known in ended:
            status = None if known.lost else known.status
            self._ended[known.execution] = Ended(known.found_at or found_at, status, known.ended_at or NEVER)
            self._ended.move_to_end(known.execution)
        while len(self._ended) > REMEMBERED_COUNT:
            self._ended.popitem(last=False)

    def contradicts(self, row: ExecutionSnapshot, *, asked_at: Micros) -> bool:
        """Return whether a row contradicts an end: at most once per execution, an open row only after `LIST_LAG_US`."""
        ended = self._ended.get(row.id)
        if ended is None or ended.status in {None, row.status}:
            return False
        if not is_terminal(row) and asked_at < ended.at + LIST_LAG_US:
            return False
        self._ended[row.id] = ended._replace(status=None)
        return True

    def find_times(self, executions: Collection[str]) -> dict[str, Micros | None]:
        """Return when a list first showed these executions, `None` for those that memory does not know."""
        found: dict[str, Micros | None] = {}
        for each in executions:
            entry, ended = self.entries.get(each), self._ended.get(each)
            found[each] = entry.known.found_at if entry is not None else None if ended is None else ended.found_at
        return found

    def find_unknown(self, executions: Collection[str]) -> list[str]:
        """Return the executions that only the store may know. Keep the others in memory for longer."""
        for execution in executions:
            if execution in self._ended:
                self._ended.move_to_end(execution)
        return [execution for execution in executions if execution not in self.entries and execution not in self._ended]


LIST_WEIGHT = 3.0
"""The weight of lists: they are read this many times more often than other items, because they show most ends.

First pages show three quarters of all ends. By `make bench`, with 20 pipelines, 1,000 open executions and 10
requests/s, an end is seen after 4.9 s on average, and after 7.6 s without the weight.
"""

SEEK_EVERY_S = 600.0
"""Interval of the scans that read on beyond known rows, for open executions that are on no known page."""

HEAD_EVERY_PAGES = 10
"""Pages of a long scan after which the page with new rows is read again."""


@dataclass(slots=True)
class PipelineStream:
    """The pipeline's own events: the sequence of the last one, and the lock for writing the next."""

    sequence: int
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class ScanTiming:
    """The times of the scans of one list, and the pages to read out of turn. Times are monotonic seconds.

    The first page of the last scan was requested at `began_at`, of the last scan that seeks executions at `sought_at`.
    `is_wanted` means that an operator has requested a scan that has not begun: it goes ahead of all that is due. The
    current scan has read `pages_since_head` pages since the page with new rows. The last scan took `whole_pages`
    answers if the list had to be read whole.
    """

    began_at: Monotonic = Monotonic(0.0)
    sought_at: Monotonic = EARLIEST
    is_wanted: bool = False
    pages_since_head: int = 0
    whole_pages: int = 0

    def begin(self, now: Monotonic) -> bool:
        """Record that a scan begins. Return whether it seeks executions."""
        self.began_at, self.is_wanted, self.pages_since_head = now, False, 0
        seeks = now - self.sought_at >= SEEK_EVERY_S
        self.sought_at = now if seeks else self.sought_at
        return seeks

    def page_after(self, page: int, *, head: int | None) -> int:
        """Return the page to request: `page`, or now and then `head`, the page with new rows."""
        if head is None or head == page or self.pages_since_head < HEAD_EVERY_PAGES:
            return page
        self.pages_since_head = 0
        return head

    def read_head_next(self) -> None:
        """Let the page with new rows be read before the next page of the scan."""
        self.pages_since_head = HEAD_EVERY_PAGES


@dataclass(slots=True, eq=False)
class PipelineListState(PollItem):
    """The list of one pipeline, with its current or next `scan`.

    `cursor` is how far the list was read; it was last written at `recorded_at` (monotonic seconds). `stream` are the
    pipeline's own events. `named` means that the name of the pipeline is known or was requested. `nameless` is a page
    that waits for the name, with an execution to fetch for it. Until `failing_until` a failing list answers for no
    execution. `gaps_emitted` are the reported gaps that last from scan to scan.
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
        """Start the first scan, and an empty page index."""
        self.scan = Scan(self.memory, self.cursor)
        self.rows = PageIndex(self.memory)

    def known_rows(self, found_at: Mapping[str, Micros]) -> set[str]:
        """Return which of these executions, with the times they were found at, are known rows.

        A complete scan that began long enough after that has found them: no row is still to appear below them.
        """
        return {each for each, at in found_at.items() if at <= self.cursor.complete_at - SETTLED_AFTER_US}

    def note_answer(self) -> None:
        """Record a success."""
        self.failures, self.failing_until = None, EARLIEST

    def note_scan_request(self, now: Monotonic) -> None:
        """Record that the scan requests a page. A scan begins with its first answer."""
        self.asked_at = now
        if not self.scan.began_at:
            self.scan.seeks = self.timing.begin(now)
        else:
            self.timing.pages_since_head += 1

    def finish_scan(self) -> None:
        """Complete the scan and start the next one."""
        self.scan.complete()
        self.rows.start_next_scan()
        self.scan = Scan(self.memory, self.cursor)

    def restart_scan(self) -> None:
        """Start another scan, as if this one had not been made."""
        self.scan.break_off()
        self.scan = Scan(self.memory, self.cursor)
