"""The changes that the store writes, and the records that it returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from uuid import UUID

from watcher.domain.delivery import AttemptRecord, Delivery, ProblemMessage
from watcher.domain.event import EventType, OutboxEntry
from watcher.domain.execution import ExecutionRecord
from watcher.domain.history import EndedExecution
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.routing import IncidentRules
from watcher.domain.snapshots import AccountSnapshot
from watcher.domain.timestamps import NEVER, Micros
from watcher.domain.watch import Cursor


@dataclass(frozen=True, slots=True)
class Lease:
    """The ownership of an account, a sink or the maintenance of the store. Each write of an owner names its lease.

    The store refuses the write if the epoch of the lease is no longer the stored one.
    """

    kind: str
    """`account`, `sink` or `maintenance`."""
    name: str
    epoch: int
    """A random number, drawn each time the lease is taken."""


@dataclass(frozen=True, slots=True)
class ExecutionChange:
    """A new state of one execution with its events, written in one transaction or not at all."""

    lease: Lease
    before: int | None
    """The sequence that the owner expects in the store; `None` if the owner expects no row of the execution."""
    known: ExecutionRecord
    entries: tuple[OutboxEntry, ...]
    problems: tuple[ProblemChange, ...] = ()
    ended: EndedExecution | None = None
    """Set if the execution ended: the store counts the end in the history of the pipeline."""


@dataclass(frozen=True, slots=True)
class SourceChange:
    """A new state of an account, a sink or a pipeline, with events that belong to no execution."""

    lease: Lease
    """The lease of the account or the sink. A pipeline is written under the lease of its account."""
    before: int
    """The sequence that the owner expects in the store."""
    sequence: int
    state: str | None = None
    """The trouble of an account, or `failing` or `disabled` for a sink; `None` if all is well."""
    entries: tuple[OutboxEntry, ...] = ()
    problems: tuple[ProblemChange, ...] = ()
    reminders: Mapping[UUID, Micros] = field(default_factory=dict)
    """The problems in a reminder to the sink, each with the time at which the reminder was due (steady clock)."""
    pipeline: str | None = None
    """The id of the pipeline that changed; `None` if the account or the sink itself changed."""
    cursor: Cursor | None = None
    """The position up to which the pipeline's list was read; `None` leaves the stored cursor as it is."""
    rules: str | None = None
    """The states of the pipeline's rules (JSON); `None` leaves the stored ones as they are."""
    unjudged: tuple[EndedExecution, ...] = ()
    """Ends that the rules are to judge later."""
    replaces_unjudged: bool = False
    """Whether the stored unjudged ends are deleted first. Then `unjudged` has all that remain."""


SingleChange = ExecutionChange | SourceChange


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Changes under one lease. They are written in the order of `changes`, all or none."""

    lease: Lease
    changes: tuple[SingleChange, ...]

    @property
    def entries(self) -> Sequence[OutboxEntry]:
        """Return the events of all changes."""
        return [entry for change in self.changes for entry in change.entries]


Change = SingleChange | ChangeSet

About = dict[str, Any]
"""The columns `source_id`, `pipeline_id` and `execution` that say what a change or an event is about."""

Emitted = tuple[OutboxEntry, About]
"""An event to be written, with the columns that say what it is about."""


@dataclass(frozen=True, slots=True)
class BackoffState:
    """The pause and the failing time of an account or a sink, stored so that both survive a restart."""

    pause_s: float | None = None
    """Seconds until the next request may be sent; `None` without a pause."""
    failing_for_s: float | None = None
    """Seconds of running time without a success; `None` without a failure."""


Trial = Literal["never_tried", "tried_longest_ago"]
"""The kind of delivery that is sent alone, as a trial, while the circuit breaker of a sink is open."""


@dataclass(frozen=True, slots=True)
class Take:
    """A request of a sink's owner for deliveries that are due."""

    now: Micros
    count: int
    """The most batches to return. Each batch is sent in one request."""
    skip: frozenset[bytes]
    """Ordering keys and incident keys of deliveries in flight. No delivery with such a key is returned."""
    group_count: int = 1
    """The most deliveries of one group in one batch."""
    trial: Trial | None = None
    """Set while the circuit breaker is open. `tried_longest_ago` returns a delivery even before it is due."""
    with_messages: bool = False
    """Whether the sink keeps one message per problem. The message is returned with each delivery about the problem."""
    incidents: IncidentRules | None = None
    """Set if the sink shows problems as incidents: all pending deliveries of an incident form one batch."""
    after_s: float = 0.0
    """The time from the recording of an opening until it is returned (`after`)."""
    covers: bool = False
    """Whether each `execution.failed` is returned with its `failing_opening`."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The results that a sink's owner writes, then its request for more deliveries, all in one transaction.

    The database never refuses the result of a single attempt: its keys only find rows, and its values are bounded
    numbers and known words.
    """

    lease: Lease
    attempts: tuple[AttemptRecord, ...] = ()
    messages: tuple[ProblemMessage, ...] = ()
    """The messages that show problems. A later message of the same problem replaces an earlier one."""
    backoff: BackoffState | None = None
    """The pause and the failing time of the sink; `None` leaves the stored ones as they are."""
    clock_s: float | None = None
    """The sink's own clock: the seconds for which the sink was served in all. Written only together with `backoff`."""
    calls_forward: bool = False
    """Whether all pending deliveries that were tried before become due within 45 s."""
    group_wait_s: float = 0.0
    """Seconds that a delivery of a group waits after its recording, even if it is unblocked earlier."""
    take: Take | None = None
    entries: ClassVar[Sequence[OutboxEntry]] = ()


