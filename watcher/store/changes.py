"""What is written to the store, under which lease, and what is read from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal
from uuid import UUID

from watcher.domain.delivery import AttemptRecord, Delivery, ProblemMessage
from watcher.domain.event import EventType, OutboxEntry
from watcher.domain.execution import ExecutionRecord
from watcher.domain.history import EndedExecution
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.routing import IncidentRules
from watcher.domain.rules import RuleState, UnjudgedEnd
from watcher.domain.snapshots import AccountSnapshot
from watcher.domain.timestamps import NEVER, Micros
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

    `before` is the sequence the writer believes is recorded, `None` for an execution that has no row yet. With `ended`
    it counts in the history of its pipeline.
    """

    lease: Lease
    before: int | None
    known: ExecutionRecord
    entries: tuple[OutboxEntry, ...]
    problems: tuple[ProblemChange, ...] = ()
    ended: EndedExecution | None = None


@dataclass(frozen=True, slots=True)
class SourceChange:
    """A new state of the leased account or sink itself, or of a `pipeline` of the account, with its own events.

    `before` is the sequence of these believed recorded, `sequence` the new one. `state` is the account's trouble, or a
    sink's `failing` or `disabled`; `None` is well. `reminders` are the problems that the sink was reminded of, and for
    which moment (microseconds UTC, steady). Of a pipeline, `cursor` is how far it is read and `rules` what its rules go
    by, where they are given; the ends of `unjudged` are to be judged later, with `judges_all` those that waited have
    been.
    """

    lease: Lease
    before: int
    sequence: int
    state: str | None = None
    entries: tuple[OutboxEntry, ...] = ()
    problems: tuple[ProblemChange, ...] = ()
    reminders: Mapping[UUID, Micros] = field(default_factory=dict)
    pipeline: str | None = None
    cursor: Cursor | None = None
    rules: RuleState | None = None
    unjudged: tuple[UnjudgedEnd, ...] = ()
    judges_all: bool = False


SingleChange = ExecutionChange | SourceChange


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Changes under one lease that are written in this order, together or not at all."""

    lease: Lease
    changes: tuple[SingleChange, ...]

    @property
    def entries(self) -> Sequence[OutboxEntry]:
        """Return the events of all changes."""
        return [entry for change in self.changes for entry in change.entries]


Change = SingleChange | ChangeSet

About = dict[str, Any]
"""What a change is about, by column: `source_id`, `pipeline_id` and `execution`."""

Emitted = tuple[OutboxEntry, About]
"""An event on its way, and what it is about."""


@dataclass(frozen=True, slots=True)
class BackoffState:
    """What an account or a sink is going through now, which a restart must not forget.

    `pause_s` is how long nothing may be sent to it; `failing_for_s` is for how long nothing got through, counted only
    while the daemon ran. `None` is no pause, no failure.
    """

    pause_s: float | None = None
    failing_for_s: float | None = None


Trial = Literal["never_tried", "tried_longest_ago"]
"""Which delivery is to show whether a sink works again."""


@dataclass(frozen=True, slots=True)
class Take:
    """What the owner of a sink asks for: what is due at `now`, in at most `count` requests.

    Lanes in `skip` are on their way. At most `group_count` go together. While the breaker is open one delivery goes as
    a `trial`: one that was never tried, or the one that was tried longest ago, due or not. Where problems are
    `incidents`, all that waits of an incident goes together; `skip` has the keys of those that are on their way. A sink
    that `defers_openings` gets none of them before it is due.
    """

    now: Micros
    count: int
    skip: frozenset[bytes]
    group_count: int = 1
    trial: Trial | None = None
    with_messages: bool = False
    incidents: IncidentRules | None = None
    defers_openings: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """What the owner of a sink has to write, and what it would send next: one transaction, in this order.

    No attempt can be refused alone: by their keys rows are only found, and what is written are numbers within bounds
    and words of ours. `clock_s`, the sink's own clock, and `backoff` are how the sink is now, kept where they are
    given. `messages` are where messages of problems are now; a later one of the same problem replaces an earlier one.
    `calls_forward` has all that was tried come due within a minute. What was blocked in a group is due
    `group_wait_s` after its recording.
    """

    lease: Lease
    attempts: tuple[AttemptRecord, ...] = ()
    messages: tuple[ProblemMessage, ...] = ()
    backoff: BackoffState | None = None
    clock_s: float | None = None
    calls_forward: bool = False
    group_wait_s: float = 0.0
    take: Take | None = None
    entries: ClassVar[Sequence[OutboxEntry]] = ()


# What is read


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """What the store knows of an account itself: its own events' sequence, and its trouble if degraded.

    `snapshot` is how it stood when its owner last said so, at `snapshot_at`.
    """

    sequence: int = 0
    trouble: str | None = None
    backoff: BackoffState = BackoffState()
    problem: Problem | None = None
    snapshot: AccountSnapshot | None = None
    snapshot_at: Micros | None = None


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

    def moved(self, by_us: int, *, now: int) -> "RulesRecord":
        """Return this on our clock, which shows `now`: each time moved by that, and none of them after `now`."""
        unjudged = [UnjudgedEnd(execution, end.moved(by_us, now=now)) for execution, end in self.unjudged]
        return replace(self, state=self.state.moved(by_us, now=now), unjudged=unjudged)


@dataclass(frozen=True, slots=True)
class OpenProblem:
    """An open problem and what it is about: an account or a sink (`kind`), and of an account perhaps a pipeline.

    Of an execution also its status, as long as this problem says that it is overdue, and whether it has ended. The
    problem's own source has had `told_count` events.
    """

    problem: Problem
    kind: str
    name: str
    pipeline: str | None = None
    execution: str | None = None
    status: str | None = None
    has_ended: bool = field(default=False, kw_only=True)
    told_count: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class SinkRecord:
    """What the store knows of a sink: its own events' sequence, `failing`, `disabled` or `None`, and its clock.

    `failures_count` are the attempts so far at what waits. `delivery.dead` is yet to report the dead letters since
    `dead_from` (microseconds UTC, steady).
    """

    sequence: int
    state: str | None
    clock_s: float
    backoff: BackoffState
    problem: Problem | None = None
    failures_count: int = 0
    dead_from: Micros = NEVER


@dataclass(frozen=True, slots=True)
class Taken:
    """What may be sent now, each batch in one request, at most one delivery of a lane outside a batch.

    First what was never tried, then the others, in the order they came due. `next_due_at` is when more is due (`None`:
    nothing waits). `blocking` are the ordering keys, of these and of those that were skipped, for which others wait.
    """

    batches: Sequence[Sequence[Delivery]]
    next_due_at: Micros | None
    blocking: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one sink: how many, and since when the oldest was due (microseconds UTC, steady).

    That may be later than now: an event may wait for others, and an opening for `after`.
    """

    pending_count: int
    oldest_at: Micros | None
