"""The rules of a pipeline, and the pure function that judges them. docs/alerts.md says what each rule means.

`judge` takes in what is recorded now and returns which problems that opens and closes. It neither reads a clock nor
writes: `watcher/polling/pipeline_rules.py` says when it is called, makes the events and records them. All times are
microseconds on the steady clock.
"""

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from operator import attrgetter
from typing import NamedTuple

from watcher.domain.event import EventType
from watcher.domain.timestamps import NEVER, Micros

ENDS_COUNT = 20
"""At least this many ends are kept, so that a rule that is new, or asks for more, does not begin with nothing."""

TALLIES_COUNT = 20
"""`quiet_for` is divided into this many parts; ends within one part are counted together.

So what is kept does not grow with the number of ends: at most two tallies a part.
"""

FAILED_AT_MOST = 0.1
"""The share of ends that may fail in a pipeline that has recovered."""


class End(NamedTuple):
    """An execution that succeeded or failed; when, by the API's date, else when that was seen."""

    ended_at: int
    failed: bool

    def moved(self, by_us: int, *, now: int) -> "End":
        """Return this with its time moved by that, but not after `now`."""
        return End(min(now, self.ended_at + by_us), self.failed)


class UnjudgedEnd(NamedTuple):
    """The end of an execution that rules are yet to judge."""

    execution: str
    end: End


class Tally(NamedTuple):
    """How many ends came, and how many of them failed, from `first_at` on for a twentieth of `quiet_for`."""

    first_at: int
    ended_count: int
    failed_count: int


