"""The store in an SQL database: opening, reading, writing under a lease, and group commit.

Items that are handed in while a group is being written form the next group. Each group is one transaction. An error of
the database is noted by the monitor and raised as a `StoreError`.
"""

import asyncio
from asyncio import Future, Task
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

import structlog
from pydantic import TypeAdapter
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from watcher.domain.errors import StoreError
from watcher.domain.snapshots import AccountSnapshot, SinkSnapshot
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock
from watcher.store.changes import Lease, Taken
from watcher.store.database import Database, DatabaseFault
from watcher.store.recording import GroupWork, Item, Outbox, SmallWrite, Writing, write_group
from watcher.store.sources import Source, SourceNumbers
from watcher.store.sqlite import SqliteDatabase, hold_file
from watcher.store.store_url import is_postgresql, path_of

GROUP_COUNT = 256
"""Most items in one transaction. A larger group would cost as much per item, and would delay the items after it."""

QUIET_TURNS = 2
"""Turns of the event loop without a new item after which a group is written.

Gathering items is worth the wait, because a transaction costs as much as ten changes.
"""

MOST_TURNS = 40
"""Most turns of the event loop in which a group is gathered. In a busy loop a turn takes about 10 ms."""

REMEMBERED_S = 30.0
"""Time after the last failure from which on any write ends the trouble. A refused write may be tried again sooner."""

BUSY_TIMEOUT_S = 2.0
"""Time for which a write waits for another program's lock on a SQLite file.

Nothing can interrupt that wait, and a few of them in a row must fit into the 8 s that a stop may take.
"""

