"""What had ended before a pipeline was watched, by the API's own dates: they are compared with each other.

The API's clock may be days off. Our own only measures how much time went by. Pure, no I/O.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from watcher.models import Cursor, Execution
from watcher.page import begun, dated

SETTLED_AFTER_US = 15_000_000
"""So long after others that began with it a row may come to be seen: what was found since is read again."""


@dataclass(slots=True)
class Beginning:
    """What is seen of a list from its first page on. In memory; what must last is the cursor's `newest_at`.

    What had ended by `ended_by_at`, by the API's clock, had ended when the pipeline began to be watched. `first_at` is
    the latest date on the first page that had any. `empty_count` answers in a row showed nothing, from `empty_from_at`
    on (microseconds, steady).
    """

    ended_by_at: int | None = None
    first_at: int | None = None
    empty_count: int = 0
    empty_from_at: int = 0

    def note(self, rows: Iterable[Execution], *, watched_us: int) -> None:
        """Take in a page, so long after the pipeline began to be watched: the API's clock showed its latest date."""
        latest_at = latest(rows)
        if latest_at is None:
            return
        self.first_at = latest_at if self.first_at is None else self.first_at
        bound = latest_at - watched_us
        self.ended_by_at = bound if self.ended_by_at is None else max(bound, self.ended_by_at)

    def note_empty(self, *, at: int) -> None:
        """Take in that a scan showed nothing."""
        self.empty_from_at = self.empty_from_at if self.empty_count else at
        self.empty_count += 1

    def is_empty(self, *, after: int, at: int) -> bool:
        """Tell whether the list was empty so often, for so long, that nothing can have been there."""
        return self.empty_count >= after and at - self.empty_from_at >= SETTLED_AFTER_US


def latest(rows: Iterable[Execution]) -> int | None:
    """Return the latest date on some rows: when the API gave them its clock showed no less."""
    return max((at for row in rows if (at := dated(row)) is not None), default=None)


def is_new(cursor: Cursor, execution: Execution, *, found_at: int) -> bool:
    """Tell whether a row was not there when its place was read for the first time, and is none that was late by then.

    It began after the newest rows were read, or ended after that while all of the list has been read. By our clock only
    in the first 15 s: unless it began long before, it may then be of one that had ended, and is late to be seen.
    """
    began_at, ended_at = begun(execution), dated(execution)
    if cursor.newest_at is None or began_at is None or ended_at is None:
        return False
    is_settled = found_at - cursor.since_at >= SETTLED_AFTER_US
    if began_at > cursor.newest_at:
        return is_settled or cursor.since_at - began_at >= SETTLED_AFTER_US
    return is_settled and bool(cursor.complete_at) and ended_at > cursor.newest_at


def had_ended(cursor: Cursor, execution: Execution, beginning: Beginning, *, at: int, now: int, told_us: int) -> bool:
    """Tell whether what ended then had ended more than `told_us` before the pipeline was watched.

    That is if the API's dates, or ours, say so. While a place is read for the first time, a date that is yet to come
    says that the API's clock is ahead, so that neither says anything, and it had.
    """
    if at < cursor.since_at - told_us:
        return True
    if beginning.ended_by_at is not None and at <= beginning.ended_by_at - told_us:
        return True
    began_at = begun(execution)
    is_first = cursor.newest_at is None or (not cursor.complete_at and (began_at or 0) <= cursor.newest_at)
    return is_first and not told_us and at > now