@dataclass(frozen=True, slots=True)
class FailingRule:
    """When a pipeline is failing: at so many failures in a row (`consecutive`), or at a `rate` of failures (0 to 1).

    With `consecutive` a problem closes once the last `recover_after` ends succeeded, `quiet_for_us` has passed since it
    opened, and at most a tenth of the ends within `quiet_for_us` of the newest end failed.

    The rate is that of the last `of_last` ends within `within_us`. A problem opens at `rate` once there are `at_least`
    so many, and closes below half of it, however few there are.
    """

    consecutive: int | None = None
    rate: float | None = None
    of_last: int = 20
    within_us: int = 24 * 3600 * 1_000_000
    at_least: int = 5
    recover_after: int = 3
    quiet_for_us: int = 300 * 1_000_000

    @property
    def ends_count(self) -> int:
        """Return how many of the last ends are to be kept."""
        return max(ENDS_COUNT, self.consecutive or self.of_last, self.recover_after)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one watch. `silent_us` is for how long nothing may start before that is a problem."""

    failing: FailingRule | None = None
    silent_us: int | None = None

    def watch_for(self, kind: EventType) -> bool:
        """Return whether there is a rule whose problems are of this kind."""
        return any(kind is opened and getattr(self, key) is not None for key, opened in KIND_OF_RULE.items())


KIND_OF_RULE: Mapping[str, EventType] = {
    "failing": EventType.PIPELINE_FAILING,
    "silent_us": EventType.PIPELINE_SILENT,
}
"""The kind of problem that each field of `Rules` leads to."""


@dataclass(frozen=True, slots=True)
class RuleState:
    """What rules remember of a pipeline. 0 stands for a time that is not known.

    `ends` are the last ones in the order of their times, those of equal times in the order in which they were recorded.
    `started_at` is the last start known, once a scan is complete. While a rule with `consecutive` has a problem open,
    `opened_at` is when that opened, and `tallies` count the ends since then, as far as they are within `quiet_for`.
    The newest failure is that of the execution `failed`, at `failed_at`.
    Version 1.0.0 wrote times of the API's clock: those are `in_api_time`.
    """

    ends: tuple[End, ...] = ()
    started_at: int = NEVER
    opened_at: int = NEVER
    tallies: tuple[Tally, ...] = ()
    in_api_time: bool = False
    failed: str | None = None
    failed_at: int = NEVER

    def moved(self, by_us: int, *, now: int) -> "RuleState":
        """Return this on our clock, which shows `now`: each time moved by that, but none to after `now`."""
        times = (self.started_at, self.opened_at, self.failed_at)
        started_at, opened_at, failed_at = (at and min(now, at + by_us) for at in times)
        ends = tuple(end.moved(by_us, now=now) for end in self.ends)
        tallies = tuple(each._replace(first_at=min(now, each.first_at + by_us)) for each in self.tallies)
        return RuleState(ends, started_at, opened_at, tallies, failed=self.failed, failed_at=failed_at)


@dataclass(frozen=True, slots=True)
class News:
    """What is recorded at `now`, and what is known by then.

    `ends` are in the order in which they take their places. With `judges_once` only the last of them may open or close
    a problem. The last start was at `started_at`, if any. If a scan is complete, it showed all that started before
    `scanned_until`.
    """

    now: Micros
    ends: Sequence[UnjudgedEnd] = ()
    judges_once: bool = False
    started_at: int = NEVER
    scanned_until: Micros | None = None


class Edge(NamedTuple):
    """A problem that opens or closes, after so many failures. The end of `execution` opened it, if an end did."""

    kind: EventType
    opens: bool
    failed_count: int = 0
    execution: str | None = None


class Verdict(NamedTuple):
    """What follows from news: the new state, how many failures each problem has that is open then, and the edges."""

    state: RuleState
    failed_counts: Mapping[EventType, int]
    edges: Sequence[Edge]


def judge(rules: Rules, state: RuleState, failed_counts: Mapping[EventType, int], news: News) -> Verdict:
    """Judge news by the rules. `failed_counts` has how many failures each problem has that is open.

    The new state has nothing that no rule goes by: a rule that comes back later begins with nothing.
    """
    counts, edges = dict(failed_counts), list[Edge]()
    new, started_at = RuleState(), 0
    if rules.failing is not None:
        new = _judge_ends(rules.failing, state, news, counts, edges)
    if rules.silent_us is not None:
        started_at = _judge_starts(rules.silent_us, state, news, counts, edges)
    return Verdict(replace(new, started_at=started_at), counts, edges)


def _judge_ends(
    rule: FailingRule, state: RuleState, news: News, counts: dict[EventType, int], edges: list[Edge]
) -> RuleState:
    """Let each end take its place. The newest may open or close the problem, a late one does not."""
    kind, ends, tallies = EventType.PIPELINE_FAILING, list(state.ends), list(state.tallies)
    is_in_row = rule.consecutive is not None
    opened_at = (state.opened_at or news.now) if is_in_row and kind in counts else NEVER
    failed, failed_at = state.failed, state.failed_at
    for execution, end in news.ends:
        insort(ends, end, key=attrgetter("ended_at"))
        if end.failed and end.ended_at >= failed_at:
            failed, failed_at = execution, end.ended_at
        if kind in counts:
            counts[kind] += end.failed
            if is_in_row and end.ended_at >= opened_at:
                _count(tallies, end, within_us=rule.quiet_for_us // TALLIES_COUNT)
        quiet_since = ends[-1].ended_at - rule.quiet_for_us
        tallies = [each for each in tallies if each.first_at >= quiet_since]
        is_late = end.ended_at < ends[-1].ended_at
        if is_late or (news.judges_once and execution != news.ends[-1].execution):
            continue
        if kind not in counts:
            if failed_count := _failures_that_open(rule, ends):
                counts[kind], opened_at = failed_count, news.now if is_in_row else NEVER
                edges.append(Edge(kind, True, failed_count, execution))
        elif _has_recovered(rule, ends) and (not is_in_row or (opened_at <= quiet_since and _is_quiet(tallies))):
            edges.append(Edge(kind, False, counts.pop(kind)))
            opened_at, tallies = NEVER, []
    kept = tuple(ends[-rule.ends_count :])
    return RuleState(kept, opened_at=opened_at, tallies=tuple(tallies), failed=failed, failed_at=failed_at)


def _failures_that_open(rule: FailingRule, ends: Sequence[End]) -> int:
    """Return how many failures open a problem with the newest end, 0 if none opens."""
    if rule.consecutive is not None:
        in_row = sum(1 for _ in takewhile(attrgetter("failed"), reversed(ends)))
        return in_row if in_row >= rule.consecutive else 0
    last = _last_ends(rule, ends)
    failed_count = sum(end.failed for end in last)
    return failed_count if len(last) >= rule.at_least and failed_count / len(last) >= (rule.rate or 0.0) else 0


def _has_recovered(rule: FailingRule, ends: Sequence[End]) -> bool:
    """Return whether the last ends are as the rule wants them before its problem closes."""
    if rule.consecutive is not None:
        last = ends[-rule.recover_after :]
        return len(last) == rule.recover_after and not any(end.failed for end in last)
    last = _last_ends(rule, ends)
    # Half of the rate, or a pipeline that fails about as often as the rate would open and close at each end.
    return sum(end.failed for end in last) / len(last) < (rule.rate or 0.0) / 2


def _last_ends(rule: FailingRule, ends: Sequence[End]) -> Sequence[End]:
    """Return the ends that a rate is taken of: the newest one at least."""
    return [end for end in ends[-rule.of_last :] if end.ended_at >= ends[-1].ended_at - rule.within_us]


def _count(tallies: list[Tally], end: End, *, within_us: int) -> None:
    """Count an end with those that came less than `within_us` before it, else as the first of a new tally."""
    index = bisect_right(tallies, end.ended_at, key=attrgetter("first_at"))
    first_at, ended_count, failed_count = tallies[index - 1] if index else Tally(NEVER, 0, 0)
    if index and end.ended_at - first_at < within_us:
        tallies[index - 1] = Tally(first_at, ended_count + 1, failed_count + end.failed)
    else:
        tallies.insert(index, Tally(end.ended_at, 1, int(end.failed)))


def _is_quiet(tallies: Sequence[Tally]) -> bool:
    """Return whether at most a tenth of the ends failed."""
    failed_count, ended_count = sum(each.failed_count for each in tallies), sum(each.ended_count for each in tallies)
    return failed_count <= FAILED_AT_MOST * ended_count


def _judge_starts(silent_us: int, state: RuleState, news: News, counts: dict[EventType, int], edges: list[Edge]) -> int:
    """Close a silence with a start that is recent, or open one after a complete scan. Return the last start.

    Before the first complete scan no start is known to be the last one.
    """
    if not state.started_at and news.scanned_until is None:
        return NEVER
    kind, started_at = EventType.PIPELINE_SILENT, max(state.started_at, news.started_at)
    if kind in counts and started_at > state.started_at and news.now - started_at <= silent_us:
        edges.append(Edge(kind, False, counts.pop(kind)))
    if news.scanned_until is None:
        return started_at
    started_at = started_at or news.scanned_until  # where nothing ever started, silence counts from the first scan
    if kind not in counts and news.scanned_until - started_at > silent_us:
        counts[kind] = 0
        edges.append(Edge(kind, True))
    return started_at
