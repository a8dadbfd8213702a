"""Finds the open executions of a pipeline that are slow by the durations of its last successes: the rule `slow`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from watcher.domain.envelope import Json
from watcher.domain.execution import ExecutionRecord, Status
from watcher.domain.rules import DURATIONS_COUNT, SlowRule, usual_duration
from watcher.domain.timestamps import Micros
from watcher.polling.poll_item import TrackedExecution


@dataclass(slots=True)
class SlowExecutions:
    """The durations (microseconds) of a pipeline's last successes, and the open executions that are slow by them.

    An execution that was seen paused is never slow, and its duration does not count. `entries` is `None` as long as the
    open executions are unknown, after a start.
    """

    rule: SlowRule
    durations: Sequence[int]
    entries: Collection[TrackedExecution] | None = None
    usual_us: int | None = field(init=False)
    """The usual duration; `None` with too few successes."""

    def __post_init__(self) -> None:
        self.usual_us = usual_duration(self.durations)

    def is_slow(self, known: ExecutionRecord, *, now: Micros) -> bool:
        """Return whether an execution is open and has run for longer than the limit."""
        if self.usual_us is None or known.started_at is None or known.was_paused:
            return False
        is_open = known.end_seen_at is None and known.lost is None
        return is_open and now - known.started_at > self.rule.limit_us(self.usual_us)

    def slow_among(self, entries: Iterable[TrackedExecution], *, now: Micros) -> set[TrackedExecution]:
        """Return those of these executions that are watched and slow, and that no row shows as ended."""
        slow = (each for each in entries if self.is_slow(each.known, now=now))
        return {each for each in slow if not each.is_unwatched and each.unconfirmed_end is None}

    def after(self, known: Mapping[TrackedExecution, ExecutionRecord], *, now: Micros) -> "SlowExecutions":
        """Return the state after these executions have changed. A success that is no history adds its duration."""
        added = [
            each.ended_at - each.started_at
            for each in known.values()
            if each.status == Status.SUCCESS and each.lost is None and each.sequence and not each.was_paused
            if each.ended_at is not None and each.started_at is not None and each.ended_at > each.started_at
        ]
        after = replace(self, durations=(*self.durations, *added)[-DURATIONS_COUNT:]) if added else self
        if self.entries is None:
            return after
        kept = [each for each in self.entries if after.is_slow(known.get(each, each.known), now=now)]
        return replace(after, entries=[each for each in kept if not each.is_unwatched])

    def slowest_first(self) -> Sequence[str] | None:
        """Return the ids of the slow executions, the one that started first at the head; `None` if they are unknown."""
        if self.entries is None:
            return None
        return [each.known.execution for each in sorted(self.entries, key=lambda each: each.known.started_at or 0)]

    def facts(self, *, now: Micros) -> Json:
        """Return the data of `pipeline.slow`: the time of the slowest, what is usual, the limit, how many are slow."""
        entries, usual_us = self.entries or (), self.usual_us or 0
        started_at = min((each.known.started_at or now for each in entries), default=now)
        return {
            "runningSeconds": round((now - started_at) / 1e6, 1),
            "usualSeconds": round(usual_us / 1e6, 1),
            "limitSeconds": round(self.rule.limit_us(usual_us) / 1e6, 1),
            "slowCount": len(entries),
        }
