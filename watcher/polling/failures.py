"""The meaning of failures for one item, an execution or a list: whether it is lost, and how long it waits. Pure.

Each item counts its own failures. Executions and lists differ in two rules, by `any_failure_counts` of `PollItem`. An
execution becomes unreadable only by unreadable bodies, a list by every failure that is no refusal. For a list such a
failure also ends the refusals in a row.
"""

from watcher.clerk.api import Reply
from watcher.domain.execution import LostReason, Outcome
from watcher.domain.timestamps import LATEST, Monotonic
from watcher.domain.transitions import EXECUTION_REASONS
from watcher.polling.poll_item import Failures, PollItem, PollRules
from watcher.runtime.pacing import Jitter, doubling, spread

LOST_EVERY_S = 600.0
"""Interval of the requests for an execution or a list that is lost."""

UNREADABLE_AFTER_S = 3600.0

ERROR_JITTER = 0.1

ROUNDING_S = 0.01
"""The time added to a wait, because a sum of times may come out a little too small."""

HTTP_OK = 200
PAUSING_CODES = frozenset({429, 503})


def lost_reason(
    item: PollItem, reply: Reply, rules: PollRules, *, now: Monotonic, ran_s: float, success_at: Monotonic, alone: bool
) -> LostReason | None:
    """Note a failure of an item. Return the reason if the item is lost now.

    An item is lost once it was refused `lost_after` times in a row over at least `lost_grace`, or has been unreadable
    for an hour of running time (`ran_s`). Another item of the account must have succeeded meanwhile; the last success
    of any item was at `success_at` (monotonic seconds, as `now`). `alone` means that no other item could succeed: the
    item's own refusals, except a 403, then suffice.
    """
    failures = item.failures = item.failures or Failures()
    # Other codes, such as 402, never make an execution unreadable.
    is_unread = reply.outcome is Outcome.INVALID and reply.status_code in {None, HTTP_OK}
    makes_unreadable = is_unread or item.any_failure_counts
    if makes_unreadable and failures.unreadable_since == LATEST:
        failures.unreadable_since, failures.ran_s = now, ran_s
    refusal = EXECUTION_REASONS.get(reply.outcome)
    if refusal is not None:
        # A gateway may refuse everything, so another item must have succeeded since the last refusal.
        is_own = failures.refusals > 0 and success_at >= failures.refused_at
        is_own |= alone and refusal is not LostReason.FORBIDDEN
        failures.refused_from = failures.refused_from if failures.refusals else now
        failures.refusals, failures.refused_at = failures.refusals + 1, now
        is_long = now - failures.refused_from >= rules.lost_grace_s
        return refusal if is_own and is_long and failures.refusals >= rules.lost_after else None
    if item.any_failure_counts:
        failures.refusals = 0
    is_long = ran_s - failures.ran_s >= UNREADABLE_AFTER_S and success_at >= failures.unreadable_since
    return LostReason.UNREADABLE if makes_unreadable and is_long else None


def retry_wait_s(
    item: PollItem, reason: LostReason | None, rules: PollRules, *, sent_at: Monotonic, jitter: Jitter
) -> float:
    """Return the seconds from a failed request, sent at `sent_at`, to the next. `reason` is set for a lost item.

    The wait doubles with each failure. If one more refusal could show that the item is lost, the wait ends no later
    than that refusal could count.
    """
    if reason not in {None, LostReason.UNREADABLE}:
        return LOST_EVERY_S
    failures = item.failures or Failures()
    delay_s = doubling(max(1, failures.count), base_s=rules.min_interval_s, cap_s=rules.max_interval_s)
    spread_s = min(rules.max_interval_s, spread(delay_s, share=ERROR_JITTER, jitter=jitter))
    left_s = failures.refused_from + rules.lost_grace_s + ROUNDING_S - sent_at
    if failures.refusals and failures.refusals + 1 >= rules.lost_after and left_s > 0:
        return min(spread_s, max(left_s, rules.min_interval_s))
    return spread_s
