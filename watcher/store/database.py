"""The base of both databases: their threads, the schema, and the meaning of errors.

A driver's own text of an error is never shown, because it may hold the values of a statement.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from threading import local
from traceback import extract_tb
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, CursorResult, Engine, delete, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from watcher.domain.errors import SequenceConflictError, StoreError, StoreUnusableError
from watcher.domain.execution import END_LABELS
from watcher.runtime.threads import WorkerThreads
from watcher.store.leases import LocalLeases, PostgresLeases
from watcher.store.tables import (
    FIRST_VERSION,
    OLDEST_READER,
    SCHEMA_VERSION,
    meta,
    metadata,
    pipeline_day,
    pipeline_hour,
)

MIGRATIONS = Path(__file__).parent / "migrations"

READERS_COUNT = 2  # while an account loads 100,000 executions, a sink can find its due deliveries

T = TypeVar("T")

"""A function that is called in the event loop with the names of sinks with new deliveries. It must not raise."""
Watched = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""A function that runs work on the database, notes whether the work succeeds, and raises its errors as `StoreError`."""


@dataclass(frozen=True, slots=True)
class DatabaseFault:
    """The meaning of a database's error: its kind, and a text that may be shown."""

    kind: type[StoreError]
    text: str
    concerns_all: bool = False
    """Whether every write would fail like this."""
    is_away: bool = False
    """Whether the database could not be reached. Once a small write succeeds again, large writes will succeed, too."""

    def error(self) -> StoreError:
        """Return a new exception each time: an exception that is raised twice would carry two tracebacks."""
        return self.kind(self.text)


Meanings = Mapping[str, tuple[type[StoreError], str]]
"""Errors that make every write fail, by the first characters of their names: the kind of `StoreError`, and a text."""


def explain(
    error: Exception, *, where: str, name_of: Callable[[Any], str | None], meanings: Meanings, taken: Collection[str]
) -> DatabaseFault:
    """Return the meaning of an error at the database `where`.

    `name_of` returns the name of a driver's error. `taken` are the names of errors for a row that exists already.
    """
    if isinstance(error, StoreError):
        return DatabaseFault(type(error), str(error))
    cause = cause_of(error)
    name = name_of(cause) or _line_of(error, cause)
    if name in taken:
        text = f"{where} already holds a row that its owner expected to be new ({name}); the owner reloads"
        return DatabaseFault(SequenceConflictError, text)
    for prefix, (kind, text) in meanings.items():
        if name.startswith(prefix):
            return DatabaseFault(kind, f"{where} {text} ({name})", concerns_all=True)
    return DatabaseFault(StoreError, f"{where} did not take this ({name})")


def cause_of(error: BaseException) -> BaseException:
    """Return the driver's error inside an error of SQLAlchemy; any other error as it is."""
    return (error.orig or error) if isinstance(error, DBAPIError) else error


def _line_of(error: Exception, cause: BaseException) -> str:
    ours = [frame for frame in extract_tb(error.__traceback__) if "watcher" in Path(frame.filename).parts]
    place = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return f"{type(cause).__name__}{place}"


class Database(ABC):
    """A database. Its threads begin pieces of work in the order of arrival, and do each to its end."""

    exclusive = True
    """Whether no other process can use the database while this process runs."""

    server_ahead_us = 0
    """The lead of the server's clock over our steady clock at the start, in microseconds; 0 without a server."""

    check_file: Callable[[], None] = staticmethod(lambda: None)
    """Raises `StoreUnusableError` if the file was deleted or replaced. Does nothing for a server."""

    use_password: Callable[[str | None], None] = staticmethod(lambda _password: None)
    """Sets the password for later connections to a server. Does nothing for a file."""

    def __init__(
        self, where: str, *, writer: Engine, reader: Engine, explain_error: Callable[..., DatabaseFault]
    ) -> None:
        """Start the threads, without any connection yet. `where` names the database in errors, and holds no secret."""
        self.where = where
        self.explain: Callable[[Exception], DatabaseFault] = partial(explain_error, where=where)
        """Returns the meaning of an error of a piece of work, or of an attempt to connect."""
        self._writing = ConnectionThreads(writer, "store-writer")
        self._reading = ConnectionThreads(reader, "store-reader", count=READERS_COUNT)
        self.write = self._writing.transact
        """Does work in one transaction; returns an awaitable of its result. If the work raises, nothing is written."""
        self.read = self._reading.transact
        """Does work that only reads; returns an awaitable of its result. Each statement may see a later state."""

    async def prepare(self) -> bool:
        """Bring the schema up to date, and return whether the database was empty.

        Raises `StoreUnusableError` if a person must correct something, `StoreError` if the trouble may pass.
        """
        try:
            return await self._prepare()
        except SQLAlchemyError as error:
            meaning = self._opening_error(error)
        raise meaning

    def leases(self, watched: Watched, *, on_lost: Callable[[], object]) -> LocalLeases | PostgresLeases:
        """Return the leases of this process. `watched` runs their transactions.

        `on_lost` is called, in any thread, when all leases of this process are lost at once.
        """
        return LocalLeases()

    async def close(self) -> None:
        """Finish the work that was handed in, then close the connections."""
        await self._reading.finish()
        # The writer closes last, in its own thread: closing the last connection empties SQLite's write-ahead log.
        await self._writing.finish()

    @abstractmethod
    def _prepare(self) -> Awaitable[bool]: ...

    def _opening_error(self, error: SQLAlchemyError) -> StoreError:
        return self.explain(error).error()


