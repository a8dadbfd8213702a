"""The store in a PostgreSQL database: the connections, and the statements that begin a transaction.

This needs psycopg, from the extra `postgres`. A pooler may give each transaction another connection, so no setting is
kept in a session, no statement is prepared, and the time limits are sent together with BEGIN.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, func, select
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import SQLAlchemyError

from watcher.domain.errors import StoreError, StoreNotReadyError, StoreUnusableError
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock
from watcher.store.database import (
    ConnectionThreads,
    Database,
    DatabaseFault,
    Meanings,
    Watched,
    cause_of,
    explain,
    found_version,
    prepare_schema,
)
from watcher.store.leases import PostgresLeases, server_time
from watcher.store.tables import SCHEMA_VERSION, metadata

_LIMITS = (
    "SET LOCAL statement_timeout = 5000; SET LOCAL lock_timeout = 2000;"
    # A client that freezes inside a transaction loses its locks after this time.
    " SET LOCAL idle_in_transaction_session_timeout = 3000;"
    # A server with LLVM compiles plans that seem costly to it. That takes 0.1 s, longer than any statement runs.
    " SET LOCAL jit = off"
)
_BY_INDEX = "; ".join(
    f"SET LOCAL enable_{each} = off" for each in ("seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin")
)
"""Makes each statement use an index.

With outdated statistics a search among 200,000 pending deliveries would take seconds instead of 30 ms.
"""
_OPEN = f"BEGIN ISOLATION LEVEL READ COMMITTED; {_LIMITS}"
_WRITE = f"{_OPEN}; {_BY_INDEX}"
_RENEW = f"{_OPEN}; SET LOCAL lock_timeout = 4000"
"""Replicas renew one at a time. This `lock_timeout` is longer than a frozen replica can hold the lock."""
READ = f"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {_LIMITS}; {_BY_INDEX}"

ANSWER_S = 10.0
"""Time without an answer after which the server, or a pooler, counts as frozen. The server's own limits are shorter."""

MIGRATION_LOCK = 7_141_983_064_512_390
"""The number of the advisory lock under which one process brings the schema up to date."""


def _name_of(cause: BaseException) -> str | None:
    if isinstance(cause, psycopg.Error) and cause.sqlstate:
        return cause.sqlstate
    return "08006" if isinstance(cause, psycopg.OperationalError) else None


_AWAY = ("08", "57P0", "25P03", "25P04")
_NO_RIGHT = "42501"
REFUSES_USER = "refuses this user; grant it all rights in its schema"
_NO_SCHEMA = "3F000"
LACKS_SCHEMA = "has no schema of its search_path; create the schema, or correct its URL"
_READ_ONLY = "25006"
_MEANINGS: Meanings = {
    **dict.fromkeys(_AWAY, (StoreError, "cannot be used now, the connection broke; check that its server runs")),
    _READ_ONLY: (StoreError, "is read-only; name the primary in its URL, or add target_session_attrs=read-write"),
    "28": (StoreError, "refuses the login; see store.password_file and the server's pg_hba.conf"),
    "3D000": (StoreError, "does not exist; create it, or correct its URL"),
    _NO_RIGHT: (StoreError, REFUSES_USER),
    _NO_SCHEMA: (StoreError, LACKS_SCHEMA),
    "42P01": (StoreError, "has lost a table; restore a backup, or empty the database to start again"),
    "53100": (StoreError, "cannot grow, the server's disk is full; make room"),
    "53": (StoreError, "is out of resources; see the server's log"),
    "55P03": (StoreError, "is locked by another program, perhaps watcher copy-store; see pg_stat_activity"),
    "57014": (StoreError, "was too slow; see the server's load and pg_stat_activity"),
    "58": (StoreError, "reports an error of its disk; see the server's log"),
    **dict.fromkeys(("XX001", "XX002"), (StoreUnusableError, "is damaged; restore a backup")),
}
"""The meanings of errors, by SQLSTATE (PostgreSQL's documentation, appendix A)."""

_NEEDS_CORRECTION = re.compile(
    r"password authentication failed|no password supplied|does not exist|no pg_hba\.conf entry|not permitted to log in"
    r"|certificate verify failed|does not match host name|server does not support SSL|invalid \w+ value"
    r"|unrecognized configuration parameter|invalid value for parameter|invalid port number|could not match \d+ port"
)
"""Messages of libpq and the server about trouble that a person must correct. Only English ones are recognized."""

T = TypeVar("T")

log = structlog.get_logger()

