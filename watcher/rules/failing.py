"""The rule `failing`: too many executions of a pipeline fail."""

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import attrgetter
from typing import ClassVar, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator

from watcher.domain.event import EventType
from watcher.domain.execution import FailedNode, Status
from watcher.domain.history import EndedExecution
from watcher.domain.problems import LatestFailure, Problem
from watcher.domain.rule import Judged, News, Rule, RuleEvent
from watcher.domain.timestamps import NEVER, Micros
from watcher.runtime.settings import Block, Duration, Share, SomeKeys, as_written, key_of
from watcher.runtime.terminal import first_visible
from watcher.runtime.units import InvalidValueError, spell_duration

KEPT_ENDS_COUNT = 20
"""The number of last ends that are always kept. A changed rule can therefore count ends from before the change."""

TALLIES_COUNT = 20
"""The number of equal parts into which `quiet_for` is divided. The ends within one part are counted in one tally.

The state is therefore bounded: at most two tallies per part, for any number of ends.
"""

MAX_FAILED_SHARE = 0.1
"""The largest share of failures among the ends within `quiet_for` at which a problem may close."""

_OF_CONSECUTIVE = {"consecutive", "recover_after", "quiet_for_s"}
_OF_RATE = {"rate", "of_last", "within_s", "at_least"}


class AlsoSettings(SomeKeys):
    """The successes that count as failures. With both keys, a success counts if either of them applies."""

    shorter_than_s: Duration | None = Field(default=None, examples=["5s"])
    """A success that took less than this counts as a failure."""
    fewer_nodes_than: int | None = Field(default=None, ge=1, le=1000, examples=["2"])
    """A success that started fewer nodes counts as a failure. If your lists do not say how many started, write
    `polling.details: always`, which costs a request for each end."""


