"""The plan of an account: what its watches want of the API, what its rate limit allows, what that means in seconds.

Pure arithmetic over the settings. It takes every watched execution as open, so it is the most there can be to do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from watcher.cadence import BACKOFF_SHARE
from watcher.config.models import PollingSettings, Settings
from watcher.pace import SHARE

TYPICAL_STAY_S = 60.0
"""The delay is told of a change that comes after so long in one status: `backoff` looks the rarer the longer it is."""

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
class AccountPlan:
    """What an account can hold.

    `wants_per_s` are the requests that look at every execution as rarely as the cadence ever does: every
    `max_interval` (`backoff`, long in a status) or every `min_interval` (`fixed`). `allowed_per_s` may be spent.
    `delay_s` is from a change to the look that sees it, on average, when all have been in their status for a minute;
    what a request takes comes on top. `gap_s` is the longest an execution goes without a look. Both are `None` while
    nothing is watched.
    """

    account: str
    wants_per_s: float
    allowed_per_s: float
    delay_s: float | None = None
    gap_s: float | None = None
    advice: Advice | None = None


def plan(settings: Settings) -> Sequence[AccountPlan]:
    """Return the plans of all accounts, in the order of the file."""
    counts = dict.fromkeys(settings.accounts, 0)
    for watch in settings.watch:
        counts[watch.account] += len(watch.executions)
    return [
        plan_account(name, executions_count=counts[name], rate_limit=account.rate_limit, polling=settings.polling)
        for name, account in settings.accounts.items()
    ]


def plan_account(name: str, *, executions_count: int, rate_limit: float, polling: PollingSettings) -> AccountPlan:
    """Return the plan of one account. `rate_limit` is per second, of which 98 % are used (SPEC 2.7).

    Whoever is due longest goes first, so where more is wanted than allowed all take turns of executions / allowed.
    """
    allowed_per_s = rate_limit * SHARE
    if not executions_count:
        return AccountPlan(name, 0.0, allowed_per_s)
    rarest_s, typical_s, turn_s = *_intervals(polling), executions_count / allowed_per_s
    return AccountPlan(
        account=name,
        wants_per_s=executions_count / rarest_s,
        allowed_per_s=allowed_per_s,
        delay_s=max(typical_s, turn_s) / 2,
        gap_s=max(rarest_s, turn_s),
        advice=_advice(polling, turn_s=turn_s, rate_limit=executions_count / rarest_s / SHARE),
    )


def _intervals(polling: PollingSettings) -> tuple[float, float]:
    """Return the longest interval of the cadence, and that after a minute in one status."""
    if polling.cadence == "fixed":
        return polling.min_interval_s, polling.min_interval_s
    wanted_s = max(polling.min_interval_s, TYPICAL_STAY_S * BACKOFF_SHARE)
    return polling.max_interval_s, min(polling.max_interval_s, wanted_s)


def _advice(polling: PollingSettings, *, turn_s: float, rate_limit: float) -> Advice | None:
    """Return what helps, unless a turn fits the interval that is to be held."""
    longer_s = round_up(turn_s)
    interval_s = _intervals(polling)[0]
    if turn_s <= interval_s:
        return None
    keys = ["min_interval"] if polling.cadence == "fixed" else []
    if longer_s > polling.max_interval_s:
        keys.append("max_interval")
    return Advice(tuple(keys), interval_s, longer_s, math.ceil(rate_limit * 10) / 10)


def round_up(seconds: float) -> float:
    """Return the next longer time that people would write: 84 becomes 90."""
    step = next(step for below, step in _STEPS if seconds < below)
    return round(math.ceil(seconds / step) * step, 1)