class ConnectionThreads(WorkerThreads):
    """Threads that do transactions. Each thread has a connection of its own.

    A thread opens its connection for its first transaction and keeps it: taking a connection from a pool and giving it
    back costs as much as a small transaction. If the connection breaks, the next transaction opens it again.
    """

    def __init__(self, engine: Engine, name: str, *, count: int = 1) -> None:
        """Start the threads. Open no connection yet."""
        self._engine = engine
        self._own = local()
        super().__init__(name, count=count)

    def transact(self, work: Callable[[Connection], T]) -> Awaitable[T]:
        """Do the work, in a transaction if the engine begins one; return an awaitable of the result."""
        return self.run(partial(self._transact, work))

    def _transact(self, work: Callable[[Connection], T]) -> T:
        if not hasattr(self._own, "connection"):
            self._own.connection = self._engine.connect()
        connection, begun = cast("Connection", self._own.connection), False
        try:
            with connection.begin():
                begun = True
                return work(connection)
        except DBAPIError as error:
            if not connection.invalidated:
                connection.connection.rollback()  # a failed COMMIT leaves its transaction open
            if begun or not error.connection_invalidated:
                raise
        with connection.begin():  # the connection broke while it was idle, so nothing is done yet
            return work(connection)

    def _work_off(self) -> None:
        super()._work_off()
        if hasattr(self._own, "connection"):
            self._own.connection.close()


def prepare_schema(connection: Connection, *, where: str) -> bool:
    """Bring the schema up to date inside the connection's transaction; return whether the database was empty.

    An empty database gets its tables from `tables`, and counts as migrated. `where` names the database in errors.
    Raises `StoreUnusableError` like `found_version`.
    """
    found = found_version(connection, where=where)
    if not found:
        metadata.create_all(connection, checkfirst=False)
    if found < SCHEMA_VERSION:
        versions = {"schema_version": SCHEMA_VERSION, "oldest_reader": OLDEST_READER}
        connection.execute(delete(meta).where(meta.c.key.in_(versions)))
        connection.execute(insert(meta), [{"key": key, "value": str(value)} for key, value in versions.items()])
        # Imported only when needed: the import costs 12 MB and 0.1 s.
        config = import_module("alembic.config").Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))  # Alembic reads "%%" as "%"
        config.attributes["connection"] = connection
        command = import_module("alembic.command")
        (command.upgrade if found else command.stamp)(config, "head")
    for table in (pipeline_hour, pipeline_day):
        known = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for label in END_LABELS:  # a version with another final status begins to count it
            if label not in known:
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {label} INTEGER NOT NULL DEFAULT 0"))
    return not found


def found_version(connection: Connection, *, where: str) -> int:
    """Return the version of the stored schema, 0 for an empty database.

    Raises `StoreUnusableError` for the database of another program, and for a store that is too old or too new.
    """
    database = inspect(connection)
    tables = database.get_table_names()
    if not tables:
        return 0
    columns = {column["name"] for column in database.get_columns("meta")} if "meta" in tables else set()
    rows = connection.execute(select(meta.c.key, meta.c.value)) if columns >= {"key", "value"} else ()
    facts = {row.key: row.value for row in rows}
    if "oldest_reader" not in facts:
        raise StoreUnusableError(f"{where} is a database, but not one of clerk-watcher; name another")
    version, oldest_reader = int(facts["schema_version"]), int(facts["oldest_reader"])
    if version < FIRST_VERSION:
        raise StoreUnusableError(
            f"{where} is a store of a version before the first release (schema {version}), which cannot be read any"
            " more; begin with an empty store: move this one away, or name another in store.url"
        )
    if oldest_reader > SCHEMA_VERSION:
        raise StoreUnusableError(
            f"{where} was written by a newer version of clerk-watcher (schema {version}, which needs at least"
            f" {oldest_reader}; this one knows {SCHEMA_VERSION}); start the newer version, or use another store"
        )
    return version


class HotStatement:
    """A statement that is compiled once for each kind of database.

    A call is several times faster than with SQLAlchemy's own way. The statement binds two or more values by name. The
    driver gets the values as they are: no list, no JSON.
    """

    def __init__(self, statement: str) -> None:
        self.statement = text(statement)
        self._compiled: dict[str, tuple[str, itemgetter[Any]]] = {}

    def run(self, connection: Connection, *rows: Mapping[str, Any]) -> CursorResult[Any]:
        """Execute the statement once for each row of values. At least one row is needed."""
        sql, values_of = self._compiled.get(connection.dialect.name) or self._compile(connection.dialect)
        values = list(map(values_of, rows))
        return connection.exec_driver_sql(sql, values if len(values) > 1 else values[0])

    def _compile(self, dialect: Any) -> tuple[str, "itemgetter[Any]"]:
        paramstyle = "qmark" if dialect.name == "sqlite" else "format"
        compiled: Any = self.statement.compile(dialect=type(dialect)(paramstyle=paramstyle))
        self._compiled[dialect.name] = str(compiled), itemgetter(*compiled.positiontup)
        return self._compiled[dialect.name]
