"""The rules of a pipeline, and the pure function `judge` that applies them. docs/alerts.md describes the rules.

`judge` gets the ends and starts that are recorded now, and returns the problems that open and close.
`watcher/polling/pipeline_rules.py` calls `judge`, makes the events and records them. All times are microseconds UTC on
the steady clock.
"""

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from operator import attrgetter
from typing import NamedTuple

from watcher.domain.event import EventType
from watcher.domain.history import DAY_US, EndedExecution, period_start
from watcher.domain.timestamps import NEVER, Micros

KEPT_ENDS_COUNT = 20
"""The number of last ends that are always kept. A changed rule can therefore count ends from before the change."""

TALLIES_COUNT = 20
"""The number of equal parts into which `quiet_for` is divided. The ends within one part are counted in one tally.

The state is therefore bounded: at most two tallies per part, for any number of ends.
"""

MAX_FAILED_SHARE = 0.1
"""The largest share of failures among the ends within `quiet_for` at which a problem may close."""

DURATIONS_COUNT = 200
"""The number of last successes whose durations say what is usual."""

LEAST_DURATIONS_COUNT = 20
"""The least number of successes with which `slow` is judged."""

USUAL_SHARE = 0.95
"""The share of the last successes that are at most as long as the usual duration.

Of 200 successes, up to nine longer ones do not change the usual duration, and ten do.
"""

SPENT_PERCENTS = (100, 80)
"""The shares of `tokens.per_day` at which `pipeline.overspending` is emitted, the highest first."""

KNOWN_FOR_US = 30 * DAY_US
"""The time for which a kind of error stays known after it was last seen."""


class End(NamedTuple):
    """The end of an execution that succeeded or failed. Its time is the API's date, else the time of the poll."""

    ended_at: int
    failed: bool

    def moved(self, by_us: int, *, now: int) -> "End":
        """Return this end with its time moved by `by_us`, but not beyond `now`."""
        return End(min(now, self.ended_at + by_us), self.failed)


class UnjudgedEnd(NamedTuple):
    """The end of an execution, not yet judged by the rules."""

    execution: str
    end: End


class Tally(NamedTuple):
    """The number of ends, and of failures among them, in a twentieth of `quiet_for` that begins at `first_at`."""

    first_at: int
    ended_count: int
    failed_count: int


@dataclass(frozen=True, slots=True)
class FailingRule:
    """The rule `failing`: it opens a problem at `consecutive` failures in a row, or at a failure `rate` (0 to 1).

    With `consecutive` the problem closes at an end if the last `recover_after` ends succeeded, the problem opened at
    least `quiet_for_us` earlier, and at most a tenth of the ends within the last `quiet_for_us` failed.

    With `rate` the last `of_last` ends count, unless they are older than `within_us`. The problem opens if at least
    `at_least` ends count and a share of `rate` or more failed. It closes if the share is below half of `rate`.

    A success counts as a failure of this rule if it took less than `shorter_than_s`, or started fewer nodes than
    `fewer_nodes_than`.
    """

    consecutive: int | None = None
    rate: float | None = None
    of_last: int = 20
    within_us: int = 24 * 3600 * 1_000_000
    at_least: int = 5
    recover_after: int = 3
    quiet_for_us: int = 300 * 1_000_000
    shorter_than_s: float | None = None
    fewer_nodes_than: int | None = None

    @property
    def ends_count(self) -> int:
        """Return the number of last ends to keep."""
        return max(KEPT_ENDS_COUNT, self.consecutive or self.of_last, self.recover_after)

    def fault_of(self, *, duration_s: float | None, nodes_count: float | None) -> str | None:
        """Return in words why a success counts as a failure (`also`); `None` if it does not.

        A duration or a count of nodes that the API does not name is no fault. The duration is rounded to milliseconds,
        as in events.
        """
        duration_s = None if duration_s is None else round(duration_s, 3)
        if self.shorter_than_s is not None and duration_s is not None and duration_s < self.shorter_than_s:
            return f"succeeded after {duration_s:g} s, in less than {self.shorter_than_s:g} s"
        if self.fewer_nodes_than is not None and nodes_count is not None and nodes_count < self.fewer_nodes_than:
            return f"succeeded, but started {nodes_count:g} nodes, fewer than {self.fewer_nodes_than}"
        return None


