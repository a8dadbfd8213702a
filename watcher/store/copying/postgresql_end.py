"""A PostgreSQL database as one end of a copy. Needs psycopg, as `watcher.store.postgresql` does.

Its tables are locked from the first row to the last, all in one transaction, so this holds through a pooler too: they
can be read, and nobody writes into them. A daemon that starts meanwhile cannot take what it is to own, and waits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Column, Connection, Row, Table, func, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from watcher.domain.errors import StoreError, StoreHeldError
from watcher.runtime.clock import Clock
from watcher.store import tables
from watcher.store.postgresql import make_engine, opening_error, require_utf8, take_migration_lock
from watcher.store.postgresql_connector import Connector
from watcher.store.tables import lease

_LIMITS = (
    "SET LOCAL application_name = 'clerk-watcher copy-store';"  # for who wonders what holds these locks
    " SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 2000;"
    # While the other end is at work, which is for seconds at most. A copy that was stopped lets go in the end.
    " SET LOCAL idle_in_transaction_session_timeout = 600000"
)
_READ = f"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {_LIMITS}"
_WRITE = f"BEGIN ISOLATION LEVEL READ COMMITTED; {_LIMITS}"

_IDENTITY = "SELECT pg_postmaster_start_time(), current_database(), current_schema()"
_NOW = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_LAST = "SELECT pg_sequence_last_value(pg_get_serial_sequence(:table, :column)::regclass)"
_GO_ON = "SELECT setval(pg_get_serial_sequence(:table, :column)::regclass, :last)"

_NUL = "\0"
"""PostgreSQL keeps it in no text. An older program took it from the API, this one leaves it out."""


class PostgresEnd:
    """A database on a server, which others use too."""

    errors: tuple[type[Exception], ...] = (SQLAlchemyError, psycopg.Error)

    def __init__(self, url: str, *, password: str | None, clock: Clock) -> None:
        """Open no connection yet."""
        self.where = url.partition("?")[0]
        self._connector = Connector(url, password=password, clock=clock)

    def identity(self) -> object:
        """Return which database of which server it is, and which of its schemas."""
        with self._transaction(_READ) as connection:
            return tuple(connection.execute(text(_IDENTITY)).one())

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a transaction in which all of it is read, while nobody can write into it."""
        with self._transaction(_READ) as connection:
            self._keep_others_out(connection, "SHARE")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a transaction in which all of it is written, while nobody else can use it."""
        with self._transaction(_WRITE) as connection:
            require_utf8(connection, where=self.where)
            if not take_migration_lock(connection):
                raise StoreHeldError(f"{self.where} is being written by another copy, or by a daemon that starts")
            self._keep_others_out(connection, "EXCLUSIVE")
            yield connection

    def write_rows(self, connection: Connection, table: Table, rows: Sequence[Row[Any]]) -> None:
        """Add rows that have a value for each column of the table, by COPY: about four times as fast as INSERT."""
        prepare = connection.dialect.identifier_preparer
        columns = ", ".join(prepare.quote(column.name) for column in table.columns)
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY {prepare.quote(table.name)} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row([each.replace(_NUL, "") if isinstance(each, str) else each for each in row])

    def last_number(self, connection: Connection, column: Column[Any]) -> int:
        """Return the last number that was given to a row of this column, 0 if there was none."""
        return connection.scalar(text(_LAST), _names(column)) or 0

    def go_on_from(self, connection: Connection, column: Column[Any], last: int) -> None:
        """Give the next row of this column the number behind `last`."""
        if last:
            connection.execute(text(_GO_ON), _names(column) | {"last": last})

    def explain(self, error: Exception) -> StoreError:
        """Return what an error of PostgreSQL means to the user."""
        return opening_error(error, where=self.where)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        engine = make_engine(self._connector, begin=lambda: begin, connections=1)
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()

    def _keep_others_out(self, connection: Connection, mode: str) -> None:
        """Lock the tables that are there. Raises `StoreHeldError` while a daemon uses them."""
        there = sorted(tables.metadata.tables.keys() & set(inspect(connection).get_table_names()))
        if there:
            connection.execute(text(f"LOCK TABLE {', '.join(there)} IN {mode} MODE"))
        if lease.name in there:
            now = connection.scalar(text(_NOW))  # read once it is locked: what it waited for may have taken some time
            live = lease.c.until > now
            owner = connection.scalar(select(func.min(lease.c.owner)).where(live))
            if owner is not None:
                raise StoreHeldError(
                    f"{self.where} is in use by {owner}; stop every daemon that uses it (after a kill, wait 10 s)"
                )


def _names(column: Column[Any]) -> dict[str, str]:
    return {"table": column.table.name, "column": column.name}
