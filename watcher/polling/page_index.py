"""Which open executions each page of a list should show. Kept as rows come, not worked out for each request."""

from collections.abc import Collection

from watcher.polling.pagination.positions import Places
from watcher.polling.poll_queue import Entry

STEP_ROWS = 5
"""After so many rows have come all pages are laid out anew: until then few rows are not where they are expected."""


class Layout:
    """The pages of one list. Who has no place is on none. Times are monotonic seconds."""

    def __init__(self, places: Places) -> None:
        """Start with nobody."""
        self._places = places
        self._pages: dict[int, dict[Entry, None]] = {}
        self._page_of: dict[Entry, int] = {}
        self._step = 0

    def put(self, entry: Entry, *, at: float) -> None:
        """Take in the place of an entry, or that it has none any more."""
        self.drop(entry)
        if entry.place is not None:
            self._add(entry, self._places.page_of(entry.place, at=at))

    def drop(self, entry: Entry) -> None:
        """Forget an entry."""
        page = self._page_of.pop(entry, None)
        if page is not None:
            del self._pages[page][entry]

    def page_of(self, entry: Entry, *, at: float) -> int | None:
        """Return the page that should show an entry."""
        self._keep_up(at)
        return self._page_of.get(entry)

    def on_page(self, page: int, *, at: float) -> Collection[Entry]:
        """Return who should be on that page."""
        self._keep_up(at)
        return self._pages.get(page, {}).keys()

    def _add(self, entry: Entry, page: int) -> None:
        self._page_of[entry] = page
        self._pages.setdefault(page, {})[entry] = None

    def _keep_up(self, at: float) -> None:
        step = round(self._places.come_by(at) / STEP_ROWS)
        if step == self._step:
            return
        self._step, self._pages = step, {}
        for entry in self._page_of:
            assert entry.place is not None  # noqa: S101 (who has none is on no page)
            self._add(entry, self._places.page_of(entry.place, at=at))
