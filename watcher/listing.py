"""The list of one pipeline that is watched whole, as far as it is known. In memory; what must last is in its cursor."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from watcher.agenda import Entry, Item
from watcher.models import Cursor, Watch
from watcher.places import Places
from watcher.scan import Scan

REMEMBERED_COUNT = 2_000
"""Ended executions of which is remembered that they are recorded: some pages, so that the store is not asked again."""


@dataclass(slots=True, eq=False)
class Listing(Item):
    """One pipeline's list.

    `cursor` says up to where it is known, `sequence` counts the pipeline's own events; both were last written at
    `recorded_at` (microseconds, steady; 0: never). `last_found_at` is when something was last found. `scan` is the
    one under way, or the next. `name_from` is an execution that can tell the pipeline's name, `named` is set once
    it was asked. Until `failing_until` a list that failed answers nobody. `found_count` and
    `shows_any` are what the scan under way has found, and whether it met any row.
    """

    watch: Watch
    cursor: Cursor
    sequence: int
    scan: Scan
    places: Places = field(default_factory=Places)
    recorded_at: int = 0
    named: bool = False
    name_from: str | None = None
    last_found_at: int = 0
    found_count: int = 0
    shows_any: bool = False
    failing_until: float = float("-inf")
    entries: dict[str, Entry] = field(default_factory=dict)
    _ended: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _pages: dict[int, list[Entry]] | None = None

    def enter(self, entry: Entry) -> None:
        """Count an open execution among those of this pipeline."""
        self.entries[entry.known.execution] = entry
        self._pages = None

    def leave(self, entry: Entry) -> None:
        """Count it no longer, and remember that it is recorded."""
        del self.entries[entry.known.execution]
        self._pages = None
        if entry.known.ended_at is not None:
            self.remember({entry.known.execution: entry.known.found_at})

    def put(self, entry: Entry, *, index: int | None) -> None:
        """Note where the list showed an execution, `None` where it was not where it should be."""
        entry.place = None if index is None else self.places.place(index)
        self._pages = None

    def on_page(self, page: int) -> Sequence[Entry]:
        """Return the open executions that page should show."""
        if self._pages is None:
            self._pages = {}
            for entry in self.entries.values():
                if entry.place is not None:
                    self._pages.setdefault(self.places.page_of(entry.place), []).append(entry)
        return self._pages.get(page, ())

    def scan_ended(self, following: Scan) -> None:
        """Begin another scan: what was not on the pages of this one has sunk by what it found."""
        self.places.arrived(self.found_count)
        self._pages = None
        self.scan, self.found_count, self.shows_any = following, 0, False

    def unplaced_count(self) -> int:
        """Return how many open executions no list has shown yet, or not where they should be."""
        return sum(entry.place is None for entry in self.entries.values())

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
        """Return those of which only the store may know."""
        return [execution for execution in executions if execution not in self.entries and execution not in self._ended]
