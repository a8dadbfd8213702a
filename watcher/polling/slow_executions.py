"""Finds the open executions of a pipeline that are slow by the durations of its last successes: the rule `slow`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

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
    entries: set[TrackedExecution] | None = None
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

    def keep_slow(self, *, now: Micros) -> None:
        """Drop the entries that are not watched any more, or not slow."""
        kept = {each for each in self.entries or () if not each.is_unwatched and self.is_slow(each.known, now=now)}
        self.entries = None if self.entries is None else kept

    def note_shown(self, entries: Iterable[TrackedExecution], *, now: Micros) -> None:
        """Add and drop these executions, which an answer has shown.

        If a row shows an end that a GET is to confirm, nothing is known of that execution.
        """
        for each in entries:
            if self.entries is None or each.unconfirmed_end is not None:
                continue
            if self.is_slow(each.known, now=now) and not each.is_unwatched:
                self.entries.add(each)
            else:
                self.entries.discard(each)

    def with_changes(self, known: Mapping[TrackedExecution, ExecutionRecord], *, now: Micros) -> "SlowExecutions":
        """Return the state after these executions have changed. A success that is no history adds its duration."""
        added = [
            each.ended_at - each.started_at
            for each in known.values()
            if each.status == Status.SUCCESS and each.lost is None and each.sequence and not each.was_paused
            if each.ended_at is not None and each.started_at is not None and each.ended_at > each.started_at
        ]
        durations = (*self.durations, *added)[-DURATIONS_COUNT:] if added else self.durations
        after = SlowExecutions(self.rule, durations, self.entries)
        if self.entries is not None:
            changed = self.entries if added else self.entries & known.keys()
            gone = {each for each in changed if not after.is_slow(known.get(each, each.known), now=now)}
            after.entries = self.entries - gone
        return after

    def slowest(self) -> Sequence[str] | None:
        """Return the id of the slow execution that has been running longest, if any; `None` if they are unknown."""
        if self.entries is None:
            return None
        first = min(self.entries, key=lambda each: each.known.started_at or 0, default=None)
        return [] if first is None else [first.known.execution]

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
