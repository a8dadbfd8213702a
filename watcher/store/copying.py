"""Copies a store into an empty one, of SQLite or PostgreSQL, in one transaction of the target.

During the copy no other process writes to either store: the copy holds the lock that a daemon needs on a SQLite file,
and locks the tables of a PostgreSQL database.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Table, func, insert, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from watcher.domain.errors import StoreHeldError, StoreUnusableError, WatcherError
from watcher.runtime.clock import Clock
from watcher.store.database import found_version, prepare_schema
from watcher.store.leases import server_time
from watcher.store.sql_store import BUSY_TIMEOUT_S
from watcher.store.sqlite import BEGIN, explain_error, hold_file, make_engine
from watcher.store.store_url import is_postgresql, path_of
from watcher.store.tables import SCHEMA_VERSION, AnyRow, lease, meta, metadata

_TABLES = [table for table in metadata.sorted_tables if table.name not in {lease.name, meta.name}]
"""The tables that are copied, each after the tables that it refers to.

`lease` and `meta` are not copied: they describe one database and the processes that use it.
"""

PAGE_ROWS = 2_000
"""Rows that are copied at a time. An event has up to 16 KiB, so a page needs at most 32 MiB of memory."""

_PRAGMAS = ("PRAGMA synchronous=FULL", "PRAGMA cache_size=-65536", "PRAGMA temp_store=MEMORY", "PRAGMA foreign_keys=ON")
_BEGIN_POSTGRESQL = (
    "BEGIN ISOLATION LEVEL READ COMMITTED;"
    " SET LOCAL application_name = 'clerk-watcher copy-store';"  # for a person who looks for the holder of these locks
    " SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 2000;"
    " SET LOCAL jit = off;"
    " SET LOCAL idle_in_transaction_session_timeout = 600000"  # a stopped copy releases its locks after 10 min
)


class CopyStoppedError(WatcherError):
    """The copy was interrupted before it was done."""


@dataclass(frozen=True, slots=True)
class StoreEnd:
    """The store that is the source or the target of a copy. Only PostgreSQL uses `password`."""

    url: str
    password: str | None
    clock: Clock

    @property
    def where(self) -> str:
        """Return the name of the store for messages. It holds no secret."""
        return self.url.partition("?")[0] if is_postgresql(self.url) else str(path_of(self.url))

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Begin a transaction during which no other process writes. An error inside leaves the store as it was."""
        with self.errors(), ExitStack() as stack:
            if is_postgresql(self.url):
                from watcher.store import postgresql  # noqa: PLC0415 (of an extra)

                connector = postgresql.Connector(self.url, password=self.password, clock=self.clock)
                engine = postgresql.make_engine(connector, begin=_BEGIN_POSTGRESQL)
            else:
                path = path_of(self.url)
                stack.enter_context(hold_file(path, clock=self.clock))
                engine = make_engine(path, busy_timeout_s=BUSY_TIMEOUT_S, pragmas=_PRAGMAS, begin=BEGIN)
            stack.callback(engine.dispose)
            connection = stack.enter_context(engine.begin())
            if is_postgresql(self.url):
                self._lock(connection)
            yield connection

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Replace an error of this database by a `StoreError` that says what the user can do."""
        try:
            yield
        except SQLAlchemyError as error:
            if is_postgresql(self.url):
                from watcher.store.postgresql import opening_error  # noqa: PLC0415 (of an extra)

                meaning = opening_error(error, where=self.where)
            else:
                meaning = explain_error(error, where=self.where).error()
        else:
            return
        raise meaning  # outside the `except`, so that the database's own text is not chained to it

    def _lock(self, connection: Connection) -> None:
        from watcher.store import postgresql  # noqa: PLC0415 (of an extra)

        postgresql.require_utf8(connection, where=self.where)
        if not connection.scalar(select(func.pg_try_advisory_xact_lock(postgresql.MIGRATION_LOCK))):
            raise StoreHeldError(f"{self.where} is being written by another copy, or by a daemon that starts")
        there = [table.name for table in metadata.sorted_tables if inspect(connection).has_table(table.name)]
        if there:
            connection.execute(text(f"LOCK TABLE {', '.join(there)} IN EXCLUSIVE MODE"))
        if lease.name in there:
            live = lease.c.until > server_time(connection)
            if owner := connection.scalar(select(func.min(lease.c.owner)).where(live)):
                raise StoreHeldError(
                    f"{self.where} is in use by {owner}; stop every daemon that uses it (after a kill, wait 10 s)"
                )


def copy_all(
    source: StoreEnd, target: StoreEnd, *, copied: Callable[[str, int, int], None], stopped: Callable[[], bool]
) -> Mapping[str, int]:
    """Copy all rows; return the number of rows of each table. The source stays as it is.

    `copied` is called with the name of a table, the number of rows written so far, and the number of all rows. Raises
    `StoreError`, and `CopyStoppedError` once `stopped` returns true. After an error the target is as it was.
    """
    if source.where == target.where:
        raise StoreUnusableError(f"{source.where} and {target.where} are the same store; name two")
    if not is_postgresql(source.url) and not path_of(source.url).exists():
        raise StoreUnusableError(f"{source.where} is not there; name the file of a store")
    with source.transaction() as reading:
        _require_version(reading, where=source.where)
        counts = {table.name: _count(reading, table) for table in _TABLES}
        with target.transaction() as writing:
            _make_ready(writing, where=target.where)
            done, total = 0, sum(counts.values())
            for table in _TABLES:
                for page in _pages(source, reading, table):
                    if stopped():
                        raise CopyStoppedError("interrupted")
                    writing.execute(insert(table), [row._asdict() for row in page])
                    done += len(page)
                    copied(table.name, done, total)
            if is_postgresql(target.url):
                _continue_numbering(writing)
    return counts


def _require_version(connection: Connection, *, where: str) -> None:
    version = found_version(connection, where=where)
    if not version:
        raise StoreUnusableError(f"{where} is empty, so there is nothing to copy")
    if version != SCHEMA_VERSION:
        raise StoreUnusableError(
            f"{where} has schema {version}, and this program copies schema {SCHEMA_VERSION} alone; copy it with the"
            " version of clerk-watcher that used it last"
        )


def _make_ready(connection: Connection, *, where: str) -> None:
    prepare_schema(connection, where=where)
    _require_version(connection, where=where)
    full = [table.name for table in _TABLES if _count(connection, table)]
    if full:
        raise StoreUnusableError(
            f"{where} is not empty, it has rows of {', '.join(full)}; name an empty one (a copy never merges)"
        )


def _pages(source: StoreEnd, connection: Connection, table: Table) -> Iterator[Sequence[AnyRow]]:
    # In the order of the key, in which SQLite stores rows: each page is appended after the one before.
    statement = select(table).order_by(*table.primary_key.columns)
    with source.errors():
        yield from connection.execution_options(yield_per=PAGE_ROWS).execute(statement).partitions()


def _continue_numbering(connection: Connection) -> None:
    """Make PostgreSQL number new rows after the copied ones. SQLite does that by itself."""
    for table in _TABLES:
        if (column := table.autoincrement_column) is not None:
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            connection.execute(select(func.setval(sequence, func.max(column))))


def _count(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0
