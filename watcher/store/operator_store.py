"""The store as people change it: acknowledgements, silences, replays, and what owners are asked to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from watcher.domain.event_factory import EventFactory
from watcher.store.sql_store import SqlStore

ActionKind = Literal["scan", "enable"]


@dataclass(frozen=True, slots=True)
class StoredSilence:
    """A silence that somebody made while the daemon ran. `match` is JSON; times are the wall clock's."""

    id: int
    match: str
    starts_at: datetime
    ends_at: datetime
    by: str | None = None
    comment: str | None = None


class OperatorStore:
    """What people do: each in one transaction, by whatever replica was asked. All raise `StoreError`."""

    def __init__(self, store: SqlStore, events: EventFactory) -> None:
        """Do nothing yet."""
        self._store = store
        self._events = events

    async def acknowledge(self, problem: UUID, *, by: str | None, comment: str | None, until: datetime | None) -> bool:
        """Take a problem, with its event; return `False`, with nothing changed, if it is not open."""
        raise NotImplementedError

    async def unacknowledge(self, problem: UUID) -> bool:
        """Have reminders go on; return `False` if it is not open, or nobody had taken it."""
        raise NotImplementedError

    async def silences(self) -> Sequence[StoredSilence]:
        """Return the silences that have not ended."""
        raise NotImplementedError

    async def add_silence(
        self, match: str, *, starts_at: datetime, ends_at: datetime, by: str | None, comment: str | None
    ) -> StoredSilence:
        """Add a silence."""
        raise NotImplementedError

    async def end_silence(self, number: int) -> bool:
        """End a silence now; return `False` if there is none of that number."""
        raise NotImplementedError

    async def replay(self, sink: str, numbers: Sequence[int] | None) -> int:
        """Have dead letters of a sink wait again, by their events' numbers or all; return how many."""
        raise NotImplementedError

    async def ask(self, kind: ActionKind, name: str) -> None:
        """Ask the owner of a sink (`name`), or of a pipeline (`account/pipeline`), to do something."""
        raise NotImplementedError

    async def is_asked(self, kind: ActionKind, name: str) -> bool:
        """Return whether that is still to be done."""
        raise NotImplementedError

    async def asked(self) -> Sequence[tuple[ActionKind, str]]:
        """Return what is still to be done, of all owners."""
        raise NotImplementedError

    async def done(self, kind: ActionKind, name: str) -> None:
        """Note that it is done; what is written for it goes into the same transaction where it has one."""
        raise NotImplementedError
