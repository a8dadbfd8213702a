"""Reading and writing an SQL database: a database's error comes out as a `StoreError`, and is noted by the monitor."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from watcher.domain.errors import StoreError
from watcher.domain.timestamps import Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.store import leases
from watcher.store.changes import Lease
from watcher.store.database import Database
from watcher.store.monitor import StoreMonitor, Writing
from watcher.store.source_ids import Source, SourceNumbers

T = TypeVar("T")
Work = Callable[[Connection], T]


class SqlAccess:
    """One database, and the numbers of what is named in it."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        """Take the database as it is."""
        self._database = database
        self._clock = clock
        self._monitor = StoreMonitor(database.where, explain=database.explain, clock=clock)
        self._numbers = SourceNumbers(database.write)
        self._closed = False

    @property
    def failing_since(self) -> Monotonic | None:
        """Return since when nothing can be written (monotonic seconds); `None` while it can."""
        return self._monitor.failing_since

    def show_on(self, metrics: Metrics) -> None:
        """Have metrics say from now on whether it can be written."""
        metrics.store_up.set_function(lambda: self.failing_since is None)
        self._monitor.on_failure = metrics.store_failures.inc

    def _number(self, lease: Lease) -> int:
        return self._numbers[Source(lease.kind, lease.name)]

    async def _write(self, work: Work[T]) -> T:
        return await self._watched(partial(self._database.write, work), Writing.A_LITTLE)

    async def _read(self, work: Work[T]) -> T:
        return await self._watched(partial(self._database.read, work))

    async def _write_held(self, lease: Lease, work: Work[T]) -> T:
        """Do it unless another process owns the leased by now, or comes to own it before it is committed."""
        return await self._write(held(lease, work))

    async def _read_held(self, lease: Lease, work: Work[T]) -> T:
        return await self._read(held(lease, work, for_write=False))

    async def _watched(self, ask: Callable[[], Awaitable[T]], writing: Writing = Writing.NOTHING) -> T:
        self._check_open()
        try:
            with self._monitor.asking():
                result = await ask()
        except SQLAlchemyError as error:
            fault = self._monitor.failed(error, writing)
        else:
            self._monitor.worked(writing)
            return result
        raise fault.error()  # outside the clause, so that the text of the database's error does not come along

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")


def held(lease: Lease, work: Work[T], *, for_write: bool = True) -> Work[T]:
    """Return the same work, which raises `OwnershipLostError` unless the lease is the stored one."""

    def checked(connection: Connection) -> T:
        leases.check(connection, [lease], for_write=for_write)
        return work(connection)

    return checked
