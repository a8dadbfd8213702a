"""Where a list that begins with the oldest ends. Pure; knows no scan and no request."""

from collections.abc import Collection

from watcher.polling.pagination.paging import Paging, ScannedPage

PROBES_AT_MOST = 64
"""So many pages find the end of any list, if it has one: up by doubling, then down by halves."""


class EndSearch:
    """Searches for the last page of a list: up from where it ended last time, then by halves between two bounds.

    An API may show its last page for all that are beyond it, or its first whatever page it is asked for. Then the end
    is the lowest page with those rows; where that is the first nobody knows which of both it is. `is_clamped` says
    that it does so. `last_page` is the page on which new rows show, once that is `found`, and `is_sure` says whether
    nothing is beyond it.
    """

    def __init__(self, length: int, paging: Paging) -> None:
        """Begin where the row after `length` rows would be."""
        self._paging = paging
        self._below = 0  # the highest page that held rows, but for `_low`
        self._low = 0  # the highest page that held rows
        self._shown: frozenset[str] = frozenset()  # these, of `_low`
        self._high: int | None = None  # the lowest that is beyond the end, or shows what the last one does
        self._step = 1
        self._count = 0
        self._empty_page: int | None = None  # the last one that held nothing
        self._asked_beyond = False
        self.page = paging.page_of(length)
        self.found = False
        self.is_clamped = False
        self.last_page: int | None = None
        self.is_sure = False

    @property
    def is_hopeless(self) -> bool:
        """Whether so many pages were read that there is no end."""
        return self._count >= PROBES_AT_MOST

    @property
    def is_first_for_all(self) -> bool:
        """Whether the first page is shown for those after it: there may be more rows, on none of them."""
        return self.found and self.is_clamped and self.page == 1

    def note(self, page: int, ids: Collection[str], *, row_count: int, total: int | None) -> bool:
        """Take in a page that was read and return `found`: `page` is now the last page, or else the next to read.

        `total` may lie: it says where to search, once.
        """
        self._count += 1
        self._take(page, ids, row_count=row_count)
        if row_count and not self.is_clamped and self._paging.ends(page, row_count, total):
            self._high = page + 1
        self.found = self._high is not None and self._high <= self._low + 1
        if self.found:
            self.page = max(1, self._high if self.is_clamped and self._high is not None else self._low)
            self.last_page = self.page
        elif 0 < row_count < self._paging.rows and not self.is_clamped:
            self.page = page + 1  # the last, or pages have fewer rows than was believed
        else:
            self.page = self._next(total)
        return self.found

    def note_empty(self, page: int) -> None:
        """Take in that a page held no row, and was not refused either."""
        self._empty_page = page

    def asks_beyond(self, page: ScannedPage, *, says_more: bool) -> bool:
        """Return whether to ask once more for the page after a full one that seems to be the last.

        What is beyond it was perhaps refused: `says_more` is whether the page says that there is more.
        """
        if self._asked_beyond or self.is_clamped or not says_more or page.row_count < self._paging.rows:
            return False
        self._asked_beyond, self.last_page = True, page.number + 1
        return True

    def settle(self, page: ScannedPage, *, is_uncertain: bool) -> None:
        """Take in the first page that counts: is it the last? It is not if more is said, or may be, to be there."""
        is_last = page.total == self._paging.length(page.number, page.row_count) or self.is_clamped
        is_last |= self._empty_page == page.number + 1 or self._paging.ends(page.number, page.row_count, page.total)
        self.is_sure = is_last and not is_uncertain

    def head_is_full(self) -> None:
        """Note that there is no more room on the last page: what is new shows on the one after it."""
        if self.last_page is not None:
            self.last_page += 1

    def _take(self, page: int, ids: Collection[str], *, row_count: int) -> None:
        """Draw the bounds closer; `page` is between them."""
        if not row_count:
            self._high, self._shown = page, frozenset() if self.is_clamped else self._shown
            self.is_clamped = False
        elif not ids or not self._shown.issuperset(ids):
            if not self.is_clamped:
                self._below, self._shown = self._low, frozenset(ids)
            self._low = page
        elif self.is_clamped:
            self._high = page
        else:
            self._high, self._low, self.is_clamped = self._low, self._below, True

    def _next(self, total: int | None) -> int:
        hinted = self._paging.page_of(total) if total else 0
        if self._step == 1 and self._low < hinted < (self._high or hinted + 1):
            self._step = 2
            return hinted
        step, self._step = self._step, self._step * 2
        if self._high is None:
            return self._low + step
        return (self._low + self._high) // 2 if self._low else max(1, self._high - step)
