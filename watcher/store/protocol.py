"""The store as an account's owner uses it. `watcher wait` has one in memory, which needs no database."""

from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Protocol

from watcher.domain.event import EventKey
from watcher.domain.execution import ExecutionRecord
from watcher.domain.timestamps import Micros, Monotonic
from watcher.store.changes import BackoffState, Change, Lease
from watcher.store.records import AccountRecord, PipelineRecord, RulesRecord


class AccountStore(Protocol):
    """The part of a store that an account's owner uses, who needs no sinks."""

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
