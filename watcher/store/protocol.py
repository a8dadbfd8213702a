"""The store as its users see it: what may be asked of it."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.execution import ExecutionRecord
from watcher.domain.problems import ProblemChange
from watcher.domain.timestamps import Micros, Monotonic
from watcher.store.changes import (
    AttemptRecords,
    BackoffState,
    Change,
    Lease,
)
from watcher.store.records import (
    AccountRecord,
    Backlog,
    DueDeliveries,
    OpenProblem,
    PipelineRecord,
    RulesRecord,
    SinkRecord,
)

Keep = Callable[[str, str, str, Micros], bool]
"""Says of an account, a pipeline, an execution and when it ended (microseconds) whether its id must stay behind."""


class AccountStore(Protocol):
    """The part of a store that an account's owner uses, who needs no sinks. The rules of `Store` hold."""

    @property
    def failing_since(self) -> Monotonic | None:
        """Return since when nothing can be written (monotonic seconds); `None` while it can."""
        ...

    async def load_account(self, lease: Lease) -> AccountRecord:
        """Return what is recorded of the leased account itself."""
        ...

    async def load_executions(self, lease: Lease, executions: Collection[str]) -> Mapping[str, ExecutionRecord]:
        """Return what is recorded of these executions of the leased account, by id.

        `since_at` and `polled_at` come back no later than now: a clock that was ahead has been set right since.
        """
        ...

    async def load_pipeline(self, lease: Lease, pipeline: str) -> PipelineRecord:
        """Return what is recorded of a pipeline of the leased account, which is watched whole (again).

        A cursor is gone once its pipeline was absent for more than 24 h; events go on from their sequence.
        """
        ...

    async def load_rules(self, lease: Lease, pipeline: str) -> RulesRecord:
        """Return what is recorded of the rules of a pipeline of the leased account."""
        ...

    async def load_events(self, keys: Collection[EventKey]) -> Mapping[EventKey, bytes]:
        """Return the bodies of these events, as far as they are there still."""
        ...

    async def load_open(self, lease: Lease, pipelines: Collection[str]) -> Sequence[ExecutionRecord]:
        """Return the executions of these pipelines of the leased account that have not ended. Times as above."""
        ...

    async def record(self, change: Change) -> None:
        """Write a change, its events and their deliveries in one transaction (shared with others of the same tick)."""
        ...

    async def save_poll_times(self, lease: Lease, polled_at: Mapping[str, Micros]) -> None:
        """Keep when unchanged executions were last polled: execution to microseconds UTC, steady."""
        ...

    async def save_backoff(self, lease: Lease, backoff: BackoffState) -> None:
        """Keep what the leased account is going through."""
        ...


class Queries(Protocol):
    """What readers ask, who own nothing. Every method raises `StoreError` when nothing could be read."""

    async def backlog(self) -> Mapping[str, Backlog]:
        """Return what waits, by sink."""
        ...

    async def count_open_problems(self) -> Mapping[EventType, int]:
        """Return how many problems are open, by kind, of kinds that have any."""
        ...

    async def open_problems(self, *, after: UUID | None = None) -> Sequence[OpenProblem]:
        """Return a page of the open problems, those that follow that one; none after the last."""
        ...


class Store(AccountStore, Queries, Protocol):
    """State, events and deliveries. Every method raises `StoreError` when nothing was read or written.

    A write is atomic and durable when it returns. Writes raise `OwnershipLostError` when the lease is not the stored
    one (somebody else won), `SequenceConflictError` when under that lease the sequence believed recorded is not: a bug.
    Either way nothing of that change was written.

    With `exclusive` one process owns everything in it, for as long as it runs.
    """

    exclusive: bool

    async def claim(self, kind: str, name: str) -> Lease:
        """Take ownership of an account, a sink or the maintenance, whoever had it before."""
        ...

    async def load_sink(self, lease: Lease, *, fingerprint: str) -> SinkRecord:
        """Return what is recorded of the leased sink, which is present again.

        `fingerprint` stands for its block in the configuration: a change of it makes a disabled sink a failing one.
        What was recorded for it later than now, by a clock that was ahead, is due now.
        """
        ...

    async def save_sink_state(self, lease: Lease, backoff: BackoffState, *, clock_s: float) -> None:
        """Keep what the leased sink is going through, and its own clock, between two attempt records."""
        ...

    async def next_deliveries(
        self, lease: Lease, *, now: Micros, limit: int, skip: Collection[bytes] = ()
    ) -> DueDeliveries:
        """Return what the leased sink may be sent at `now`, leaving out the streams in `skip` (in flight).

        Raises `OwnershipLostError` when the lease is not the stored one: what waits is another owner's to send.
        """
        ...

    async def next_trial(
        self, lease: Lease, *, now: Micros, skip: Collection[bytes] = (), never_tried: bool = False
    ) -> Delivery | None:
        """Return what is to show whether the leased sink works again, leaving out the streams in `skip`.

        The first that is due and was never tried; else, unless it has to be `never_tried`, of those with the fewest
        steps the one that was tried longest ago, due or not.
        """
        ...

    async def give_up(
        self, lease: Lease, *, now: Micros, clock_s: float, after_s: float, skip: Collection[bytes] = ()
    ) -> int:
        """Note what is first due now; make dead letters of what was first due `after_s` ago on the sink's own clock.

        Streams in `skip` are left alone. Returns how many died.
        """
        ...

    async def settle(self, attempt_records: AttemptRecords) -> None:
        """Write how attempts ended. Later deliveries of the same stream come due no earlier than this one."""
        ...

    async def mark_absent_sinks(
        self, lease: Lease, *, present: Collection[str], now: Micros, dead_after_us: int
    ) -> int:
        """Note which sinks are no longer configured; those absent for `dead_after_us` have their deliveries made dead.

        Returns how many died.
        """
        ...

    async def close_problems(self, lease: Lease, closings: Sequence[tuple[OutboxEntry, ProblemChange]]) -> int:
        """Close problems whose owner does so no more, each with its event, but those that are closed by now.

        Returns how many.
        """
        ...

    async def forget_rules(self, lease: Lease, *, present: Collection[tuple[str, str]]) -> None:
        """Forget what rules went by of all pipelines but these, as (account, pipeline)."""
        ...

    async def mark_absent_pipelines(self, lease: Lease, *, present: Collection[tuple[str, str]], now: Micros) -> None:
        """Note which pipelines are watched whole no more; `present` are those that are, as (account, pipeline)."""
        ...

    def prune(self, lease: Lease, *, ended_before: Micros, keep: Keep) -> AsyncIterator[int]:
        """Delete what ended before that moment: settled deliveries, events with none waiting, executions.

        `keep` says whose id must stay behind. In short transactions, one at each step, which yields the number of
        executions whose events went with it.
        """
        ...

    def use_password(self, password: str | None) -> None:
        """Log in to the database with it from the next connection on, where there is a login."""
        ...

    async def check_database_file(self) -> None:
        """Raise `StoreUnusableError` if what is written now will not be found by the next start."""
        ...

    async def probe_writable(self) -> None:
        """Write something of no meaning, durably, as any other write."""
        ...

    async def close(self) -> None:
        """Finish what was handed in, then let go of the files."""
        ...
