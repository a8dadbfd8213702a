"""SQLite's engines: one connection that writes, a few that read, and the settings of each.

The writer says BEGIN IMMEDIATE itself: the driver would begin at the first row that is written, too late for what was
read before (a reader that turns writer fails at once, whatever the timeout), and not at all for a CREATE TABLE, so a
kill inside a migration would leave half of it. Readers never
begin: each statement is its own short read, so no reader keeps the write-ahead log from being emptied.
"""

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from watcher.store.driver import connect

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


def writer_engine(path: Path, *, busy_timeout_s: float) -> AsyncEngine:
    """Return an engine with one connection, whose transactions are the only ones that write."""
    engine = _engine(path, connections=1, busy_timeout_s=busy_timeout_s, pragmas=_WRITER)
    event.listen(engine.sync_engine, "begin", _begin_immediate)
    return engine


def reader_engine(path: Path, *, busy_timeout_s: float) -> AsyncEngine:
    """Return an engine whose connections cannot write."""
    return _engine(
        path,
        connections=2,
        busy_timeout_s=busy_timeout_s,
        pragmas=_READER,
        skip_autocommit_rollback=True,
        isolation_level="AUTOCOMMIT",
    )


def _engine(
    path: Path, *, connections: int, busy_timeout_s: float, pragmas: tuple[str, ...], **options: object
) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        pool_size=connections,
        max_overflow=0,
        pool_reset_on_return=None,  # the writer ends what it began, and a reader begins nothing
        hide_parameters=True,
        # isolation_level=None: the driver begins nothing by itself.
        connect_args={"async_creator_fn": connect, "isolation_level": None, "timeout": busy_timeout_s},
        **options,
    )

    def prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's connection has no public type
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    event.listen(engine.sync_engine, "connect", prepare)
    return engine


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
