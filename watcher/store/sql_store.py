"""The store in an SQL database: how it is opened, read and written, and who may write under which lease.

Group commit: what is handed in while the last group was written is written in one transaction. A database's error comes
out as a `StoreError`, and is noted by the monitor.
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
"""How many are written together at most: beyond this a write costs no less, and the others wait longer."""

QUIET_TURNS = 2
"""A group is gathered until so many turns in a row bring nothing more: a transaction costs as much as ten changes."""

MOST_TURNS = 40
"""But for no more turns: where the event loop is busy each takes about 10 ms."""

REMEMBERED_S = 30.0
"""What was refused comes due again within this time, unless nobody wants it any more."""

BUSY_TIMEOUT_S = 2.0
"""Short, for nothing interrupts it: a few of these in a row must fit into the 8 s an ending may take."""

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
    """The trouble with one store, from the first error until a write shows that it has ended.

    `failing_since` is since when it takes no writes (monotonic seconds); `None` while it does. `on_failure` is called
    whenever something could not be read or written.
    """

    def __init__(self, *, explain: Callable[[Exception], DatabaseFault], clock: Clock) -> None:
        """Take the store to be well. `explain` says what an error of it means."""
        self.failing_since: Monotonic | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self._explain = explain
        self._clock = clock
        self._fault: DatabaseFault | None = None
        self._said: set[str] = set()  # since it was well: two causes may come by turns, many times a second
        self._refused = Writing.NOTHING
        self._failed_at = EARLIEST

    @property
    def problem(self) -> str:
        """Return what is wrong, in words fit to be shown; nothing if all is well."""
        return "" if self._fault is None else self._fault.text

    def failed(self, error: Exception, writing: Writing) -> DatabaseFault:
        """Say what an error means, and note it if the trouble is the store's and no bug or lost ownership."""
        fault = self._explain(error)
        if not fault.concerns_all and fault.kind is not StoreError:
            return fault
        self.on_failure()
        if self._fault is None or (fault.concerns_all and fault.text not in self._said):
            log.error("store.failed", problem=fault.text)
            self._said.add(fault.text)
        if self._fault is None or fault.concerns_all:
            self._fault = fault
        if fault.concerns_all:
            self._refused = max(self._refused, min(writing, Writing.A_LITTLE) if fault.is_away else writing)
        self._failed_at = self._clock.monotonic()
        if self._refused and self.failing_since is None:
            self.failing_since = self._failed_at
        return fault

    def wrote(self, amount: Writing) -> None:
        """Note that so much was written: trouble ends with as much as was refused, or if nothing was for a while."""
        if self._fault is None or not amount:
            return
        if Writing.NOTHING < self._refused <= amount or self._clock.monotonic() >= self._failed_at + REMEMBERED_S:
            log.info("store.recovered")
            self._fault, self._refused, self.failing_since = None, Writing.NOTHING, None
            self._said.clear()


