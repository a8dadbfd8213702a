"""The open executions of one account, in the order in which to look at them next. In memory, no clock of its own."""

import heapq
from dataclasses import dataclass

from watcher.models import Known, Watch
from watcher.transitions import Streak


@dataclass(slots=True, eq=False)
class Entry:
    """One open execution. Times are monotonic seconds.

    `due_at` is the next look, `asked_at` the last request, `failure_count` counts poll errors in a row; `streak`
    and `unreadable_since` are what may become a loss. `looked_at` is the end of the last look that counts
    (microseconds, steady), of which the store learns lazily. `number` tells the heap which of its items is meant.
    `unwatched` is set while it is in flight and nobody wants to know any more.
    """

    known: Known
    watch: Watch
    due_at: float = 0.0
    asked_at: float = 0.0
    looked_at: int = 0
    failure_count: int = 0
    streak: Streak | None = None
    unreadable_since: float | None = None
    number: int = 0
    queued: bool = False
    unwatched: bool = False


class Agenda:
    """A heap of entries by due time; an entry that is taken out is nobody else's until it is put back."""

    def __init__(self) -> None:
        """Start empty."""
        self._heap: list[tuple[float, int, Entry]] = []
        self._put_count = 0

    def put(self, entry: Entry, *, due_at: float) -> None:
        """Queue an entry, or move it if it is queued already."""
        self._put_count += 1
        entry.due_at, entry.number, entry.queued = due_at, self._put_count, True
        heapq.heappush(self._heap, (due_at, self._put_count, entry))

    def take_due(self, now: float) -> Entry | None:
        """Take out the entry that has been due longest, if any is due."""
        first = self.peek()
        return self.take(first) if first is not None and first.due_at <= now else None

    def take(self, entry: Entry) -> Entry:
        """Take out this entry, due or not."""
        entry.queued = False
        return entry

    def peek(self) -> Entry | None:
        """Return the entry that is due first, dropping heap items that were moved or taken."""
        heap = self._heap
        while heap:
            _, number, entry = heap[0]
            if entry.queued and entry.number == number:
                return entry
            heapq.heappop(heap)
        return None
