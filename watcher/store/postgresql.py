"""PostgreSQL as the store uses it: one connection that writes, two that read, and what each transaction begins with.

Needs psycopg, of the extra `postgres`. Works through a pooler that gives each transaction another connection: it keeps
nothing in a session, prepares no statement, and says its time limits in the same breath as BEGIN. What is said by
LISTEN and NOTIFY, which a pooler may lose, only makes things sooner.
"""

import asyncio
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Event, Lock
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
from watcher.runtime.threads import begin
from watcher.store.database import (
    ConnectionThreads,
    Database,
    DatabaseFault,
    Meanings,
    OnRecorded,
    Watched,
    cause_of,
    explain,
    found_version,
    prepare_schema,
)
from watcher.store.leases import CHANNEL as LEASES_CHANNEL
from watcher.store.leases import PostgresLeases, server_time
from watcher.store.tables import SCHEMA_VERSION, metadata

_LIMITS = (
    "SET LOCAL statement_timeout = 5000; SET LOCAL lock_timeout = 2000;"
    # A client that is frozen inside a transaction holds what it locked until then.
    " SET LOCAL idle_in_transaction_session_timeout = 3000;"
    # A server with LLVM compiles what it believes to be costly: that takes 0.1 s, and no statement runs as long.
    " SET LOCAL jit = off"
)
_BY_INDEX = "; ".join(
    f"SET LOCAL enable_{each} = off" for each in ("seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin")
)
"""Every statement walks an index: by old figures the search among 200,000 that wait takes seconds, not 30 ms."""
_OPEN = f"BEGIN ISOLATION LEVEL READ COMMITTED; {_LIMITS}"
_WRITE = f"{_OPEN}; {_BY_INDEX}"
_RENEW = f"{_OPEN}; SET LOCAL lock_timeout = 4000"
"""Replicas renew in turns: who waits for one that is frozen in its own has its turn when that is broken off."""
READ = f"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {_LIMITS}; {_BY_INDEX}"

ANSWER_S = 10.0
"""What the server neither answers nor breaks off in this time will have no answer: it, or a pooler, is frozen."""

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
    **dict.fromkeys(_AWAY, (StoreError, "cannot be used now, the connection broke; see whether its server runs")),
    _READ_ONLY: (StoreError, "is read-only; name the primary in its URL, or add target_session_attrs=read-write"),
    "28": (StoreError, "refuses the login; see store.password_file and the server's pg_hba.conf"),
    "3D000": (StoreError, "is not there; create it, or correct its URL"),
    _NO_RIGHT: (StoreError, REFUSES_USER),
    _NO_SCHEMA: (StoreError, LACKS_SCHEMA),
    "42P01": (StoreError, "has lost a table; put back a copy, or empty it to start anew"),
    "53100": (StoreError, "cannot grow, the server's disk is full; make room"),
    "53": (StoreError, "is out of resources; see the server's log"),
    "55P03": (StoreError, "is locked by another program, perhaps watcher copy-store; see pg_stat_activity"),
    "57014": (StoreError, "was too slow; see the server's load and pg_stat_activity"),
    "58": (StoreError, "reports an error of its disk; see the server's log"),
    **dict.fromkeys(("XX001", "XX002"), (StoreUnusableError, "is damaged; put back a copy")),
}
"""By SQLSTATE (PostgreSQL's documentation, appendix A)."""

_TO_BE_CORRECTED = re.compile(
    r"password authentication failed|no password supplied|does not exist|no pg_hba\.conf entry|not permitted to log in"
    r"|certificate verify failed|does not match host name|server does not support SSL|invalid \w+ value"
    r"|unrecognized configuration parameter|invalid value for parameter|invalid port number|could not match \d+ port"
)
"""What libpq and the server say (in the language it is set to) when no waiting helps."""

T = TypeVar("T")

log = structlog.get_logger()

_CONNECTION: dict[str, Any] = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,  # or a thread waits for minutes on a network that swallows packets
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "fallback_application_name": "clerk-watcher",
}
"""What libpq is told unless the URL says otherwise."""

RECONNECT_AFTER_S = 0.5
"""After a failure nobody tries again for so long, however many ask for a connection."""


