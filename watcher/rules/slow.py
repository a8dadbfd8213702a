"""The rule `slow`: an open execution runs for much longer than is usual for its pipeline."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import Field

from watcher.domain.event import EventType
from watcher.domain.execution import ExecutionRecord, Status
from watcher.domain.problems import Problem
from watcher.domain.rule import Judged, News, Past, Rule, RuleEvent, Tracked
from watcher.domain.timestamps import Micros
from watcher.runtime.settings import Block, Duration, as_written
from watcher.runtime.units import counted, spell_duration

DURATIONS_COUNT = 200
"""The number of last successes whose durations say what is usual."""

LEAST_DURATIONS_COUNT = 20
"""The least number of successes with which the rule is judged."""

USUAL_SHARE = 0.95
"""The share of the last successes that are at most as long as the usual duration.

Of 200 successes, up to nine longer ones do not change the usual duration, and ten do.
"""


class SlowSettings(Block):
    """The rule by which an open execution is slow, compared with the last 200 successes of its pipeline."""

    times: float = Field(default=3.0, gt=1.0, le=1000.0, examples=["4"])
    """A slow execution runs for this many times the usual duration, which 95 % of the successes did not exceed."""
    at_least_s: Duration = Field(default=as_written("1m"), examples=["10m"])
    """A slow execution runs at least this much longer than usual."""


def usual_duration(durations: Sequence[int]) -> int | None:
    """Return the duration that is usual by the last durations, all in one unit; `None` with fewer than 20."""
    if len(durations) < LEAST_DURATIONS_COUNT:
        return None
    return sorted(durations)[int(USUAL_SHARE * len(durations))]


@dataclass(frozen=True, slots=True)
class SlowState:
    """The durations (microseconds) of a pipeline's last successes, and the open executions that are slow by them."""

    durations: tuple[int, ...] = ()
    usual_us: int | None = None
    """The usual duration; `None` with too few successes."""
    slow: frozenset[Tracked] | None = None
    """`None` as long as the open executions are unknown, after a start."""