_CONNECTION: dict[str, Any] = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,  # otherwise a thread waits for minutes on a network that drops packets
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "fallback_application_name": "clerk-watcher",
}
"""Parameters for libpq. The URL may change them."""

RECONNECT_AFTER_S = 0.5
"""Time after a failed attempt to connect in which no thread tries again."""


class CannotConnectError(psycopg.OperationalError):
    """A failed attempt to connect. The text is libpq's, in one line, and holds no password."""


class ServerConnection(psycopg.Connection[Any]):
    """A connection that is closed if the server does not answer in time: the server may be frozen.

    Keepalives do not show whether the server is frozen, because its operating system answers them.
    """

    answers_within_s: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Return the result of one exchange with the server. Raises `psycopg.OperationalError` without an answer."""
        try:
            return super().wait(gen, interval, self.answers_within_s if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001 (it has no public name)
            self.close()
            raise psycopg.OperationalError("the server did not answer") from None


class Connector:
    """Makes connections. For 0.5 s after a failure each call fails at once, without another attempt to connect."""

    def __init__(self, url: str, *, password: str | None, clock: Clock) -> None:
        """Parse the URL, which `check_store_url` must have checked before."""
        self.password = password
        given = {key: value for key, value in conninfo_to_dict(url).items() if value not in {None, ""}}
        # Another encoding could not hold every name of the API.
        self._parameters = _CONNECTION | given | {"client_encoding": "utf8"}
        self._clock = clock
        self._last_failure = ""
        self._not_before = EARLIEST

    def connect(self, *, answers_within_s: float | None = None) -> ServerConnection:
        """Return a connection that begins no transaction by itself. Raises `CannotConnectError`."""
        if self._clock.monotonic() < self._not_before:
            raise CannotConnectError(self._last_failure)
        secret = {} if self.password is None else {"password": self.password}
        try:
            connection = ServerConnection.connect(
                make_conninfo(**(self._parameters | secret)), autocommit=True, prepare_threshold=None
            )
        except psycopg.Error as error:
            self._not_before = Monotonic(self._clock.monotonic() + RECONNECT_AFTER_S)
            self._last_failure = " ".join(str(error).removeprefix("connection failed: ").split())[:300]
            raise CannotConnectError(self._last_failure) from None
        connection.answers_within_s = answers_within_s
        return connection


class PostgresDatabase(Database):
    """A database on a server, shared with other processes."""

    exclusive = False
    _leases: PostgresLeases

    def __init__(self, url: str, *, password: str | None, clock: Clock) -> None:
        self._clock = clock
        self._connector = Connector(url, password=password, clock=clock)
        where = url.partition("?")[0]
        writer, reader, keeper = (
            make_engine(self._connector, begin=begin, is_limited=True) for begin in (_WRITE, READ, _RENEW)
        )
        for engine in (writer, keeper):
            event.listen(engine, "invalidate", lambda *_: self._leases.lose_all())
        super().__init__(where, writer=writer, reader=reader, explain_error=explain_error)
        self._keeping = ConnectionThreads(keeper, "store-leases")

    def use_password(self, password: str | None) -> None:
        """Use this password for all later connections."""
        self._connector.password = password

    def leases(self, watched: Watched, *, on_lost: Callable[[], object]) -> PostgresLeases:
        """Return the leases that replicas share. They have a connection of their own, so no other work delays them."""

        async def write(work: Callable[[Connection], Any]) -> Any:
            return await watched(partial(self._keeping.transact, work))

        self._leases = PostgresLeases(write, on_lost=on_lost)
        return self._leases

    async def close(self) -> None:
        """Finish the work that was handed in, then close the connections."""
        await super().close()
        await self._keeping.finish()

    async def _prepare(self) -> bool:
        opening = ConnectionThreads(make_engine(self._connector, begin=_OPEN), "store-opening")
        try:
            return await opening.transact(self._prepare_schema)
        finally:
            await opening.finish()

    def _prepare_schema(self, connection: Connection) -> bool:
        require_utf8(connection, where=self.where)
        if found_version(connection, where=self.where) < SCHEMA_VERSION:
            connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))  # waits for `lock_timeout` at most
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        created = prepare_schema(connection, where=self.where)  # reads the version again, now under the lock
        require_rights(connection, where=self.where)
        connection.exec_driver_sql("LOCK TABLE meta IN ROW EXCLUSIVE MODE")  # fails while the store is being copied
        self.server_ahead_us = server_time(connection) - self._clock.steady_us()
        return created

    def _opening_error(self, error: SQLAlchemyError) -> StoreError:
        return opening_error(error, where=self.where)


def opening_error(error: Exception, *, where: str) -> StoreError:
    """Return a `StoreUnusableError` if a person must act, and a `StoreNotReadyError` if the trouble may pass."""
    fault, cause = explain_error(error, where=where), cause_of(error)
    must_be_corrected = isinstance(cause, CannotConnectError) and _NEEDS_CORRECTION.search(str(cause))
    if must_be_corrected or issubclass(fault.kind, StoreUnusableError) or _name_of(cause) in {_NO_RIGHT, _NO_SCHEMA}:
        return StoreUnusableError(fault.text)
    return StoreNotReadyError(fault.text)


def require_utf8(connection: Connection, *, where: str) -> None:
    """Raise `StoreUnusableError` if the database's encoding cannot hold every name."""
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        remedy = "create it again: CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'"
        raise StoreUnusableError(f"{where} has the encoding {encoding}, which cannot hold every text; {remedy}")


