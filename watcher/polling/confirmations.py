"""Rows that say an execution has ended, until a GET has said what happened. Pure."""

import heapq
import itertools
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from watcher.domain.execution import ExecutionSnapshot, Status
from watcher.domain.timestamps import EARLIEST, LATEST, Monotonic
from watcher.domain.transitions import is_terminal
from watcher.domain.watch import Details
from watcher.polling.evaluator import Evaluated
from watcher.polling.pagination.paging import dated
from watcher.polling.poll_item import NEVER_TRIED, TrackedExecution

DENIED_FOR_S = 10.0
"""After a GET said that an execution is open its rows make no new request for confirmation for so long."""


Heap = list[tuple[float, int, TrackedExecution]]
"""Those that wait, by some key; the number is that under which one of them waits."""


def selects(details: Details, execution: ExecutionSnapshot) -> bool:
    """Return whether this row needs a confirmation: it has ended, and such ends are to be fetched one by one."""
    if details is Details.NEVER or not is_terminal(execution):
        return False
    return details is Details.ALWAYS or execution.status == Status.FAILED


class ConfirmationOrder:
    """The ends of one pipeline that are to be confirmed: what is confirmed before an older one waits for that.

    Heaps again, for in a storm there are thousands; what left stays in them until it comes first.
    """

    def __init__(self) -> None:
        self._ended_at: dict[TrackedExecution, int] = {}
        self._confirmed: dict[TrackedExecution, Evaluated] = {}
        self._unconfirmed: Heap = []
        self._ready: Heap = []
        self._counter = itertools.count()

    def begin(self, entry: TrackedExecution) -> None:
        """Note that an end is to be confirmed."""
        assert entry.pending is not None
        self._ended_at[entry] = dated(entry.pending.execution) or 0
        self._push(self._unconfirmed, entry)

    def end(self, entry: TrackedExecution) -> None:
        """Note that an end waits no more: it is recorded now, or was denied."""
        self._ended_at.pop(entry, None)
        self._confirmed.pop(entry, None)

    def keeps(self, confirmed: Evaluated) -> bool:
        """Return whether an end must wait for an older one; then it is kept until `released`."""
        entry = confirmed.entry
        ended_at = self._ended_at.get(entry)
        if ended_at is None or confirmed.evaluation.known.ended_at is None or self._first_at() >= ended_at:
            return False
        self._confirmed[entry] = confirmed
        self._push(self._ready, entry)
        return True

    def holds(self, entry: TrackedExecution) -> bool:
        """Return whether that is confirmed and waits."""
        return entry in self._confirmed

    def waiting(self) -> AbstractSet[TrackedExecution]:
        """Return all that is not recorded yet."""
        return frozenset(self._ended_at)

    def all_confirmed(self) -> list[Evaluated]:
        """Return all that are confirmed: nobody asks for their order any more."""
        return list(self._confirmed.values())

    def released(self) -> list[Evaluated]:
        """Return, and let go of, those that wait for no older one any more; they are recorded next."""
        free: list[Evaluated] = []
        first_at = self._first_at()
        while self._ready and self._ready[0][0] <= first_at:
            entry = heapq.heappop(self._ready)[2]
            if (confirmed := self._confirmed.pop(entry, None)) is not None:
                free.append(confirmed)
                self._push(self._unconfirmed, entry)
        return free

    def _first_at(self) -> float:
        """Return when the oldest ended that is not confirmed yet, or not recorded since; infinity if there is none."""
        heap = self._unconfirmed
        while heap and (heap[0][2] not in self._ended_at or heap[0][2] in self._confirmed):
            heapq.heappop(heap)
        return heap[0][0] if heap else float("inf")

    def _push(self, heap: Heap, entry: TrackedExecution) -> None:
        heapq.heappush(heap, (self._ended_at[entry], next(self._counter), entry))


@dataclass(slots=True)
class _PipelineQueue:
    """One pipeline: how many of it wait, whose turn it is among the pipelines, and who may be confirmed now.

    `queued` is the turn that stands in the heap of turns, if it does.
    """

    turn: int
    queued: int | None = None
    count: int = 0
    ready: Heap = field(default_factory=list)


