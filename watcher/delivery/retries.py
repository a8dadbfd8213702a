"""When a delivery is tried again, and when a sink is: the retry policy, and the circuit breaker of docs/sinks.md. Pure.

The breaker says when something may be tried; which delivery that is, the worker asks the store.
"""

from collections.abc import Hashable
from dataclasses import dataclass

from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic
from watcher.runtime.backoff import Jitter, doubling, spread
from watcher.sinks.protocol import RetryRules, SendOutcome, SendResult, retry_after_s

REJECTIONS = 5
"""So many refusals of a body in a row, and it will never be taken."""

STEP_SPREAD = 0.2

WAIT_S = 1.0
WAIT_CAP_S = 60.0
"""The waits after failures that may be the sink's: they take no step of the schedule."""

FAILURES_COUNT = 5
DELIVERIES_COUNT = 2
"""So many failures in a row, of so many deliveries at least, open the breaker: one delivery may be to blame itself."""

OPEN_CAP_S = 30.0
NEVER_TRIED_EVERY_S = 1.0

_TAKEN = {SendOutcome.DELIVERED: DeliveryState.DELIVERED, SendOutcome.ACCEPTED: DeliveryState.ACCEPTED}


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
    """Return what follows from an answer for a delivery, or for a group of so many.

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


class CircuitBreaker:
    """Open while a sink takes nothing. Moments are monotonic seconds.

    While it `is_open` what is due has to wait, but for one delivery at a time, and `is_trying` while that is under way.
    A restart forgets it.
    """

    def __init__(self, *, opens: bool = True) -> None:
        """Start closed; one that never `opens` stays so."""
        self.is_open = False
        self.is_trying = False
        self._opens = opens
        self._failures_count = 0
        self._failed: set[Hashable] = set()  # which deliveries, as many as are needed to open it
        self._asked_s = 0.0
        self._waits_count = 0
        self._tried_from = EARLIEST
        self._never_tried_from = EARLIEST

    def opens_at(self, *, never_tried: bool) -> Monotonic:
        """Return the moment from which a delivery may be tried that never was, or one that was."""
        return self._never_tried_from if never_tried else self._tried_from

    def trial_begins(self, *, never_tried: bool, now: Monotonic) -> None:
        """Note that a delivery is tried while it is open."""
        self.is_trying = True
        if never_tried:
            self._never_tried_from = Monotonic(now + NEVER_TRIED_EVERY_S)

    def trial_ends(self) -> None:
        """Note that its answer is there, or will never be."""
        self.is_trying = False

    def failed(self, delivery: Hashable, *, now: Monotonic, retry_after_s: float, waited: bool) -> None:
        """Note a failure. `waited` says it is that of a trial which had to wait, so that the next waits longer.

        `retry_after_s` is what the answer asked for, 0 if nothing.
        """
        self._failures_count += 1
        self._asked_s = max(self._asked_s, retry_after_s)
        if len(self._failed) < DELIVERIES_COUNT:
            self._failed.add(delivery)
        is_row = self._failures_count >= FAILURES_COUNT and len(self._failed) >= DELIVERIES_COUNT
        if (waited and self.is_open) or (is_row and self._opens and not self.is_open):
            self.is_open = True
            self._waits_count += 1
            wait_s = doubling(self._waits_count, base_s=WAIT_S, cap_s=OPEN_CAP_S)
            self._tried_from = Monotonic(now + max(wait_s, self._asked_s))

    def works(self) -> None:
        """Close: the sink took something, or refused a body, which shows that it works."""
        self.is_open = False
        self._failures_count, self._waits_count, self._asked_s = 0, 0, 0.0
        self._failed.clear()