@dataclass(frozen=True, slots=True)
class Slow(Rule):
    """The rule `slow`: a problem is open while an execution runs for longer than the limit.

    The limit is `times` the usual duration, and at least `at_least` more than it. An execution that was seen paused is
    never slow, and its duration does not count.
    """

    key: ClassVar[str] = "slow"
    opens: ClassVar[EventType] = EventType.PIPELINE_SLOW
    follows_open: ClassVar[bool] = True

    settings: SlowSettings

    async def begin(self, state: object, past: Past, *, now: Micros) -> SlowState:
        """Return the state with the recorded durations."""
        durations = tuple(await past.durations(DURATIONS_COUNT))
        return SlowState(durations, usual_duration(durations))

    def judge(self, state: SlowState, news: News, problem: Problem | None) -> Judged:
        """Open the problem if an execution is slow, and close it once none is."""
        after = self._with_shown(self._with_changes(self._with_watched(state, news, problem), news), news)
        if not after.slow:
            events = [] if after.slow is None or problem is None else [RuleEvent(EventType.PIPELINE_ON_TIME)]
            return Judged(after, events)
        if problem is not None:
            return Judged(after)
        slowest = min(after.slow, key=_started_at)
        usual_us = after.usual_us or 0
        data = {
            "runningSeconds": round((news.now - _started_at(slowest)) / 1e6, 1),
            "usualSeconds": round(usual_us / 1e6, 1),
            "limitSeconds": round(self.limit_us(usual_us) / 1e6, 1),
            "slowCount": len(after.slow),
        }
        return Judged(after, [RuleEvent(self.opens, data, slowest.known.execution)])

    def limit_us(self, usual_us: int) -> int:
        """Return the time after which an execution is slow, given the usual duration."""
        at_least_us = round(self.settings.at_least_s * 1_000_000)
        return max(round(self.settings.times * usual_us), usual_us + at_least_us)

    def count_slow(self, durations_us: Sequence[int]) -> int:
        """Return how many of these durations, oldest first, were above the limit by the up to 200 before them.

        The first 20 are not judged.
        """
        count = 0
        for nth in range(LEAST_DURATIONS_COUNT, len(durations_us)):
            usual_us = usual_duration(durations_us[max(0, nth - DURATIONS_COUNT) : nth])
            count += usual_us is not None and durations_us[nth] > self.limit_us(usual_us)
        return count

    def trial_in_words(self, durations_us: Sequence[int], *, shown: str) -> str:
        """Return in words how often the rule would have reported these durations. `shown` says where they are from."""
        usual_us, count = usual_duration(durations_us[-DURATIONS_COUNT:]), len(durations_us)
        if usual_us is None:
            return f"{shown} {counted(count, 'success')}, {LEAST_DURATIONS_COUNT} are needed"
        usual, limit = (spell_duration(math.ceil(us / 1_000_000)) for us in (usual_us, self.limit_us(usual_us)))
        found = f"{shown} {LEAST_DURATIONS_COUNT} successes and none after them"
        if (tried_count := count - LEAST_DURATIONS_COUNT) > 0:
            tried = f"{counted(tried_count, 'success')} after the first {LEAST_DURATIONS_COUNT}"
            found = f"would have been reported for {self.count_slow(durations_us)} of {tried} ({shown} {count})"
        return f"{found}; 95 % took at most {usual}, limit {limit}"

    def opens_when(self) -> str:
        """Return in words when the rule opens its problem."""
        least = spell_duration(self.settings.at_least_s)
        return f"an execution runs for {self.settings.times:g} times as long as usual, and at least {least} longer"

    def _slow_since(self, state: SlowState, now: Micros) -> int:
        """Return the time before which an open execution must have started to be slow; 0 with too few successes."""
        return 0 if state.usual_us is None else now - self.limit_us(state.usual_us)

    def _with_watched(self, state: SlowState, news: News, problem: Problem | None) -> SlowState:
        """Drop what is not watched any more, or not slow. After a start what opened the problem counts as slow."""
        if news.watched is None:
            return state
        known = state.slow if state.slow is not None else news.watched if problem is not None else ()
        since = self._slow_since(state, news.now)
        return replace(
            state, slow=frozenset(each for each in known if _is_slow(each.known, since) and not each.is_unwatched)
        )

    def _with_changes(self, state: SlowState, news: News) -> SlowState:
        """Add the durations of successes that are no history, and drop the executions that are not slow any more."""
        added = _durations_of(news.changed.values())
        if added:
            durations = (*state.durations, *added)[-DURATIONS_COUNT:]
            state = replace(state, durations=durations, usual_us=usual_duration(durations))
        if not state.slow:
            return state
        changed = state.slow if added else state.slow & news.changed.keys()
        since = self._slow_since(state, news.now)
        gone = {each for each in changed if not _is_slow(news.changed.get(each, each.known), since)}
        return replace(state, slow=state.slow - gone) if gone else state

    def _with_shown(self, state: SlowState, news: News) -> SlowState:
        """Add and drop executions that an answer has shown.

        If a row shows an end that a GET is to confirm, nothing is known of that execution.
        """
        if state.slow is None or not news.shown:
            return state
        since, shown = self._slow_since(state, news.now), [each for each in news.shown if each.unconfirmed_end is None]
        found = {each for each in shown if _is_slow(each.known, since) and not each.is_unwatched}
        slow = state.slow.difference(shown) | found
        return state if slow == state.slow else replace(state, slow=slow)


def _is_slow(known: ExecutionRecord, since: int) -> bool:
    """Return whether an execution is open, was never seen paused, and started before `since`."""
    is_open = known.end_seen_at is None and known.lost is None
    return is_open and not known.was_paused and known.started_at is not None and known.started_at < since


def _started_at(entry: Tracked) -> int:
    return entry.known.started_at or 0


def _durations_of(known: Iterable[ExecutionRecord]) -> Sequence[int]:
    """Return the durations of the successes among executions that have changed."""
    return [
        each.ended_at - each.started_at
        for each in known
        if each.status == Status.SUCCESS and each.lost is None and each.sequence and not each.was_paused
        if each.ended_at is not None and each.started_at is not None and each.ended_at > each.started_at
    ]
