"""For whoever follows one execution without a daemon: what the API answered, and what would be recorded.

The parts of the daemon stay as they are; an API that is listened to and a store without memory stand in for theirs.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from watcher.clerk.protocol import Api, PageReply, Reply
from watcher.domain.event import EventKey
from watcher.domain.execution import ExecutionRecord
from watcher.domain.rules import RuleState
from watcher.domain.timestamps import Micros
from watcher.store.changes import NO_BACKOFF, BackoffState, Change, ChangeSet, Lease, SingleChange
from watcher.store.records import AccountRecord, PipelineRecord, RulesRecord


@dataclass(frozen=True, slots=True)
class ObservedApi:
    """An API of which somebody hears every reply about an execution."""

    api: Api
    heard: Callable[[Reply], None]

    async def get(self, *, pipeline: str, execution: str, known_hash: int | None = None) -> Reply:
        """Fetch one execution, as the API behind it does. Each answer is read: who listens wants to know it."""
        reply = await self.api.get(pipeline=pipeline, execution=execution)
        self.heard(reply)
        return reply

    async def list(self, *, pipeline: str, page: int, known: PageReply | None = None) -> PageReply:
        """Fetch a page of a list, as the API behind it does. Whoever follows one execution asks for none."""
        return await self.api.list(pipeline=pipeline, page=page, known=known)


@dataclass(frozen=True, slots=True)
class EphemeralStore:
    """A store for a program that needs no memory: each change is passed on at once and kept nowhere."""

    heard: Callable[[SingleChange], None]

    async def load_account(self, lease: Lease) -> AccountRecord:
        """Return that nothing is known."""
        return AccountRecord(0, None, NO_BACKOFF)

    async def load_executions(self, lease: Lease, executions: Collection[str]) -> Mapping[str, ExecutionRecord]:
        """Return that nothing is known."""
        return {}

    async def load_pipeline(self, lease: Lease, pipeline: str) -> PipelineRecord:
        """Return that nothing is known."""
        return PipelineRecord(0, None)

    async def load_rules(self, lease: Lease, pipeline: str) -> RulesRecord:
        """Return that nothing is known."""
        return RulesRecord(0, RuleState(), {}, ())

    async def load_events(self, keys: Collection[EventKey]) -> Mapping[EventKey, bytes]:
        """Return that nothing is known."""
        return {}

    async def load_open(self, lease: Lease, pipelines: Collection[str]) -> Sequence[ExecutionRecord]:
        """Return that nothing is known."""
        return ()

    async def record(self, change: Change) -> None:
        """Pass a change on."""
        for each in change.changes if isinstance(change, ChangeSet) else (change,):
            self.heard(each)

    async def save_poll_times(self, lease: Lease, polled_at: Mapping[str, Micros]) -> None:
        """Keep nothing."""

    async def save_backoff(self, lease: Lease, backoff: BackoffState) -> None:
        """Keep nothing."""
