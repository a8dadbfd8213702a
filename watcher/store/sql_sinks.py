"""What `sink_protocol.SinkStore` has beside `protocol.Store`, in an SQL database."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

from watcher.domain.delivery import Delivery, ProblemMessage
from watcher.domain.event import EventKey
from watcher.domain.timestamps import Micros, to_us
from watcher.runtime.clock import Clock
from watcher.store import dead_letters, groups, problem_messages, sent_problems, silenced
from watcher.store.changes import Lease
from watcher.store.database import Database
from watcher.store.records import Candidate, DeadLetter, DueDeliveries, GroupPosition, Opening, SentOpening
from watcher.store.sql_access import SqlAccess

REPLAYED_COUNT = 1_000
"""Dead letters that are replayed in one transaction."""


class SqlSinks(SqlAccess):
    """The part of the store that only workers of sinks use, and whoever looks after dead letters."""

    def __init__(self, database: Database, *, clock: Clock, on_recorded: Callable[[Collection[str]], None]) -> None:
        """Tell `on_recorded` which sinks have something to send again."""
        super().__init__(database, clock=clock)
        self._on_recorded = on_recorded

    async def ungrouped(self, lease: Lease, *, now: Micros, after: GroupPosition, limit: int) -> Sequence[Candidate]:
        """Return what of the leased sink is due after that position, was never tried and is in no group yet."""
        sink_id, name = self._number(lease), lease.name
        read = partial(groups.ungrouped, sink_id=sink_id, name=name, now=now, after=after, limit=limit)
        return await self._read_held(lease, read)

    async def fix_groups(self, lease: Lease, fixed: Collection[tuple[UUID, Collection[EventKey]]]) -> None:
        """Have these go together from now on, as far as they wait and are in no group."""
        await self._write_held(lease, partial(groups.fix_groups, sink_id=self._number(lease), groups=fixed))

    async def next_groups(
        self, lease: Lease, *, now: Micros, limit: int, skip: Collection[bytes] = ()
    ) -> DueDeliveries:
        """Return what stands for each group that may be sent, leaving out the groups and streams in `skip`.

        What was tried before its sink had groups is a group of its own, and has no `group_id`.
        """
        sink_id, name = self._number(lease), lease.name
        read = partial(groups.next_groups, sink_id=sink_id, name=name, now=now, limit=limit, skip=skip)
        return await self._read_held(lease, read)

    async def next_group_trial(
        self, lease: Lease, *, now: Micros, skip: Collection[bytes] = (), never_tried: bool = False
    ) -> Delivery | None:
        """Return what stands for the group that is to show whether the leased sink works again, as `next_trial`."""
        sink_id, name = self._number(lease), lease.name
        read = partial(groups.next_group_trial, sink_id=sink_id, name=name, now=now, skip=skip, never_tried=never_tried)
        return await self._read_held(lease, read)

    async def group_members(self, lease: Lease, group_id: UUID) -> Sequence[Delivery]:
        """Return all that waits in a group of the leased sink, in the order it was recorded."""
        read = partial(groups.members, sink_id=self._number(lease), name=lease.name, group_id=group_id)
        return await self._read_held(lease, read)

    async def silence(self, lease: Lease, events: Collection[EventKey], *, now: Micros, owned_from: Micros) -> None:
        """Settle as silenced what waits of these for the leased sink, which is served under this lease since then.

        What was recorded before that counts as tried: whoever served it may have been killed while sending it.
        """
        work = partial(silenced.silence, sink_id=self._number(lease), keys=events, now=now, owned_from=owned_from)
        await self._write_held(lease, work)

    async def silenced_openings(self, lease: Lease) -> Sequence[Delivery]:
        """Return the openings of open problems that a silence kept from the leased sink."""
        sink_id, name = self._number(lease), lease.name
        return await self._read_held(lease, partial(silenced.silenced_openings, sink_id=sink_id, name=name))

    async def release_silenced(self, lease: Lease, events: Collection[EventKey], *, now: Micros) -> None:
        """Have what was silenced of these wait again."""
        await self._write_held(lease, partial(silenced.release, sink_id=self._number(lease), keys=events, now=now))

    async def sent_openings(self, lease: Lease, *, closed_from: datetime | None = None) -> Sequence[SentOpening]:
        """Return the open problems whose opening the leased sink took, and those closed since that moment, if given."""
        from_us = None if closed_from is None else to_us(closed_from)
        read = partial(sent_problems.sent_openings, sink_id=self._number(lease), closed_from=from_us)
        return await self._read_held(lease, read)

    async def openings(self, lease: Lease, problem_ids: Collection[UUID]) -> Mapping[UUID, Opening]:
        """Return how the openings of these problems stand at the leased sink, without problems that are not there."""
        read = partial(sent_problems.openings, sink_id=self._number(lease), ids=problem_ids)
        return await self._read_held(lease, read)

    async def messages_of_problems(self, lease: Lease, problem_ids: Collection[UUID]) -> Mapping[UUID, ProblemMessage]:
        """Return the messages of these problems in the leased sink, of those that have one."""
        read = partial(problem_messages.messages_of_problems, sink_id=self._number(lease), ids=problem_ids)
        return await self._read_held(lease, read)

    async def messages_of_failing(
        self, lease: Lease, pipelines: Collection[tuple[str, str]]
    ) -> Mapping[tuple[str, str], ProblemMessage]:
        """Return the leased sink's messages of open `pipeline.failing` problems of these, by account and pipeline."""
        read = partial(problem_messages.messages_of_failing, sink_id=self._number(lease), pipelines=pipelines)
        return await self._read_held(lease, read)

    async def put_off(self, lease: Lease, due_at: Mapping[EventKey, Micros]) -> None:
        """Have what waits of these for the leased sink come due at those times."""
        await self._write_held(lease, partial(silenced.put_off, sink_id=self._number(lease), due_at=due_at))

    async def dead_letters(
        self, sink: str, *, after: tuple[Micros, EventKey] | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return a page of a sink's dead letters, the oldest death first; `after` is the last one's death and event."""
        return await self._read(partial(dead_letters.dead_letters, name=sink, after=after, limit=limit))

    async def count_dead_letters(self) -> Mapping[str, int]:
        """Return how many dead letters there are, by sink."""
        return await self._read(dead_letters.count_dead_letters)

    async def replay(self, sink: str, event: EventKey) -> bool:
        """Have a dead letter wait again. Return `False`, with nothing changed, if it is none: it may wait already."""
        now = self._clock.steady_us()
        was_dead = await self._write(partial(dead_letters.replay, name=sink, event=event, now=now))
        if was_dead:
            self._on_recorded([sink])
        return was_dead

    async def replay_all(self, sink: str) -> int:
        """Have all dead letters of a sink wait again; return how many."""
        rest_count = all_count = (await self.count_dead_letters()).get(sink, 0)  # not those that die again meanwhile
        while rest_count > 0:
            now, limit = self._clock.steady_us(), min(rest_count, REPLAYED_COUNT)
            await self._write(partial(dead_letters.replay_some, name=sink, now=now, limit=limit))
            rest_count -= limit
            self._on_recorded([sink])
        return all_count
