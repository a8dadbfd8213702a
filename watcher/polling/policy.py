"""When to ask again: by the cadence after a success, ever later after failures. And what is lost, after many.

One rule of failures for executions and for lists. It knows neither events nor the store, nor what a loss leads to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from watcher.clerk.protocol import Answer
from watcher.domain.execution import LostReason, Outcome
from watcher.domain.timestamps import Monotonic
from watcher.domain.transitions import EXECUTION_REASONS, grace_left_s, means_lost, prolong
from watcher.polling.circuit_breaker import PAUSING_CODES
from watcher.polling.poll_queue import PollItem
from watcher.runtime.clock import Clock
from watcher.runtime.pacing import Jitter, doubling, spread

Cadence = Callable[[float], float]
"""Seconds spent in this status so far → seconds until the next poll."""

BACKOFF_SHARE = 0.1
JITTER_SHARE = 0.1

LOST_EVERY_S = 600.0
"""What is lost is asked for so often."""

UNREADABLE_AFTER_S = 3600.0
_UNREADABLE_CODES = frozenset({None, 200})
"""Of an `invalid` answer: 402 and the like are the API's trouble, however long."""

ERROR_JITTER = 0.1


def fixed_cadence(*, min_interval_s: float) -> Cadence:
    """Return the cadence that polls every `min_interval_s`."""
    return lambda _dwell_s: min_interval_s


def backoff_cadence(*, min_interval_s: float, max_interval_s: float, jitter: Jitter) -> Cadence:
    """Return the cadence that waits a tenth of the time in this status, ±10 %, within the bounds."""

    def interval(dwell_s: float) -> float:
        wanted = spread(max(min_interval_s, dwell_s * BACKOFF_SHARE), share=JITTER_SHARE, jitter=jitter)
        return min(max_interval_s, max(min_interval_s, wanted))

    return interval


class AccountState(NamedTuple):
    """How the rest of the account is doing: whether nothing else is watched, the last success, whether it is usable.

    `success_at` is monotonic seconds.
    """

    alone: bool
    success_at: Monotonic | None
    usable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePolicy:
    """Counts the failures of whatever one account polls, in the `PollItem`s themselves.

    The configuration says the bounds of the wait, in seconds, and how many refusals in a row, for how long, are a loss.

    An execution and a list differ in two things, as their `PollItem` says: of an execution only an unreadable body
    makes it unreadable, of a list every failure that is no refusal, and that also ends the refusals in a row.
    """

    min_interval_s: float
    max_interval_s: float
    lost_after: int
    lost_grace_s: float
    clock: Clock
    jitter: Jitter

    def note_success(self, item: PollItem) -> None:
        """Forget all failures of this item."""
        item.failure_count, item.streak, item.failing_since = 0, None, None

    def note_failure(self, item: PollItem, reply: Answer, around: AccountState) -> LostReason | None:
        """Count a failure, and return why the item is lost now, if it is.

        It is once it was refused often enough, for long enough, or could not be read for an hour in which the process
        ran; either while something else of the account succeeded.
        """
        if around.usable and reply.status_code not in PAUSING_CODES:
            item.failure_count += 1
        now, ran_s = self.clock.monotonic(), self.clock.running()
        is_unreadable = reply.outcome is Outcome.INVALID and reply.status_code in _UNREADABLE_CODES
        if (is_unreadable or item.any_failure_counts) and item.failing_since is None:
            item.failing_since, item.failing_ran_s = now, ran_s
        refusal = EXECUTION_REASONS.get(reply.outcome)
        if refusal is not None:
            item.streak = prolong(item.streak, refusal, at=now, other_success_at=around.success_at)
            is_lost = means_lost(
                item.streak, lost_after=self.lost_after, lost_grace_s=self.lost_grace_s, alone=around.alone
            )
            return refusal if is_lost else None
        if item.any_failure_counts:
            item.streak = None
        elif not is_unreadable:
            return None
        if item.failing_since is None or around.success_at is None or around.success_at < item.failing_since:
            return None
        return LostReason.UNREADABLE if ran_s - item.failing_ran_s >= UNREADABLE_AFTER_S else None

    def wait_s(self, item: PollItem, reason: LostReason | None, *, sent_at: Monotonic) -> float:
        """Return the seconds from the request, sent at `sent_at`, to the next one. `reason` is why the item is lost.

        Ever longer, but no longer than until one more refusal can mean a loss.
        """
        if reason not in {None, LostReason.UNREADABLE}:
            return LOST_EVERY_S
        delay_s = doubling(max(1, item.failure_count), base_s=self.min_interval_s, cap_s=self.max_interval_s)
        left_s = grace_left_s(item.streak, lost_after=self.lost_after, lost_grace_s=self.lost_grace_s, sent_at=sent_at)
        spread_s = min(self.max_interval_s, spread(delay_s, share=ERROR_JITTER, jitter=self.jitter))
        return min(spread_s, max(left_s, self.min_interval_s))
