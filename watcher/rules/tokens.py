"""The rule `tokens`: the executions of a pipeline use more tokens in a day than they may."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from pydantic import Field

from watcher.domain.envelope import Json
from watcher.domain.event import EventType
from watcher.domain.history import DAY_US, period_start
from watcher.domain.problems import Problem
from watcher.domain.rule import Judged, News, Past, Rule, RuleEvent
from watcher.domain.timestamps import Micros, from_us
from watcher.runtime.settings import SomeKeys

SPENT_PERCENTS = (100, 80)
"""The shares of `tokens.per_day` at which `pipeline.overspending` is emitted, the highest first."""


class TokensSettings(SomeKeys):
    """The limits for the tokens that a pipeline uses."""

    execution: int | None = Field(default=None, ge=1, le=1_000_000_000, examples=["20000"])
    """Emit `execution.expensive` once for an execution that uses more."""
    per_day: int | None = Field(default=None, ge=1, le=1_000_000_000_000, examples=["2000000"])
    """Emit `pipeline.overspending` when the executions that ended today (UTC) have used 80 % of this, and 100 %."""


class Spending(NamedTuple):
    """The tokens of the executions that ended on one day (UTC), which begins at `day_at`."""

    day_at: Micros
    tokens: int = 0
    percent: int = 0
    """The highest share of `per_day` in percent that an event has named; 0 without such an event."""


@dataclass(frozen=True, slots=True)
class Tokens(Rule):
    """The rule `tokens`: an event when the executions that end on one day (UTC) have used a share of `per_day`."""

    key: ClassVar[str] = "tokens"

    settings: TokensSettings

    async def begin(self, state: object, past: Past, *, now: Micros) -> Spending:
        """Return the recorded spending of today."""
        day_at = period_start(now, DAY_US)
        return Spending(day_at, *await past.spending(day_at))

    def judge(self, state: Spending, news: News, problem: Problem | None) -> Judged:
        """Add the recorded ends to the day of `now`, and report a share that was not reported yet.

        Ends of another day do not count. An end may be dated a little after `now`, by the clock of the API: then its
        day begins with it.
        """
        if (per_day := self.settings.per_day) is None:
            return Judged(state)
        ended = news.recorded
        day_at = max(period_start(at, DAY_US) for at in (state.day_at, news.now, *(each.ended_at for each in ended)))
        before = state if state.day_at == day_at else Spending(day_at)
        tokens = before.tokens + sum(each.tokens for each in ended if period_start(each.ended_at, DAY_US) == day_at)
        percent = next((each for each in SPENT_PERCENTS if tokens * 100 >= per_day * each), 0)
        if percent <= before.percent:
            return Judged(Spending(day_at, tokens, before.percent))
        data: Json = {"percent": percent, "tokensUsed": tokens, "tokensPerDay": per_day}
        data["day"] = f"{from_us(day_at):%Y-%m-%d}"
        return Judged(Spending(day_at, tokens, percent), [RuleEvent(EventType.PIPELINE_OVERSPENDING, data)])
