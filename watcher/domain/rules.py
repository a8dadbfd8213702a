"""The rules of a pipeline, a row of `RULES` each, and what they go by. What a rule means docs/alerts.md says. Pure.

Whether a problem is open, and what is written and sent of it, is for whoever asks.
"""

from bisect import insort
from collections.abc import Callable
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
        return any(rule.kind is kind and getattr(self, rule.key) is not None for rule in RULES)

    def ask_about(self, asked: "Asked") -> bool:
        """Return whether there is a rule that this opens or closes a problem of."""
        return any(getattr(self, rule.key) is not None and asked in {rule.opened_by, rule.closed_by} for rule in RULES)


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

    def with_end(self, end: End, rules: Rules) -> "RuleState":
        """Return this with one more end in its place. One older than the newest neither makes nor breaks a row."""
        ends = list(self.ends)
        insort(ends, end)
        in_row = self.failed_in_row + 1 if end.failed else 0
        return replace(
            self,
            ends=tuple(ends[-max(ENDS_COUNT, *(rule.ends_count(rules) for rule in RULES)) :]),
            failed_in_row=self.failed_in_row if end.ended_at < self.newest_at else in_row,
            newest_at=max(self.newest_at, end.ended_at),
        )

    def with_start(self, started_at: int) -> "RuleState":
        """Return this with one more start, which may be older than the last one."""
        return replace(self, started_at=max(self.started_at, started_at))

    def kept_for(self, rules: Rules) -> "RuleState":
        """Return this without what no rule goes by: it is not kept up, so a rule that comes back must not go by it."""
        ends = self if rules.ask_about(Asked.END) else RuleState()
        return replace(ends, started_at=self.started_at if rules.ask_about(Asked.START) else 0)


class Asked(Enum):
    """What rules are asked by: an end, which has its place by then; starts; a scan that saw all that had started."""

    END = "end"
    START = "start"
    SCAN = "scan"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: the field of `Rules` that sets it, the kind of its problems, what asks whether one opens, or closes.

    `holds` says how it stands: `True` opens a problem, `False` closes one, `None` does neither. It is asked about a
    moment (microseconds): when the end was that asks, else up to when all is known. `failed_count` are the failures
    that a problem opens with, `ends_count` how many of the last ends it looks at.
    """

    key: str
    kind: EventType
    opened_by: Asked
    closed_by: Asked
    holds: Callable[[RuleState, Rules, int], bool | None]
    failed_count: Callable[[RuleState, Rules], int] = lambda _state, _rules: 0
    ends_count: Callable[[Rules], int] = lambda _rules: 0


def _is_failing(state: RuleState, rules: Rules, at: int) -> bool | None:
    """Answer for the last ends. A limit that was raised closes nothing, nor does an end that comes late to a row."""
    rule = rules.failing
    assert rule is not None
    if rule.consecutive is not None:
        if at < state.newest_at:
            return None
        return True if state.failed_in_row >= rule.consecutive else None if state.failed_in_row else False
    last = _last_ends(state, rule)
    rate, wanted = sum(end.failed for end in last) / len(last), rule.rate or 0.0
    if rate >= wanted and len(last) >= rule.at_least:
        return True
    return False if rate < wanted / 2 else None  # or who fails about that often would open and close at each end


def _failed_count(state: RuleState, rules: Rules) -> int:
    rule = rules.failing
    assert rule is not None
    return state.failed_in_row if rule.consecutive is not None else sum(end.failed for end in _last_ends(state, rule))


def _ends_count(rules: Rules) -> int:
    return rules.failing.of_last if rules.failing else 0


def _last_ends(state: RuleState, rule: FailingRule) -> list[End]:
    """Return the ends that a rate is taken of: the newest one at least."""
    return [end for end in state.ends[-rule.of_last :] if end.ended_at >= state.newest_at - rule.within_us]


def _is_silent(state: RuleState, rules: Rules, at: int) -> bool | None:
    """Answer whether nothing has started for longer than that."""
    assert rules.silent_us is not None
    return at - state.started_at > rules.silent_us


RULES = (
    Rule("failing", EventType.PIPELINE_FAILING, Asked.END, Asked.END, _is_failing, _failed_count, _ends_count),
    Rule("silent_us", EventType.PIPELINE_SILENT, Asked.SCAN, Asked.START, _is_silent),
)
"""All there are. What closes a problem of which kind, and how severe it is, watcher/domain/problems.py says."""
