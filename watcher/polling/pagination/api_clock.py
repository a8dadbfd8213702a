"""What time the API's own clock showed, by the dates on the pages of one list. Pure; what follows is for others."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from watcher.domain.execution import ExecutionSnapshot, Status
from watcher.domain.timestamps import NEVER, Micros, from_us, to_us

AHEAD_US = 15_000_000
"""A date may be so far ahead of our clock and be taken for the time that the API's shows."""


def shown_dates(rows: Iterable[ExecutionSnapshot]) -> list[datetime]:
    """Return what of the dates on some rows the API's clock had shown by then, if they are right.

    When one has begun that has not may be a plan.
    """
    return [
        at
        for row in rows
        if (at := row.finished_at or (None if row.status == Status.NEW else row.started_at)) is not None
    ]


class Dates:
    """Dates that were shown, of one page or of several; `now` is our clock when they were."""

    def __init__(self, dates: Sequence[datetime] = (), *, now: Micros = NEVER) -> None:
        self._count = self._come_count = 0
        self._latest_at: Micros | None = None
        self._latest_come_at: Micros | None = None  # of those that have come by our clock
        self.add(dates, now=now)

    def add(self, dates: Sequence[datetime], *, now: Micros) -> None:
        """Take in some more."""
        if not dates:
            return
        ahead_at = from_us(Micros(now + AHEAD_US))
        come = [at for at in dates if at <= ahead_at]
        self._count += len(dates)
        self._come_count += len(come)
        latest_at = to_us(max(dates))
        self._latest_at = latest_at if self._latest_at is None else max(latest_at, self._latest_at)
        if come:
            latest_at = to_us(max(come))
            self._latest_come_at = latest_at if self._latest_come_at is None else max(latest_at, self._latest_come_at)

    @property
    def latest_at(self) -> Micros | None:
        """The latest: when they were shown the API's clock showed no less.

        Dates that are yet to come by our clock say that the API's is ahead if most are; single ones are wrong.
        """
        return self._latest_come_at if 2 * self._come_count > self._count else self._latest_at


class ApiClock:
    """What it showed at least (microseconds): `shown_at` when the last complete scan began, `None` if nobody knows."""

    def __init__(self) -> None:
        self.shown_at: Micros | None = None
        self.begin()

    def begin(self) -> None:
        """Begin another scan."""
        self._first_at: Micros | None = None  # on the first page that had any date
        self._dates = Dates()

    @property
    def latest_at(self) -> Micros | None:
        """The latest date that the scan under way has met."""
        return self._dates.latest_at

    def note(self, rows: Iterable[ExecutionSnapshot], *, now: Micros) -> None:
        """Take in a page of the scan under way; `now` is our clock."""
        self._dates.add(shown_dates(rows), now=now)
        self._first_at = self.latest_at if self._first_at is None else self._first_at

    def scan_ended(self) -> None:
        """Note that the scan is complete, and another one begins."""
        first_at, latest_at = self._first_at, self.latest_at
        if first_at is not None and latest_at is not None and first_at <= latest_at:  # else that date was wrong
            self.shown_at = first_at
        self.begin()
