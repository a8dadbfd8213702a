"""Where the open executions of one pipeline stand in its list, so that one page answers for many. Pure arithmetic."""

from dataclasses import dataclass

from watcher.ordering import Order
from watcher.ports.api import PAGE_ROWS


@dataclass(slots=True, eq=False)
class Tide:
    """How many rows had come by the end of one scan; all places noted during that scan share it."""

    arrivals: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row was when a list last showed it: its index in the whole list, and the tide of then."""

    index: int
    tide: Tide


class Places:
    """Tells where a row is now: newest first it sinks by one for each row that came since, oldest first it stays.

    While the order is unknown the list is taken to be newest first.
    """

    def __init__(self) -> None:
        """Start before the first row."""
        self.order: Order | None = None
        self._tide = Tide(0)

    def place(self, index: int) -> Place:
        """Note the place of a row a page shows now; `index` counts from 0 over the whole list."""
        return Place(index, self._tide)

    def arrived(self, count: int) -> None:
        """Count rows that came, at the end of the scan that found them.

        What was noted during it does not sink: it was above or below them already.
        """
        before, arrivals = self._tide, self._tide.arrivals + count
        self._tide = Tide(arrivals)
        before.arrivals = arrivals

    def index_of(self, place: Place) -> int:
        """Return the index at which the row is to be expected now."""
        sunk = 0 if self.order is Order.OLDEST else self._tide.arrivals - place.tide.arrivals
        return place.index + sunk

    def page_of(self, place: Place) -> int:
        """Return the page on which the row is to be expected now; the first is 1."""
        return self.index_of(place) // PAGE_ROWS + 1
