"""What one account may be asked for: what is late, due, or only growing stale. In memory, no clock of its own.

Which request answers for it the request selector decides.
"""

import heapq
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot
from watcher.domain.timestamps import EARLIEST, NEVER, Micros, Monotonic
from watcher.domain.transitions import Streak
from watcher.domain.watch import Watch
from watcher.polling.pagination.paging import RowPosition

CONFIRM_WITHIN_S = 30.0
"""An end that cannot be confirmed in this time becomes the status."""

NEVER_TRIED = EARLIEST


class QueueKind(Enum):
    """Why something waits: it is due, it is growing stale, or it is a list whose scan is under way."""

    DUE = "due"
    STALE = "stale"
    BEGUN = "begun"


@dataclass(slots=True, eq=False, kw_only=True)
class PollItem:
    """Something to ask for: an execution, or a pipeline's list. Times are monotonic seconds.

    `due_at` is the next request, or the moment from which one makes sense; `asked_at` was the last. `failure_count`
    counts poll errors in a row; `streak` are refusals that may become a loss. Since `failing_since` it could not be
    read; by then the process had run for `failing_ran_s`. `unwatched` is set while it is in flight and nobody wants to
    know any more. `queue` says why it waits, `number` which of a heap's items is meant.
    """

    due_at: Monotonic = Monotonic(0.0)
    asked_at: Monotonic = Monotonic(0.0)
    failure_count: int = 0
    streak: Streak | None = None
    failing_since: Monotonic | None = None
    failing_ran_s: float = 0.0
    weight: ClassVar[float] = 1.0
    """How many times as fast it grows stale."""

    any_failure_counts: ClassVar[bool] = False
    """Whether every failure but a refusal makes it unreadable in time; else only a body that cannot be read does."""

    number: int = 0
    queued: bool = False
    queue: QueueKind = QueueKind.DUE
    unwatched: bool = False


@dataclass(slots=True)
class PendingConfirmation:
    """A row of a pipeline that says an execution has ended: when its page was asked for, when it was read.

    Both, and `retry_at`, before which no GET is to be tried again, are monotonic seconds.
    """

    pipeline: str
    execution: ExecutionSnapshot
    sent_at: Monotonic
    at: Monotonic
    retry_at: Monotonic = NEVER_TRIED

    @property
    def expires_at(self) -> Monotonic:
        """Return when it need wait no longer; what cannot be written then is tried again later."""
        return max(Monotonic(self.at + CONFIRM_WITHIN_S), self.retry_at)

    def retry_after(self, wait_s: float, *, now: Monotonic) -> None:
        """Wait before another try, but not beyond the time in which the end is to be confirmed."""
        due_at = self.at + CONFIRM_WITHIN_S
        self.retry_at = Monotonic(min(now + wait_s, due_at) if now < due_at else now + wait_s)


@dataclass(slots=True, eq=False)
class TrackedExecution(PollItem):
    """One open execution.

    `recorded` says whether the store has it. `polled_at` is the end of the last poll that counts (microseconds,
    steady), of which the store learns lazily: not yet while it is `unflushed`. `body_hash` is that of the last answer,
    `row` the last row of a list, while all that it led to is written and it would lead to nothing if it came again.
    `position` is where a list showed it last; `pending` is a row that says it has ended; until `denied_until` no other
    such row is believed.
    """

    known: ExecutionRecord
    watch: Watch
    polled_at: Micros = NEVER
    body_hash: int | None = None
    row: ExecutionSnapshot | None = None
    unflushed: bool = False
    recorded: bool = False
    position: RowPosition | None = None
    pending: PendingConfirmation | None = None
    denied_until: Monotonic = Monotonic(0.0)


Heap = list[tuple[Monotonic, int, PollItem]]


class PollQueue:
    """What waits until it is due, in one heap, and what is due, in one of each kind: by when it was last asked for.

    So what is late, last asked for `max_interval_s` ago, is always first in its heap. Lists whose scan is under way
    have a heap of their own. An item that is taken is nobody else's until it is put back. What was moved or taken stays
    in its heap until it comes first there, where its number shows that it is not meant any more.
    """

    def __init__(self, *, max_interval_s: float) -> None:
        """Start empty."""
        self._max_interval_s = max_interval_s
        self._waiting: Heap = []  # by `due_at`
        self._due: dict[tuple[QueueKind, float], Heap] = {}  # of each kind and weight, by `asked_at`
        self._begun: Heap = []  # by `due_at`
        self._put_count = 0
        self._scan_went = False
        self._stale_went = False

    def put(self, item: PollItem, *, due_at: Monotonic, queue: QueueKind = QueueKind.DUE) -> None:
        """Queue an item, or move it if it is queued already.

        What grows `STALE` waits for when nothing is due, but not before `due_at`; of a scan that has `BEGUN` the page
        before was asked for then.
        """
        number = self._put_count = self._put_count + 1
        item.due_at, item.queue, item.number, item.queued = due_at, queue, number, True
        heapq.heappush(self._begun if queue is QueueKind.BEGUN else self._waiting, (due_at, number, item))

    def restore(self, item: PollItem) -> None:
        """Put back an item that was taken for nothing."""
        self.put(item, due_at=item.due_at, queue=item.queue)

    def take(self, *items: PollItem) -> None:
        """Take out these items, due or not."""
        for item in items:
            item.queued = False

    def next(self, now: Monotonic) -> PollItem | None:
        """Return what is to be asked for now.

        A scan under way has every second turn while anything else is due. Of the rest what is late goes first, what was
        asked for longest ago by its weight; then by turns what is due and what has grown stale.
        """
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            _, number, item = heapq.heappop(waiting)
            if item.queued and item.number == number:
                due = self._due.setdefault((item.queue, item.weight), [])
                heapq.heappush(due, (item.asked_at, number, item))
        first: PollItem | None = None
        rank = (False, False, 0.0)
        for due in self._due.values():
            if due and (head := _peek(due)) is not None:
                asked_s = now - head.asked_at
                is_late = asked_s >= self._max_interval_s
                has_turn = not is_late and (head.queue is QueueKind.STALE) is not self._stale_went
                if first is None or (is_late, has_turn, head.weight * asked_s) > rank:
                    first, rank = head, (is_late, has_turn, head.weight * asked_s)
        if self._begun and (first is None or not self._scan_went):
            return _peek(self._begun) or first
        return first

    def goes(self, item: PollItem, now: Monotonic) -> float:
        """Take out who has the turn; return how many seconds late. What grows stale is not due before it is late."""
        self._scan_went = item.queue is QueueKind.BEGUN
        late_at = item.due_at
        if not self._scan_went:
            self._stale_went = item.queue is QueueKind.STALE
            if self._stale_went:
                late_at = max(late_at, Monotonic(item.asked_at + self._max_interval_s))
        item.queued = False
        return max(0.0, now - late_at)

    def peek(self) -> PollItem | None:
        """Return what may be asked for first, due or not."""
        first: PollItem | None = None
        for heap in (self._begun, self._waiting, *self._due.values()):
            if heap and (head := _peek(heap)) is not None and (first is None or head.due_at < first.due_at):
                first = head
        return first


def _peek(heap: Heap) -> PollItem | None:
    """Return the first item, dropping what was moved or taken."""
    while heap:
        _, number, item = heap[0]
        if item.queued and item.number == number:
            return item
        heapq.heappop(heap)
    return None