@dataclass(frozen=True, slots=True)
class SlowRule:
    """The rule `slow`: a problem is open while an execution runs for longer than the limit.

    The limit is `times` the usual duration, and at least `at_least_us` more than it.
    """

    times: float
    at_least_us: int

    def limit_us(self, usual_us: int) -> int:
        """Return the time after which an execution is slow, given the usual duration."""
        return max(round(self.times * usual_us), usual_us + self.at_least_us)

    def count_slow(self, durations_us: Sequence[int]) -> int:
        """Return how many of these durations, oldest first, were above the limit by the up to 200 before them.

        The first 20 are not judged.
        """
        count = 0
        for nth in range(LEAST_DURATIONS_COUNT, len(durations_us)):
            usual_us = usual_duration(durations_us[max(0, nth - DURATIONS_COUNT) : nth])
            count += usual_us is not None and durations_us[nth] > self.limit_us(usual_us)
        return count


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one watch.

    With `silent_us` a problem opens if no execution starts for longer than that. `tokens_per_execution` is the most
    tokens of one execution, `tokens_per_day` of all executions that end on one day (UTC). With `reports_new_errors` an
    event is emitted for each new kind of error.
    """

    failing: FailingRule | None = None
    silent_us: int | None = None
    slow: SlowRule | None = None
    tokens_per_execution: int | None = None
    tokens_per_day: int | None = None
    reports_new_errors: bool = False

    def opens(self, kind: EventType) -> bool:
        """Return whether a rule opens problems of this kind."""
        return any(kind is opened and getattr(self, key) is not None for key, opened in KIND_OF_RULE.items())


KIND_OF_RULE: Mapping[str, EventType] = {
    "failing": EventType.PIPELINE_FAILING,
    "silent_us": EventType.PIPELINE_SILENT,
    "slow": EventType.PIPELINE_SLOW,
}
"""The kind of problem that each field of `Rules` opens."""


@dataclass(frozen=True, slots=True)
class RuleState:
    """The state of a pipeline's rules between two judgements. An unknown time is 0."""

    ends: tuple[End, ...] = ()
    """The last ends, in the order of their times. Ends with equal times are in the order of recording."""
    started_at: int = NEVER
    """The time of the last known start. It is unknown until a scan is complete."""
    opened_at: int = NEVER
    """The time at which the open problem of a rule with `consecutive` opened."""
    tallies: tuple[Tally, ...] = ()
    """The counts of ends since `opened_at`, but only within `quiet_for` of the newest end."""
    in_api_time: bool = False
    """Whether the times are on the API's clock, as version 1.0.0 wrote them."""
    failed: str | None = None
    """The id of the execution that failed last."""
    failed_at: int = NEVER

    def moved(self, by_us: int, *, now: int) -> "RuleState":
        """Return this state with each time moved by `by_us` to our steady clock, but not beyond `now`."""
        times = (self.started_at, self.opened_at, self.failed_at)
        started_at, opened_at, failed_at = (at and min(now, at + by_us) for at in times)
        ends = tuple(end.moved(by_us, now=now) for end in self.ends)
        tallies = tuple(each._replace(first_at=min(now, each.first_at + by_us)) for each in self.tallies)
        return RuleState(ends, started_at, opened_at, tallies, failed=self.failed, failed_at=failed_at)


@dataclass(frozen=True, slots=True)
class News:
    """The ends and starts that are recorded at `now`."""

    now: Micros
    ends: Sequence[UnjudgedEnd] = ()
    """The new ends, in the order in which they are judged."""
    judges_once: bool = False
    """Whether only the last of the new ends may open or close a problem."""
    started_at: int = NEVER
    """The time of the last new start; 0 if there is none."""
    scanned_until: Micros | None = None
    """The time before which a scan that is now complete showed all starts; `None` without such a scan."""
    slow: Sequence[str] | None = None
    """The id of the slow execution that has been running longest, if any; `None` while that is unknown."""


class Edge(NamedTuple):
    """The opening or closing of a problem. `failed_count` is its number of failures so far.

    `execution` is the id of the execution that opened the problem: it ended, or it is the slowest.
    """

    kind: EventType
    opens: bool
    failed_count: int = 0
    execution: str | None = None


class Verdict(NamedTuple):
    """The result of a judgement: the new state, the failures of each open problem, and what opened or closed."""

    state: RuleState
    failed_counts: Mapping[EventType, int]
    edges: Sequence[Edge]


def judge(rules: Rules, state: RuleState, failed_counts: Mapping[EventType, int], news: News) -> Verdict:
    """Judge news by the rules. `failed_counts` has the number of failures of each open problem.

    The new state holds nothing for a rule that was removed. If the rule returns later, it begins without any state.
    """
    counts, edges = dict(failed_counts), list[Edge]()
    new, started_at = RuleState(), 0
    if rules.failing is not None:
        new = _judge_ends(rules.failing, state, news, counts, edges)
    if rules.silent_us is not None:
        started_at = _judge_starts(rules.silent_us, state, news, counts, edges)
    if rules.slow is not None and news.slow is not None:
        _judge_slow(news.slow, counts, edges)
    return Verdict(replace(new, started_at=started_at), counts, edges)


