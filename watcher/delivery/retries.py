"""The consequences of a delivery attempt: the retry policy and the circuit breaker."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from watcher.delivery.sink_state import SinkState, WorkerDependencies
from watcher.domain.delivery import TOGETHER_COUNT, AttemptRecord, Delivery, DeliveryState
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic
from watcher.runtime.pacing import doubling, spread
from watcher.sinks.protocol import SendOutcome, SendResult
from watcher.store.changes import Trial

REJECTIONS = 5
"""The number of refusals in a row (400, 413, 422) after which a delivery is a dead letter."""

STEP_SPREAD = 0.2

TOGETHER_CAP_S = 60.0
"""`Retry-After` delays a group for at most this long after the group was first due: the receiver may mean only one
event of it. After that only the schedule delays the group."""

FAILURES_COUNT = 5
"""The number of failures in a row that opens the circuit breaker."""

OPEN_S = 1.0
OPEN_CAP_S = 30.0
NEVER_TRIED_EVERY_S = 1.0


@dataclass(slots=True, eq=False)
class Request:
    """A request with its deliveries, started at `begun_at`. `trial` is set while the circuit breaker is open."""

    batch: Sequence[Delivery]
    trial: Trial | None
    begun_at: Monotonic


@dataclass(frozen=True, slots=True)
class Unsettled:
    """The outcome of some deliveries, known since `at` (monotonic seconds) and not yet in the store.

    `records` are to be written. `result` is the answer to the request; `None` if no request was sent, because the
    deliveries were postponed or silenced. `closes_breaker` marks the success that closed the circuit breaker.
    """

    at: Monotonic
    records: Sequence[AttemptRecord]
    result: SendResult | None = None
    closes_breaker: bool = False


def records_of(
    request: Request, result: SendResult, deps: WorkerDependencies, sink: SinkState, *, at: Micros, failures_before: int
) -> Sequence[AttemptRecord]:
    """Return the records to write for the deliveries of a request that was answered `at` a time (our steady clock).

    After a failure, the deliveries of a group become due together, unless the group is split. The sink had failed
    `failures_before` times in a row before the request.
    """
    batch, rules = request.batch, deps.rules
    if result.outcome.is_taken:
        taken = [replace(each, attempts=each.attempts + 1, due_at=at, tried_at=at) for each in batch]
        return [AttemptRecord(each, DeliveryState(result.outcome.value), result.answer) for each in taken]
    clock_s, took_s = sink.clock_s(), deps.clock.monotonic() - request.begun_at
    is_gone, is_refused = result.outcome is SendOutcome.GONE, result.outcome is SendOutcome.REFUSED
    is_incident = batch[0].incident is not None
    splits = _splits(batch[0], result, sink, failures_before=failures_before)
    give_up_after_s = inf if rules.give_up_after_s is None else rules.give_up_after_s
    records: list[AttemptRecord] = []
    together_at: Micros | None = None
    for each in batch:
        first_due_at_s = clock_s - took_s if each.first_due_at_s is None else each.first_due_at_s
        asked_s = result.retry_after_s
        if len(batch) > 1:
            asked_s = min(asked_s, max(0.0, first_due_at_s + TOGETHER_CAP_S - clock_s))
        state, rejections, wait_s = DeliveryState.WAITING, each.rejections + 1 if is_refused else 0, 0.0
        if is_gone or (splits and len(batch) > 1):  # the failure may not be about this delivery
            rejections = 0
        elif rejections >= REJECTIONS or clock_s - first_due_at_s >= give_up_after_s:
            state = DeliveryState.DEAD
        elif result.minimal_left:
            wait_s = asked_s
        else:
            step_s = rules.schedule_s[min(each.attempts, len(rules.schedule_s) - 1)]
            wait_s = max(spread(step_s, share=STEP_SPREAD, jitter=deps.jitter), asked_s)
        is_together = is_incident or each.group_key is not None
        due_at = Micros(at + round(wait_s * 1e6))
        if is_together and state is DeliveryState.WAITING:
            due_at = together_at = together_at or due_at
        tried = replace(
            each,
            attempts=each.attempts + 1,
            due_at=due_at,
            tried_at=at,
            rejections=rejections,
            first_due_at_s=first_due_at_s,
            group_key=None if splits else each.group_key,
        )
        records.append(AttemptRecord(tried, state, result.answer))
    return records


def _splits(first: Delivery, result: SendResult, sink: SinkState, *, failures_before: int) -> bool:
    """Return whether a failed group, whose first delivery is `first`, is sent one delivery at a time from now on.

    An incident is never split: each attempt sends the state that the incident has at that time.
    """
    if first.incident is not None or result.outcome is SendOutcome.GONE:
        return False
    if result.outcome is SendOutcome.REFUSED:
        return not result.minimal_left
    # Another delivery succeeded after the last attempt at the group, or after the first one: the sink has then failed
    # fewer times in a row than the group. The second case is for a quiet sink, which may send nothing between two
    # attempts.
    others_get_through = sink.last_success_at > first.tried_at or failures_before < first.attempts
    return first.attempts + 1 >= TOGETHER_COUNT and others_get_through


class CircuitBreaker:
    """The circuit breaker of one sink. Times are monotonic seconds.

    While it `is_open`, one delivery at a time is tried and all others wait. `is_trying` is set while such a trial is in
    flight. `failures_count` is the number of failures in a row.
    """

    def __init__(self, failures_count: int, *, opens: bool, now: Monotonic) -> None:
        """Start after `failures_count` failures in a row. If `opens` is false, the breaker stays closed for ever."""
        self.is_open = False
        self.is_trying = False
        self._opens = opens
        self.failures_count = failures_count
        self._waits_count = 0
        self._tried_from = EARLIEST
        self._never_tried_from = EARLIEST
        if opens and failures_count >= FAILURES_COUNT:
            self._open(now)

    def trial_at(self) -> Monotonic:
        """Return when the next trial may be sent while the breaker is open."""
        return min(self._tried_from, self._never_tried_from)

    def trial(self, now: Monotonic) -> Trial | None:
        """Return which delivery may be tried now, while the breaker is open; `None` if none may.

        A delivery that was never tried goes first, at most one per second.
        """
        if now >= self._never_tried_from:
            return "never_tried"
        return "tried_longest_ago" if now >= self._tried_from else None

    def note_trial(self, trial: Trial, *, begins: bool, now: Monotonic) -> None:
        """Note that a trial `begins`, or that the store had no delivery for it."""
        self.is_trying = begins
        if trial == "never_tried":
            self._never_tried_from = Monotonic(now + NEVER_TRIED_EVERY_S)
        elif not begins:
            self._tried_from = Monotonic(now + OPEN_S)

    def note_answer(self, outcome: SendOutcome, *, now: Monotonic, waited: bool) -> None:
        """Close the breaker after a success or a refused body: both show that the sink works. Else count a failure.

        A 410 changes nothing. `waited` marks the trial of a delivery that was tried before. While the breaker is open,
        only the failure of such a trial makes the next one wait longer.
        """
        if outcome in {SendOutcome.DELIVERED, SendOutcome.ACCEPTED, SendOutcome.REFUSED}:
            self.is_open = False
            self.failures_count = self._waits_count = 0
        elif outcome is not SendOutcome.GONE:
            self.failures_count += 1
            is_row = self._opens and self.failures_count >= FAILURES_COUNT
            if waited if self.is_open else is_row:
                self._open(now)

    def _open(self, now: Monotonic) -> None:
        """Open the breaker, or keep it open. The next trial of a tried delivery waits twice as long, up to 30 s."""
        self.is_open = True
        self._waits_count += 1
        self._tried_from = Monotonic(now + doubling(self._waits_count, base_s=OPEN_S, cap_s=OPEN_CAP_S))
