"""Carries one delivery to the sink and what follows from the answer to the store. Which one goes when is the lane's."""

from dataclasses import dataclass

import structlog

from watcher.attempts import Conclusion, RetryRules, conclude
from watcher.clock import Clock
from watcher.errors import OutputClosedError
from watcher.gate import Gate
from watcher.lane_store import LaneStore
from watcher.metrics import SinkMetrics
from watcher.models import Delivery, DeliveryState
from watcher.ports.sinks import Receipt, Sink, Verdict
from watcher.ports.store import Settlement
from watcher.retry import Jitter
from watcher.standing import Standing

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Courier:
    """Makes the attempts of one lane. What an answer says of the sink itself goes to its gate and its standing."""

    sink: Sink
    store: LaneStore
    gate: Gate
    standing: Standing
    retry: RetryRules
    clock: Clock
    jitter: Jitter
    metrics: SinkMetrics

    async def attempt(self, delivery: Delivery, *, goes_first: bool) -> bool:
        """Send once and settle; return whether that is recorded.

        Raises what ends the program: `OutputClosedError`, `OwnershipLostError`, `StoreUnusableError`.
        """
        begun_s = self.standing.clock_s(self.clock.monotonic())
        receipt = await self._send(delivery)
        delay_s = (self.clock.steady_us() - delivery.recorded_at) / 1e6
        settlement = self._conclude(delivery, receipt, begun_s=begun_s)
        recorded = await self.store.settle(settlement)
        if recorded:
            self._count(settlement, delay_s=delay_s)
        if goes_first:
            through = recorded and receipt.verdict is not Verdict.BUSY
            self.gate.leave(now=self.clock.monotonic(), through=through)
        return recorded

    async def _send(self, delivery: Delivery) -> Receipt:
        try:
            return await self.sink.send(delivery)
        except OutputClosedError:
            raise
        except Exception as error:  # noqa: BLE001 (one delivery's trouble must not stop the others)
            name = type(error).__name__
            log.error("delivery.crashed", **self._named(delivery), error=name)  # noqa: TRY400 (texts may hold secrets)
            return Receipt(Verdict.RETRY, "error")

    def _conclude(self, delivery: Delivery, receipt: Receipt, *, begun_s: float) -> Settlement:
        now = self.clock.monotonic()
        clock_s = self.standing.clock_s(now)
        first_s = begun_s if delivery.first_tried_at_s is None else delivery.first_tried_at_s
        conclusion = conclude(delivery, receipt, tried_for_s=clock_s - first_s, rules=self.retry, jitter=self.jitter)
        self._learn(receipt, wait_s=conclusion.wait_s, now=now)
        self._report(delivery, receipt, conclusion)
        return Settlement(
            lease=self.store.lease,
            stream=delivery.stream,
            sequence=delivery.sequence,
            state=conclusion.state,
            attempts=delivery.attempts + 1,
            due_at=self.clock.steady_us() + round(conclusion.wait_s * 1e6),
            rejections=conclusion.rejections,
            first_tried_at_s=first_s,
            answer=receipt.answer,
            clock_s=clock_s,
            strain=self.standing.strain(now),
        )

    def _learn(self, receipt: Receipt, *, wait_s: float, now: float) -> None:
        if receipt.verdict is not Verdict.BUSY:
            self.standing.answered(now)
        match receipt.verdict:
            case Verdict.DELIVERED:
                self.standing.got_through()
            case Verdict.GONE:
                self.standing.gone(now)
            case Verdict.BUSY:
                self.standing.tried(now)
                self.standing.pause(now + wait_s)
                self.gate.shut(now + wait_s)
            case _:
                self.standing.tried(now)

    def _report(self, delivery: Delivery, receipt: Receipt, conclusion: Conclusion) -> None:
        if receipt.verdict is Verdict.DELIVERED:
            return
        known = {**self._named(delivery), "answer": receipt.answer, "attempt": delivery.attempts + 1}
        if conclusion.state is DeliveryState.DEAD:
            log.warning("delivery.dead", **known)
        else:
            log.debug("delivery.failed", **known, wait_s=round(conclusion.wait_s, 3))

    def _named(self, delivery: Delivery) -> dict[str, str]:
        return {"sink": self.store.lease.name, "event_id": str(delivery.event_id), "type": delivery.type}

    def _count(self, settlement: Settlement, *, delay_s: float) -> None:
        match settlement.state:
            case DeliveryState.DELIVERED:
                self.metrics.delivered(delay_s)
            case DeliveryState.DEAD:
                self.metrics.dead()
            case _:
                self.metrics.retried()