_MISSING_RIGHTS = f"""
SELECT of_table, wanted FROM unnest(ARRAY{sorted(metadata.tables)}) AS tables (of_table),
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS rights (wanted)
WHERE NOT has_table_privilege(of_table, wanted)
UNION ALL SELECT of_table, 'USAGE of its sequence'
    FROM unnest(ARRAY['source', 'event', 'silence']) AS numbered (of_table)
WHERE NOT has_sequence_privilege(pg_get_serial_sequence(of_table, 'id'), 'USAGE')
ORDER BY of_table, wanted
"""


def require_rights(connection: Connection, *, where: str) -> None:
    """Raise `StoreUnusableError` if the user lacks a right that the store needs on its tables, now or later."""
    missing = [f"{right} on {table}" for table, right in connection.exec_driver_sql(_MISSING_RIGHTS)]
    if missing:
        raise StoreUnusableError(
            f"{where} refuses this user {', '.join(missing)}; grant it SELECT, INSERT, UPDATE and DELETE on all tables"
            " of its schema, and USAGE on all sequences"
        )


def explain_error(error: Exception, *, where: str) -> DatabaseFault:
    """Return the meaning of an error. `where` names the database."""
    cause = cause_of(error)
    if isinstance(cause, CannotConnectError):
        text = f"{where} cannot be connected to: {cause}; see its URL, store.password_file and the server"
        return DatabaseFault(StoreError, text, concerns_all=True, is_away=True)
    fault = explain(error, where=where, name_of=_name_of, meanings=_MEANINGS, taken=("23505",))
    return replace(fault, is_away=(_name_of(cause) or "").startswith(_AWAY))


def make_engine(connector: Connector, *, begin: str, is_limited: bool = False) -> Engine:
    """Return an engine whose transactions begin with these statements.

    If `is_limited` is set, the server must answer within `ANSWER_S`.
    """
    engine = create_engine("postgresql+psycopg://", poolclass=NullPool, hide_parameters=True, use_native_hstore=False)
    event.listen(engine, "do_connect", lambda *_: connector.connect(answers_within_s=ANSWER_S if is_limited else None))
    all_at_once = {"no_parameters": True}  # otherwise the driver sends only one statement at a time
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin, execution_options=all_at_once))
    event.listen(engine, "handle_error", _leave_read_only)
    return engine


def _leave_read_only(context: ExceptionContext) -> None:
    # A new connection is made for the next transaction: by now another server may be the primary at the same address.
    if _name_of(context.original_exception) == _READ_ONLY:
        context.is_disconnect = True


_MAY_CREATE = "SELECT current_schema(), has_schema_privilege(current_schema(), 'CREATE')"


def is_empty_database(url: str, *, password: str | None, clock: Clock) -> bool:
    """Return whether a database holds no store yet. Raises `StoreError` if the database cannot be used."""
    where = url.partition("?")[0]
    connector = Connector(url, password=password, clock=clock)
    engine = make_engine(connector, begin=_OPEN, is_limited=True)
    try:
        with engine.begin() as connection:
            require_utf8(connection, where=where)
            if found_version(connection, where=where):
                require_rights(connection, where=where)
                return False
            schema, may_create = connection.exec_driver_sql(_MAY_CREATE).one()
            if schema is None:
                raise StoreUnusableError(f"{where} {LACKS_SCHEMA}")
            if not may_create:
                raise StoreUnusableError(f"{where} {REFUSES_USER}")
            return True
    except SQLAlchemyError as error:
        meaning: StoreError = opening_error(error, where=where)
    finally:
        engine.dispose()
    raise meaning