class ConfirmationQueue:
    """Those that wait for a GET to confirm their end: the pipelines by turns, and in each the oldest first.

    All is in heaps: what comes next is found in a few steps, however many wait. One that was let go of stays in them
    until it comes first. `waiting` has the number of each, which tells one that waits again from what it left there;
    `too_late` are those whose turn would come too late.
    """

    def __init__(self, *, in_time_count: float) -> None:
        """Start with nobody. `in_time_count` are the GETs that can be had within the time an end may wait."""
        self._in_time_count = max(1.0, in_time_count)
        self.waiting: dict[TrackedExecution, int] = {}
        self._pipelines: dict[str, _PipelineQueue] = {}
        self._turns: list[tuple[int, str]] = []
        self._retries: Heap = []
        self._expiries: Heap = []
        self.too_late: list[TrackedExecution] = []
        self._counter = itertools.count()

    def add(self, entry: TrackedExecution) -> None:
        """Let one wait for its confirmation, or wait again. One whose first turn comes too late has waited enough."""
        pending = entry.pending
        assert pending is not None
        if pending.retry_at == NEVER_TRIED and self._turn_of_next(pending.pipeline) > self._in_time_count:
            self.too_late.append(entry)
            return
        number = self.waiting[entry] = next(self._counter)
        queue = self._pipelines.setdefault(pending.pipeline, _PipelineQueue(number))
        queue.count += 1
        heapq.heappush(self._expiries, (pending.expires_at, number, entry))
        if pending.retry_at == NEVER_TRIED:
            self._make_ready(entry, number=number)
        else:
            heapq.heappush(self._retries, (pending.retry_at, number, entry))

    def first(self, now: Monotonic) -> TrackedExecution | None:
        """Return the next to confirm."""
        while (waiting := self._peek(self._retries)) is not None and waiting[0] <= now:
            heapq.heappop(self._retries)
            self._make_ready(waiting[2], number=waiting[1])
        return self._first_ready()

    def take(self, entry: TrackedExecution) -> None:
        """Let go of one; its pipeline's next comes after all others'."""
        assert entry.pending is not None
        del self.waiting[entry]
        pipeline = entry.pending.pipeline
        queue = self._pipelines[pipeline]
        queue.count -= 1
        queue.turn = next(self._counter)
        if not queue.count:
            del self._pipelines[pipeline]
        elif queue.ready:
            self._queue_turn(pipeline, queue)

    def expired(self, now: Monotonic) -> list[TrackedExecution]:
        """Return, and let go of, those that have waited too long, or would be before their turn came."""
        expired, self.too_late = self.too_late, []
        while (waiting := self._peek(self._expiries)) is not None and waiting[0] <= now:
            self.take(waiting[2])
            expired.append(waiting[2])
        return expired

    def wanted_at(self) -> Monotonic:
        """Return when the first may be confirmed, infinity while nobody waits."""
        if self._first_ready() is not None:
            return EARLIEST
        waiting = self._peek(self._retries)
        return LATEST if waiting is None else Monotonic(waiting[0])

    def next_expiry_at(self) -> Monotonic:
        """Return when the first has waited too long."""
        if self.too_late:
            return EARLIEST
        waiting = self._peek(self._expiries)
        return LATEST if waiting is None else Monotonic(waiting[0])

    def _make_ready(self, entry: TrackedExecution, *, number: int) -> None:
        assert entry.pending is not None
        queue = self._pipelines[entry.pending.pipeline]
        heapq.heappush(queue.ready, (number, number, entry))
        self._queue_turn(entry.pending.pipeline, queue)

    def _queue_turn(self, pipeline: str, queue: _PipelineQueue) -> None:
        """Let a pipeline have its turn."""
        if queue.queued != queue.turn:
            queue.queued = queue.turn
            heapq.heappush(self._turns, (queue.turn, pipeline))

    def _first_ready(self) -> TrackedExecution | None:
        while self._turns:
            turn, pipeline = self._turns[0]
            queue = self._pipelines.get(pipeline)
            if queue is not None and queue.turn == turn:
                if (waiting := self._peek(queue.ready)) is not None:
                    return waiting[2]
                queue.queued = None
            heapq.heappop(self._turns)
        return None

    def _peek(self, heap: Heap) -> tuple[float, int, TrackedExecution] | None:
        """Return the first who waits still, dropping those before."""
        while heap:
            _, number, entry = heap[0]
            if self.waiting.get(entry) == number:
                return heap[0]
            heapq.heappop(heap)
        return None

    def _turn_of_next(self, pipeline: str) -> int:
        """Return how many GETs later the turn comes of one that is added now."""
        queue = self._pipelines.get(pipeline)
        rank = 1 if queue is None else queue.count + 1
        return rank + sum(min(rank, other.count) for other in self._pipelines.values() if other is not queue)
