"""The transitions of an execution: pure functions that return its new record and the changes to report."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from watcher.domain.event import EventType
from watcher.domain.execution import (
    LOST,
    TERMINAL_STATUSES,
    Counts,
    ExecutionRecord,
    ExecutionSnapshot,
    LostReason,
    Outcome,
    Status,
)
from watcher.domain.timestamps import Micros

EXECUTION_REASONS = {
    Outcome.NOT_FOUND: LostReason.NOT_FOUND,
    Outcome.REJECTED: LostReason.REJECTED,
    Outcome.FORBIDDEN: LostReason.FORBIDDEN,
}
"""The reason of `execution.lost`, for each outcome that may concern the execution rather than the account."""

TYPES: Mapping[str, EventType] = {status: EventType(f"execution.{status}") for status in Status}

EXPENSIVE = "expensive"
"""The word by which `execution.expensive` is counted. It is part of the event's id."""

RAW_STATUS_LENGTH = 64
"""The most characters of an unrecognized status. The status becomes part of ids and rows."""


class Observation(NamedTuple):
    """A successful poll: the answer, and the times of request and answer (microseconds UTC, steady)."""

    execution: ExecutionSnapshot
    sent_at: Micros
    seen_at: Micros


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A change of an execution, which becomes the nth event of this `kind` and the event with this `sequence`."""

    type: EventType
    kind: str
    status: str
    previous: str | None
    nth: int
    sequence: int


class TransitionResult(NamedTuple):
    """The result of a poll: the new record of the execution, and its changes."""

    known: ExecutionRecord
    """The new record. If there is nothing to record, it is the same object as before the poll."""
    status_changes: tuple[StatusChange, ...] = ()
    dropped: bool = False
    """Whether the poll is ignored: it was sent before the previous answer came, or the execution had ended before."""
    contradicts: bool = False
    """Whether the answer has another status than the one with which the execution ended."""


def observe(
    before: ExecutionRecord,
    poll: Observation,
    *,
    polled_at: Micros,
    overdue_after_s: Mapping[str, float],
    max_tokens: int | None = None,
) -> TransitionResult:
    """Evaluate a successful poll. `polled_at` is the time of the last answer that was not dropped.

    An execution that used more than `max_tokens` is expensive. That is reported once, and before its end.
    """
    status, terminal = poll.execution.status[:RAW_STATUS_LENGTH], is_terminal(poll.execution)
    if before.end_seen_at is not None and before.lost is None:
        return TransitionResult(before, dropped=True, contradicts=status != before.status)
    if poll.sent_at < polled_at and not terminal:
        return TransitionResult(before, dropped=True)
    end_seen_at = poll.seen_at if terminal else None
    ended_at = end_seen_at and (poll.execution.ended_at or end_seen_at)  # by the API's date, if it gives one
    used = 0 if max_tokens is None else poll.execution.ai_tokens_used or 0
    if max_tokens is not None and used > max_tokens and EXPENSIVE not in dict(before.counts):
        return _observe_expensive(before, poll, polled_at=polled_at, overdue_after_s=overdue_after_s)
    seen = TransitionResult(before)  # the common case: `before` itself is kept, so no object is made
    if status != before.status or before.lost is not None:
        seen = _move(before, poll, status=status, end_seen_at=end_seen_at, ended_at=ended_at)
    elif terminal:
        started_at = _started_at(before.started_at, poll.execution)
        ended = replace(
            before, polled_at=poll.seen_at, end_seen_at=end_seen_at, ended_at=ended_at, started_at=started_at
        )
        seen = TransitionResult(ended)
    if terminal or not overdue_after_s:
        return seen
    if not exceeds_limit(seen.known, at=poll.seen_at, overdue_after_s=overdue_after_s):
        return seen
    overdue = _emit(seen.known, EventType.EXECUTION_OVERDUE, kind="overdue", status=status, previous=None)
    known = replace(overdue.known, polled_at=poll.seen_at, overdue_sequence=overdue.known.sequence)
    return TransitionResult(known, (*seen.status_changes, *overdue.status_changes))


def _observe_expensive(
    before: ExecutionRecord, poll: Observation, *, polled_at: Micros, overdue_after_s: Mapping[str, float]
) -> TransitionResult:
    """Evaluate a successful poll that shows for the first time that an execution is expensive."""
    status, seen = poll.execution.status[:RAW_STATUS_LENGTH], TransitionResult(before)
    if not is_terminal(poll.execution):
        seen = observe(before, poll, polled_at=polled_at, overdue_after_s=overdue_after_s)
    expensive = _emit(seen.known, EventType.EXECUTION_EXPENSIVE, kind=EXPENSIVE, status=status, previous=None)
    end = TransitionResult(replace(expensive.known, polled_at=poll.seen_at))
    if is_terminal(poll.execution):  # its end comes last
        end = observe(end.known, poll, polled_at=polled_at, overdue_after_s=overdue_after_s)
    return TransitionResult(end.known, (*seen.status_changes, *expensive.status_changes, *end.status_changes))


def lose(before: ExecutionRecord, reason: LostReason, *, at: Micros, polled_at: Micros) -> TransitionResult:
    """Report an execution as lost. It is still polled, and its next event has the previous status `lost`."""
    known = replace(before, lost=reason, lost_at=at, polled_at=polled_at, overdue_sequence=None, overdue_at=None)
    return _emit(known, EventType.EXECUTION_LOST, kind="lost", status=LOST, previous=before.status)


def is_terminal(execution: ExecutionSnapshot) -> bool:
    """Return whether the status is terminal: `success`, `failed`, or an unrecognized word with `finishedAt` set."""
    if execution.status in TYPES:
        return execution.status in TERMINAL_STATUSES
    return execution.finished_at is not None


def _move(
    before: ExecutionRecord, poll: Observation, *, status: str, end_seen_at: Micros | None, ended_at: Micros | None
) -> TransitionResult:
    """Record a new status from the time of the poll. The first status counts from `startedAt`, if the API gave it."""
    began_at, since_at = poll.execution.began_at, poll.seen_at
    if before.status is None and before.lost is None and began_at is not None:
        since_at = min(since_at, began_at)
    started_at = _started_at(before.started_at or (since_at if before.status is None else None), poll.execution)
    known = replace(
        before,
        status=status,
        since_at=since_at,
        polled_at=poll.seen_at,
        overdue_sequence=None,
        overdue_at=None,
        lost=None,
        lost_at=None,
        end_seen_at=end_seen_at,
        ended_at=ended_at,
        started_at=started_at,
        was_paused=before.was_paused or status == Status.PAUSED,
    )
    previous = LOST if before.lost else before.status
    if type_ := TYPES.get(status):
        return _emit(known, type_, kind=status, status=status, previous=previous)
    kind = f"unrecognized:{status}"
    if any(counted == kind for counted, _ in before.counts):  # without an event, an overdue problem stays open
        return TransitionResult(replace(known, overdue_sequence=before.overdue_sequence, overdue_at=before.overdue_at))
    return _emit(known, EventType.EXECUTION_UNRECOGNIZED, kind=kind, status=status, previous=previous)


def _started_at(known: Micros | None, execution: ExecutionSnapshot) -> Micros | None:
    """Return the start of an execution. Once its end is dated, the start is as long before it as the API's dates say.

    Otherwise the duration would be wrong by up to a second: either date is converted with the `Date` of its own answer.
    """
    ended_at, duration_s = execution.ended_at, execution.duration_s
    return known if ended_at is None or duration_s is None else Micros(ended_at - round(duration_s * 1_000_000))


def exceeds_limit(known: ExecutionRecord, *, at: Micros, overdue_after_s: Mapping[str, float]) -> bool:
    """Return whether an execution was in its status for longer than the limit, and no `execution.overdue` is open."""
    limit_s = overdue_after_s.get(known.status or "")
    return limit_s is not None and known.overdue_sequence is None and at - known.since_at > limit_s * 1_000_000


def _emit(
    known: ExecutionRecord, type_: EventType, *, kind: str, status: str, previous: str | None
) -> TransitionResult:
    counts, nth = _bump(known.counts, kind)
    known = replace(known, counts=counts, sequence=known.sequence + 1)
    return TransitionResult(known, (StatusChange(type_, kind, status, previous, nth, known.sequence),))


@lru_cache(maxsize=4096)
def _bump(counts: Counts, kind: str) -> tuple[Counts, int]:
    """Return all counts with one more of `kind`, and the new count of `kind`.

    Executions with the same history share the same tuple, which saves the memory of 100,000 tuples.
    """
    counted = dict(counts)
    counted[kind] = counted.get(kind, 0) + 1
    return tuple(counted.items()), counted[kind]
