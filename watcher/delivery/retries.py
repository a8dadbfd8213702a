"""When a delivery is tried again, and when a sink is: the retry policy, and the circuit breaker of docs/sinks.md. Pure.

The breaker says when something may be tried; which delivery that is, the worker asks the store.
"""

from dataclasses import dataclass

from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.pacing import Jitter, doubling, spread
from watcher.sinks.protocol import RetryRules, SendOutcome, SendResult, retry_after_s
from watcher.store.changes import Trial

REJECTIONS = 5
"""So many refusals of a body in a row, and it will never be taken."""

STEP_SPREAD = 0.2

FAILURES_COUNT = 5
"""So many failures in a row open the breaker."""

OPEN_S = 1.0
OPEN_CAP_S = 30.0
NEVER_TRIED_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """Where the delivery stands now, and in how many seconds it may be tried again."""

    state: DeliveryState
    rejections: int = 0
    wait_s: float = 0.0


def decide(
    delivery: Delivery, result: SendResult, *, waited_s: float, rules: RetryRules, jitter: Jitter
) -> RetryDecision:
    """Return what follows for a delivery that its receiver did not take.

    `waited_s` is the time since it was first due, on the sink's own clock.
    """
    if result.outcome is SendOutcome.GONE:
        return RetryDecision(DeliveryState.WAITING)
    rejections = delivery.rejections + 1 if result.outcome is SendOutcome.REFUSED else 0
    if rules.give_up_after_s is not None and waited_s >= rules.give_up_after_s:
        return RetryDecision(DeliveryState.DEAD, rejections)
    if result.minimal_left:
        return RetryDecision(DeliveryState.WAITING, rejections, retry_after_s(result))
    step_s = rules.schedule_s[min(delivery.attempts, len(rules.schedule_s) - 1)]
    wait_s = max(spread(step_s, share=STEP_SPREAD, jitter=jitter), retry_after_s(result))
    state = DeliveryState.DEAD if rejections >= REJECTIONS else DeliveryState.WAITING
    return RetryDecision(state, rejections, wait_s)


class CircuitBreaker:
    """Open while a sink takes nothing. Moments are monotonic seconds.

    While it `is_open` what is due has to wait, but for one delivery at a time, and `is_trying` while that is under way.
    """

    def __init__(self, *, opens: bool = True) -> None:
        """Start closed; one that never `opens` stays so."""
        self.is_open = False
        self.is_trying = False
        self._opens = opens
        self._failures_count = 0
        self._waits_count = 0
        self._tried_from = EARLIEST
        self._never_tried_from = EARLIEST

    def resume(self, failures_count: int, *, now: Monotonic) -> None:
        """Go on from so many failures since anything got through, of an earlier life."""
        self._failures_count = failures_count
        if self._opens and failures_count >= FAILURES_COUNT:
            self._open(now)

    def trial_at(self) -> Monotonic:
        """Return the moment from which some delivery may be tried while it is open."""
        return min(self._tried_from, self._never_tried_from)

    def trial(self, now: Monotonic) -> Trial | None:
        """Return what may be tried while it is open: what was never tried first, but not more often than its wait."""
        if now >= self._never_tried_from:
            return "never_tried"
        return "tried_longest_ago" if now >= self._tried_from else None

    def trial_begins(self, *, never_tried: bool, now: Monotonic) -> None:
        """Note that a delivery is tried while it is open."""
        self.is_trying = True
        if never_tried:
            self._never_tried_from = Monotonic(now + NEVER_TRIED_EVERY_S)

    def trial_ends(self) -> None:
        """Note that its answer is there, or will never be."""
        self.is_trying = False

    def nothing_waits(self, trial: Trial, *, now: Monotonic) -> None:
        """Note that there is nothing for such a trial."""
        if trial == "never_tried":
            self._never_tried_from = Monotonic(now + NEVER_TRIED_EVERY_S)
        else:
            self._tried_from = Monotonic(now + OPEN_S)

    def failed(self, now: Monotonic, *, waited: bool) -> None:
        """Note a failure. `waited` says it is that of a trial which had to wait."""
        self._failures_count += 1
        is_row = self._opens and self._failures_count >= FAILURES_COUNT
        if waited if self.is_open else is_row:
            self._open(now)

    def works(self) -> None:
        """Close: the sink took something, or refused a body, which shows that it works."""
        self.is_open = False
        self._failures_count = self._waits_count = 0

    def _open(self, now: Monotonic) -> None:
        """Let nothing through but one delivery at a time, for longer after each trial that had to wait and failed."""
        self.is_open = True
        self._waits_count += 1
        self._tried_from = Monotonic(now + doubling(self._waits_count, base_s=OPEN_S, cap_s=OPEN_CAP_S))
