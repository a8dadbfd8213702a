"""Carries deliveries to the sink and what follows from the answer to the store. Which go when is the worker's."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from watcher.delivery.delivery_queue import DeliveryQueue, StorePausedError, WorkerDependencies
from watcher.delivery.retries import CircuitBreaker, RetryDecision, decide
from watcher.delivery.sink_state import SinkState
from watcher.domain.delivery import TAKEN, Delivery, DeliveryState
from watcher.domain.errors import LeaseExpiredError, OutputClosedError
from watcher.domain.event_ids import group_id
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic
from watcher.sinks.protocol import RETRY_AFTER_CAP_S, SendOutcome, SendResult, Sink, WorkerRules, retry_after_s
from watcher.store.changes import AttemptRecord, AttemptRecords

WARNED_EVERY_S = 300.0
"""A sink that takes some and not others is warned of so often at most."""

GIVE_UP_EVERY_S = 60.0
GIVE_UP_SHARE = 0.05
"""What has waited too long is given up so often, and at least so often within `give_up_after`."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt at one delivery, or at one group, ended at that time (microseconds UTC, steady)."""

    deliveries: Sequence[Delivery]
    result: SendResult
    decision: RetryDecision
    records: Sequence[AttemptRecord]
    at: int


@dataclass(slots=True)
class DeliverySender:
    """Makes the attempts of one worker. What an answer says of the sink itself goes to its breaker and its state."""

    sink: Sink
    rules: WorkerRules
    deps: WorkerDependencies
    queue: DeliveryQueue
    breaker: CircuitBreaker
    sink_state: SinkState
    _in_trouble: bool = False
    _quiet_until: Monotonic = EARLIEST
    _give_up_at: Monotonic = EARLIEST

    async def send(self, batch: Sequence[Delivery], *, waited: bool) -> list[Attempt]:
        """Send once; return how that ended, which is to be settled: nothing if it was not sent, or not in full.

        So it is when the store has lost sight of it, or the lease ran out: then another process sends it.
        `waited` is as for `CircuitBreaker.failed`. Raises what ends the program: `OutputClosedError`.
        """
        begun_s = self.sink_state.clock_s()
        try:
            deliveries = await self.queue.members(batch, keeps_messages=self.rules.keeps_messages)
            if not deliveries:
                return []
            result = await self._send(deliveries)
        except (LeaseExpiredError, StorePausedError):
            return []
        units = [[each] for each in deliveries] if batch[0].group_id is None else [deliveries]
        attempts = [self._attempt(unit, result, begun_s=begun_s) for unit in units]
        self._learn(batch[0], result, waited=waited)
        return attempts

    async def settle(self, attempts: Sequence[Attempt]) -> None:
        """Write how attempts ended, and then say so. Raises as the queue."""
        settled = tuple(record for attempt in attempts for record in attempt.records)
        clock_s, backoff = self.sink_state.clock_s(), self.sink_state.backoff()
        messages = tuple(message for attempt in attempts for message in attempt.result.messages)
        await self.queue.settle(AttemptRecords(self.queue.lease, settled, clock_s, backoff, messages))
        for attempt in attempts:
            self._report(attempt)

    async def give_up(self, *, skip: frozenset[bytes]) -> int:
        """Make dead letters of what was first due too long ago, tried since or not, but for the streams in `skip`.

        Returns how many died; none before it is time.
        """
        after_s, now = self.rules.retry.give_up_after_s, self.deps.clock.monotonic()
        if after_s is None or self.sink_state.disabled or now < self._give_up_at:
            return 0
        self._give_up_at = Monotonic(now + min(GIVE_UP_EVERY_S, after_s * GIVE_UP_SHARE))
        count = await self.queue.give_up(clock_s=self.sink_state.clock_s(), after_s=after_s, skip=skip)
        if count:
            self.deps.metrics.dead(count)
            log.warning("deliveries.died", sink=self.queue.lease.name, count=count, why="give_up_after has passed")
        return count

    async def _send(self, batch: Sequence[Delivery]) -> SendResult:
        try:
            return await self.sink.send(batch)
        except (OutputClosedError, LeaseExpiredError):
            raise
        except Exception as error:  # noqa: BLE001 (one delivery's trouble must not stop the others)
            return self._crashed(batch[0], error)

    def _crashed(self, delivery: Delivery, error: Exception) -> SendResult:
        log.error("delivery.crashed", **self._named(delivery), error=type(error).__name__)  # texts may hold secrets
        return SendResult(SendOutcome.RETRY, "error")

    def _attempt(self, deliveries: Sequence[Delivery], result: SendResult, *, begun_s: float) -> Attempt:
        """Evaluate all of a group alike, by the one that was due last; a group that is refused goes on in halves."""
        at, count = self.deps.clock.steady_us(), len(deliveries)
        first_due_s = max(begun_s if each.first_due_at_s is None else each.first_due_at_s for each in deliveries)
        decision = decide(
            deliveries[0],
            result,
            through_at=self.sink_state.through_at,
            waited_s=self.sink_state.clock_s() - first_due_s,
            rules=self.rules.retry,
            jitter=self.deps.jitter,
            count=count,
        )
        group = deliveries[0].group_id
        parts = [(group, deliveries)]
        is_refused = result.outcome is SendOutcome.REFUSED and not result.minimal_left
        if count > 1 and is_refused and decision.state is DeliveryState.WAITING:
            halves = deliveries[: count // 2], deliveries[count // 2 :]
            parts = [(group_id(each.event_id for each in half), half) for half in halves]
        records = [
            AttemptRecord(
                stream=delivery.stream,
                sequence=delivery.sequence,
                state=decision.state,
                attempts=delivery.attempts + 1,
                due_at=Micros(at + round(decision.wait_s * 1e6)),
                steps=decision.steps,
                rejections=decision.rejections,
                tried_at=at,
                first_due_at_s=first_due_s,
                answer=result.answer,
                group_id=part_id,
            )
            for part_id, part in parts
            for delivery in part
        ]
        return Attempt(deliveries, result, decision, records, at)

    def _learn(self, delivery: Delivery, result: SendResult, *, waited: bool) -> None:
        self.sink_state.answered(result.answer)
        if result.pause_s:
            self.sink_state.pause(min(result.pause_s, RETRY_AFTER_CAP_S))
        match result.outcome:
            case SendOutcome.DELIVERED | SendOutcome.ACCEPTED:
                self.sink_state.got_through()
                self.breaker.works()
            case SendOutcome.REFUSED:
                self.sink_state.tried()
                self.breaker.works()
            case SendOutcome.GONE:
                self.sink_state.gone()
            case _:
                self.sink_state.tried()
                asked_s, now = retry_after_s(result), self.deps.clock.monotonic()
                self.breaker.failed(delivery.event_id, now=now, retry_after_s=asked_s, waited=waited)
                if result.outcome is SendOutcome.BUSY and asked_s:
                    self.sink_state.pause(asked_s)

    def _report(self, attempt: Attempt) -> None:
        """Count it, and log what did not get through: the first of a row as a warning."""
        delivery, result, decision = attempt.deliveries[0], attempt.result, attempt.decision
        count = len(attempt.deliveries)
        if decision.state in TAKEN:
            for each in attempt.deliveries:
                self.deps.metrics.delivered((attempt.at - each.recorded_at) / 1e6, state=decision.state)
            if self._in_trouble:
                log.info("delivery.recovered", sink=self.queue.lease.name)
            self._in_trouble = False
            return
        known = {**self._named(delivery), "answer": result.answer, "attempt": delivery.attempts + 1}
        if count > 1:
            known["count"] = count
        if decision.rejections:
            known["refused"] = decision.rejections  # in a row; refusals of a group count for none of its events
        if result.remedy:
            known["remedy"] = result.remedy
        if decision.state is DeliveryState.DEAD:
            self.deps.metrics.dead(count)
            log.warning("delivery.dead", **known)
            return
        self.deps.metrics.retried(count)
        known["wait_s"] = round(decision.wait_s, 3)
        now, is_gone = self.deps.clock.monotonic(), result.outcome is SendOutcome.GONE  # `sink.disabled` is logged
        if self._in_trouble or now < self._quiet_until or is_gone:
            log.debug("delivery.failed", **known)
            return
        log.warning("delivery.failed", **known)
        self._in_trouble, self._quiet_until = True, Monotonic(now + WARNED_EVERY_S)

    def _named(self, delivery: Delivery) -> dict[str, object]:
        return {"sink": self.queue.lease.name, "event_id": str(delivery.event_id), "type": delivery.type}
