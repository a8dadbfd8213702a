"""What one attempt at a delivery means for it: settled, dead, or tried again and when. Pure arithmetic."""

from dataclasses import dataclass

from watcher.models import Delivery, DeliveryState
from watcher.ports.sinks import Receipt, Verdict
from watcher.retry import Jitter, spread

REJECTIONS = 5
"""So many refusals of a body in a row, and it will never be taken (SPEC 5)."""

RETRY_AFTER_CAP_S = 3600.0
STEP_SPREAD = 0.2


@dataclass(frozen=True, slots=True)
class RetryRules:
    """When to try again: the wait after each attempt, the last one repeating, and when to stop (`None`: never)."""

    schedule_s: tuple[float, ...]
    give_up_after_s: float | None


@dataclass(frozen=True, slots=True)
class Conclusion:
    """Where the delivery stands now; `wait_s` is what the answer asked for, even of a delivery that is dead."""

    state: DeliveryState
    rejections: int
    wait_s: float


def conclude(
    delivery: Delivery, receipt: Receipt, *, tried_for_s: float, rules: RetryRules, jitter: Jitter
) -> Conclusion:
    """Return what follows from an answer (SPEC 5, "Webhook request").

    `tried_for_s` is the time since the first attempt on the sink's own clock.
    """
    if receipt.verdict is Verdict.DELIVERED:
        return Conclusion(DeliveryState.DELIVERED, 0, 0.0)
    if receipt.verdict is Verdict.GONE:
        return Conclusion(DeliveryState.WAITING, 0, 0.0)
    rejections = delivery.rejections + 1 if receipt.verdict is Verdict.REFUSED else 0
    expired = rules.give_up_after_s is not None and tried_for_s >= rules.give_up_after_s
    dead = expired or rejections >= REJECTIONS
    wait_s = _wait_s(delivery.attempts, receipt, rules=rules, jitter=jitter)
    return Conclusion(DeliveryState.DEAD if dead else DeliveryState.WAITING, rejections, wait_s)


def _wait_s(attempts_before: int, receipt: Receipt, *, rules: RetryRules, jitter: Jitter) -> float:
    step_s = rules.schedule_s[min(attempts_before, len(rules.schedule_s) - 1)]
    asked_s = min(receipt.retry_after_s or 0.0, RETRY_AFTER_CAP_S)
    return max(spread(step_s, share=STEP_SPREAD, jitter=jitter), asked_s)
