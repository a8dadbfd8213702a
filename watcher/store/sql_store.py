"""The store in an SQL database: how it is read and written, and who may write under which lease.

What is asked of it is its neighbours': `account_store`, `sink_store`, `maintenance_store`. A database's error comes out
as a `StoreError`, and is noted by the monitor.
"""

import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from watcher.domain.errors import StoreError
from watcher.domain.event import EventKey, EventType
from watcher.domain.timestamps import NEVER
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.store import postgresql_leases, problems
from watcher.store.changes import Change, Lease, Turn
from watcher.store.database import Database
from watcher.store.deliveries import backlog, replay
from watcher.store.group_commit import GroupWriter
from watcher.store.ids import Source, SourceNumbers
from watcher.store.monitor import StoreMonitor, Writing, write_probe
from watcher.store.recording import GroupWork, Item, OutboxTimes, Written, load_events, write_group
from watcher.store.records import Backlog, OpenProblem, Taken
from watcher.store.sqlite import DatabaseFile

T = TypeVar("T")
Work = Callable[[Connection], T]

Taker = Callable[[], tuple[Turn, Callable[[Taken | None], None]] | None]
"""Asked right before something is recorded for a sink: what its worker takes with it, and whom that is handed to.

`None` is handed over if nothing was written; it is asked for nothing while the worker has something else to do.
"""