class CannotConnectError(psycopg.OperationalError):
    """No connection could be made. Its text is libpq's, in one line, and holds no password."""


class ServerConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server says nothing for too long: it may be frozen, and its machine not."""

    answers_within_s: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Return what comes of one exchange with the server. Raises `psycopg.OperationalError` if nothing does.

        Within its own `timeout`, if there is one, the server need not say anything.
        """
        try:
            return super().wait(gen, interval, self.answers_within_s if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001 (it has no public name)
            if timeout is not None:
                raise
            self.close()
            raise psycopg.OperationalError("the server did not answer") from None


class Connector:
    """Makes connections. After a failure it makes no attempt for a while: many ask for one."""

    def __init__(self, url: str, *, password: str | None, clock: Clock) -> None:
        """Read the URL, which libpq can: `check_store_url` has seen to that."""
        self.password = password
        given = {key: value for key, value in conninfo_to_dict(url).items() if value not in {None, ""}}
        # In any other encoding names could not be written that the API has.
        self._parameters = _CONNECTION | given | {"client_encoding": "utf8"}
        self._clock = clock
        self._last_failure = ""
        self._not_before = EARLIEST

    def connect(self, *, answers_within_s: float | None = None) -> ServerConnection:
        """Return a connection that begins nothing by itself. Raises `CannotConnectError`."""
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
    """A database on a server, which others use too."""

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
        self._notifications: Notifications | None = None

    def use_password(self, password: str | None) -> None:
        """Log in with it from the next connection on."""
        self._connector.password = password

    def shared(self, on_recorded: OnRecorded) -> OnRecorded:
        """Return what to call after a commit in place of `on_recorded`, so that other processes hear of it as well."""
        self._notifications = Notifications(
            self._connector,
            on_recorded=on_recorded,
            on_released=lambda: self._leases.renew_now(),  # noqa: PLW0108 (it is followed later)
        )
        return self._notifications.recorded

    def leases(self, watched: Watched, *, on_lost: Callable[[], object]) -> PostgresLeases:
        """Return the leases that replicas share. No other work holds them up, nor they any other."""

        async def write(work: Callable[[Connection], Any]) -> Any:
            return await watched(partial(self._keeping.transact, work))

        self._leases = PostgresLeases(write, on_lost=on_lost)
        return self._leases

    async def close(self) -> None:
        """Finish what was asked for, then close the connections."""
        if self._notifications is not None:
            await self._notifications.close()
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
            connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))  # no longer than for any lock
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        created = prepare_schema(connection, where=self.where)  # looks again, now that nobody else is at it
        require_rights(connection, where=self.where)
        connection.exec_driver_sql("LOCK TABLE meta IN ROW EXCLUSIVE MODE")  # not while the store is being copied
        self.ahead_us = server_time(connection) - self._clock.steady_us()
        return created

    def _opening_error(self, error: SQLAlchemyError) -> StoreError:
        return opening_error(error, where=self.where)


def opening_error(error: Exception, *, where: str) -> StoreError:
    """Return what an error means to whoever opens a database: what a person must correct, or what may pass."""
    fault, cause = explain_error(error, where=where), cause_of(error)
    must_be_corrected = isinstance(cause, CannotConnectError) and _TO_BE_CORRECTED.search(str(cause))
    if must_be_corrected or issubclass(fault.kind, StoreUnusableError) or _name_of(cause) in {_NO_RIGHT, _NO_SCHEMA}:
        return StoreUnusableError(fault.text)
    return StoreNotReadyError(fault.text)


def require_utf8(connection: Connection, *, where: str) -> None:
    """Raise `StoreUnusableError` for a database that cannot keep every name there is."""
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        remedy = "create it anew: CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'"
        raise StoreUnusableError(f"{where} has the encoding {encoding}, in which not every text can be kept; {remedy}")


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
    """Raise `StoreUnusableError` where the user may not do all that is done with the tables, sooner or later."""
    missing = [f"{right} on {table}" for table, right in connection.exec_driver_sql(_MISSING_RIGHTS)]
    if missing:
        raise StoreUnusableError(
            f"{where} refuses this user {', '.join(missing)}; grant it SELECT, INSERT, UPDATE and DELETE on all tables"
            " of its schema, and USAGE on all sequences"
        )


