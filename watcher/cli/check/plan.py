"""The plan of `watcher check`: how many requests per second each account needs, and how soon changes are seen.

It is computed from the settings alone. It counts every named execution as open, and one page for each whole pipeline,
because the number of open executions on later pages is not known beforehand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from watcher.config.models import PollingSettings, Settings
from watcher.polling.evaluator import BACKOFF_SHARE
from watcher.polling.poll_item import LIST_WEIGHT
from watcher.runtime.pacing import SHARE
from watcher.runtime.units import write_duration

TYPICAL_STATUS_S = 60.0
"""The plan gives the delay of a change after this time in one status: with `backoff` the delay grows with that time."""

_ROUNDING = 1 + 1e-9
"""Factor on a limit in comparisons: a value that equals the limit must not exceed it by a rounding error."""

EXPLAINED = (
    "needed: a poll of each named execution every max_interval (fixed: min_interval), a page of each whole pipeline's "
    f"list every min_interval; delay: the mean for a change after {write_duration(TYPICAL_STATUS_S)} in a status"
)


@dataclass(frozen=True, slots=True)
class AccountPlan:
    """The plan of one account, as `EXPLAINED` describes it. An account that watches nothing has no `delay_s`."""

    account: str
    needed_per_s: float
    budget_per_s: float
    delay_s: float | None = None
    longest_s: float | None = None
    """Longest time between two polls of an execution."""
    advice: str | None = None
    """The settings to change if an interval is too short for the budget."""


def plan(settings: Settings) -> Sequence[AccountPlan]:
    """Return the plans of all accounts, in the order of the file."""
    plans = []
    for name, account in settings.accounts.items():
        counts = [len(watch.executions) for watch in settings.watch if watch.account == name]
        watched = (sum(counts), counts.count(0))
        plans.append(plan_account(name, *watched, rate_limit=account.rate_limit, polling=settings.polling))
    return plans


def plan_account(name: str, named: int, whole: int = 0, *, rate_limit: float, polling: PollingSettings) -> AccountPlan:
    """Return the plan of an account. `named` is its number of named executions, `whole` that of whole pipelines.

    The budget is 98 % of `rate_limit`, in requests per second (docs/inside/guarantees.md). If the budget suffices for
    `max_interval`, named executions and lists alternate: each of the two kinds gets at least half of the budget, or all
    that it needs. Otherwise they take turns, and a list has three turns while an execution has one
    (`watcher/polling/poll_queue.py`).
    """
    budget_per_s = rate_limit * SHARE
    if not (named or whole):
        return AccountPlan(name, 0.0, budget_per_s)
    min_s, max_s = polling.min_interval_s, polling.max_interval_s
    rarest_s = min_s if polling.cadence == "fixed" else max_s
    turn_s = (named + LIST_WEIGHT * whole) / budget_per_s
    if not named:
        turn_s = whole / budget_per_s
    elif turn_s < LIST_WEIGHT * max_s:  # a list has three turns, but at most one in each `max_interval`
        turn_s = named / (budget_per_s - whole / max_s)
    return AccountPlan(
        account=name,
        needed_per_s=named / rarest_s + whole / min_s,
        budget_per_s=budget_per_s,
        delay_s=_delay_s(named, whole, polling, budget_per_s=budget_per_s, turn_s=turn_s),
        longest_s=max(rarest_s if named else 0.0, turn_s, max_s if whole else 0.0),
        advice=_advice(named, whole, polling, budget_per_s=budget_per_s),
    )


def _delay_s(named: int, whole: int, polling: PollingSettings, *, budget_per_s: float, turn_s: float) -> float:
    """Return the mean delay in seconds: that of named executions or that of lists, whichever is longer.

    Lists get the part of the budget that named executions leave.
    """
    min_s, max_s = polling.min_interval_s, polling.max_interval_s
    if not named:
        return max(min_s, turn_s) / 2
    typical_s = min_s if polling.cadence == "fixed" else min(max_s, max(min_s, TYPICAL_STATUS_S * BACKOFF_SHARE))
    # The rate that named executions get in any case: half of the budget, or more if lists need less than half.
    share_per_s = max(budget_per_s / 2, budget_per_s - whole / min_s)
    named_s = max(typical_s, min(named / share_per_s, max(max_s, turn_s)))
    list_s = max(min_s, whole / (budget_per_s - named / named_s)) if whole else 0.0
    return max(named_s, list_s) / 2


def _advice(named: int, whole: int, polling: PollingSettings, *, budget_per_s: float) -> str | None:
    """Return the settings to change, `None` if the budget suffices for every interval.

    A list only has to be read once per `max_interval`.
    """
    fixed = polling.cadence == "fixed" and named > 0
    interval_s = polling.min_interval_s if fixed else polling.max_interval_s
    in_turns = min(2 * named, named + whole) if fixed else 0
    needed_per_s = max(in_turns / polling.min_interval_s, named / interval_s + whole / polling.max_interval_s)
    if needed_per_s <= budget_per_s * _ROUNDING:
        return None
    together_s = (named + whole) / budget_per_s
    longer_s = in_turns / budget_per_s if fixed and together_s <= polling.max_interval_s else together_s
    step_s = 1 if longer_s <= 60 else 30  # a round number, as people write it: 84 becomes 90
    longer_s = float(math.ceil(longer_s / step_s) * step_s)
    keys = ["min_interval"] if fixed else []
    if longer_s > polling.max_interval_s:
        keys.append("max_interval")
    return (
        f"over {keys[0]} {write_duration(interval_s)}: "
        f"raise rate_limit to {math.ceil(needed_per_s / SHARE * 10) / 10:.10g}/s, "
        f"or {' and '.join(f'polling.{key}' for key in keys)} to {write_duration(longer_s)}"
    )
