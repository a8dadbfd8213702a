"""What one account may be asked for: what is late, due, or only growing stale. In memory, no clock of its own.

Which of these goes first the request selector decides.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import ClassVar

from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot
from watcher.domain.timestamps import EARLIEST, NEVER, Micros, Monotonic
from watcher.domain.transitions import Streak
from watcher.domain.watch import Watch
from watcher.polling.pagination.positions import RowPosition

SLACK_STEPS = 16
"""What is due is kept in so many heaps, by how long it may wait: the order of each is that of becoming late, nearly."""

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

    @property
    def is_expected(self) -> bool:
        """Whether it is to be asked for within `max_interval`."""
        return True


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
    steady), of which the store learns lazily: not yet while it is `unflushed`. `position` is where a list showed it
    last; `pending` is a row that says it has ended; until `denied_until` no other such row is believed.
    """

    known: ExecutionRecord
    watch: Watch
    polled_at: Micros = NEVER
    unflushed: bool = False
    recorded: bool = False
    position: RowPosition | None = None
    pending: PendingConfirmation | None = None
    denied_until: Monotonic = Monotonic(0.0)

    @property
    def is_expected(self) -> bool:
        """Whether it is not lost: such a one is polled every ten minutes."""
        return self.known.lost is None


Heap = list[tuple[Monotonic, int, PollItem]]


class PollQueue:
    """Heaps of items: of what is due, of what is growing stale, and of the lists whose scan is under way.

    An item is late once it was last asked for `max_interval_s` ago, and due. One that is taken out is nobody else's
    until it is put back.
    """

    def __init__(self, *, max_interval_s: float) -> None:
        self._max_interval_s = max_interval_s
        self._step_s = max_interval_s / SLACK_STEPS
        self._due: dict[int, Heap] = {}  # by how many steps they may wait
        self._stale: dict[float, Heap] = {}  # by their weight
        self._begun: Heap = []
        self._put_count = 0

    def put(self, item: PollItem, *, due_at: Monotonic, queue: QueueKind = QueueKind.DUE) -> None:
        """Queue an item, or move it if it is queued already.

        What grows `STALE` waits for when nothing is due, but not before `due_at`; of a scan that has `BEGUN` the page
        before was asked for then.
        """
        item.due_at, item.queue = due_at, queue
        self.restore(item)

    def ready(self, now: Monotonic) -> Sequence[PollItem]:
        """Return what is first of each kind, if its time has come: for the three below to choose from."""
        heads = map(_peek, (*self._due.values(), *self._stale.values()))
        return [item for item in heads if item is not None and item.due_at <= now]

    def late(self, ready: Sequence[PollItem], now: Monotonic) -> PollItem | None:
        """Return what was asked for longest ago of what is late, by its weight."""
        late = (item for item in ready if self._late_at(item) <= now)
        return max(late, key=lambda item: item.weight * (now - item.asked_at), default=None)

    def due(self, ready: Sequence[PollItem]) -> PollItem | None:
        """Return what has been due longest."""
        return min((item for item in ready if item.queue is QueueKind.DUE), key=attrgetter("due_at"), default=None)

    def stalest(self, ready: Sequence[PollItem], now: Monotonic) -> PollItem | None:
        """Return what has grown stalest, by its weight."""
        stale = (item for item in ready if item.queue is QueueKind.STALE)
        return max(stale, key=lambda item: item.weight * (now - item.due_at), default=None)

    def begun(self) -> PollItem | None:
        """Return the list whose scan has waited longest for its next page."""
        return _peek(self._begun)

    def take(self, item: PollItem) -> None:
        """Take out this item, due or not."""
        item.queued = False

    def restore(self, item: PollItem) -> None:
        """Put back an item that was taken for nothing."""
        self._put_count += 1
        item.number, item.queued = self._put_count, True
        if item.queue is QueueKind.BEGUN:
            heap = self._begun
        elif item.queue is QueueKind.STALE:
            heap = self._stale.setdefault(item.weight, [])
        else:
            slack_s = item.asked_at + self._max_interval_s - item.due_at
            heap = self._due.setdefault(max(0, int(slack_s / self._step_s)), [])
        heapq.heappush(heap, (item.due_at, item.number, item))

    def peek(self) -> PollItem | None:
        """Return what may be asked for first, due or not."""
        heads = map(_peek, (self._begun, *self._due.values(), *self._stale.values()))
        return min((item for item in heads if item is not None), key=attrgetter("due_at"), default=None)

    def late_s(self, item: PollItem, now: Monotonic) -> float:
        """Return how late it is for an item that is taken now: what grows stale is not due before it is late."""
        return max(0.0, now - (self._late_at(item) if item.queue is QueueKind.STALE else item.due_at))

    def _late_at(self, item: PollItem) -> float:
        return max(item.due_at, item.asked_at + self._max_interval_s)


def _peek(heap: Heap) -> PollItem | None:
    """Return the first item, dropping what was moved or taken."""
    while heap:
        _, number, item = heap[0]
        if item.queued and item.number == number:
            return item
        heapq.heappop(heap)
    return None
