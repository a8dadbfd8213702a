"""What is read from the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.problems import Problem
from watcher.domain.rules import RuleState, UnjudgedEnd
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.store.changes import BackoffState


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """What the store knows of an account itself: its own events' sequence, and its trouble if degraded."""

    sequence: int
    trouble: str | None
    backoff: BackoffState
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class PipelineRecord:
    """What the store knows of a pipeline itself: its own events' sequence, and how far its lists were read, if ever."""

    sequence: int
    cursor: Cursor | None


@dataclass(frozen=True, slots=True)
class RulesRecord:
    """What the store knows of a pipeline's rules: what they go by, open problems, the ends that wait to be judged.

    `sequence` is that of the pipeline's own events.
    """

    sequence: int
    state: RuleState
    problems: Mapping[EventType, Problem]
    unjudged: Sequence[UnjudgedEnd]


@dataclass(frozen=True, slots=True)
class OpenProblem:
    """An open problem and what it is about: an account or a sink (`kind`), and of an account perhaps a pipeline.

    Of an execution also its status, as long as this problem says that it is overdue, and whether it has ended.
    """

    problem: Problem
    kind: str
    name: str
    pipeline: str | None = None
    execution: str | None = None
    status: str | None = None
    has_ended: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class SinkRecord:
    """What the store knows of a sink: its own events' sequence, `failing`, `disabled` or `None`, and its clock.

    `failures_count` are the attempts so far at what waits.
    """

    sequence: int
    state: str | None
    clock_s: float
    backoff: BackoffState
    problem: Problem | None = None
    failures_count: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What may be sent now, each batch in one request, at most one delivery of a lane outside a batch.

    First what was never tried, then the others, in the order they came due. `next_due_at` is when more is due (`None`:
    nothing waits).
    """

    batches: Sequence[Sequence[Delivery]]
    next_due_at: Micros | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one sink: how many, and the oldest one's `recorded_at` (microseconds UTC, steady)."""

    pending_count: int
    oldest_at: Micros | None


@dataclass(frozen=True, slots=True)
class SentOpening:
    """A problem whose opening event, with this body, the sink took, and when it was reminded of it.

    `closed_at` is the wall clock, the others microseconds UTC, steady.
    """

    problem: Problem
    body: bytes
    recorded_at: Micros
    settled_at: Micros
    reminded_at: Micros | None
    closed_at: datetime | None
