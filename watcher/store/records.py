"""What is read from the store, and the store as an account's owner uses it."""

from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventKey, EventType
from watcher.domain.execution import ExecutionRecord
from watcher.domain.problems import Problem
from watcher.domain.rules import RuleState, UnjudgedEnd
from watcher.domain.snapshots import AccountSnapshot
from watcher.domain.timestamps import Micros, Monotonic
from watcher.domain.watch import Cursor
from watcher.store.changes import BackoffState, Change, Lease


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """What the store knows of an account itself: its own events' sequence, and its trouble if degraded.

    `snapshot` is how it stood when its owner last said so.
    """

    sequence: int
    trouble: str | None
    backoff: BackoffState
    problem: Problem | None = None
    snapshot: AccountSnapshot | None = None


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


class AccountStore(Protocol):
    """The part of a store that an account's owner uses, who needs no sinks.

    `watcher wait` has one in memory, which needs no database.
    """

    lease: Lease
    """Under which everything is written."""

    @property
    def failing_since(self) -> Monotonic | None:
        """Return since when nothing can be written (monotonic seconds); `None` while it can."""

    async def load_account(self) -> AccountRecord:
        """Return what is recorded of the account itself."""

    async def load_executions(self, executions: Collection[str]) -> Mapping[str, ExecutionRecord]:
        """Return what is recorded of these executions, by id.

        `since_at` and `polled_at` come back no later than now: a clock that was ahead has been set right since.
        """

    async def load_pipeline(self, pipeline: str) -> PipelineRecord:
        """Return what is recorded of a pipeline, which is watched whole (again).

        A cursor is gone once its pipeline was absent for more than 24 h; events go on from their sequence.
        """

    async def load_rules(self, pipeline: str) -> RulesRecord:
        """Return what is recorded of the rules of a pipeline."""

    async def load_events(self, keys: Collection[EventKey]) -> Mapping[EventKey, bytes]:
        """Return the bodies of these events, as far as they are there still."""

    async def load_open(self, pipelines: Collection[str]) -> Sequence[ExecutionRecord]:
        """Return the executions of these pipelines that have not ended. Times as above."""

    def record(self, change: Change) -> Awaitable[object]:
        """Write a change, its events and their deliveries in one transaction (shared with others of the same tick)."""

    async def save_poll_times(self, polled_at: Mapping[str, Micros]) -> None:
        """Keep when unchanged executions were last polled: execution to microseconds UTC, steady."""

    async def save_backoff(self, backoff: BackoffState) -> None:
        """Keep what the account is going through."""

    async def save_snapshot(self, snapshot: AccountSnapshot) -> None:
        """Let everybody know how the account stands."""