class SqlStore:
    """State, events and deliveries in a database. Made by `open_store`."""

    def __init__(self, *, database: Database, created: bool, clock: Clock, resources: AsyncExitStack) -> None:
        """Start writing. `created` is for who warns of an empty store; `resources` are let go of at the end."""
        self.created = created
        self.exclusive = database.exclusive
        self.ahead_us = database.ahead_us
        self.clock = clock
        self.outbox = Outbox(SourceNumbers(database.write))
        lost = partial(asyncio.get_running_loop().call_soon_threadsafe, self._leases_lost)
        self.leases = database.leases(self._watched, on_lost=lost)
        self.wakes: dict[str, Callable[[], None]] = {}  # by sink: who looks for what was recorded, here or elsewhere
        self.on_recorded = database.shared(self._wake)
        self.database = database
        self.monitor = StoreMonitor(explain=database.explain, clock=clock)
        self._resources = resources
        self._loop = asyncio.get_running_loop()
        self._handed: list[tuple[Item, Future[Taken | None]]] = []
        self._writing: Task[None] | None = None
        self._closed = False

    def record(self, item: Item) -> "Future[Taken | None]":
        """Write this with what comes together with it, in the order in which it is handed in.

        Return a future of what is taken, or of the `StoreError` that kept it from being written. A caller that is
        cancelled leaves; its write goes on. The sinks' workers are woken at once, so that they take their deliveries in
        the transaction that records these.
        """
        if self._closed:
            raise StoreError("the store is closed")
        result: Future[Taken | None] = self._loop.create_future()
        self._handed.append((item, result))
        if self._writing is None:
            self._writing = self._loop.create_task(self._write_handed(), name="store-writer")
        for entry in item.entries:
            self._wake(entry.sinks)
        return result

    async def number_of(self, source: Source) -> int:
        """Return the number of an account, a pipeline or a sink, which is given one if it has none."""
        numbers = self.outbox.numbers
        if source not in numbers:
            await self._watched(partial(numbers.provide, {source}), Writing.A_LITTLE)
        return numbers[source]

    async def read(self, work: Work[T]) -> T:
        """Return what `work` reads. Whether an owner has lost its lease shows when it writes."""
        return await self._watched(partial(self.database.read, work))

    async def write(self, work: Work[T], *, lease: Lease | None = None) -> T:
        """Return what `work` returns once that is committed; under a lease only if nobody took that meanwhile."""

        def write(connection: Connection) -> T:
            if lease is not None:
                self.leases.check(connection, [lease])
            return work(connection)

        return await self._watched(partial(self.database.write, write), Writing.A_LITTLE)

    async def probe_writable(self) -> None:
        """Write something of no meaning, durably, as any other write."""
        now = {"now": str(self.clock.steady_us())}  # another value each time: else SQLite writes nothing at all
        await self.write(lambda connection: connection.execute(_PROBE, now))
        if self.monitor.failing_since is not None:  # a write of more was refused
            raise StoreError(self.monitor.problem)

    async def close(self) -> None:
        """Finish what was handed in, then let go of the files."""
        self._closed = True
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await self._resources.aclose()

    def _leases_lost(self) -> None:
        self.outbox.numbers.clear()  # the database may lack some of them
        self.leases.renew_now()

    def _wake(self, sinks: Collection[str]) -> None:
        for name in sinks:
            if wake := self.wakes.get(name):
                wake()

    async def _write_handed(self) -> None:
        try:
            while self._handed:
                count, quiet_count, turns_count = len(self._handed), 0, 0
                while count < GROUP_COUNT and quiet_count < QUIET_TURNS and turns_count < MOST_TURNS:
                    await asyncio.sleep(0)
                    quiet_count = quiet_count + 1 if len(self._handed) == count else 0
                    count, turns_count = len(self._handed), turns_count + 1
                group, self._handed = self._handed[:GROUP_COUNT], self._handed[GROUP_COUNT:]
                await self._write_group(group)
        finally:
            self._writing = None

    async def _write_group(self, group: "Sequence[tuple[Item, Future[Taken | None]]]") -> None:
        """Write a group. When a member spoils it, write its halves: one bad write costs the others little, no more."""
        items, futures = zip(*group, strict=True)
        work = GroupWork(items)
        try:
            if not work.sources <= self.outbox.numbers.keys():
                await self.outbox.numbers.provide(work.sources)
            # Where others write too, a transaction that writes costs one more round trip, and a commit that is awaited.
            is_read = work.size is Writing.NOTHING and not self.exclusive
            leases, now = None if is_read else self.leases, self.clock.steady_us()
            write = partial(write_group, work=work, outbox=self.outbox, leases=leases, now=now)
            names, taken = await (self.database.read if is_read else self.database.write)(write)
            self.monitor.wrote(work.size)
        except Exception as error:  # noqa: BLE001 - whatever it is goes to who handed it in; else all would wait for ever
            fault = self.monitor.failed(error, work.size)
        else:
            if names:  # in a turn of its own, so that what it raises cannot end the writing
                self._loop.call_soon(self.on_recorded, names)
            for item, future in zip(items, futures, strict=True):
                if not future.done():  # a caller that was cancelled took its future along
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
            fault = self.monitor.failed(error, writing)
        else:
            self.monitor.wrote(writing)
            return result
        raise fault.error()  # outside the clause, so that the text of the database's error does not come along


async def open_store(
    url: str, *, clock: Clock, password: str | None = None, busy_timeout_s: float = BUSY_TIMEOUT_S
) -> SqlStore:
    """Open the store at `url`, a valid `store.url`, making or migrating it as needed, and hold it until it is closed.

    `password` is PostgreSQL's, `busy_timeout_s` how long a write waits for another program's lock on a file. Raises
    `StoreHeldError` when the file is in use, `StoreUnusableError` when a person must correct something (it is
    unwritable, damaged, somebody else's, newer, or refuses the login), `StoreNotReadyError` for a server that is not
    ready yet, and `StoreError` for what else may pass (locked, full).
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
    """The store as the owner of an account or a sink uses it: it writes under the lease."""

    def __init__(self, store: SqlStore, lease: Lease) -> None:
        self.lease = lease
        self.exclusive = store.exclusive  # whether this process alone records what is to be sent
        self.monitor = store.monitor
        self.record = store.record
        self._store = store

    async def save_snapshot(self, snapshot: AccountSnapshot | SinkSnapshot) -> None:
        """Let everybody know how the account or the sink stands."""
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
