"""What the rules of a pipeline conclude from its starts and ends, as docs/alerts.md says. Pure.

Whether a problem is open, and what is written and sent of it, is for whoever asks.
"""

import json
from bisect import insort
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from watcher.domain.event import EventType

ENDS_COUNT = 20
"""At least so many ends are kept, so that a rule that is new, or asks for more, does not begin with nothing."""


class End(NamedTuple):
    """An execution that succeeded or failed; when, by the API's clock, else when that was seen (microseconds)."""

    ended_at: int
    failed: bool


class UnjudgedEnd(NamedTuple):
    """The end of an execution that rules are yet to judge."""

    execution: str
    end: End


@dataclass(frozen=True, slots=True)
class FailingRule:
    """When a pipeline is failing: at so many failures in a row (`consecutive`), or at a `rate` of failures (0 to 1).

    The rate is that of the last `of_last` ends within `within_us`. A problem opens at `rate` once there are `at_least`
    so many, and closes below half of it, however few there are.
    """

    consecutive: int | None = None
    rate: float | None = None
    of_last: int = 20
    within_us: int = 24 * 3600 * 1_000_000
    at_least: int = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one watch. `silent_us` is for how long nothing may start before that is a problem."""

    failing: FailingRule | None = None
    silent_us: int | None = None

    def watch_for(self, kind: EventType) -> bool:
        """Return whether there is a rule whose problems are of this kind."""
        by_kind = {EventType.PIPELINE_FAILING: self.failing, EventType.PIPELINE_SILENT: self.silent_us}
        return by_kind.get(kind) is not None


class Edge(Enum):
    """What a rule concludes."""

    OPENS = "opens"
    CLOSES = "closes"


@dataclass(frozen=True, slots=True)
class RuleState:
    """What rules must remember of a pipeline. Times in microseconds, by the API's clock.

    `ends` are the last ones by time. `failed_in_row` counts the failures since the last success, in the order in which
    they were judged. `newest_at` is the latest end judged, `started_at` the last start known; 0: none yet.
    """

    ends: tuple[End, ...] = ()
    failed_in_row: int = 0
    newest_at: int = 0
    started_at: int = 0

    def to_json(self) -> str:
        """Return it as compact JSON, for the store."""
        return json.dumps(
            {
                "ends": [[end.ended_at, int(end.failed)] for end in self.ends],
                "failed_in_row": self.failed_in_row,
                "newest_at": self.newest_at,
                "started_at": self.started_at,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> "RuleState":
        """Return what `to_json` was made of."""
        read = json.loads(text)
        ends = tuple(End(ended_at, bool(failed)) for ended_at, failed in read.pop("ends"))
        return cls(ends, **read)


def kept_for(state: RuleState, rules: Rules) -> RuleState:
    """Forget what no rule goes by: it is not kept up, so a rule that comes back must not go by it."""
    if rules.failing is None:
        state = RuleState(started_at=state.started_at)
    return state if rules.silent_us is not None else replace(state, started_at=0)


def judge_end(state: RuleState, end: End, *, rule: FailingRule, is_open: bool) -> tuple[RuleState, Edge | None]:
    """Judge one more end. `is_open` tells whether the rule's problem is open.

    One older than the newest judged counts for a rate, and neither makes nor breaks a row.
    """
    is_late = end.ended_at < state.newest_at
    ends = list(state.ends)
    insort(ends, end)
    in_row = state.failed_in_row if is_late else (state.failed_in_row + 1 if end.failed else 0)
    state = replace(
        state,
        ends=tuple(ends[-max(rule.of_last, ENDS_COUNT) :]),
        failed_in_row=in_row,
        newest_at=max(state.newest_at, end.ended_at),
    )
    if rule.rate is None:
        opens = in_row >= (rule.consecutive or 0) and not is_late
        closes = not in_row and not is_late  # that there are fewer than a limit which was raised closes nothing
    else:
        last = _last_ends(state, rule)
        rate = sum(each.failed for each in last) / len(last)
        opens = rate >= rule.rate and len(last) >= rule.at_least
        closes = rate < rule.rate / 2  # or a pipeline that fails about that often would open and close at each end
    if is_open:
        return state, Edge.CLOSES if closes else None
    return state, Edge.OPENS if opens else None


def failed_count(state: RuleState, rule: FailingRule) -> int:
    """Return how many failures the rule goes by now."""
    return state.failed_in_row if rule.rate is None else sum(each.failed for each in _last_ends(state, rule))


def _last_ends(state: RuleState, rule: FailingRule) -> list[End]:
    """Return the ends that a rate is taken of: the newest one at least."""
    return [end for end in state.ends[-rule.of_last :] if end.ended_at >= state.newest_at - rule.within_us]


def note_start(state: RuleState, started_at: int) -> RuleState:
    """Take in that an execution started."""
    return state if started_at <= state.started_at else replace(state, started_at=started_at)


def is_silent(state: RuleState, *, silent_us: int, now: int) -> bool:
    """Return whether nothing has started for longer than that (`now` in microseconds)."""
    return now - state.started_at > silent_us
