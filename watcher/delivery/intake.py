"""The intake of one sink: the deliveries that are ready to be sent, and when to take more from the store."""

from collections import deque
from collections.abc import Sequence

from watcher.delivery.in_flight import CONCURRENCY, InFlight
from watcher.delivery.retries import CircuitBreaker
from watcher.delivery.sink_state import WorkerDependencies
from watcher.domain.delivery import Delivery
from watcher.domain.routing import messages_of
from watcher.domain.timestamps import NEVER
from watcher.store.changes import Take, Taken, Trial

TAKEN_COUNT = 256
TAKEN_FOR_S = 10.0
"""The most batches that are taken from the store at once: as many as the rate limit allows in 10 s, but at least 16 and
at most 256. A batch is one delivery or one group."""

NOW = NEVER
"""A value of `due_at` that lies in the past: deliveries may be due at once."""


class Intake:
    """The deliveries that one sink may send next, and the rule of when to take more of them from the store.

    `ready` are the batches that were taken and not started. If they were taken while the circuit breaker was open,
    `trial` is how they were chosen. `due_at` is when more deliveries may be due in the store (microseconds UTC,
    steady): `NOW` if some may be due already, infinity if none is pending.
    """

    def __init__(self, breaker: CircuitBreaker, deps: WorkerDependencies) -> None:
        """Start without deliveries."""
        self.ready: deque[Sequence[Delivery]] = deque()
        self.due_at: float = NOW
        self.trial: Trial | None = None
        self._breaker = breaker
        self._deps = deps
        self._count = round(min(TAKEN_COUNT, max(CONCURRENCY, deps.rules.rate_per_s * TAKEN_FOR_S)))

    def request(self, in_flight: InFlight, *, frees_some: bool) -> Take | None:
        """Return the request for the deliveries to take now; `None` if enough are ready or none may be due.

        More deliveries may be due if `due_at` has passed or if this turn `frees_some`; where other replicas write to
        the store, also whenever none is ready. While the circuit breaker is open, only the delivery of a trial is
        taken.
        """
        now = self._deps.clock.steady_us()
        # A trial goes by no due time: a delivery that was never tried is not among those that the last one read.
        trial = None
        if self._breaker.is_open and not (self._breaker.is_trying or self.ready):
            trial = self._breaker.trial(self._deps.clock.monotonic())
        is_due = frees_some or self.due_at <= now or not (self._deps.store.exclusive or self.ready)
        if trial is None and (self._breaker.is_open or not is_due or len(self.ready) >= CONCURRENCY):
            return None
        rules = self._deps.rules
        groups = [each for each in (rules.group, rules.problem_group) if each is not None]
        return Take(
            now=now,
            count=1 if trial else self._count,
            skip=in_flight.sending_keys(self.ready),
            group_count=max((each.max_count for each in groups), default=1),
            trial=trial,
            with_messages=rules.keeps_messages,
            incidents=rules.incidents,
            after_s=rules.after_s,
            covers=rules.covers,
        )

    def next_batch(self, count: int) -> Sequence[Delivery]:
        """Remove and return the deliveries of the next request: one batch, or several with at most `count` deliveries.

        A batch that failed before is sent alone.
        """
        batch = list(self.ready.popleft())
        while len(batch) < count and self.ready and not (batch[0].attempts or self.ready[0][0].attempts):
            batch += self.ready.popleft()
        return batch

    def take_in(self, taken: Taken, request: Take) -> None:
        """Add the deliveries that the store returned for a request."""
        batches = taken.batches
        if self._deps.rules.problem_group is not None:
            batches = [message for batch in batches for message in messages_of(batch)]
        if request.trial is not None and len(batches) > 1:  # the message of the delivery that the trial is for
            is_other = request.trial == "never_tried"
            batches = [
                min(
                    batches,
                    key=lambda each: min((bool(it.attempts) is is_other, it.tried_at, it.due_at) for it in each),
                )
            ]
        self.ready.extend(batches)
        self.trial = request.trial
        if taken.next_due_at is not None:
            self.due_at = min(self.due_at, taken.next_due_at)
        # More may be due: `count` batches were taken, or this trial read only deliveries that were never tried.
        if len(taken.batches) == request.count or request.trial == "never_tried":
            self.due_at = NOW
        if request.trial is not None and not taken.batches:
            self._breaker.note_trial(request.trial, begins=False, now=self._deps.clock.monotonic())

    def give_back(self) -> None:
        """Forget the ready deliveries, so that they are taken from the store again."""
        self.due_at = NOW
        self.ready.clear()