# Records that the store returns


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """An account as the store knows it."""

    sequence: int = 0
    """The sequence of the account's own events."""
    trouble: str | None = None
    """The reason why the account is degraded; `None` if the account is not degraded."""
    backoff: BackoffState = BackoffState()
    problem: Problem | None = None
    snapshot: AccountSnapshot | None = None
    """The last snapshot that an owner wrote; `None` if there is none, or if this version cannot read it."""
    snapshot_at: Micros | None = None
    """The time at which the last snapshot was written (microseconds UTC, steady clock)."""


@dataclass(frozen=True, slots=True)
class PipelineRecord:
    """A pipeline as the store knows it: the sequence of its own events, and how far its list was read."""

    sequence: int
    cursor: Cursor | None


@dataclass(frozen=True, slots=True)
class RulesRecord:
    """The stored states of a pipeline's rules, with its open problems and the ends that are to be judged later."""

    sequence: int
    """The sequence of the pipeline's own events."""
    states: str | None
    """JSON; `None` without any."""
    problems: Mapping[EventType, Problem]
    unjudged: Sequence[EndedExecution]


@dataclass(frozen=True, slots=True)
class OpenProblem:
    """An open problem, and what it is about."""

    problem: Problem
    kind: str
    """The kind of the source: `account` or `sink`."""
    name: str
    """The name of the account or the sink."""
    pipeline: str | None = None
    execution: str | None = None
    status: str | None = None
    """The status that an overdue execution has had for too long; `None` once the status has changed."""
    has_ended: bool = field(default=False, kw_only=True)
    """Whether the execution has ended."""
    event_count: int = field(default=0, kw_only=True)
    """The number of events in the problem's own stream, such as acknowledgements."""


@dataclass(frozen=True, slots=True)
class SinkRecord:
    """A sink as the store knows it."""

    sequence: int
    """The sequence of the sink's own events."""
    state: str | None
    """`failing`, `disabled` or `None`."""
    clock_s: float
    """The sink's own clock: the seconds during which it was served."""
    backoff: BackoffState
    problem: Problem | None = None
    failures_count: int = 0
    """The number of failed attempts at pending deliveries."""
    dead_from: Micros = NEVER
    """Dead letters since this time (microseconds UTC, steady clock) have not been reported by an event yet."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The deliveries that may be sent now."""

    batches: Sequence[Sequence[Delivery]]
    """One batch per request: first incidents, then deliveries that were never tried, then the others.

    Deliveries with the same ordering key are in the same batch.
    """
    next_due_at: Micros | None
    """The time (steady clock) at which more deliveries are due; `None` if nothing more is pending."""
    blocking: frozenset[bytes] = frozenset()
    """Keys of returned or skipped deliveries, or of skipped incidents, that block pending deliveries."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The number of pending deliveries of one sink, and the time from which on the oldest could be sent."""

    pending_count: int
    oldest_at: Micros | None
    """Microseconds UTC, steady clock. It may lie ahead: an opening waits for `after`, an event for its group."""
    due_at: Micros
    """The earliest time at which one of them is due: a delivery that failed is due at its next attempt."""
