"""A SQLite file as one end of a copy. The daemon's lock is held meanwhile.

A file that is written into has no write-ahead log: what is added to an empty file need not be kept twice, and if it is
broken off, even by a kill, SQLite cuts the file back to what it was when it is opened next.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Engine, Row, Table, event, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from watcher.domain.errors import StoreError, StoreUnusableError
from watcher.runtime.clock import Clock
from watcher.store.db_errors import explain
from watcher.store.open import BUSY_TIMEOUT_S, take_file
from watcher.store.sqlite import ERROR_NAMES, make_engine

_READING = ("PRAGMA query_only=ON",)
_WRITING = (
    "PRAGMA journal_mode=DELETE",
    "PRAGMA synchronous=FULL",
    "PRAGMA cache_size=-65536",
    "PRAGMA foreign_keys=ON",
)

_COUNTS_ON = "SELECT 1 FROM sqlite_master WHERE name = :name AND sql LIKE '%AUTOINCREMENT%'"
_LAST = "SELECT seq FROM sqlite_sequence WHERE name = :name"
_FORGET = "DELETE FROM sqlite_sequence WHERE name = :name"
_GO_ON = "INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"


class SqliteEnd:
    """A file, which need not be there to be copied into."""

    errors: tuple[type[Exception], ...] = (SQLAlchemyError,)

    def __init__(self, path: Path, *, clock: Clock) -> None:
        """Open nothing yet."""
        self.where = str(path)
        self._path = path
        self._clock = clock

    def identity(self) -> object:
        """Return which file it is, whatever it is called."""
        try:
            found = self._path.stat()
        except OSError:
            return self._path
        return (found.st_dev, found.st_ino)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a transaction in which all of it is read, while no daemon can open it."""
        if not self._path.exists():
            raise StoreUnusableError(f"{self._path} is not there; name the file of a store")
        with ExitStack() as stack:
            take_file(self._path, clock=self._clock, stack=stack)
            yield stack.enter_context(self._transaction("BEGIN", _READING))

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a transaction in which all of it is written, while no daemon can open it. A new file goes with it."""
        is_new = not self._path.exists()
        with ExitStack() as stack:
            take_file(self._path, clock=self._clock, stack=stack)
            try:
                with self._transaction("BEGIN IMMEDIATE", _WRITING) as connection:
                    yield connection
            except BaseException:
                if is_new:
                    self._path.unlink(missing_ok=True)
                raise

    def write_rows(self, connection: Connection, table: Table, rows: Sequence[Row[Any]]) -> None:
        """Add rows that have a value for each column of the table."""
        statement = str(insert(table).compile(connection))
        connection.exec_driver_sql(statement, [tuple(row) for row in rows])  # four times as fast as by name

    def last_number(self, connection: Connection, column: Column[Any]) -> int:
        """Return the last number that was given to a row of this column, 0 if there was none."""
        given = connection.scalar(text(_LAST), {"name": column.table.name})
        return given or connection.scalar(select(func.max(column))) or 0

    def go_on_from(self, connection: Connection, column: Column[Any], last: int) -> None:
        """Give the next row the number behind `last`, where SQLite counts on rather than looks for the highest."""
        name = {"name": column.table.name}
        if connection.scalar(text(_COUNTS_ON), name):
            connection.execute(text(_FORGET), name)
            connection.execute(text(_GO_ON), name | {"last": last})

    def explain(self, error: Exception) -> StoreError:
        """Return what an error of SQLite means to the user."""
        return explain(error, where=self.where, names=ERROR_NAMES).error()

    @contextmanager
    def _transaction(self, begin: str, pragmas: tuple[str, ...]) -> Iterator[Connection]:
        engine: Engine = make_engine(self._path, connections=1, busy_timeout_s=BUSY_TIMEOUT_S, pragmas=pragmas)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()
