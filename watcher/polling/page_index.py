"""The executions of one list: which open ones each page should show, and which have ended. Kept as rows come.

Knows no scan and no request.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping

from watcher.domain.timestamps import Micros, Monotonic
from watcher.polling.pagination.positions import PositionEstimator, RowPosition, TraversalStart
from watcher.polling.poll_queue import TrackedExecution

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