_PROBE = text(
    "INSERT INTO meta (key, value) VALUES ('proved_at', :now) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
_WRITE_SNAPSHOT = text(
    "INSERT INTO snapshot (source_id, written_at, body) VALUES (:of_source, :written_at, :body)"
    " ON CONFLICT (source_id) DO UPDATE SET written_at = excluded.written_at, body = excluded.body"
)
_SNAPSHOT: TypeAdapter[AccountSnapshot | SinkSnapshot] = TypeAdapter(AccountSnapshot | SinkSnapshot)

log = structlog.get_logger()

T = TypeVar("T")
Work = Callable[[Connection], T]


class StoreMonitor:
    """The trouble with one store, from the first error until a write shows that it is over.

    `failing_since` is when the store began to refuse writes (monotonic seconds); `None` while the store takes them.
    `last_failing_since` is the same, and stays after the trouble.
    `on_failure` is called each time a read or a write fails.
    """

    def __init__(self, *, explain: Callable[[Exception], DatabaseFault], clock: Clock) -> None:
        """Start without trouble. `explain` returns the meaning of an error."""
        self.failing_since: Monotonic | None = None
        self.last_failing_since = EARLIEST
        self.on_failure: Callable[[], None] = lambda: None
        self._explain = explain
        self._clock = clock
        self._fault: DatabaseFault | None = None
        self._logged: set[str] = set()  # since the trouble began: two texts may alternate many times a second
        self._refused = Writing.NOTHING
        self._failed_at = EARLIEST

    @property
    def problem(self) -> str:
        """Return the trouble in words that may be shown; an empty text without trouble."""
        return "" if self._fault is None else self._fault.text

    def note_failure(self, error: Exception, writing: Writing) -> DatabaseFault:
        """Return the meaning of an error. Note it, unless it concerns only one owner (`OwnershipLostError`)."""
        fault = self._explain(error)
        if not fault.concerns_all and fault.kind is not StoreError:
            return fault
        self.on_failure()
        if self._fault is None or (fault.concerns_all and fault.text not in self._logged):
            log.error("store.failed", problem=fault.text)
            self._logged.add(fault.text)
        if self._fault is None or fault.concerns_all:
            self._fault = fault
        if fault.concerns_all:
            self._refused = max(self._refused, min(writing, Writing.A_LITTLE) if fault.is_away else writing)
        self._failed_at = self._clock.monotonic()
        if self._refused and self.failing_since is None:
            self.failing_since = self.last_failing_since = self._failed_at
        return fault

    def note_write(self, amount: Writing) -> None:
        """Note that a write of this size succeeded.

        The trouble is over once a write of the refused size succeeds, or any write 30 s after the last failure.
        """
        if self._fault is None or not amount:
            return
        if Writing.NOTHING < self._refused <= amount or self._clock.monotonic() >= self._failed_at + REMEMBERED_S:
            log.info("store.recovered")
            self._fault, self._refused, self.failing_since = None, Writing.NOTHING, None
            self._logged.clear()


class SqlStore:
    """The store: state, events and deliveries in a database. `open_store` makes it."""

    def __init__(self, *, database: Database, created: bool, clock: Clock, resources: AsyncExitStack) -> None:
        """Start to take writes. `created` is whether the database was empty; `close` releases `resources`."""
        self.created = created
        self.exclusive = database.exclusive
        self.server_ahead_us = database.server_ahead_us
        self.clock = clock
        self.outbox = Outbox(SourceNumbers(database.write))
        lost = partial(asyncio.get_running_loop().call_soon_threadsafe, self._leases_lost)
        self.leases = database.leases(self._watched, on_lost=lost)
        self.wakes: dict[str, Callable[[], None]] = {}  # by sink: wakes its worker after new deliveries
        self.database = database
        self.monitor = StoreMonitor(explain=database.explain, clock=clock)
        self._resources = resources
        self._loop = asyncio.get_running_loop()
        self._queue: list[tuple[Item, Future[Taken | None]]] = []
        self._writing: Task[None] | None = None
        self._closed = False

    def record(self, item: Item) -> "Future[Taken | None]":
        """Write this item in one transaction with others, in the order in which they were handed in.

        Returns a future of the deliveries that a `Turn` takes. The future raises a `StoreError` if the item was not
        written. If the caller is cancelled, the write goes on. The workers of the item's sinks are woken at once, so
        that they take the new deliveries in the same transaction.
        """
        if self._closed:
            raise StoreError("the store is closed")
        result: Future[Taken | None] = self._loop.create_future()
        self._queue.append((item, result))
        if self._writing is None:
            self._writing = self._loop.create_task(self._write_queue(), name="store-writer")
        for entry in item.entries:
            self.wake(entry.sinks)
        return result

    async def number_of(self, source: Source) -> int:
        """Return the number of an account, a pipeline, a sink or a report. Assign a number to a new one."""
        numbers = self.outbox.numbers
        if source not in numbers:
            await self._watched(partial(numbers.provide, {source}), Writing.A_LITTLE)
        return numbers[source]

    async def read(self, work: Work[T]) -> T:
        """Return the result of `work`, which only reads. No lease is checked: only writes show a lost lease."""
        return await self._watched(partial(self.database.read, work))

    async def write(self, work: Work[T], *, lease: Lease | None = None) -> T:
        """Return the result of `work` after the commit. Raises `OwnershipLostError` if a given lease is not valid."""

        def write(connection: Connection) -> T:
            if lease is not None:
                self.leases.check(connection, [lease])
            return work(connection)

        return await self._watched(partial(self.database.write, write), Writing.A_LITTLE)

    async def probe_writable(self) -> None:
        """Write a value without meaning, as durably as any other. Raises `StoreError` if the store takes no writes."""
        now = {"now": str(self.clock.steady_us())}  # a new value each time: SQLite does not write an equal value
        await self.write(lambda connection: connection.execute(_PROBE, now))
        if self.monitor.failing_since is not None:  # a larger write was refused
            raise StoreError(self.monitor.problem)

    async def close(self) -> None:
        """Write the items that were handed in, then close the database."""
        self._closed = True
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await self._resources.aclose()

    def _leases_lost(self) -> None:
        self.outbox.numbers.clear()  # another server may lack some numbers
        self.leases.renew_now()

    def wake(self, sinks: Collection[str]) -> None:
        """Wake the workers of these sinks in this process. Those of other processes look each second."""
        for name in sinks:
            if wake := self.wakes.get(name):
                wake()

    async def _write_queue(self) -> None:
        try:
            while self._queue:
                count, quiet_count, turns_count = len(self._queue), 0, 0
                while count < GROUP_COUNT and quiet_count < QUIET_TURNS and turns_count < MOST_TURNS:
                    await asyncio.sleep(0)
                    quiet_count = quiet_count + 1 if len(self._queue) == count else 0
                    count, turns_count = len(self._queue), turns_count + 1
                group, self._queue = self._queue[:GROUP_COUNT], self._queue[GROUP_COUNT:]
                await self._write_group(group)
        finally:
            self._writing = None

    async def _write_group(self, group: "Sequence[tuple[Item, Future[Taken | None]]]") -> None:
        """Write a group in one transaction. If one item makes the transaction fail, write each half of the group alone.

        A bad item thus costs the other items a little time, and nothing else.
        """
        items, futures = zip(*group, strict=True)
        work = GroupWork(items)
        try:
            if not work.sources <= self.outbox.numbers.keys():
                await self.outbox.numbers.provide(work.sources)
            # On a server a transaction that writes costs one more round trip, and the wait for its commit.
            is_read = work.size is Writing.NOTHING and not self.exclusive
            leases, now = None if is_read else self.leases, self.clock.steady_us()
            write = partial(write_group, work=work, outbox=self.outbox, leases=leases, now=now)
            names, taken = await (self.database.read if is_read else self.database.write)(write)
            self.monitor.note_write(work.size)
        except Exception as error:  # noqa: BLE001 - each caller gets the error; otherwise all would wait for ever
            fault = self.monitor.note_failure(error, work.size)
        else:
            if names:  # in a later turn, so that an error of a worker's `wake` cannot end the writing
                self._loop.call_soon(self.wake, names)
            for item, future in zip(items, futures, strict=True):
                if not future.done():  # a cancelled caller has cancelled its future
                    future.set_result(taken.get(id(item)))
            return
        if fault.concerns_all or len(group) == 1:
            for future in futures:
                if not future.done():
                    future.set_exception(fault.error())
            return
        middle = len(group) // 2
        await self._write_group(group[:middle])
        await self._write_group(group[middle:])

    async def _watched(self, ask: Callable[[], Awaitable[T]], writing: Writing = Writing.NOTHING) -> T:
        if self._closed:
            raise StoreError("the store is closed")
        try:
            result = await ask()
        except SQLAlchemyError as error:
            fault = self.monitor.note_failure(error, writing)
        else:
            self.monitor.note_write(writing)
            return result
        raise fault.error()  # outside the `except`, so that the database's own text is not chained to it


async def open_store(
    url: str, *, clock: Clock, password: str | None = None, busy_timeout_s: float = BUSY_TIMEOUT_S
) -> SqlStore:
    """Open the store at `url`, a valid `store.url`. Create or migrate it if needed, and hold it until it is closed.

    Only PostgreSQL uses `password`. A write waits `busy_timeout_s` for another program's lock on a SQLite file. Raises
    `StoreHeldError` if the file is in use, `StoreUnusableError` if a person must correct something (the store is
    unwritable, damaged, newer, or another program's, or it refuses the login), `StoreNotReadyError` if a server is not
    ready yet, and `StoreError` for other trouble that may pass (locked, full).
    """
    async with AsyncExitStack() as stack:
        database: Database
        if is_postgresql(url):
            from watcher.store.postgresql import PostgresDatabase  # noqa: PLC0415 (of an extra)

            database = PostgresDatabase(url, password=password, clock=clock)
        else:
            file = stack.enter_context(hold_file(path_of(url), clock=clock))
            database = SqliteDatabase(file, busy_timeout_s=busy_timeout_s)
        stack.push_async_callback(database.close)
        created = await database.prepare()
        return SqlStore(database=database, created=created, clock=clock, resources=stack.pop_all())


class LeasedStore:
    """The store for the owner of an account or a sink. Each write is refused unless the owner's lease is valid."""

    def __init__(self, store: SqlStore, lease: Lease) -> None:
        self.lease = lease
        self.exclusive = store.exclusive  # whether only this process records deliveries
        self.monitor = store.monitor
        self.record = store.record
        self._store = store

    async def save_snapshot(self, snapshot: AccountSnapshot | SinkSnapshot) -> None:
        """Write the state of the account or the sink, for pages and other replicas."""
        now, body = self._store.clock.steady_us(), _SNAPSHOT.dump_json(snapshot)
        row = {"of_source": await self._number(), "written_at": now, "body": body}
        await self._keep(lambda connection: connection.execute(_WRITE_SNAPSHOT, row))

    async def _number(self) -> int:
        return await self._store.number_of(Source(self.lease.kind, self.lease.name))

    def _keep(self, write: Work[object]) -> Awaitable[object]:
        return self.record(SmallWrite(self.lease, write))

    async def _read(self, work: Callable[[Connection, int], T]) -> T:
        number = await self._number()
        return await self._store.read(lambda connection: work(connection, number))

    async def _write(self, work: Callable[[Connection, int], T]) -> T:
        number = await self._number()
        return await self._store.write(lambda connection: work(connection, number), lease=self.lease)
