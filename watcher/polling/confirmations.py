"""Rows that say an execution has ended, until a GET has said what happened. Pure."""

import heapq
import itertools
from collections.abc import Set as AbstractSet

from watcher.domain.execution import ExecutionSnapshot, Status
from watcher.domain.timestamps import LATEST, Monotonic
from watcher.domain.transitions import is_terminal
from watcher.domain.watch import Details
from watcher.polling.evaluator import Evaluated
from watcher.polling.list_scan import dated
from watcher.polling.poll_item import NEVER_TRIED, PendingConfirmation, TrackedExecution

DENIED_FOR_S = 10.0
"""After a GET said that an execution is open its rows make no new request for confirmation for so long."""


def selects(details: Details, execution: ExecutionSnapshot) -> bool:
    """Return whether this row needs a confirmation: it has ended, and such ends are to be fetched one by one."""
    if details is Details.NEVER or not is_terminal(execution):
        return False
    return details is Details.ALWAYS or execution.status == Status.FAILED


class ConfirmationOrder:
    """The ends of one pipeline that are to be confirmed: what is `confirmed` before an older one waits for that."""

    def __init__(self) -> None:
        """Start with none."""
        self._ended_at: dict[TrackedExecution, int] = {}
        self.confirmed: dict[TrackedExecution, Evaluated] = {}
        # In a storm there are thousands: what is recorded, or confirmed, stays in the heap until it comes first.
        self._heap: list[tuple[int, int, TrackedExecution]] = []
        self._counter = itertools.count()

    def begin(self, entry: TrackedExecution) -> None:
        """Note that an end is to be confirmed."""
        assert entry.pending is not None
        self._ended_at[entry] = dated(entry.pending.execution) or 0
        heapq.heappush(self._heap, (self._ended_at[entry], next(self._counter), entry))

    def end(self, entry: TrackedExecution) -> None:
        """Note that an end waits no more: it is recorded now, or was denied."""
        self._ended_at.pop(entry, None)
        self.confirmed.pop(entry, None)

    def keeps(self, confirmed: Evaluated) -> bool:
        """Return whether an end must wait for an older one; then it is kept until `released`."""
        ended_at = self._ended_at.get(confirmed.entry)
        if ended_at is None or confirmed.evaluation.known.ended_at is None or self._first_at() >= ended_at:
            return False
        self.confirmed[confirmed.entry] = confirmed
        return True

    def waiting(self) -> AbstractSet[TrackedExecution]:
        """Return all that is not recorded yet."""
        return frozenset(self._ended_at)

    def released(self) -> list[Evaluated]:
        """Return, and let go of, those that wait for no older one any more; they are recorded next."""
        if not self.confirmed:
            return []
        first_at = self._first_at()
        free = [each for each in self.confirmed.values() if self._ended_at[each.entry] <= first_at]
        for each in free:  # what is not recorded yet is still waited for
            del self.confirmed[each.entry]
            heapq.heappush(self._heap, (self._ended_at[each.entry], next(self._counter), each.entry))
        return sorted(free, key=lambda each: self._ended_at[each.entry])

    def _first_at(self) -> float:
        """Return when the oldest ended that is not confirmed yet, or not recorded since; infinity if there is none."""
        heap = self._heap
        while heap and (heap[0][2] not in self._ended_at or heap[0][2] in self.confirmed):
            heapq.heappop(heap)
        return heap[0][0] if heap else float("inf")


class ConfirmationQueue:
    """Those that wait for a GET to confirm their end: a queue for each pipeline, and the pipelines by turns.

    They are `waiting`, by pipeline, whose turn is next first. `too_late` are those whose turn would come too late, so
    no more wait than can be asked for in time.
    """

    def __init__(self, *, in_time_count: float) -> None:
        """Start with nobody. `in_time_count` are the GETs that can be had within the time an end may wait."""
        self._in_time_count = max(1.0, in_time_count)
        self.too_late: list[TrackedExecution] = []
        self.waiting: dict[str, dict[TrackedExecution, PendingConfirmation]] = {}

    def add(self, entry: TrackedExecution) -> None:
        """Let one wait for its confirmation, or wait again. One whose first turn comes too late has waited enough."""
        pending = entry.pending
        assert pending is not None
        if pending.retry_at == NEVER_TRIED and self._turn_of_next(pending.pipeline) > self._in_time_count:
            self.too_late.append(entry)
        else:
            self.waiting.setdefault(pending.pipeline, {})[entry] = pending

    def first(self, now: Monotonic) -> TrackedExecution | None:
        """Return the next to confirm."""
        waiting = (each for queue in self.waiting.values() for each in queue.items())
        return next((entry for entry, pending in waiting if pending.retry_at <= now), None)

    def take(self, entry: TrackedExecution) -> None:
        """Let go of one; its pipeline's next comes after all others'."""
        assert entry.pending is not None
        queue = self.waiting.pop(entry.pending.pipeline)
        del queue[entry]
        if queue:
            self.waiting[entry.pending.pipeline] = queue

    def expired(self, now: Monotonic) -> list[TrackedExecution]:
        """Return, and let go of, those that have waited too long, or would be before their turn came."""
        waiting = (each for queue in self.waiting.values() for each in queue.items())
        expired = [entry for entry, pending in waiting if pending.expires_at <= now]
        for entry in expired:
            self.take(entry)
        too_late, self.too_late = self.too_late, []
        return too_late + expired

    def wanted_at(self) -> Monotonic:
        """Return when the first may be confirmed, infinity while nobody waits."""
        return min((each.retry_at for queue in self.waiting.values() for each in queue.values()), default=LATEST)

    def _turn_of_next(self, pipeline: str) -> int:
        """Return how many GETs later the turn comes of one that is added now."""
        rank = len(self.waiting.get(pipeline, ())) + 1
        return rank + sum(min(rank, len(queue)) for other, queue in self.waiting.items() if other != pipeline)
