"""The plan of an account: the requests its watches need, what its rate limit allows, what that means in seconds.

Pure arithmetic over the settings. It takes every named execution as open, and of whole pipelines one page each: what is
open on later pages, nobody can tell beforehand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from watcher.config.models import PollingSettings, Settings
from watcher.polling.pipeline_list import LIST_WEIGHT
from watcher.polling.policy import BACKOFF_SHARE
from watcher.runtime.rate_limiter import SHARE

TYPICAL_STATUS_S = 60.0
"""The delay is that of a change after so long in one status: with `backoff` the interval grows with that time."""

_ROUNDING = 1 + 1e-9
"""What is held exactly may come out as a hair too much."""

_STEPS = ((1.0, 0.1), (10.0, 1.0), (60.0, 5.0), (600.0, 30.0), (3600.0, 60.0), (math.inf, 600.0))
"""What people would write: below so many seconds a multiple of so many."""


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
class Watched:
    """What one account watches: executions that are named, and whole pipelines."""

    executions_count: int = 0
    pipelines_count: int = 0


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
    return [
        plan_account(name, _watched(settings, name), rate_limit=account.rate_limit, polling=settings.polling)
        for name, account in settings.accounts.items()
    ]


def _watched(settings: Settings, account: str) -> Watched:
    counts = [len(watch.executions) for watch in settings.watch if watch.account == account]
    return Watched(sum(counts), counts.count(0))


def plan_account(name: str, watched: Watched, *, rate_limit: float, polling: PollingSettings) -> AccountPlan:
    """Return the plan of one account. `rate_limit` is per second, of which 98 % are used (docs/guarantees.md).

    While `max_interval` can be held, what is named and what is watched whole go by turns, so that each has half of the
    rate at least, or all it needs. Where it cannot, all take turns, lists three times as often
    (`watcher/polling/request_selector.py`).
    """
    budget_per_s = rate_limit * SHARE
    named, whole = watched.executions_count, watched.pipelines_count
    if not (named or whole):
        return AccountPlan(name, 0.0, budget_per_s)
    rarest_s = _intervals(polling)[0] if named else polling.max_interval_s
    turn_s = _turn_s(watched, polling, budget_per_s=budget_per_s)
    return AccountPlan(
        account=name,
        needed_per_s=named / rarest_s + whole / polling.min_interval_s,
        budget_per_s=budget_per_s,
        delay_s=_delay_s(watched, polling, budget_per_s=budget_per_s),
        longest_s=max(rarest_s, turn_s, polling.max_interval_s if whole else 0.0),
        advice=_advice(watched, polling, rate_limit=rate_limit),
    )


def _turn_s(watched: Watched, polling: PollingSettings, *, budget_per_s: float) -> float:
    """Return how long a turn of all takes; lists go three times in it, but not more often than each `max_interval`."""
    named, whole = watched.executions_count, watched.pipelines_count
    if not named:
        return whole / budget_per_s
    turn_s = (named + LIST_WEIGHT * whole) / budget_per_s
    if turn_s >= LIST_WEIGHT * polling.max_interval_s:
        return turn_s
    return named / (budget_per_s - whole / polling.max_interval_s)


def _delay_s(watched: Watched, polling: PollingSettings, *, budget_per_s: float) -> float:
    """Return the mean delay: the longer one of executions that are named and of lists, which have what is left."""
    named, whole = watched.executions_count, watched.pipelines_count
    turn_s = _turn_s(watched, polling, budget_per_s=budget_per_s)
    if not named:
        return max(polling.min_interval_s, turn_s) / 2
    # What named executions may spend whatever the others want: half, or what lists leave that want less.
    share_per_s = max(budget_per_s / 2, budget_per_s - whole / polling.min_interval_s)
    named_s = max(_intervals(polling)[1], min(named / share_per_s, max(polling.max_interval_s, turn_s)))
    if not whole:
        return named_s / 2
    list_s = max(polling.min_interval_s, whole / (budget_per_s - named / named_s))
    return max(named_s, list_s) / 2


def _intervals(polling: PollingSettings) -> tuple[float, float]:
    """Return the longest interval of the cadence, and that after a minute in one status."""
    if polling.cadence == "fixed":
        return polling.min_interval_s, polling.min_interval_s
    wanted_s = max(polling.min_interval_s, TYPICAL_STATUS_S * BACKOFF_SHARE)
    return polling.max_interval_s, min(polling.max_interval_s, wanted_s)


def _advice(watched: Watched, polling: PollingSettings, *, rate_limit: float) -> Advice | None:
    """Return what helps, unless all that is to be held can be: of lists only `max_interval`."""
    named, whole = watched.executions_count, watched.pipelines_count
    budget_per_s = rate_limit * SHARE
    fixed = polling.cadence == "fixed" and named > 0
    interval_s = polling.min_interval_s if fixed else polling.max_interval_s
    in_turns = min(2 * named, named + whole) if fixed else 0
    needed_per_s = max(in_turns / polling.min_interval_s, named / interval_s + whole / polling.max_interval_s)
    if needed_per_s <= budget_per_s * _ROUNDING:
        return None
    together_s = (named + whole) / budget_per_s
    longer_s = round_up(in_turns / budget_per_s if fixed and together_s <= polling.max_interval_s else together_s)
    keys = ["min_interval"] if fixed else []
    if longer_s > polling.max_interval_s:
        keys.append("max_interval")
    return Advice(tuple(keys), interval_s, longer_s, math.ceil(needed_per_s / SHARE * 10) / 10)


def round_up(seconds: float) -> float:
    """Return the next longer time that people would write: 84 becomes 90."""
    step = next(step for below, step in _STEPS if seconds < below)
    return round(math.ceil(seconds / step) * step, 1)
