"""The connections of SQLite: aiosqlite's, with a whole statement in one trip to the thread that runs it.

A cursor of aiosqlite is made, asked, read and closed in a trip each. A trip wakes two threads, so that most of what a
write costs are the trips: 58 for an event that is recorded and delivered; 16 as it is done here.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Self

import aiosqlite

_CHUNK_ROWS = 64
"""What aiosqlite reads at once where it is iterated, which it is not here: its own default."""


def connect(database: str, **settings: Any) -> "_Connection":  # noqa: ANN401 (the driver's own)
    """Return a connection that opens once it is awaited."""
    connection = _Connection(partial(sqlite3.connect, database, **settings), _CHUNK_ROWS)
    connection._thread.daemon = True  # noqa: SLF001 (as SQLAlchemy does: one that hangs keeps no program alive)
    return connection


class _Connection(aiosqlite.Connection):
    """A connection with cursors of ours."""

    def cursor(self) -> "_Cursor":  # type: ignore[override] # SQLAlchemy enters it, and awaits no more than it has
        """Return a cursor, which is nothing yet."""
        return _Cursor(self)

    async def in_thread(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Do a piece of work on SQLite's own connection, in its thread."""
        await self._execute(work, self._conn)  # type: ignore[no-untyped-call] # its own way in, and not typed


class _Cursor:
    """As much of a driver's cursor as SQLAlchemy asks for. What a statement says is read when it has run."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._rows: Sequence[Any] = ()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement and read all that it says."""
        await self._connection.in_thread(partial(self._run, lambda cursor: cursor.execute(statement, parameters)))

    async def executemany(self, statement: str, several: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each."""
        await self._connection.in_thread(partial(self._run, lambda cursor: cursor.executemany(statement, several)))

    async def fetchall(self) -> Sequence[Any]:
        """Return the rows that were read."""
        return self._rows

    async def close(self) -> None:
        """Hold nothing that would have to be let go of."""

    def _run(self, work: Callable[[sqlite3.Cursor], object], connection: sqlite3.Connection) -> None:
        cursor = connection.cursor()
        try:
            work(cursor)
            self.description, self.lastrowid = cursor.description, cursor.lastrowid
            self._rows = cursor.fetchall() if cursor.description else ()
            self.rowcount = cursor.rowcount
        finally:
            cursor.close()