class FailingSettings(Block):
    """The rule by which a pipeline is failing: `consecutive` or `rate`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["consecutive"]}, {"required": ["rate"]}]})

    consecutive: int | None = Field(default=None, ge=1, le=1000, examples=["3"])
    """The number of executions in a row, by their ends, that must fail to open the problem. It closes with
    `pipeline.recovered` once the last `recover_after` succeeded, `quiet_for` has passed since it opened, and at most a
    tenth of the ends within the last `quiet_for` failed."""
    recover_after: int = Field(default=3, ge=1, le=1000, examples=["5"])
    """With `consecutive`: the number of executions in a row that must succeed to close the problem."""
    quiet_for_s: Duration = Field(default=as_written("5m"), examples=["15m"])
    """With `consecutive`: the shortest time for which the problem stays open, and the time within which at most a tenth
    of the ends may have failed."""
    rate: Share | None = Field(default=None, examples=["20%"])
    """Instead of `consecutive`: the share of the last executions that must fail to open the problem. It closes with
    `pipeline.recovered` at less than half of this share."""
    of_last: int = Field(default=20, ge=1, le=1000, examples=["50"])
    """With `rate`: the most ends that are counted, from the newest on."""
    within_s: Duration = Field(default=as_written("24h"), examples=["6h"])
    """With `rate`: the greatest age of a counted end, against the newest."""
    at_least: int = Field(default=5, ge=1, le=1000, examples=["10"])
    """With `rate`: the least number of ends with which the problem opens."""
    also: AlsoSettings | None = Field(default=None, examples=["{shorter_than: 5s, fewer_nodes_than: 2}"])
    """Successes that count as failures of this rule alone. Their event stays `execution.success`."""

    @model_validator(mode="after")
    def _by_one_of_them(self) -> Self:
        if self.consecutive is None and self.rate is None:
            raise InvalidValueError("needs consecutive or rate", remedy="write consecutive: 3, or rate: 20%")
        by, others = ("consecutive", _OF_RATE) if self.consecutive is not None else ("rate", _OF_CONSECUTIVE)
        if more := self.model_fields_set & others:
            at = key_of(type(self), name=min(more))
            raise InvalidValueError(f"is not for {by}", remedy="keep one of the two", at=at)
        if self.at_least > self.of_last:
            problem = f"at_least {self.at_least} is more than of_last {self.of_last}, so it would never hold"
            at = "at_least" if "at_least" in self.model_fields_set else "of_last"
            raise InvalidValueError(problem, remedy="raise of_last or lower at_least", at=at)
        return self


class End(NamedTuple):
    """The end of an execution, and whether it counts as failed."""

    ended_at: int
    failed: bool


class Tally(NamedTuple):
    """The number of ends, and of failures among them, in a twentieth of `quiet_for` that begins at `first_at`."""

    first_at: int
    ended_count: int
    failed_count: int


@dataclass(frozen=True, slots=True)
class FailingState:
    """The last ends, the newest failure and, with `consecutive`, the open problem. An unknown time is 0."""

    ends: tuple[End, ...] = ()
    """The last ends, in the order of their times. Ends with equal times are in the order of recording."""
    opened_at: int = NEVER
    """The time at which the open problem of a rule with `consecutive` opened."""
    tallies: tuple[Tally, ...] = ()
    """The counts of ends since `opened_at`, but only within `quiet_for` of the newest end."""
    latest: LatestFailure | None = None


@dataclass(frozen=True, slots=True)
class Failing(Rule):
    """The rule `failing`: it opens a problem at `consecutive` failures in a row, or at a failure `rate` (0 to 1).

    With `consecutive` the problem closes at an end if the last `recover_after` ends succeeded, the problem opened at
    least `quiet_for` earlier, and at most a tenth of the ends within the last `quiet_for` failed.

    With `rate` the last `of_last` ends count, unless they are older than `within`. The problem opens if at least
    `at_least` ends count and a share of `rate` or more failed. It closes if the share is below half of `rate`.
    """

    key: ClassVar[str] = "failing"
    opens: ClassVar[EventType] = EventType.PIPELINE_FAILING
    state_type: ClassVar[type[FailingState]] = FailingState
    judges_ends: ClassVar[bool] = True

    settings: FailingSettings

    def judge(self, state: FailingState, news: News, problem: Problem | None) -> Judged:
        """Judge the new ends. An end may open or close the problem only if no end with a later time is known."""
        given, ends, tallies, latest = self.settings, list(state.ends), list(state.tallies), state.latest
        is_consecutive, quiet_us, events = given.consecutive is not None, _us(given.quiet_for_s), list[RuleEvent]()
        is_open, count = problem is not None, problem.failed_count if problem else 0
        opened_at = (state.opened_at or news.now) if is_consecutive and is_open else NEVER
        for each in news.ends:
            fault = self.fault_of(each)
            end = End(each.ended_at, each.status == Status.FAILED or fault is not None)
            insort(ends, end, key=attrgetter("ended_at"))
            if end.failed and (latest is None or end.ended_at >= latest.at):
                latest = _failure(each, fault)
            if is_open:
                count += end.failed
                if is_consecutive and end.ended_at >= opened_at:
                    _count(tallies, end, within_us=quiet_us // TALLIES_COUNT)
            quiet_since = ends[-1].ended_at - quiet_us
            tallies = [tally for tally in tallies if tally.first_at >= quiet_since]
            is_late = end.ended_at < ends[-1].ended_at
            if is_late or (news.only_last_decides and each is not news.ends[-1]):
                continue
            if not is_open:
                if count := self._failures_that_open(ends):
                    is_open, opened_at = True, news.now if is_consecutive else NEVER
                    events.append(
                        RuleEvent(self.opens, {"closesWhen": self.closes_when()}, each.execution, fault, count)
                    )
            elif self._has_recovered(ends) and (
                not is_consecutive or (opened_at <= quiet_since and _is_quiet(tallies))
            ):
                events.append(RuleEvent(EventType.PIPELINE_RECOVERED, failed_count=count))
                is_open, opened_at, tallies = False, NEVER, []
        kept = max(KEPT_ENDS_COUNT, given.consecutive or given.of_last, given.recover_after)
        after = FailingState(tuple(ends[-kept:]), opened_at, tuple(tallies), latest)
        return Judged(after, events, count, latest if is_open or problem else None)

    def moved(self, state: FailingState, by_us: int, *, now: Micros) -> FailingState:
        """Return the state with each time moved by `by_us`, but not beyond `now`."""
        ends = tuple(End(min(now, at + by_us), failed) for at, failed in state.ends)
        tallies = tuple(each._replace(first_at=min(now, each.first_at + by_us)) for each in state.tallies)
        opened_at, latest = state.opened_at and min(now, state.opened_at + by_us), state.latest
        latest = latest and latest._replace(at=Micros(min(now, latest.at + by_us)))
        return FailingState(ends, opened_at, tallies, latest)

    def fault_of(self, end: EndedExecution) -> str | None:
        """Return in words why a success counts as a failure (`also`); `None` if it does not.

        A duration or a count of nodes that the API does not name is no fault. The duration is rounded to milliseconds,
        as in events.
        """
        also = self.settings.also
        if also is None or end.status != Status.SUCCESS:
            return None
        duration_s = None if end.duration_s is None else round(end.duration_s, 3)
        if also.shorter_than_s is not None and duration_s is not None and duration_s < also.shorter_than_s:
            return f"succeeded after {duration_s:g} s, in less than {also.shorter_than_s:g} s"
        if also.fewer_nodes_than is not None and end.nodes is not None and end.nodes < also.fewer_nodes_than:
            return f"succeeded, but started {end.nodes:g} nodes, fewer than {also.fewer_nodes_than}"
        return None

    def opens_when(self) -> str:
        """Return in words when the rule opens its problem."""
        given = self.settings
        words = f"{given.consecutive} executions in a row failed"
        if given.rate is not None:
            last = f"the last {given.of_last} executions that ended within {spell_duration(given.within_s)}"
            words = f"{100 * given.rate:g} % or more of {last} failed, once there are {given.at_least}"
        if (also := given.also) is not None:
            faults = [] if also.shorter_than_s is None else [f"took less than {also.shorter_than_s:g} s"]
            faults += [] if also.fewer_nodes_than is None else [f"started fewer than {also.fewer_nodes_than} nodes"]
            words = f"{words}; a success counts as a failure if it {' or '.join(faults)}"
        return words

    def closes_when(self) -> str:
        """Return in words the condition that closes the problem."""
        given = self.settings
        if given.rate is not None:
            return f"less than {50 * given.rate:g} % of the last {given.of_last} executions failed"
        quiet_for = spell_duration(given.quiet_for_s)
        return (
            f"{given.recover_after} in a row succeeded, at most a tenth of the last {quiet_for} failed,"
            f" and it has been open for {quiet_for}"
        )

    def _failures_that_open(self, ends: Sequence[End]) -> int:
        """Return the number of failures with which the newest end opens a problem; 0 if the end opens none."""
        given = self.settings
        if given.consecutive is not None:
            in_row = sum(1 for _ in takewhile(attrgetter("failed"), reversed(ends)))
            return in_row if in_row >= given.consecutive else 0
        last = self._last_ends(ends)
        failed_count = sum(end.failed for end in last)
        return failed_count if len(last) >= given.at_least and failed_count / len(last) >= (given.rate or 0.0) else 0

    def _has_recovered(self, ends: Sequence[End]) -> bool:
        """Return whether the last ends allow the problem to close."""
        given = self.settings
        if given.consecutive is not None:
            last = ends[-given.recover_after :]
            return len(last) == given.recover_after and not any(end.failed for end in last)
        last = self._last_ends(ends)
        # Half of the rate: otherwise a pipeline that varies around the rate would open and close at every end.
        return sum(end.failed for end in last) / len(last) < (given.rate or 0.0) / 2

    def _last_ends(self, ends: Sequence[End]) -> Sequence[End]:
        """Return the ends that count for `rate`. The newest end is always among them."""
        since = ends[-1].ended_at - _us(self.settings.within_s)
        return [end for end in ends[-self.settings.of_last :] if end.ended_at >= since]


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _failure(end: EndedExecution, fault: str | None) -> LatestFailure:
    node = end.node or FailedNode(None, None, None)
    name, error = first_visible(node.name, node.id), first_visible(node.error, fault or end.text)
    return LatestFailure(end.ended_at, end.execution, name or None, error or None)


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