def _judge_ends(
    rule: FailingRule, state: RuleState, news: News, counts: dict[EventType, int], edges: list[Edge]
) -> RuleState:
    """Return the new state with the new ends. Update `counts`, and add openings and closings to `edges`.

    An end may open or close the problem only if no end with a later time is known.
    """
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
    """Return the number of failures with which the newest end opens a problem; 0 if the end opens none."""
    if rule.consecutive is not None:
        in_row = sum(1 for _ in takewhile(attrgetter("failed"), reversed(ends)))
        return in_row if in_row >= rule.consecutive else 0
    last = _last_ends(rule, ends)
    failed_count = sum(end.failed for end in last)
    return failed_count if len(last) >= rule.at_least and failed_count / len(last) >= (rule.rate or 0.0) else 0


def _has_recovered(rule: FailingRule, ends: Sequence[End]) -> bool:
    """Return whether the last ends allow the problem to close."""
    if rule.consecutive is not None:
        last = ends[-rule.recover_after :]
        return len(last) == rule.recover_after and not any(end.failed for end in last)
    last = _last_ends(rule, ends)
    # Half of the rate: otherwise a pipeline that varies around the rate would open and close a problem at every end.
    return sum(end.failed for end in last) / len(last) < (rule.rate or 0.0) / 2


def _last_ends(rule: FailingRule, ends: Sequence[End]) -> Sequence[End]:
    """Return the ends that count for `rate`. The newest end is always among them."""
    return [end for end in ends[-rule.of_last :] if end.ended_at >= ends[-1].ended_at - rule.within_us]


def _count(tallies: list[Tally], end: End, *, within_us: int) -> None:
    """Count an end in the tally that began less than `within_us` before it, else in a new tally."""
    index = bisect_right(tallies, end.ended_at, key=attrgetter("first_at"))
    first_at, ended_count, failed_count = tallies[index - 1] if index else Tally(NEVER, 0, 0)
    if index and end.ended_at - first_at < within_us:
        tallies[index - 1] = Tally(first_at, ended_count + 1, failed_count + end.failed)
    else:
        tallies.insert(index, Tally(end.ended_at, 1, int(end.failed)))


def _is_quiet(tallies: Sequence[Tally]) -> bool:
    """Return whether at most a tenth of the counted ends failed."""
    failed_count, ended_count = sum(each.failed_count for each in tallies), sum(each.ended_count for each in tallies)
    return failed_count <= MAX_FAILED_SHARE * ended_count


def _judge_starts(silent_us: int, state: RuleState, news: News, counts: dict[EventType, int], edges: list[Edge]) -> int:
    """Close `pipeline.silent` at a recent start, or open it after a complete scan. Return the time of the last start.

    That time is unknown (0) before the first complete scan.
    """
    if not state.started_at and news.scanned_until is None:
        return NEVER
    kind, started_at = EventType.PIPELINE_SILENT, max(state.started_at, news.started_at)
    if kind in counts and started_at > state.started_at and news.now - started_at <= silent_us:
        edges.append(Edge(kind, False, counts.pop(kind)))
    if news.scanned_until is None:
        return started_at
    started_at = started_at or news.scanned_until  # without any start, the time counts from the first scan
    if kind not in counts and news.scanned_until - started_at > silent_us:
        counts[kind] = 0
        edges.append(Edge(kind, True))
    return started_at


def _judge_slow(slow: Sequence[str], counts: dict[EventType, int], edges: list[Edge]) -> None:
    """Open `pipeline.slow` if an execution is slow, and close it once none is."""
    kind = EventType.PIPELINE_SLOW
    if slow and kind not in counts:
        counts[kind] = 0
        edges.append(Edge(kind, True, execution=slow[0]))
    elif not slow and kind in counts:
        edges.append(Edge(kind, False, counts.pop(kind)))


def usual_duration(durations: Sequence[int]) -> int | None:
    """Return the duration that is usual by the last durations, all in one unit; `None` with fewer than 20."""
    if len(durations) < LEAST_DURATIONS_COUNT:
        return None
    return sorted(durations)[int(USUAL_SHARE * len(durations))]


class Spending(NamedTuple):
    """The tokens of the executions that ended on one day (UTC), which begins at `day_at`."""

    day_at: Micros
    tokens: int = 0
    percent: int = 0
    """The highest share of `tokens_per_day` in percent that an event has named; 0 without such an event."""

    def add(self, ended: Sequence[EndedExecution], *, per_day: int, now: Micros) -> "Spending":
        """Return the spending of the day of `now`, with these ends. Ends of another day do not count.

        An end may be dated a little after `now`, by the clock of the API: then its day begins with it.
        """
        day_at = max(period_start(at, DAY_US) for at in (self.day_at, now, *(each.ended_at for each in ended)))
        before = self if self.day_at == day_at else Spending(day_at)
        tokens = before.tokens + sum(each.tokens for each in ended if period_start(each.ended_at, DAY_US) == day_at)
        percent = next((each for each in SPENT_PERCENTS if tokens * 100 >= per_day * each), 0)
        return Spending(day_at, tokens, max(before.percent, percent))
