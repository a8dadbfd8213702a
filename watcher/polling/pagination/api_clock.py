"""What time the API's own clock showed, by the dates on the pages of one list. Pure; what follows is for others."""

from collections.abc import Iterable

from watcher.domain.models import Execution
from watcher.polling.pagination.arrival_baseline import AHEAD_US, shown_dates


class ApiClock:
    """What it showed at least (microseconds): `shown_at` when the last complete scan began, `None` if nobody knows."""

    def __init__(self) -> None:
        """Begin with nothing shown."""
        self.shown_at: int | None = None
        self.begin()

    def begin(self) -> None:
        """Begin another scan."""
        self._first_at: int | None = None  # on the first page that had any date
        self._count = self._come_count = 0
        self._at = self._come_at = 0  # the latest of all dates, and of those that have come by our clock

    @property
    def latest_at(self) -> int | None:
        """The latest date that the scan under way has met: the rule of `beginning.latest`, over several pages."""
        return (self._come_at if 2 * self._come_count > self._count else self._at) or None

    def note(self, rows: Iterable[Execution], *, now: int) -> None:
        """Take in a page of the scan under way; `now` is our clock."""
        dates = shown_dates(rows)
        if not dates:
            return
        come = [at for at in dates if at <= now + AHEAD_US]
        self._count, self._come_count = self._count + len(dates), self._come_count + len(come)
        self._at, self._come_at = max(self._at, *dates), max(self._come_at, *come, 0)
        self._first_at = self.latest_at if self._first_at is None else self._first_at

    def scan_ended(self) -> None:
        """Note that the scan is complete, and another one begins."""
        first_at, latest_at = self._first_at, self.latest_at
        if first_at is not None and latest_at is not None and first_at <= latest_at:  # else that date was wrong
            self.shown_at = first_at
        self.begin()