class SqlStore:
    """State, events and deliveries in a database. Made by `open.open_store`."""

    def __init__(
        self,
        *,
        database: Database,
        database_file: DatabaseFile | None,
        created: bool,
        clock: Clock,
        on_recorded: Callable[[Collection[str]], None],
        resources: AsyncExitStack,
    ) -> None:
        """Start writing.

        `created` is kept for whoever warns of an empty store, `on_recorded` hears after a commit which sinks have
        something new to send, `resources` are let go of at the end.
        """
        self.created = created
        self.exclusive = database.exclusive
        self.ahead_us = database.ahead_us
        self.clock = clock
        self.numbers = SourceNumbers(database.write)
        self.leases = database.leases(self._watched, on_went_back=self.numbers.doubt)
        self.takers: dict[str, Taker] = {}  # by sink: who takes at once what is recorded for it here
        self.on_recorded = on_recorded
        self._database = database
        self.monitor = StoreMonitor(database.where, explain=database.explain, clock=clock)
        self._closed = False
        self._epochs: dict[tuple[str, str], int] = {}  # of the leases, where this process alone uses the database
        self._database_file = database_file
        self._resources = resources
        self._last_recorded_at = NEVER
        self._writing = Writing.CHANGES  # what the group is that is written now
        self._group: GroupWriter[Item, Taken | None] = GroupWriter(
            write=self._write_group,
            explain=lambda error: self.monitor.failed(error, self._writing),
            on_written=on_recorded,
        )

    def show_on(self, metrics: Metrics) -> None:
        """Have metrics say from now on whether it can be written."""
        metrics.store_up.set_function(lambda: self.monitor.failing_since is None)
        self.monitor.on_failure = metrics.store_failures.inc

    def claim(self, kind: str, name: str) -> Lease:
        """Take ownership of an account, a sink or the maintenance, where this process alone uses the store.

        The epoch is random, not a count: a count repeats after a lost commit.
        """
        lease = Lease(kind, name, secrets.randbits(62))
        self._epochs[kind, name] = lease.epoch
        return lease

    async def record(self, change: Change) -> None:
        """Write a change, its events and their deliveries in one transaction (shared with others of the same tick)."""
        await self.write_item(change)

    def write_item(self, item: Item) -> Awaitable[Taken | None]:
        """Write this with what comes together with it; what it takes can be awaited."""
        if self._closed:
            raise StoreError("the store is closed")
        return self._group.write(item)

    async def number_of(self, source: Source) -> int:
        """Return the number of an account, a pipeline or a sink, which is given one if it has none."""
        if not self.numbers.has({source}):
            await self._watched(partial(self.numbers.provide, {source}), Writing.A_LITTLE)
        return self.numbers[source]

    async def read(self, work: Work[T], *, lease: Lease | None = None) -> T:
        """Return what `work` reads, under a lease if one is given.

        In PostgreSQL another owner shows in the writes only: to look at each read would cost a round trip.
        """
        if lease is not None:
            self._check_epochs([lease])
        return await self._watched(partial(self._database.read, work))

    async def write(self, work: Work[T], *, lease: Lease | None = None) -> T:
        """Return what `work` returns once that is committed.

        Under a lease nothing is if another process owns the leased by now, or comes to own it meanwhile.
        """

        def write(connection: Connection) -> T:
            if lease is not None:
                self._check_held(connection, [lease])
            return work(connection)

        return await self._watched(partial(self._database.write, write), Writing.A_LITTLE)

    def times(self) -> OutboxTimes:
        """Return when a transaction's events are recorded: later than those of the one before, which is done."""
        now = self.clock.steady_us()
        return OutboxTimes(now, max(now, self._last_recorded_at))

    def recorded(self, times: OutboxTimes) -> None:
        """Note when the events of a transaction were recorded."""
        self._last_recorded_at = times.next_at

    async def load_events(self, keys: Collection[EventKey]) -> Mapping[EventKey, bytes]:
        """Return the bodies of these events, as far as they are there still."""
        return await self.read(partial(load_events, keys=keys))

    async def backlog(self) -> Mapping[str, Backlog]:
        """Return what waits, by sink."""
        return await self.read(backlog)

    async def count_open_problems(self) -> Mapping[EventType, int]:
        """Return how many problems are open, by kind."""
        return await self.read(problems.count_open_problems)

    async def open_problems(self, *, after: UUID | None = None) -> Sequence[OpenProblem]:
        """Return a page of the open problems."""
        return await self.read(partial(problems.open_problems, after=after))

    async def replay(self, sink: str, event: EventKey) -> bool:
        """Have a dead letter wait again. Return `False`, with nothing changed, if it is none: it may wait already."""
        was_dead = await self.write(partial(replay, name=sink, event=event, now=self.clock.steady_us()))
        if was_dead:
            self.on_recorded([sink])
        return was_dead

    async def check_database_file(self) -> None:
        """Raise `StoreUnusableError` if what is written now will not be found by the next start."""
        if self._database_file is not None:
            self._database_file.check()

    def use_password(self, password: str | None) -> None:
        """Log in to the database with it from the next connection on, where there is a login."""
        self._database.use_password(password)

    async def probe_writable(self) -> None:
        """Write something of no meaning, durably, as any other write."""
        await self.write(partial(write_probe, now=self.clock.steady_us()))
        self.monitor.check()

    async def close(self) -> None:
        """Finish what was handed in, then let go of the files."""
        self._closed = True
        await self._group.close()
        await self._resources.aclose()

    async def _write_group(self, items: Sequence[Item]) -> tuple[Collection[str], Sequence[Taken | None]]:
        work = GroupWork(items)
        offers = [offer for name in work.sinks if name in self.takers and (offer := self.takers[name]()) is not None]
        work.turns += [turn for turn, _ in offers]
        self._writing = work.size
        # Where others write too a transaction that writes is one more round trip, and a commit that is awaited.
        is_read = work.size is Writing.NOTHING and not self.exclusive

        def write(connection: Connection) -> Written:
            if not is_read:
                self._check_held(connection, work.leases)
            times = self.times()
            written = write_group(connection, work, numbers=self.numbers, times=times)
            self._last_recorded_at = times.next_at
            return written

        asked = self.monitor.ask()
        try:
            if not self.numbers.has(work.sources):
                await self.numbers.provide(work.sources)
            names, results, taken = await (self._database.read if is_read else self._database.write)(write)
        except BaseException:
            for _, hand_over in offers:
                hand_over(None)
            raise
        finally:
            self.monitor.answered(asked)
        self.monitor.worked(work.size)
        for turn, hand_over in offers:
            hand_over(taken[id(turn)])
            names.discard(turn.lease.name)
        return names, results

    def _check_held(self, connection: Connection, held: Iterable[Lease]) -> None:
        if self.exclusive:
            self._check_epochs(held)
        else:
            postgresql_leases.check(connection, held)

    def _check_epochs(self, held: Iterable[Lease]) -> None:
        for lease in held:
            if self.exclusive and self._epochs.get((lease.kind, lease.name)) != lease.epoch:
                raise postgresql_leases.lost(lease)

    async def _watched(self, ask: Callable[[], Awaitable[T]], writing: Writing = Writing.NOTHING) -> T:
        if self._closed:
            raise StoreError("the store is closed")
        try:
            asked = self.monitor.ask()
            try:
                result = await ask()
            finally:
                self.monitor.answered(asked)
        except SQLAlchemyError as error:
            fault = self.monitor.failed(error, writing)
        else:
            self.monitor.worked(writing)
            return result
        raise fault.error()  # outside the clause, so that the text of the database's error does not come along
