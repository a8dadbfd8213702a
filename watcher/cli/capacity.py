"""The plan of an account: the requests its watches need, what its rate limit allows, what that means in seconds.

Pure arithmetic over the settings. It takes every named execution as open, and of whole pipelines one page each: what is
open on later pages, nobody can tell beforehand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from watcher.config.models import PollingSettings, Settings
from watcher.polling.evaluator import BACKOFF_SHARE
from watcher.polling.pipeline_list import LIST_WEIGHT
from watcher.runtime.pacing import SHARE

TYPICAL_STATUS_S = 60.0
"""The delay is that of a change after so long in one status: with `backoff` the interval grows with that time."""

_ROUNDING = 1 + 1e-9
"""What is held exactly may come out as a hair too much."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What helps when an interval of `polling` cannot be held: a rate limit of so many per second, or longer intervals.

    `keys` are the intervals to be raised to `longer_s`; the first is the one that cannot be held, `interval_s` now.
    """

    keys: tuple[str, ...]
    interval_s: float
    longer_s: float
    rate_limit_per_s: float


@dataclass(frozen=True, slots=True)
class AccountPlan:
    """What an account can hold.

    `needed_per_s` are the requests that poll every named execution as rarely as the cadence ever does, every
    `max_interval` (`backoff`, long in a status) or every `min_interval` (`fixed`), and the list of every whole
    pipeline each `min_interval`. `budget_per_s` may be spent. `delay_s` is from a change to the poll that sees it, on
    average, when all have been in their status for a minute; the time of a request is added. `longest_s` is the
    longest time between two polls of an execution. Both are `None` while nothing is watched.
    """

    account: str
    needed_per_s: float
    budget_per_s: float
    delay_s: float | None = None
    longest_s: float | None = None
    advice: Advice | None = None


def plan(settings: Settings) -> Sequence[AccountPlan]:
    """Return the plans of all accounts, in the order of the file."""
    plans = []
    for name, account in settings.accounts.items():
        counts = [len(watch.executions) for watch in settings.watch if watch.account == name]
        watched = (sum(counts), counts.count(0))
        plans.append(plan_account(name, *watched, rate_limit=account.rate_limit, polling=settings.polling))
    return plans


def plan_account(name: str, named: int, whole: int = 0, *, rate_limit: float, polling: PollingSettings) -> AccountPlan:
    """Return the plan of one account that watches so many named executions and so many whole pipelines.

    `rate_limit` is per second, of which 98 % are used (docs/guarantees.md). While `max_interval` can be held, what is
    named and what is watched whole go by turns, so that each has half of the rate at least, or all it needs. Where it
    cannot, all take turns, lists three times as often (`watcher/polling/poll_queue.py`).
    """
    budget_per_s = rate_limit * SHARE
    if not (named or whole):
        return AccountPlan(name, 0.0, budget_per_s)
    min_s, max_s = polling.min_interval_s, polling.max_interval_s
    rarest_s = min_s if polling.cadence == "fixed" else max_s
    turn_s = (named + LIST_WEIGHT * whole) / budget_per_s
    if not named:
        turn_s = whole / budget_per_s
    elif turn_s < LIST_WEIGHT * max_s:  # lists go three times in a turn, but not more often than each `max_interval`
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
    """Return the mean delay: the longer one of executions that are named and of lists, which have what is left."""
    min_s, max_s = polling.min_interval_s, polling.max_interval_s
    if not named:
        return max(min_s, turn_s) / 2
    typical_s = min_s if polling.cadence == "fixed" else min(max_s, max(min_s, TYPICAL_STATUS_S * BACKOFF_SHARE))
    # What named executions may spend whatever the others want: half, or what lists leave that want less.
    share_per_s = max(budget_per_s / 2, budget_per_s - whole / min_s)
    named_s = max(typical_s, min(named / share_per_s, max(max_s, turn_s)))
    list_s = max(min_s, whole / (budget_per_s - named / named_s)) if whole else 0.0
    return max(named_s, list_s) / 2


def _advice(named: int, whole: int, polling: PollingSettings, *, budget_per_s: float) -> Advice | None:
    """Return what helps, unless all that is to be held can be: of lists only `max_interval`."""
    fixed = polling.cadence == "fixed" and named > 0
    interval_s = polling.min_interval_s if fixed else polling.max_interval_s
    in_turns = min(2 * named, named + whole) if fixed else 0
    needed_per_s = max(in_turns / polling.min_interval_s, named / interval_s + whole / polling.max_interval_s)
    if needed_per_s <= budget_per_s * _ROUNDING:
        return None
    together_s = (named + whole) / budget_per_s
    longer_s = in_turns / budget_per_s if fixed and together_s <= polling.max_interval_s else together_s
    step_s = 1 if longer_s <= 60 else 30  # as people write it: 84 becomes 90
    longer_s = float(math.ceil(longer_s / step_s) * step_s)
    keys = ["min_interval"] if fixed else []
    if longer_s > polling.max_interval_s:
        keys.append("max_interval")
    return Advice(tuple(keys), interval_s, longer_s, math.ceil(needed_per_s / SHARE * 10) / 10)
