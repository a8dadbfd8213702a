"""Carries deliveries to the sink and what follows from the answer to the store. Which go when is the lane's."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from watcher.delivery.circuit_breaker import CircuitBreaker
from watcher.delivery.delivery_queue import LaneStore
from watcher.delivery.retry_policy import Conclusion, conclude, retry_after_s
from watcher.delivery.sink_state import Standing
from watcher.delivery.sinks.protocol import Receipt, RetryRules, Sink, Verdict
from watcher.domain.errors import OutputClosedError
from watcher.domain.models import Delivery, DeliveryState
from watcher.runtime.backoff import Jitter
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import SinkMetrics
from watcher.store.protocol import Settlement, Settlements

WARNED_EVERY_S = 300.0
"""A sink that takes some and not others is warned of so often at most."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt at one delivery ended. `delay_s` is the time from its recording to the answer."""

    delivery: Delivery
    receipt: Receipt
    conclusion: Conclusion
    settlement: Settlement
    delay_s: float


@dataclass(slots=True)
class Courier:
    """Makes the attempts of one lane. What an answer says of the sink itself goes to its breaker and its standing."""

    sink: Sink
    store: LaneStore
    breaker: CircuitBreaker
    standing: Standing
    retry: RetryRules
    clock: Clock
    jitter: Jitter
    metrics: SinkMetrics
    _in_trouble: bool = False
    _quiet_until: float = float("-inf")

    async def send(self, batch: Sequence[Delivery], *, waited: bool) -> list[Attempt]:
        """Send once; return how that ended, which is to be settled. `waited` is as for `CircuitBreaker.failed`.

        Raises what ends the program: `OutputClosedError`.
        """
        begun_s = self.standing.clock_s()
        receipt = await self._send(batch)
        attempts = [self._attempt(delivery, receipt, begun_s=begun_s) for delivery in batch]
        self._learn(batch[0], receipt, waited=waited)
        return attempts

    async def settle(self, attempts: Sequence[Attempt]) -> bool:
        """Write how attempts ended, and then say so; return whether that is recorded.

        Raises what ends the program: `OwnershipLostError`, `StoreUnusableError`.
        """
        settled = tuple(attempt.settlement for attempt in attempts)
        clock_s, strain = self.standing.clock_s(), self.standing.strain()
        recorded = await self.store.settle(Settlements(self.store.lease, settled, clock_s, strain))
        if recorded:
            for attempt in attempts:
                self._report(attempt)
                self._count(attempt)
        return recorded

    async def _send(self, batch: Sequence[Delivery]) -> Receipt:
        try:
            return await self.sink.send(batch)
        except OutputClosedError:
            raise
        except Exception as error:  # noqa: BLE001 (one delivery's trouble must not stop the others)
            name = type(error).__name__
            log.error("delivery.crashed", **self._named(batch[0]), error=name)  # noqa: TRY400 (texts may hold secrets)
            return Receipt(Verdict.RETRY, "error")

    def _attempt(self, delivery: Delivery, receipt: Receipt, *, begun_s: float) -> Attempt:
        at = self.clock.steady_us()
        first_due_s = begun_s if delivery.first_due_at_s is None else delivery.first_due_at_s
        conclusion = conclude(
            delivery,
            receipt,
            through_at=self.standing.through_at,
            waited_s=self.standing.clock_s() - first_due_s,
            rules=self.retry,
            jitter=self.jitter,
        )
        settlement = Settlement(
            stream=delivery.stream,
            sequence=delivery.sequence,
            state=conclusion.state,
            attempts=delivery.attempts + 1,
            due_at=at + round(conclusion.wait_s * 1e6),
            steps=conclusion.steps,
            rejections=conclusion.rejections,
            tried_at=at,
            first_due_at_s=first_due_s,
            answer=receipt.answer,
        )
        return Attempt(delivery, receipt, conclusion, settlement, (at - delivery.recorded_at) / 1e6)

    def _learn(self, delivery: Delivery, receipt: Receipt, *, waited: bool) -> None:
        self.standing.answer = receipt.answer
        match receipt.verdict:
            case Verdict.DELIVERED:
                self.standing.got_through()
                self.breaker.works()
            case Verdict.REFUSED:
                self.standing.tried()
                self.breaker.works()
            case Verdict.GONE:
                self.standing.gone()
            case _:
                self.standing.tried()
                asked_s, now = retry_after_s(receipt), self.clock.monotonic()
                self.breaker.failed(delivery.event_id, now=now, retry_after_s=asked_s, waited=waited)
                if receipt.verdict is Verdict.BUSY and asked_s:
                    self.standing.pause(asked_s)

    def _report(self, attempt: Attempt) -> None:
        """Log what did not get through: the first of a row aloud."""
        delivery, receipt, conclusion = attempt.delivery, attempt.receipt, attempt.conclusion
        if receipt.verdict is Verdict.DELIVERED:
            self._report_success()
            return
        known = {**self._named(delivery), "answer": receipt.answer, "attempt": delivery.attempts + 1}
        if conclusion.state is DeliveryState.DEAD:
            log.warning("delivery.dead", **known)
            return
        known["wait_s"] = round(conclusion.wait_s, 3)
        now, is_gone = self.clock.monotonic(), receipt.verdict is Verdict.GONE  # which the lane tells
        if self._in_trouble or now < self._quiet_until or is_gone:
            log.debug("delivery.failed", **known)
            return
        log.warning("delivery.failed", **known)
        self._in_trouble, self._quiet_until = True, now + WARNED_EVERY_S

    def _report_success(self) -> None:
        if self._in_trouble:
            log.info("delivery.recovered", sink=self.store.lease.name)
        self._in_trouble = False

    def _named(self, delivery: Delivery) -> dict[str, object]:
        return {"sink": self.store.lease.name, "event_id": str(delivery.event_id), "type": delivery.type}

    def _count(self, attempt: Attempt) -> None:
        match attempt.conclusion.state:
            case DeliveryState.DELIVERED:
                self.metrics.delivered(attempt.delay_s)
            case DeliveryState.DEAD:
                self.metrics.dead()
            case _:
                self.metrics.retried()
