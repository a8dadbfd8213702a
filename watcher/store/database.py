"""What the store needs of a database, its schema, and what its errors mean, whose text may hold parameters."""

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
from watcher.runtime.threads import WorkerThreads
from watcher.store.leases import LocalLeases, PostgresLeases
from watcher.store.tables import FIRST_VERSION, OLDEST_READER, SCHEMA_VERSION, meta, metadata

MIGRATIONS = Path(__file__).parent / "migrations"

READERS_COUNT = 2  # so that what is due for a sink is found while an account reads a hundred thousand executions

T = TypeVar("T")

OnRecorded = Callable[[Collection[str]], None]
"""Hears, in the event loop, the names of the sinks that have something new to send. It must not raise."""
Watched = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Asks a database, notes how it fares, and has its errors come out as `StoreError`."""


@dataclass(frozen=True, slots=True)
class DatabaseFault:
    """What kind of error it is, in words fit to be shown, and whether it stands in the way of every write.

    `is_away` says that the database could not be reached: once it can, there is room for all that was refused.
    """

    kind: type[StoreError]
    text: str
    concerns_all: bool = False
    is_away: bool = False

    def error(self) -> StoreError:
        """Return it anew for each who must hear it: what is raised twice carries two tracebacks."""
        return self.kind(self.text)


Meanings = Mapping[str, tuple[type[StoreError], str]]
"""What stands in the way of every write, by how the database's name of the error begins."""


def explain(
    error: Exception, *, where: str, name_of: Callable[[Any], str | None], meanings: Meanings, taken: Collection[str]
) -> DatabaseFault:
    """Say what an error while reading or writing means, at the database `where`, by `name_of` an error of the driver.

    `taken` are the names that say that a row is there already.
    """
    if isinstance(error, StoreError):
        return DatabaseFault(type(error), str(error))
    cause = cause_of(error)
    name = name_of(cause) or _line_of(error, cause)
    if name in taken:
        text = f"{where} already holds what its owner believes new ({name}), who begins anew"
        return DatabaseFault(SequenceConflictError, text)
    for prefix, (kind, text) in meanings.items():
        if name.startswith(prefix):
            return DatabaseFault(kind, f"{where} {text} ({name})", concerns_all=True)
    return DatabaseFault(StoreError, f"{where} did not take this ({name})")


def cause_of(error: BaseException) -> BaseException:
    """Return the driver's error in an error of SQLAlchemy; any other as it is."""
    return (error.orig or error) if isinstance(error, DBAPIError) else error


def _line_of(error: Exception, cause: BaseException) -> str:
    ours = [frame for frame in extract_tb(error.__traceback__) if "watcher" in Path(frame.filename).parts]
    return (
        f"{type(cause).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else type(cause).__name__
    )


class Database(ABC):
    """A database. Every piece of work is done in a thread, in the order it is asked for, and to its end."""

    exclusive = True
    """Whether this process alone uses it, for as long as it runs."""

    ahead_us = 0
    """By how much its clock was ahead of this process's steady one when it was prepared; 0 where that is the same."""

    check_file: Callable[[], None] = staticmethod(lambda: None)
    """Raises `StoreUnusableError` if what is written now will not be found by the next start."""

    use_password: Callable[[str | None], None] = staticmethod(lambda _password: None)
    """Logs in with it from the next connection on, where there is a login."""

    def __init__(
        self, where: str, *, writer: Engine, reader: Engine, explain_error: Callable[..., DatabaseFault]
    ) -> None:
        """Open no connection yet. `where` names it in errors: never a secret."""
        self.where = where
        self.explain: Callable[[Exception], DatabaseFault] = partial(explain_error, where=where)
        """Says what an error means that came out of a piece of work, or of an attempt to connect."""
        self._writing = ConnectionThreads(writer, "store-writer")
        self._reading = ConnectionThreads(reader, "store-reader", count=READERS_COUNT)
        self.write = self._writing.transact
        """Does work in a transaction; its result can be awaited. If the work raises, nothing is written."""
        self.read = self._reading.transact
        """Does work that only reads; its result can be awaited. Each statement may see a later state."""

    async def prepare(self) -> bool:
        """Bring the schema up to date, and return whether the database was empty.

        Raises `StoreUnusableError` for what a person must correct, `StoreError` for what may pass.
        """
        try:
            return await self._prepare()
        except SQLAlchemyError as error:
            meaning = self._opening_error(error)
        raise meaning

    def shared(self, on_recorded: OnRecorded) -> OnRecorded:
        """Return what to call after a commit in place of `on_recorded`, so that other processes hear of it as well.

        `on_recorded` is then also called with what they recorded. Neither is called before the schema is prepared.
        """
        return on_recorded

    def leases(self, watched: Watched, *, on_lost: Callable[[], object]) -> LocalLeases | PostgresLeases:
        """Return how the processes that use it share what there is to own; what is asked for that `watched` asks.

        `on_lost` is called, in any thread, when all leases of this process are lost at once.
        """
        return LocalLeases()

    async def close(self) -> None:
        """Finish what was asked for, then close the connections."""
        await self._reading.finish()
        await self._writing.finish()  # in its thread: the last one to close empties SQLite's log

    @abstractmethod
    def _prepare(self) -> Awaitable[bool]: ...

    def _opening_error(self, error: SQLAlchemyError) -> StoreError:
        return self.explain(error).error()


