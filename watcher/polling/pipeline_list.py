"""The list of one pipeline that is watched whole, as far as it is known. In memory; what must last is in its cursor."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from watcher.clerk.protocol import PageReply
from watcher.domain.models import Cursor, Execution, GapReason, Watch
from watcher.domain.timestamps import to_us
from watcher.polling.page_index import Layout
from watcher.polling.pagination.api_clock import ApiClock
from watcher.polling.pagination.arrival_baseline import SETTLED_AFTER_US, Beginning, latest
from watcher.polling.pagination.paging import dated
from watcher.polling.pagination.positions import Places
from watcher.polling.pagination.sort_order import Order
from watcher.polling.pagination.traversal import Scan
from watcher.polling.poll_queue import Entry, Item

LIST_WEIGHT = 3.0
"""First pages hold three quarters of all ends: read so much more often than others, an end is seen soonest.

Measured by `make bench`: 20 pipelines with 1,000 open executions at 10 requests/s, 7.6 s on average without, 4.9 with.
"""

SEEK_EVERY_S = 600.0
"""So often a scan reads on, beyond what is known, for executions that it does not know the place of."""

REMEMBERED_COUNT = 2_000
"""Ended executions of which is remembered that they are recorded: some pages, so that the store is not asked again."""


HEAD_EVERY_PAGES = 10
"""So often a scan that goes deep has the page read again on which new rows show: they need not wait for its end."""


@dataclass(frozen=True, slots=True)
class Ages:
    """How old the rows of a list were, by their ends, else their beginnings: the earliest and latest (microseconds)."""

    earliest_at: int | None = None
    latest_at: int | None = None

    def explain_emptiness(self, *, since: int, now: int) -> bool:
        """Tell whether an API that forgets by age may have forgotten all of these, and nothing that came `since`.

        What it forgot was at least half as old as what it kept before: it may do so once a day. What came since is
        younger than that.
        """
        if self.earliest_at is None or self.latest_at is None:
            return False
        kept_us = now - self.earliest_at
        return now - since < kept_us and now - self.latest_at >= kept_us / 2


@dataclass(frozen=True, slots=True)
class Doubt:
    """That a list ended too early: so many scans in a row, since then (seconds for which the process ran).

    They met nothing that is known, or fewer rows than it has: it may have shown nothing, or half of it, for once.
    `is_explained` says that what is gone may have grown too old.
    """

    count: int
    since_s: float
    is_explained: bool


@dataclass(slots=True, eq=False)
class Listing(Item):
    """One pipeline's list.

    `cursor` says up to where it is known, `sequence` counts the pipeline's own events; both were last written at
    `recorded_at` (microseconds, steady; 0: long ago). `scan` is the one under way, or the next. `nameless` is a page
    that was read before the pipeline's name was known, and an execution on it that can tell it; `named` is set then. A
    list that fails answers nobody until `failing_until`. `found_count` and `shows_any` are what the scan under way has
    found, and whether it met any row; it began at `began_at` (0: not yet), for its first page was asked at `scanned_at`
    (monotonic seconds). `gaps_told` is why the last scans could not be completed, where that goes on and was told:
    deeper pages are refused, or there is no order. `kept` are the ages of the rows that the last complete scan met: so
    long the API keeps what has ended. `doubt` is there while the last scans ended too early.
    """

    weight: ClassVar[float] = LIST_WEIGHT
    any_failure_counts: ClassVar[bool] = True

    watch: Watch
    cursor: Cursor
    sequence: int
    scan: Scan
    clock: ApiClock = field(init=False)
    places: Places = field(init=False)
    recorded_at: int = 0
    named: bool = False
    nameless: tuple[PageReply, str] | None = None
    began_at: int = 0
    scanned_at: float = 0.0
    kept: Ages = Ages()
    beginning: Beginning = field(default_factory=Beginning)
    doubt: Doubt | None = None
    found_count: int = 0
    shows_any: bool = False
    gaps_told: frozenset[GapReason] = frozenset()
    failing_until: float = float("-inf")
    entries: dict[str, Entry] = field(default_factory=dict)
    _ended: OrderedDict[str, int] = field(default_factory=OrderedDict)
    layout: Layout = field(init=False)
    _earliest_at: int | None = None
    _newest_at: int | None = None
    _came_count: int = 0
    _depth: int = 0
    _seeks: bool = True
    _sought_at: float = float("-inf")

    def __post_init__(self) -> None:
        """Lay out its pages by its places, and share the scan's clock."""
        self.clock = self.scan.clock
        self.places = Places(self.scan.paging)
        self.layout = Layout(self.places)

    @property
    def is_expected(self) -> bool:
        """Whether it is not refused: such a list is asked for every ten minutes."""
        return self.cursor.refused is None

    def is_ground(self, row: Execution, *, found_at: int, now: int) -> bool:
        """Tell whether a row is known ground, by when it was found (microseconds, steady).

        A complete scan has found it, and what may come to be seen late below it was there by then: it was old by the
        API's own clock when that scan began, or scans have been there since.
        """
        if found_at > self.cursor.complete_at:
            return False
        started_at, shown_at = row.started_at, self.clock.shown_at
        if started_at is not None and shown_at is not None and to_us(started_at) + SETTLED_AFTER_US <= shown_at:
            return True
        return found_at + SETTLED_AFTER_US <= now

    def enter(self, entry: Entry) -> None:
        """Count an open execution among those of this pipeline."""
        self.entries[entry.known.execution] = entry

    def leave(self, entry: Entry) -> None:
        """Count it no longer, and remember that it is recorded."""
        del self.entries[entry.known.execution]
        self.layout.drop(entry)
        if entry.known.ended_at is not None:
            self.remember({entry.known.execution: entry.known.found_at})

    def put(self, entry: Entry, *, index: int, at: float, scanned: bool) -> None:
        """Note where a page showed an execution at that time (monotonic seconds); `scanned`: the scan's own page."""
        entry.place = self.places.place(index, at=at, scanned=scanned)
        self.layout.put(entry, at=at)

    def find_astray(self, indexes: Mapping[str, int], *, at: float) -> None:
        """Learn from where a page showed executions how far off they were expected."""
        known = ((self.entries.get(execution), index) for execution, index in indexes.items())
        placed = [(entry.place, index) for entry, index in known if entry is not None and entry.place is not None]
        self.places.found_astray(placed, at=at)

    def miss(self, entry: Entry, *, page: int, at: float) -> None:
        """Note that this page did not show an execution, which may be elsewhere by what the page did show."""
        place = entry.place
        if place is not None and self.places.page_of(place, at=at) == page:
            entry.place = None if place.guessed else self.places.beside(place, at=at)
        self.layout.put(entry, at=at)

    def scan_asked(self, now: float) -> None:
        """Note that a page is asked for by the scan, which begins with the first that is answered."""
        self.asked_at = now
        self._depth += 1
        if not self.began_at:
            self.scanned_at = now
            self.places.scan_begins(now)
            self._seeks = now - self._sought_at >= SEEK_EVERY_S
            self._sought_at = now if self._seeks else self._sought_at

    def found(self, count: int, *, scanned: bool) -> None:
        """Count new rows of a page. Those of a page that is read for its looks came after the scan under way began."""
        if scanned or not self.began_at:
            self.found_count += count
        else:
            self._came_count += count

    def head_due(self) -> int | None:
        """Return the page on which new rows show if it is time to read it again in between."""
        head = self.scan.head
        return head if self._depth >= HEAD_EVERY_PAGES and head != self.scan.page else None

    def head_wanted(self) -> None:
        """Have it read before the scan goes on: the page that is next fails."""
        self._depth = HEAD_EVERY_PAGES

    def head_asked(self) -> None:
        """Note that it is asked for."""
        self._depth = 0

    def met(self, rows: Sequence[Execution], *, now: int) -> None:
        """Take in what a page of the scan shows of the list's age, and of the API's clock, before the scan reads it."""
        self.clock.note(rows, now=now)
        self.shows_any |= bool(rows)
        dates = [at for at in (self._earliest_at, *map(dated, rows)) if at is not None]
        self._earliest_at = min(dates, default=None)

    def head_newest_at(self, rows: Sequence[Execution], *, now: int) -> int | None:
        """Return the latest date where new rows show, once that is read, until it is written; `rows` are the last page.

        Newest first that was the first page, which is where it should be; without an order it may be any. Where the end
        had to be found, and no total proves it, an answer may have been empty for once: that is believed after a while.
        Where no row has begun yet, those further on tell.
        """
        if self._newest_at is None:
            self._newest_at = self._read_newest_at(rows, now=now)
        return self._newest_at if self.cursor.newest_at is None else None

    def _read_newest_at(self, rows: Sequence[Execution], *, now: int) -> int | None:
        if self.cursor.newest_at is not None or not self.shows_any:
            return None
        if self.beginning.is_unsure or not self.scan.saw_newest:
            return None
        is_settled = self.began_at - self.cursor.since_at >= SETTLED_AFTER_US
        if self.scan.order is not Order.NEWEST and not self.scan.is_as_long_as_said and not is_settled:
            return None
        if (self.scan.order is Order.NEWEST or self.beginning.is_corrected) and self.beginning.first_at is not None:
            return self.beginning.first_at
        newest_at = latest(rows, now=now) if self.scan.order is Order.OLDEST else self.clock.latest_at
        return newest_at if newest_at is not None or self.scan.finding is None else 0

    def next_cursor(self, *, name: str | None, newest_at: int | None) -> Cursor:
        """Return the cursor that a scan leaves which ends now; `name` is what the API calls the pipeline."""
        newest_at = self.cursor.newest_at if newest_at is None else newest_at
        return Cursor(self.cursor.since_at, self.began_at, found=self.shows_any, name=name, newest_at=newest_at)

    def scan_ended(self, following: Scan) -> None:
        """Begin another scan: what was not on the pages of this one has sunk by what it found."""
        self.places.scan_ended(self.found_count)
        self.kept, self.doubt = Ages(self._earliest_at, self.clock.latest_at), None
        self.clock.scan_ended()
        self.found_count, self._came_count = self._came_count, 0
        self._begin(following)

    def scan_again(self, following: Scan) -> None:
        """Begin another scan, as if this one had not been made."""
        self.clock.begin()
        self._newest_at = None
        self._begin(following)

    def _begin(self, following: Scan) -> None:
        self._earliest_at = None
        self.scan, self.began_at, self.shows_any, self._depth = following, 0, False, 0

    def sought_count(self) -> int:
        """Return how many open executions the scan is to look for: nobody knows where in the list they are."""
        return sum(entry.place is None for entry in self.entries.values()) if self._seeks else 0

    def remember(self, ended: dict[str, int]) -> None:
        """Remember of ended executions when they were found (microseconds, steady)."""
        for execution, found_at in ended.items():
            self._ended[execution] = found_at
            self._ended.move_to_end(execution)
        while len(self._ended) > REMEMBERED_COUNT:
            self._ended.popitem(last=False)

    def found_at(self, execution: str) -> int | None:
        """Return when a list first showed this execution, `None` if it is a stranger as far as memory goes."""
        entry = self.entries.get(execution)
        return entry.known.found_at if entry is not None else self._ended.get(execution)

    def strangers(self, executions: Collection[str]) -> list[str]:
        """Return those of which only the store may know; what is remembered of the others is not forgotten next."""
        for execution in executions:
            if execution in self._ended:
                self._ended.move_to_end(execution)
        return [execution for execution in executions if execution not in self.entries and execution not in self._ended]
