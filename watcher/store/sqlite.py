"""SQLite as the store uses it: one connection that writes, a few that read, and the settings of each.

The writer says BEGIN IMMEDIATE itself: the driver would begin at the first row that is written, too late for what was
read before (a reader that turns writer fails at once, whatever the timeout), and not at all for a CREATE TABLE, so a
kill inside a migration would leave half of it. Readers never
begin: each statement is its own short read, so no reader keeps the write-ahead log from being emptied.

A whole piece of work, all statements of a transaction with their beginning and end, is one trip to a thread. A trip
wakes two threads, and each of them then waits for the other to let go of the interpreter.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event

from watcher.runtime.threads import WorkerThreads

_WRITER = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # NORMAL forgets commits at a power loss, after the webhook went out
    "PRAGMA wal_autocheckpoint=4000",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA cache_size=-8192",  # as fast as 64 MB with 150,000 executions at random, and memory is promised
    "PRAGMA temp_store=MEMORY",
    "PRAGMA foreign_keys=ON",
)
_READER = ("PRAGMA query_only=ON", "PRAGMA cache_size=-2048", "PRAGMA temp_store=MEMORY")

READERS_COUNT = 2
"""So that what is due for a sink is found while an account reads a hundred thousand executions."""

T = TypeVar("T")


class Database:
    """A database file. Every piece of work is done in a thread, in the order it is asked for, and to its end."""

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        """Open no connection yet."""
        self._writer = _engine(path, connections=1, busy_timeout_s=busy_timeout_s, pragmas=_WRITER)
        event.listen(self._writer, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        self._reader = _engine(
            path,
            connections=READERS_COUNT,
            busy_timeout_s=busy_timeout_s,
            pragmas=_READER,
            pool_reset_on_return=None,  # a reader begins nothing
            skip_autocommit_rollback=True,
            isolation_level="AUTOCOMMIT",
        )
        self._writing = WorkerThreads("store-writer")
        self._reading = WorkerThreads("store-reader", count=READERS_COUNT)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, whose transaction is committed by then; if it raises, nothing is written."""
        return await self._writing.run(partial(_within, self._writer.begin, work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, which cannot write."""
        return await self._reading.run(partial(_within, self._reader.connect, work))

    async def close(self) -> None:
        """Finish what was asked for, then close the connections."""
        await self._reading.finish()
        self._reader.dispose()
        await self._writing.run(self._writer.dispose)  # in its thread: the last one to close empties the log
        await self._writing.finish()


def _within(connect: Callable[[], AbstractContextManager[Connection]], work: Callable[[Connection], T]) -> T:
    with connect() as connection:
        return work(connection)


def _engine(
    path: Path, *, connections: int, busy_timeout_s: float, pragmas: tuple[str, ...], **options: object
) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,
        # isolation_level=None: the driver begins nothing by itself. A thread may close what another one opened.
        connect_args={"isolation_level": None, "timeout": busy_timeout_s, "check_same_thread": False},
        **options,
    )

    def prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's connection has no public type
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    event.listen(engine, "connect", prepare)
    return engine