class ConnectionThreads(WorkerThreads):
    """Threads that do transactions, each on a connection of its own.

    It is opened for the first transaction of its thread, and stays open: to take one from a pool and to give it back
    costs as much as a small transaction. One that breaks is opened anew for the next transaction.
    """

    def __init__(self, engine: Engine, name: str, *, count: int = 1) -> None:
        """Start the threads, and open no connection yet."""
        self._engine = engine
        self._own = local()
        super().__init__(name, count=count)

    def transact(self, work: Callable[[Connection], T]) -> Awaitable[T]:
        """Begin the work, in a transaction if the engine begins one; return what will hold its outcome."""
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
                connection.connection.rollback()  # a COMMIT that failed leaves its transaction open
            if begun or not error.connection_invalidated:
                raise
        with connection.begin():  # it broke while it lay idle, so nothing is done yet
            return work(connection)

    def _work_off(self) -> None:
        super()._work_off()
        if hasattr(self._own, "connection"):
            self._own.connection.close()


def prepare_schema(connection: Connection, *, where: str) -> bool:
    """Bring the schema up to date inside the transaction the connection has begun; return whether it was empty.

    A new database is made as `tables` says, and counts as migrated. `where` names the database in errors. Raises
    `StoreUnusableError` as `found_version`.
    """
    found = found_version(connection, where=where)
    if not found:
        metadata.create_all(connection, checkfirst=False)
    if found < SCHEMA_VERSION:
        versions = {"schema_version": SCHEMA_VERSION, "oldest_reader": OLDEST_READER}
        connection.execute(delete(meta).where(meta.c.key.in_(versions)))
        connection.execute(insert(meta), [{"key": key, "value": str(value)} for key, value in versions.items()])
        # Loaded only when there is work: it costs 12 MB and 0.1 s.
        config = import_module("alembic.config").Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))  # "%" interpolates there
        config.attributes["connection"] = connection
        command = import_module("alembic.command")
        (command.upgrade if found else command.stamp)(config, "head")
    return not found


def found_version(connection: Connection, *, where: str) -> int:
    """Return the version of the schema that is there, 0 if the database is empty.

    Raises `StoreUnusableError` for somebody else's database, and for one that is too old or too new.
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
    """A statement compiled once for each kind of database: SQLAlchemy's way at each call costs several times as much.

    It has several values, all bound by name, and plain enough for a driver: no list, no JSON.
    """

    def __init__(self, statement: str) -> None:
        self.statement = text(statement)
        self._compiled: dict[str, tuple[str, itemgetter[Any]]] = {}

    def run(self, connection: Connection, *rows: Mapping[str, Any]) -> CursorResult[Any]:
        """Carry it out with the values of each of these, of which there is at least one."""
        sql, values_of = self._compiled.get(connection.dialect.name) or self._compile(connection.dialect)
        values = list(map(values_of, rows))
        return connection.exec_driver_sql(sql, values if len(values) > 1 else values[0])

    def _compile(self, dialect: Any) -> tuple[str, "itemgetter[Any]"]:
        paramstyle = "qmark" if dialect.name == "sqlite" else "format"
        compiled: Any = self.statement.compile(dialect=type(dialect)(paramstyle=paramstyle))
        self._compiled[dialect.name] = str(compiled), itemgetter(*compiled.positiontup)
        return self._compiled[dialect.name]
