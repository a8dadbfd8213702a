"""The list of one pipeline that is watched whole, in memory: its scan, and the page that should show each execution.

The cursor has the facts that must survive a restart.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from typing import NamedTuple

from watcher.clerk.api import Reply
from watcher.domain.event import GapReason
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot
from watcher.domain.timestamps import EARLIEST, NEVER, Micros, Monotonic
from watcher.domain.transitions import is_terminal
from watcher.domain.watch import Cursor
from watcher.polling.lists.evidence import ListMemory
from watcher.polling.lists.scan import SETTLED_AFTER_US, Scan
from watcher.polling.poll_item import PolledList, PollRules, TrackedExecution

REMEMBERED_COUNT = 2_000
"""The most ended executions that are kept in memory, which saves queries of the store: several pages."""


LIST_LAG_US = 60_000_000
"""The time for which a list may still show an execution as open after its end."""


class Ended(NamedTuple):
    """An execution that has ended: when a list first showed it, its last status, and when its end was seen."""

    found_at: Micros
    status: str | None = None
    at: Micros = NEVER


class PageIndex:
    """The open executions of one pipeline, with the page that should show each of them, and the last ended ones.

    `entries` are the open executions, by id. Each is expected on the page that showed it last. In a list with the
    newest rows first, an entry sinks by the number of rows that were added since. If its page does not show an entry,
    the entry is expected on no page and polled by itself, until more new rows move it to the next page.

    `found_count` is the number of new rows since the last complete scan, without those that arrived during the current
    scan.
    """

    def __init__(self, memory: ListMemory) -> None:
        """Start empty. `memory` knows the number of rows on a page, and the order of the list."""
        self.entries: dict[str, TrackedExecution] = {}
        self._memory = memory
        self._arrived = 0
        self.found_count = self._came_count = 0
        self._noted: set[TrackedExecution] = set()  # the entries that the current scan has shown
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        self._pages: dict[int, dict[TrackedExecution, None]] = {}
        self._page_of: dict[TrackedExecution, int] = {}
        self._laid_out = (0, 0)

    def enter(self, entry: TrackedExecution) -> None:
        """Add an open execution to `entries`."""
        self.entries[entry.known.execution] = entry

    def leave(self, entry: TrackedExecution) -> None:
        """Remove an execution from `entries`. If it has ended, remember its end."""
        del self.entries[entry.known.execution]
        self._noted.discard(entry)
        self._move(entry, None)
        if entry.known.end_seen_at is not None:
            self.remember([entry.known])

    def page_of(self, entry: TrackedExecution) -> int | None:
        """Return the page that should show an entry; `None` if no page should."""
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
        """Begin another scan. With the newest rows first, let the entries sink that the last scan did not show."""
        if self.found_count and self._memory.is_newest_first:
            self._arrived += self.found_count
            for entry in self._noted:
                if entry.position is not None:
                    entry.position -= self.found_count
        self._noted.clear()
        self.found_count, self._came_count = self._came_count, 0

    def unlocated_count(self) -> int:
        """Return how many entries no page should show."""
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
        """Compute the pages of all entries again, if rows were added or the number of rows per page has changed."""
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
        """Remember ended executions. Those that no list has shown before count as found at `found_at`."""
        for known in ended:
            status = None if known.lost else known.status
            self._ended[known.execution] = Ended(known.found_at or found_at, status, known.end_seen_at or NEVER)
            self._ended.move_to_end(known.execution)
        while len(self._ended) > REMEMBERED_COUNT:
            self._ended.popitem(last=False)

    def contradicts(self, row: ExecutionSnapshot, *, asked_at: Micros) -> bool:
        """Return whether a row contradicts the end of its execution. It does so at most once for each execution.

        An open row contradicts the end only from `LIST_LAG_US` after it.
        """
        ended = self._ended.get(row.id)
        if ended is None or ended.status in {None, row.status}:
            return False
        if not is_terminal(row) and asked_at < ended.at + LIST_LAG_US:
            return False
        self._ended[row.id] = ended._replace(status=None)
        return True

    def find_times(self, executions: Collection[str]) -> dict[str, Micros | None]:
        """Return when a list first showed each of these executions; `None` for those that are not in memory."""
        found: dict[str, Micros | None] = {}
        for each in executions:
            entry, ended = self.entries.get(each), self._ended.get(each)
            found[each] = entry.known.found_at if entry is not None else None if ended is None else ended.found_at
        return found

    def find_unknown(self, executions: Collection[str]) -> list[str]:
        """Return the executions that are not in memory, so only the store may know them. Keep the others for longer."""
        for execution in executions:
            if execution in self._ended:
                self._ended.move_to_end(execution)
        return [execution for execution in executions if execution not in self.entries and execution not in self._ended]


SEEK_EVERY_S = 600.0
"""Interval of the scans that read on beyond known rows, for open executions that are on no known page."""

HEAD_EVERY_PAGES = 10
"""The number of pages of a long scan after which the page with new rows is read again."""


@dataclass(slots=True)
class ScanTiming:
    """The times of the scans of one list, and the pages to read out of turn. Times are monotonic seconds.

    `began_at` is when the first page of the last scan was requested, and `sought_at` the same for the last scan that
    sought executions on no known page. `is_wanted` means that an operator has requested a scan that has not begun: it
    goes ahead of all that is due. The current scan has read `pages_since_head` pages since it last read the page with
    new rows. `whole_pages` is the number of answers of the last scan if it had to read the whole list, else 0.
    """

    began_at: Monotonic = Monotonic(0.0)
    sought_at: Monotonic = EARLIEST
    is_wanted: bool = False
    pages_since_head: int = 0
    whole_pages: int = 0

    def begin(self, now: Monotonic) -> bool:
        """Record that a scan begins. Return whether it seeks executions on no known page."""
        self.began_at, self.is_wanted, self.pages_since_head = now, False, 0
        seeks = now - self.sought_at >= SEEK_EVERY_S
        self.sought_at = now if seeks else self.sought_at
        return seeks

    def page_after(self, page: int, *, head: int | None) -> int:
        """Return the page to request: `page`, or from time to time `head`, the page with new rows."""
        if head is None or head == page or self.pages_since_head < HEAD_EVERY_PAGES:
            return page
        self.pages_since_head = 0
        return head

    def read_head_next(self) -> None:
        """Let the page with new rows be requested before the next page of the scan."""
        self.pages_since_head = HEAD_EVERY_PAGES


@dataclass(slots=True, eq=False)
class PipelineListState(PolledList):
    """The list of one pipeline, with its current or next `scan`.

    `cursor` is how far the list was read; it was last written at `recorded_at` (monotonic seconds). `named` means that
    the name of the pipeline is known or was requested. `nameless` is a page that is handled only after a poll for the
    name, and the execution to poll. The list has failed until `failing_until` (monotonic seconds): its executions are
    polled one by one. `gaps_emitted` are the reported gaps that may last over many scans.
    """

    cursor: Cursor
    rules: InitVar[PollRules]
    memory: ListMemory = field(init=False)
    scan: Scan = field(init=False)
    rows: PageIndex = field(init=False)
    recorded_at: Monotonic = EARLIEST
    named: bool = field(init=False)
    nameless: tuple[Reply, str] | None = None
    gaps_emitted: frozenset[GapReason] = frozenset()
    failing_until: Monotonic = EARLIEST
    timing: ScanTiming = field(default_factory=ScanTiming)

    def __post_init__(self, rules: PollRules) -> None:
        """Start the first scan, and an empty page index."""
        limits = (rules.lookback_us, rules.pages_at_most, rules.lost_after, rules.lost_grace_s)
        self.memory, self.named = ListMemory(*limits, total=self.cursor.total), self.watch.name is not None
        self.scan = Scan(self.memory, self.cursor)
        self.rows = PageIndex(self.memory)

    @property
    def is_read(self) -> bool:
        """Whether any scan was ever complete."""
        return bool(self.cursor.complete_at)

    def enter(self, entry: TrackedExecution) -> None:
        """Add an open execution of the pipeline."""
        self.rows.enter(entry)

    def leave(self, entry: TrackedExecution) -> None:
        """Remove an execution that ended, or is no longer watched."""
        self.rows.leave(entry)

    def known_rows(self, found_at: Mapping[str, Micros | None]) -> set[str]:
        """Return the ids of those executions that are known rows.

        `found_at` are the times at which lists first showed the executions. Known rows were found long enough before
        the last complete scan began: no other row is still to appear below them.
        """
        return {each for each, at in found_at.items() if at and at <= self.cursor.complete_at - SETTLED_AFTER_US}

    def note_answer(self) -> None:
        """End the failures of the list, after a success."""
        self.failures, self.failing_until = None, EARLIEST

    def finish_scan(self) -> None:
        """Complete the scan, whose result counts, and start the next one."""
        self.scan.complete()
        self.rows.start_next_scan()
        self.scan = Scan(self.memory, self.cursor)

    def restart_scan(self) -> None:
        """Start another scan, because the result of this one does not count."""
        self.scan.break_off()
        self.scan = Scan(self.memory, self.cursor)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request for one page of a list.

    `unseen` are the executions, by id, that the page should show, less those whose row was already evaluated. They are
    not in the poll queue meanwhile. `scans` marks the next page of the list's scan; other pages are read out of turn.
    """

    listing: PipelineListState
    page: int
    unseen: dict[str, TrackedExecution]
    scans: bool

    @property
    def waits_from(self) -> Monotonic | None:
        """The time of the last scan if this page begins another one; `None` if the time between them does not count.

        First scans do not count: they are long. Refused lists do not count: they are read every 10 minutes only.
        """
        listing = self.listing
        is_counted = self.scans and not listing.scan.began_at and listing.is_read and listing.cursor.refused is None
        return listing.timing.began_at if is_counted else None

    def note_sent(self, now: Monotonic) -> None:
        """Record that the request is sent. A scan begins with its first answer."""
        listing = self.listing
        if self.scans:
            listing.asked_at = now
        if self.scans and listing.scan.began_at:
            listing.timing.pages_since_head += 1
        elif self.scans:
            listing.scan.seeks = listing.timing.begin(now)
