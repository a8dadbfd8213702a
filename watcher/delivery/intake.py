"""The intake of one sink: deliveries that are ready to be sent, and when to take more of them from the store."""

from collections import deque
from collections.abc import Sequence
from math import inf

from watcher.delivery.in_flight import CONCURRENCY, InFlight
from watcher.delivery.retries import CircuitBreaker
from watcher.delivery.sink_state import WorkerDependencies
from watcher.domain.delivery import Delivery
from watcher.domain.timestamps import Micros
from watcher.store.changes import Take, Taken, Trial

TAKEN_COUNT = 256
"""Most requests, each a delivery or a group, that are taken from the store at once; or those of `TAKEN_FOR_S`."""

TAKEN_FOR_S = 10.0


class Intake:
    """What one sink may be sent next, and what it may take from the store.

    `ready` are batches that were taken and not begun; while the breaker is open, they are for its `trial`. `is_unread`
    says that the store may have something due that was not read, `next_due_at` when the next of what was read is due.
    """

    def __init__(self, breaker: CircuitBreaker, deps: WorkerDependencies) -> None:
        """Begin with nothing read."""
        self.ready: deque[Sequence[Delivery]] = deque()
        self.is_unread = True
        self.next_due_at: Micros | None = None
        self.trial: Trial | None = None
        self._breaker = breaker
        self._deps = deps
        self._count = round(min(TAKEN_COUNT, max(CONCURRENCY, deps.rules.rate_per_s * TAKEN_FOR_S)))

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, as far as anybody knows."""
        return not (self.ready or self.is_unread) and self.next_due_at is None

    @property
    def has_room(self) -> bool:
        """Whether so few are ready that more may be taken."""
        return len(self.ready) < CONCURRENCY

    def due_s(self) -> float:
        """Return in how many seconds something may be due that is to be taken; infinity if nothing waits."""
        if self.is_unread:
            return 0.0
        return inf if self.next_due_at is None else (self.next_due_at - self._deps.clock.steady_us()) / 1e6

    def request(self, in_flight: InFlight, *, frees: bool) -> Take | None:
        """Return what to take now, if there is room for it and something may be due.

        Something may if this turn `frees` it, or where other replicas record, too.
        """
        trial = None
        if self._breaker.is_open and not (self._breaker.is_trying or self.ready):
            trial = self._breaker.trial(self._deps.clock.monotonic())
        is_due = frees or self.due_s() <= 0 or not (self._deps.store.exclusive or self.ready)
        if trial is None and (self._breaker.is_open or not (is_due and self.has_room)):
            return None
        rules = self._deps.rules
        return Take(
            now=self._deps.clock.steady_us(),
            count=1 if trial else self._count,
            skip=in_flight.going_keys(self.ready),
            group_count=1 if rules.group is None else rules.group.max_count,
            trial=trial,
            with_messages=rules.keeps_messages,
            incidents=rules.incidents,
            defers_openings=rules.after_s > 0,
        )

    def next_batch(self, count: int) -> Sequence[Delivery]:
        """Return what goes next: one batch, or as many as go together in `count` deliveries.

        A delivery that failed before goes alone, or with its group.
        """
        batch = list(self.ready.popleft())
        while len(batch) < count and self.ready and not (batch[0].attempts or self.ready[0][0].attempts):
            batch += self.ready.popleft()
        return batch

    def take_in(self, taken: Taken, request: Take) -> None:
        """Have ready what was taken."""
        self.ready.extend(taken.batches)
        self.trial, self.next_due_at = request.trial, taken.next_due_at
        if request.trial is None:
            self.is_unread |= len(taken.batches) == request.count
            return
        self.is_unread |= bool(taken.batches) or request.trial == "never_tried"  # it reads a part of what waits
        if not taken.batches:
            self._breaker.note_trial(request.trial, begins=False, now=self._deps.clock.monotonic())

    def give_back(self) -> None:
        """Leave what is ready, or was to be taken, to be read again."""
        self.is_unread = True
        self.ready.clear()
