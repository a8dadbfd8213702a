"""What follows from an answer for the deliveries of one request, and what is said of that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from watcher.delivery.retries import RetryDecision, decide
from watcher.domain.delivery import TAKEN, Delivery, DeliveryState
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import SinkMetrics
from watcher.runtime.pacing import Jitter
from watcher.sinks.protocol import RetryRules, SendOutcome, SendResult, retry_after_s
from watcher.store.changes import AttemptRecord

TAKEN_OUTCOMES = {SendOutcome.DELIVERED: DeliveryState.DELIVERED, SendOutcome.ACCEPTED: DeliveryState.ACCEPTED}

TOGETHER_COUNT = 3
"""A group that failed so often goes event by event, if others got through meanwhile."""

TOGETHER_CAP_S = 60.0
"""For no longer does `Retry-After` keep events that go together: one of them may be all that the receiver means."""

WARNED_EVERY_S = 300.0
"""A sink that takes some and not others is warned of so often at most."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a request ended at that time (microseconds UTC, steady), and what is written of each of its deliveries.

    They may be tried again in `wait_s`, as far as they wait.
    """

    batch: Sequence[Delivery]
    result: SendResult
    records: Sequence[AttemptRecord]
    at: Micros
    wait_s: float = 0.0


def taken(batch: Sequence[Delivery], result: SendResult, *, at: Micros) -> Attempt:
    """Return that the receiver has all of it."""
    state = TAKEN_OUTCOMES[result.outcome]
    records = [
        AttemptRecord(
            each.number,
            each.lane,
            state,
            each.attempts + 1,
            at,
            rejections=0,
            tried=True,
            tried_at=at,
            first_due_at_s=None,
            answer=result.answer,
        )
        for each in batch
    ]
    return Attempt(batch, result, records, at)


def failed(
    batch: Sequence[Delivery],
    result: SendResult,
    rules: RetryRules,
    *,
    at: Micros,
    clock_s: float,
    begun_s: float,
    through_at: Micros,
    jitter: Jitter,
) -> Attempt:
    """Return what follows for what the receiver did not take. What is in a group comes due together, or goes apart.

    By the sink's own clock it is `clock_s` now, and was `begun_s` as the request began. Anything last got through at
    `through_at`.
    """
    goes_apart = _goes_apart(batch, result, through_at=through_at)
    if len(batch) > 1:
        result = replace(result, retry_after_s=min(retry_after_s(result), TOGETHER_CAP_S))
    records: list[AttemptRecord] = []
    wait_s: float | None = None
    for each in batch:
        first_due_at_s = begun_s if each.first_due_at_s is None else each.first_due_at_s
        decision = decide(each, result, waited_s=clock_s - first_due_at_s, rules=rules, jitter=jitter)
        if goes_apart and len(batch) > 1:  # the trouble is that of a few: the others have waited long enough
            decision = RetryDecision(DeliveryState.WAITING)
        wait_s = decision.wait_s if wait_s is None else wait_s
        due_s = decision.wait_s if each.group_key is None else wait_s
        records.append(
            AttemptRecord(
                each.number,
                each.lane,
                decision.state,
                each.attempts + 1,
                Micros(at + round(due_s * 1e6)),
                decision.rejections,
                tried=True,
                tried_at=at,
                first_due_at_s=first_due_at_s,
                answer=result.answer,
                group_key=None if goes_apart else each.group_key,
            )
        )
    return Attempt(batch, result, records, at, wait_s or 0.0)


def _goes_apart(batch: Sequence[Delivery], result: SendResult, *, through_at: Micros) -> bool:
    """Return whether a group goes event by event from now on: it was refused, or fails while others get through."""
    if result.outcome is SendOutcome.REFUSED:
        return not result.minimal_left
    oldest, has_failed = batch[0], result.outcome in {SendOutcome.RETRY, SendOutcome.BUSY}
    return has_failed and oldest.attempts + 1 >= TOGETHER_COUNT and through_at > oldest.tried_at


class AttemptLog:
    """Counts the attempts of one sink, and logs what did not get through: the first of a row as a warning."""

    def __init__(self, sink: str, *, clock: Clock, metrics: SinkMetrics, settled: Callable[[Delivery], None]) -> None:
        """Begin with a sink that takes what it is sent. `settled` hears of each delivery that is tried no more."""
        self._sink = sink
        self._clock = clock
        self._metrics = metrics
        self._settled = settled
        self._in_trouble = False
        self._quiet_until = EARLIEST

    def report(self, attempt: Attempt) -> None:
        """Count the deliveries of a request, once it is written how it ended."""
        delivery, result, state, count = attempt.batch[0], attempt.result, attempt.records[0].state, len(attempt.batch)
        if state in TAKEN:
            for each in attempt.batch:
                self._settled(each)
                self._metrics.delivered((attempt.at - each.recorded_at) / 1e6, state=state)
            if self._in_trouble:
                log.info("delivery.recovered", sink=self._sink)
            self._in_trouble = False
            return
        known = {**self._named(delivery), "answer": result.answer, "attempt": delivery.attempts + 1}
        if count > 1:
            known["count"] = count
        if refused := attempt.records[0].rejections:
            known["refused"] = refused  # in a row; the refusal of a group counts for none of its events
        if result.remedy:
            known["remedy"] = result.remedy
        records = zip(attempt.batch, attempt.records, strict=True)
        dead = [each for each, record in records if record.state is DeliveryState.DEAD]
        if dead:
            for each in dead:
                self._settled(each)
            self._metrics.dead(len(dead))
            log.warning("delivery.dead", **known)
        if len(dead) == count:
            return
        self._metrics.retried(count - len(dead))
        known["wait_s"] = round(attempt.wait_s, 3)
        now, is_gone = self._clock.monotonic(), result.outcome is SendOutcome.GONE  # `sink.disabled` is logged
        if self._in_trouble or now < self._quiet_until or is_gone:
            log.debug("delivery.failed", **known)
            return
        log.warning("delivery.failed", **known)
        self._in_trouble, self._quiet_until = True, Monotonic(now + WARNED_EVERY_S)

    def crashed(self, delivery: Delivery, error: Exception) -> None:
        """Log what no sink should raise. Its text may hold secrets."""
        log.error("delivery.crashed", **self._named(delivery), error=type(error).__name__)

    def _named(self, delivery: Delivery) -> dict[str, object]:
        return {"sink": self._sink, "event_id": str(delivery.event_id), "type": delivery.type}
