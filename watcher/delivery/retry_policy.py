"""What one attempt at a delivery means for it: settled, dead, or tried again and when. Pure arithmetic."""

from dataclasses import dataclass

from watcher.delivery.sinks.protocol import RetryRules, SendOutcome, SendResult, retry_after_s
from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.timestamps import Micros
from watcher.runtime.backoff import Jitter, doubling, spread

REJECTIONS = 5
"""So many refusals of a body in a row, and it will never be taken (SPEC 5)."""

STEP_SPREAD = 0.2

_TAKEN = {SendOutcome.DELIVERED: DeliveryState.DELIVERED, SendOutcome.ACCEPTED: DeliveryState.ACCEPTED}

WAIT_S = 1.0
WAIT_CAP_S = 60.0
"""The waits after failures that may be the sink's: they take no step of the schedule (SPEC 5)."""


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """Where the delivery stands now, and in how many seconds it may be tried again."""

    state: DeliveryState
    steps: int
    rejections: int
    wait_s: float


def decide(
    delivery: Delivery,
    result: SendResult,
    *,
    through_at: Micros,
    waited_s: float,
    rules: RetryRules,
    jitter: Jitter,
    count: int = 1,
) -> RetryDecision:
    """Return what follows from an answer (SPEC 5, "Webhook request") for a delivery, or for a group of so many.

    `through_at` is when anything last got through to the sink (microseconds UTC, steady; 0: nothing yet), `waited_s`
    the time since the delivery was first due, on the sink's own clock.
    """
    if taken := _TAKEN.get(result.outcome):
        return RetryDecision(taken, delivery.steps, 0, 0.0)
    if result.outcome is SendOutcome.GONE:
        return RetryDecision(DeliveryState.WAITING, delivery.steps, 0, 0.0)
    is_refused = result.outcome is SendOutcome.REFUSED
    rejections = delivery.rejections + 1 if is_refused else 0
    expired = rules.give_up_after_s is not None and waited_s >= rules.give_up_after_s
    if result.minimal_left and not expired:
        return RetryDecision(DeliveryState.WAITING, delivery.steps, rejections, retry_after_s(result))
    if is_refused and count > 1 and not expired:  # it goes in halves: the trouble is that of a few
        return RetryDecision(DeliveryState.WAITING, delivery.steps, 0, retry_after_s(result))
    state = DeliveryState.DEAD if expired or rejections >= REJECTIONS else DeliveryState.WAITING
    is_own = is_refused or (delivery.attempts > 0 and through_at > delivery.tried_at)
    if is_own:
        step_s = rules.schedule_s[min(delivery.steps, len(rules.schedule_s) - 1)]
        wait_s = spread(step_s, share=STEP_SPREAD, jitter=jitter)
    else:
        wait_s = doubling(delivery.attempts - delivery.steps + 1, base_s=WAIT_S, cap_s=WAIT_CAP_S)
    return RetryDecision(state, delivery.steps + is_own, rejections, max(wait_s, retry_after_s(result)))
