"""What the API's own clock showed, and what had ended by it before a pipeline was watched. Pure, no I/O.

The API's dates are compared with each other, for its clock may be days off. Our own measures how much time went by, and
finds single dates that are yet to come, which say nothing of the API's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from watcher.domain.execution import ExecutionSnapshot, Status
from watcher.domain.timestamps import NEVER, Micros, from_us, to_us
from watcher.domain.watch import Cursor
from watcher.polling.pagination.paging import begun, dated

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


SETTLED_AFTER_US = 15_000_000
"""So long after others that began with it a row may come to be seen: what was found since is read again."""

COMPARED_AFTER_US = 30_000_000
"""So long after a pipeline began to be watched its new rows have shown well enough what the API's clock says."""

SURE_DATES = 3
"""Of fewer dates that are yet to come by our clock one may be wrong, and be most of them."""

BASELINE_US = 600_000_000
"""So long what the API's clock shows is taken to say what it showed when the pipeline began to be watched."""


@dataclass(slots=True)
class ArrivalBaseline:
    """What is seen of a list from its first page on. In memory; what must last is the cursor's `newest_at`.

    What had ended by `ended_by_at`, by the API's clock, had ended when the pipeline began to be watched. `first_at` is
    the latest date on the first page that had any. `empty_count` answers in a row showed nothing, from `empty_from_at`
    on (microseconds, steady). `uncertain` are the dates of ends that only our clock says had come before: it is
    compared with the API's as soon as new rows come. `unproven` are those of which nobody knows. `is_counted`: a
    complete scan saw as many rows as the list said it has. `is_unsure`: `ended_by_at` is by a date that is yet to come,
    and too few others say whether the API's clock is ahead or that date is wrong; `is_corrected`: it was.
    """

    ended_by_at: Micros | None = None
    first_at: Micros | None = None
    empty_count: int = 0
    empty_from_at: Micros = NEVER
    uncertain: dict[str, Micros] = field(default_factory=dict)
    unproven: set[str] = field(default_factory=set)
    is_counted: bool = False
    is_unsure: bool = False
    is_corrected: bool = False
    _is_compared: bool = False
    _shown_at: Micros | None = None

    def note(self, rows: Iterable[ExecutionSnapshot], *, now: Micros, watched_us: int, is_read: bool) -> None:
        """Take in what a page has that is new, so long after the pipeline began to be watched.

        The API's clock showed its latest date. `is_read`: all had been read before. Much later that clock may have been
        set, and it says nothing any more.
        """
        dates = shown_dates(rows)
        latest_at = Dates(dates, now=now).latest_at
        if latest_at is None or watched_us > BASELINE_US:
            return
        is_ahead, is_compared = latest_at > now + AHEAD_US, is_read and watched_us >= SETTLED_AFTER_US
        if self.ended_by_at is None:
            self.is_unsure = is_ahead and len(dates) < SURE_DATES
        elif self.is_unsure and is_compared:
            self.is_unsure, self.is_corrected = False, not is_ahead
            if self.is_corrected:
                self.ended_by_at = self.first_at = self._shown_at = Micros(latest_at - watched_us)
        self._is_compared |= is_compared
        self._shown_at = max(latest_at, self._shown_at or latest_at)
        self.first_at = latest_at if self.first_at is None else self.first_at
        bound = Micros(latest_at - watched_us)
        self.ended_by_at = bound if self.ended_by_at is None else max(bound, self.ended_by_at)

    def note_uncertain(
        self, cursor: Cursor, execution: ExecutionSnapshot, *, found_at: Micros, lookback_us: int
    ) -> None:
        """Note that an end is not reported, though it may be new.

        It shows where a complete scan saw nothing of it: it is new, or was hidden then. Or it came while that had not
        yet read so far down, and only our clock speaks against it.
        """
        at = dated(execution)
        if at is None:
            return
        if cursor.complete_at and found_at - cursor.since_at >= SETTLED_AFTER_US:
            if at >= min(cursor.newest_at or cursor.since_at, cursor.since_at) - lookback_us:
                self.unproven.add(execution.id)
        elif at > self._known_by_at:
            self.uncertain[execution.id] = at

    def compare(self, *, watched_us: int) -> int:
        """Return of how many ends nobody knows whether they were new, once both clocks could be compared."""
        if self._is_compared and watched_us >= COMPARED_AFTER_US:
            latest_at = self._shown_at or NEVER  # what is dated later is wrong, and says nothing
            self.unproven.update(each for each, at in self.uncertain.items() if self._known_by_at < at <= latest_at)
            self.uncertain.clear()
        return len(self.unproven)

    @property
    def _known_by_at(self) -> Micros:
        """The latest time, by the API's clock, by which what had ended was decided; 0 if nobody knows."""
        return NEVER if self.is_unsure else max(self.ended_by_at or NEVER, self.first_at or NEVER)


class FirstSeen(NamedTuple):
    """When a row counts as found, and when that is (microseconds, steady).

    It is seen `in_turn` by the first scan, as that reads on.
    """

    found_at: Micros
    now: Micros
    in_turn: bool = False


def proves_new(cursor: Cursor, arrivals: ArrivalBaseline, *, found_at: Micros, history_us: int) -> bool:
    """Return whether a row is new whatever its dates say: all rows that the list said it has were known before.

    Not in the first 15 s, when others may be late to be seen; nor once what was known may be forgotten.
    """
    return arrivals.is_counted and SETTLED_AFTER_US <= found_at - cursor.since_at < history_us


def had_ended(
    cursor: Cursor, execution: ExecutionSnapshot, arrivals: ArrivalBaseline, *, seen: FirstSeen, lookback_us: int
) -> bool:
    """Return whether an execution that has ended had done so more than `lookback_us` before the pipeline was watched.

    What is new had not. Of the rest the dates say so, by the API's clock or by ours. While part of the list is read
    for the first time, a date that is yet to come says that the API's clock is ahead: ours then says nothing, and it
    had.
    """
    began_at, at = begun(execution), dated(execution)
    if began_at is None or at is None:
        return False
    if _is_new(cursor, began_at=began_at, at=at, seen=seen):
        return False
    if arrivals.ended_by_at is not None and at <= arrivals.ended_by_at - lookback_us:
        return True
    is_read = cursor.found or (
        cursor.newest_at is not None and (bool(cursor.complete_at) or began_at > cursor.newest_at)
    )
    return at < cursor.since_at - lookback_us or (not is_read and not lookback_us and at > seen.now)


def _is_new(cursor: Cursor, *, began_at: Micros, at: Micros, seen: FirstSeen) -> bool:
    """Return whether a row was not there when the list was first read, and is none that was late by then.

    It began after the newest rows were read, or ended after that while all of the list has been read. Not in the first
    15 s, unless it began long before: until then it may be of one that had ended, and is late to be seen; or it is met
    by the first scan as it reads on, and was created before the newest, but waited longer to begin.
    """
    if cursor.newest_at is None:
        return False
    is_settled = seen.found_at - cursor.since_at >= SETTLED_AFTER_US
    if began_at > cursor.newest_at:
        return is_settled or (cursor.since_at - began_at >= SETTLED_AFTER_US and not seen.in_turn)
    return is_settled and bool(cursor.complete_at) and at >= cursor.newest_at
