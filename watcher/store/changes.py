"""What is written to the store, and under which lease."""

from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from watcher.domain.delivery import DeliveryState, ProblemMessage
from watcher.domain.event import OutboxEntry
from watcher.domain.execution import ExecutionRecord
from watcher.domain.problems import ProblemChange
from watcher.domain.rules import RuleState, UnjudgedEnd
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor


@dataclass(frozen=True, slots=True)
class Lease:
    """Ownership of an account or a sink: `kind` is `account` or `sink`, `epoch` is random per taking.

    Every write names its lease; a write whose epoch is no longer the stored one changes nothing.
    """

    kind: str
    name: str
    epoch: int


@dataclass(frozen=True, slots=True)
class ExecutionChange:
    """A new state of one execution with its events, written in one transaction or not at all.

    `before` is the sequence the writer believes is recorded, `None` for an execution that has no row yet.
    """

    lease: Lease
    before: int | None
    known: ExecutionRecord
    entries: tuple[OutboxEntry, ...]
    problems: tuple[ProblemChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Reminder:
    """That the leased sink was reminded of a problem for that moment (microseconds UTC, steady)."""

    problem: UUID
    reminded_at: Micros


@dataclass(frozen=True, slots=True)
class SourceChange:
    """A new state of the leased account or sink itself, with its events.

    `before` is the sequence believed recorded, `sequence` the new one. `state` is the account's trouble, or a
    sink's `failing` or `disabled`; `None` is well.
    """

    lease: Lease
    before: int
    sequence: int
    state: str | None
    entries: tuple[OutboxEntry, ...]
    problems: tuple[ProblemChange, ...] = ()
    reminders: tuple[Reminder, ...] = ()


@dataclass(frozen=True, slots=True)
class PipelineChange:
    """How far a pipeline of the leased account is read now, with the pipeline's own events.

    `before` is the sequence of its own events believed recorded, `sequence` the new one.
    """

    lease: Lease
    pipeline: str
    before: int
    sequence: int
    cursor: Cursor
    entries: tuple[OutboxEntry, ...]
    problems: tuple[ProblemChange, ...] = ()


@dataclass(frozen=True, slots=True)
class RulesChange:
    """What the rules of a pipeline of the leased account go by now, with the pipeline's own events.

    `before` and `sequence` are as for a `PipelineChange`. The ends of `unjudged` are to be judged later; with
    `judges_all` those that waited have been judged.
    """

    lease: Lease
    pipeline: str
    before: int
    sequence: int
    state: RuleState
    entries: tuple[OutboxEntry, ...] = ()
    problems: tuple[ProblemChange, ...] = ()
    unjudged: tuple[UnjudgedEnd, ...] = ()
    judges_all: bool = False


SingleChange = ExecutionChange | SourceChange | PipelineChange | RulesChange


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Changes under one lease that are written in this order, together or not at all."""

    lease: Lease
    changes: tuple[ExecutionChange | RulesChange, ...]


Change = SingleChange | ChangeSet


class Emitted(NamedTuple):
    """An event on its way, and what it is about, by column."""

    entry: OutboxEntry
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BackoffState:
    """What an account or a sink is going through now, which a restart must not forget.

    `pause_s` is how long nothing may be sent to it; `failing_for_s` is for how long nothing got through, counted only
    while the daemon ran. `None` is no pause, no failure.
    """

    pause_s: float | None = None
    failing_for_s: float | None = None


NO_BACKOFF = BackoffState()


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """How one attempt at a delivery ended, and what is next. Fields as in `Delivery`; `answer` is a word or code."""

    stream: bytes
    sequence: int
    state: DeliveryState
    attempts: int
    due_at: Micros
    steps: int
    rejections: int
    tried_at: Micros
    first_due_at_s: float
    answer: str
    group_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class AttemptRecords:
    """How attempts at deliveries of the leased sink ended, written together or not at all.

    No attempt can be refused alone: by their keys rows are only found, and what is written are numbers within bounds
    and words of ours. `clock_s`, the sink's own clock, and `backoff` are how the sink is now, kept with the sink.
    `messages` are where messages of problems are now; a later one of the same problem replaces an earlier one.
    """

    lease: Lease
    attempts: tuple[AttemptRecord, ...]
    clock_s: float
    backoff: BackoffState
    messages: tuple[ProblemMessage, ...] = ()
