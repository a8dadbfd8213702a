"""The known rows that one scan meets, and whether they prove that all above was seen. No I/O.

It knows rows by their ids and order by the `Ordering`; which page to read is the scan's.
"""

from collections.abc import Collection, Sequence

from watcher.polling.pagination.paging import ScannedPage
from watcher.polling.pagination.sort_order import Ordering

TOP_ROWS = 50
"""So many of the rows that a scan met first the next one searches for: some of them may be deleted by then."""

ORDERED_ROWS = 5
"""So many rows do not stand in the same order by chance."""


class KnownRows:
    """What a scan has met of what complete scans have found.

    `top` are the ids of the rows that the last complete scan met first, if this process made one: all that is new
    stands above them, while the list is as it was. Where they are not met among the known rows, the list has turned
    over, or what was read is not the top of it.
    """

    def __init__(self, ordering: Ordering, *, top: Sequence[str]) -> None:
        self._ordering = ordering
        self._top_before = tuple(top)
        self._ranks = {row: rank for rank, row in enumerate(top)}
        self._top: dict[str, None] = {}
        self._meets_top = False
        self._met: list[int | None] = []  # where the first known rows that it met stand in the top, if they do
        self._is_on = False
        self.meets_known = False
        self.is_reached = False
        self.new_count = 0

    def begin_anew(self) -> None:
        """Begin at the other end of the list: who was first there is of no use."""
        self._top_before, self._ranks, self._top = (), {}, {}
        self._met = []
        self._meets_top = self._is_on = self.meets_known = self.is_reached = False

    def count(self, page: ScannedPage, unseen: Collection[str]) -> None:
        """Count what is new of what a page shows for the first time."""
        self.new_count += len(set(unseen).difference(page.known_rows, page.unsettled))

    def touch(self, page: ScannedPage) -> None:
        """Take in a page that is read for the second time."""
        self._is_on |= page.has_known_rows
        self.meets_known |= page.is_known

    def meet(self, page: ScannedPage) -> None:
        """Take in a page in its turn.

        A page that holds known rows but does not end on one leads on to the next: its last rows were late to be seen,
        or never asked for. A page without any then is beyond it.
        """
        was_on, self._is_on = self._is_on, self._is_on or page.has_known_rows
        self.meets_known |= page.is_known
        ends_on_known_row = bool(page.rows) and page.rows[-1].id in page.known_rows
        self.is_reached = ends_on_known_row or (was_on and not page.has_known_rows)
        self._meets_top |= not self._ranks.keys().isdisjoint([row.id for row in page.rows])
        ranks = [self._ranks.get(row.id) for row in page.rows if row.id in page.known_rows]
        self._met = (self._met + ranks)[:ORDERED_ROWS]
        if len(self._top) < TOP_ROWS:
            self._top |= dict.fromkeys([row.id for row in page.rows])

    @property
    def is_proof(self) -> bool:
        """Whether nothing new can be below the known rows that are reached.

        Where few dates are shown the top has to be met row by row, but for what is deleted by now. Else it is enough to
        have met any of it, and if nothing new was met above, that may have been an old page for once.
        """
        if self._ordering.order is None or self._ordering.is_uncertain:
            return False
        if not self._ordering.is_clear:
            located = [rank for rank in self._met if rank is not None]
            return bool(located) and len(located) >= min(ORDERED_ROWS, len(self._ranks)) and located == sorted(located)
        return self._meets_top or not (self._ranks and self.new_count)

    def top(self) -> tuple[str, ...]:
        """Return the rows that the next scan is to meet: where this one met only old ones, those that were first."""
        if self._ranks and not self._meets_top and not self.new_count:
            return self._top_before
        before = self._top_before if self._meets_top else ()
        return tuple(dict.fromkeys((*self._top, *before)))[:TOP_ROWS]