def explain_error(error: Exception, *, where: str) -> DatabaseFault:
    """Return what an error means. `where` names the database."""
    cause = cause_of(error)
    if isinstance(cause, CannotConnectError):
        text = f"{where} cannot be connected to: {cause}; see its URL, store.password_file and the server"
        return DatabaseFault(StoreError, text, concerns_all=True, is_away=True)
    fault = explain(error, where=where, name_of=_name_of, meanings=_MEANINGS, taken=("23505",))
    return replace(fault, is_away=(_name_of(cause) or "").startswith(_AWAY))


def make_engine(connector: Connector, *, begin: str, is_limited: bool = False) -> Engine:
    """Return an engine whose transactions begin with these statements; if `is_limited` each may take `ANSWER_S`."""
    engine = create_engine("postgresql+psycopg://", poolclass=NullPool, hide_parameters=True, use_native_hstore=False)
    event.listen(engine, "do_connect", lambda *_: connector.connect(answers_within_s=ANSWER_S if is_limited else None))
    all_at_once = {"no_parameters": True}  # else the driver lets one statement be sent at a time
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin, execution_options=all_at_once))
    event.listen(engine, "handle_error", _leave_read_only)
    return engine


def _leave_read_only(context: ExceptionContext) -> None:
    # It is connected to anew: another server may be the primary by now, behind the same address.
    if _name_of(context.original_exception) == _READ_ONLY:
        context.is_disconnect = True


RECORDED_CHANNEL = "clerk_watcher"

SEND_EVERY_S = 0.05
"""NOTIFY holds a lock that every other one waits for: at most one in this time, whatever was recorded meanwhile."""

NAMES_COUNT = 100
"""More names of sinks may not fit into one."""


class Notifications:
    """One thread, which listens, and sends now and then. A connection that breaks is made anew, as long as it takes."""

    def __init__(self, connector: Connector, *, on_recorded: OnRecorded, on_released: Callable[[], None]) -> None:
        """Call `on_recorded`, in this event loop, with the names of sinks that others have recorded something for.

        And `on_released` when they have released leases.
        """
        self._connector = connector
        self._on_recorded = on_recorded
        self._on_released = on_released
        self._loop = asyncio.get_running_loop()
        self._lock = Lock()
        self._names: set[str] = set()
        self._closed = Event()
        self._thread = begin(self._run, name="store-notifications")

    def recorded(self, names: Collection[str]) -> None:
        """Pass it on here, and tell the others soon."""
        self._on_recorded(names)
        with self._lock:
            self._names.update(names)

    async def close(self) -> None:
        """Send what is left, and hear nothing more."""
        self._closed.set()
        await asyncio.wrap_future(self._thread)

    def _run(self) -> None:
        while not self._closed.is_set():
            with suppress(psycopg.Error), self._connector.connect() as connection:
                for channel in (RECORDED_CHANNEL, LEASES_CHANNEL):
                    connection.execute(f"LISTEN {channel}".encode())
                while not self._closed.is_set():
                    for notify in connection.notifies(timeout=SEND_EVERY_S):
                        if notify.pid != connection.info.backend_pid:
                            self._hear(notify)
                    self._send(connection)
            self._closed.wait(RECONNECT_AFTER_S)

    def _hear(self, notify: psycopg.Notify) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to hear
            if notify.channel == RECORDED_CHANNEL:
                self._loop.call_soon_threadsafe(self._on_recorded, notify.payload.split(","))
            else:
                self._loop.call_soon_threadsafe(self._on_released)

    def _send(self, connection: psycopg.Connection[Any]) -> None:
        with self._lock:
            names, self._names = self._names, set()
        if names:
            payload = ",".join(sorted(names)[:NAMES_COUNT])
            connection.execute("SELECT pg_notify(%s, %s)", (RECORDED_CHANNEL, payload))


_MAY_CREATE = "SELECT current_schema(), has_schema_privilege(current_schema(), 'CREATE')"


def is_empty_database(url: str, *, password: str | None, clock: Clock) -> bool:
    """Return whether a database holds no store yet. Raises `StoreError` if it cannot be used."""
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
