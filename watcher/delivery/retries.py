"""What follows from an attempt: the retry policy, the circuit breaker, and what is counted and logged of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import structlog

from watcher.delivery.sink_state import SinkReporter, SinkState, WorkerDependencies
from watcher.domain.delivery import TOGETHER_COUNT, AttemptRecord, Delivery, DeliveryState
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic
from watcher.runtime.pacing import Jitter, doubling, spread
from watcher.sinks.protocol import SendOutcome, SendResult, WorkerRules
from watcher.store.changes import Trial

REJECTIONS = 5
"""So many refusals of a body in a row, and it will never be taken."""

STEP_SPREAD = 0.2

TOGETHER_CAP_S = 60.0
"""Longest time, from when a group was first due, that `Retry-After` delays its next attempt. Then the schedule alone
counts: the receiver may mean only one event of the group."""

FAILURES_COUNT = 5
"""So many failures in a row open the breaker."""

OPEN_S = 1.0
OPEN_CAP_S = 30.0
NEVER_TRIED_EVERY_S = 1.0

WARNED_EVERY_S = 300.0
"""A sink that takes some and not others is warned of so often at most."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a request ended at that moment (monotonic seconds), and what is written of each of its deliveries.

    Without a `result` nothing was sent: they were postponed or silenced. With `closes_breaker` it was the first
    success after an outage.
    """

    at: Monotonic
    records: Sequence[AttemptRecord]
    result: SendResult | None = None
    closes_breaker: bool = False


def records_of(
    batch: Sequence[Delivery],
    result: SendResult,
    rules: WorkerRules,
    sink: SinkState,
    *,
    at: Micros,
    took_s: float,
    failures_before: int,
    jitter: Jitter,
) -> Sequence[AttemptRecord]:
    """Return what is written of the deliveries of a request that was answered at that moment.

    A group that the receiver did not take comes due together, or goes apart. The request took `took_s`, and the sink
    had failed `failures_before` times in a row before it.
    """
    if result.is_taken:
        taken: list[AttemptRecord] = []
        for each in batch:
            tried = replace(each, attempts=each.attempts + 1, due_at=at, tried_at=at)
            taken.append(AttemptRecord(tried, DeliveryState(result.outcome.value), result.answer))
        return taken
    clock_s, begun_s = sink.clock_s(), sink.clock_s() - took_s
    is_gone, is_refused = result.outcome is SendOutcome.GONE, result.outcome is SendOutcome.REFUSED
    is_incident = batch[0].incident is not None  # which is never split: each attempt is made anew from its state
    if is_incident:
        goes_apart = False
    elif is_refused:
        goes_apart = not result.minimal_left
    else:
        # Something got through since the group failed last, or since it failed first: then the sink has failed less
        # often in a row than the group. The schedule alone leaves a quiet sink too little time between two attempts.
        others_get_through = sink.through_at > batch[0].tried_at or failures_before < batch[0].attempts
        goes_apart = not is_gone and batch[0].attempts + 1 >= TOGETHER_COUNT and others_get_through
    give_up_after_s = inf if rules.give_up_after_s is None else rules.give_up_after_s
    records: list[AttemptRecord] = []
    together_at: Micros | None = None
    for each in batch:
        first_due_at_s = begun_s if each.first_due_at_s is None else each.first_due_at_s
        asked_s = result.retry_after_s
        if len(batch) > 1:
            asked_s = min(asked_s, max(0.0, first_due_at_s + TOGETHER_CAP_S - clock_s))
        state, rejections, wait_s = DeliveryState.WAITING, each.rejections + 1 if is_refused else 0, 0.0
        if is_gone or (goes_apart and len(batch) > 1):  # of these the trouble is that of a few: the others have waited
            rejections = 0
        elif rejections >= REJECTIONS or clock_s - first_due_at_s >= give_up_after_s:
            state = DeliveryState.DEAD
        elif result.minimal_left:
            wait_s = asked_s
        else:
            step_s = rules.schedule_s[min(each.attempts, len(rules.schedule_s) - 1)]
            wait_s = max(spread(step_s, share=STEP_SPREAD, jitter=jitter), asked_s)
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
            group_key=None if goes_apart else each.group_key,
        )
        records.append(AttemptRecord(tried, state, result.answer))
    return records


class AttemptLog:
    """Counts and logs the attempts of one sink: the first failure of a row as a warning; then it is `in_trouble`."""

    def __init__(self, reporter: SinkReporter, deps: WorkerDependencies) -> None:
        """Begin with a sink that takes what it is sent."""
        self.in_trouble = False
        self._sink = deps.store.lease.name
        self._reporter = reporter
        self._deps = deps
        self._quiet_until = EARLIEST

    def settled(self, attempt: Attempt) -> None:
        """Count an attempt once it is settled."""
        if attempt.result is None:
            count = sum(each.state is DeliveryState.SILENCED for each in attempt.records)
            self._deps.metrics.outcomes[DeliveryState.SILENCED].inc(count)
        elif attempt.result.is_taken:
            if self.in_trouble:
                log.info("delivery.recovered", sink=self._sink)
                self.in_trouble = False
            self._deps.metrics.batched.observe(len(attempt.records))
            for each in attempt.records:
                delay_s = (each.delivery.tried_at - each.delivery.recorded_at) / 1e6
                self._deps.metrics.delivered(delay_s, state=each.state)
        else:
            self._reporter.note_remedy(attempt.result)
            self._failed(attempt.result, attempt.records)

    def _failed(self, result: SendResult, records: Sequence[AttemptRecord]) -> None:
        count, tried = len(records), records[0].delivery
        known: dict[str, object] = {"sink": self._sink, "event_id": str(tried.event_id), "type": tried.type}
        known |= {"answer": result.answer, "attempt": tried.attempts, "remedy": result.remedy}
        # in a row; the refusal of a group counts for none of its events
        known |= {"refused": tried.rejections, "count": count if count > 1 else 0}
        known = {name: value for name, value in known.items() if value}
        dead_count = sum(record.state is DeliveryState.DEAD for record in records)
        if dead_count:
            self._reporter.note_dead()
            self._deps.metrics.outcomes[DeliveryState.DEAD].inc(dead_count)
            log.warning("delivery.dead", **known)
        if dead_count == count:
            return
        self._deps.metrics.outcomes["retried"].inc(count - dead_count)
        known["wait_s"] = round((tried.due_at - tried.tried_at) / 1e6, 3)
        now, is_gone = self._deps.clock.monotonic(), result.outcome is SendOutcome.GONE  # `sink.disabled` is logged
        if self.in_trouble or now < self._quiet_until or is_gone:
            log.debug("delivery.failed", **known)
            return
        log.warning("delivery.failed", **known)
        self.in_trouble, self._quiet_until = True, Monotonic(now + WARNED_EVERY_S)


class CircuitBreaker:
    """Open while a sink takes nothing. Moments are monotonic seconds.

    While it `is_open` what is due has to wait, but for one delivery at a time, and `is_trying` while that is under way.
    `failures_count` is that of failures in a row.
    """

    def __init__(self, failures_count: int, *, opens: bool, now: Monotonic) -> None:
        """Go on after these failures since anything got through; a breaker that never `opens` stays closed."""
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
        """Return the moment from which some delivery may be tried while it is open."""
        return min(self._tried_from, self._never_tried_from)

    def trial(self, now: Monotonic) -> Trial | None:
        """Return what may be tried while it is open: what was never tried first, but not more often than its wait."""
        if now >= self._never_tried_from:
            return "never_tried"
        return "tried_longest_ago" if now >= self._tried_from else None

    def note_trial(self, trial: Trial, *, begins: bool, now: Monotonic) -> None:
        """Note that a delivery is tried while it is open, or that there was none for this trial."""
        self.is_trying = begins
        if trial == "never_tried":
            self._never_tried_from = Monotonic(now + NEVER_TRIED_EVERY_S)
        elif not begins:
            self._tried_from = Monotonic(now + OPEN_S)

    def answered(self, outcome: SendOutcome, *, now: Monotonic, waited: bool) -> None:
        """Close when the sink took something, or refused a body, which shows that it works; else count a failure.

        `waited` says that the attempt was a trial which had to wait.
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
        """Let nothing through but one delivery at a time, for longer after each trial that had to wait and failed."""
        self.is_open = True
        self._waits_count += 1
        self._tried_from = Monotonic(now + doubling(self._waits_count, base_s=OPEN_S, cap_s=OPEN_CAP_S))
