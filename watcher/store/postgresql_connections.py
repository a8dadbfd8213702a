"""The connections to PostgreSQL: how each is made, with pauses while there is none to be had, and the one that listens.

What is said by LISTEN and NOTIFY only makes things sooner. A word that is lost, as through a pooler, costs what a sink,
or a renewal of leases, waits until it looks by itself.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from threading import Event, Lock
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.threads import begin
from watcher.store.database import OnRecorded
from watcher.store.postgresql_leases import CHANNEL as LEASES_CHANNEL

T = TypeVar("T")

_CONNECTION: dict[str, Any] = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,  # or a thread waits for minutes on a network that swallows packets
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "fallback_application_name": "clerk-watcher",
}
"""What libpq is told unless the URL says otherwise."""

_ALWAYS = {"client_encoding": "utf8"}
"""What the URL cannot change: in any other encoding names could not be written that the API has."""

RECONNECT_AFTER_S = 0.5
"""After a failure nobody tries again for so long, however many ask for a connection."""

_SHOWN_LENGTH = 300


class CannotConnectError(psycopg.OperationalError):
    """No connection could be made. Its text is libpq's, in one line, and holds no password."""


class Connection(psycopg.Connection[Any]):
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
        self._parameters = _CONNECTION | given | _ALWAYS
        self._clock = clock
        self._last_failure = ""
        self._not_before = EARLIEST

    def connect(self, *, answers_within_s: float | None = None) -> Connection:
        """Return a connection that begins nothing by itself. Raises `CannotConnectError`."""
        if self._clock.monotonic() < self._not_before:
            raise CannotConnectError(self._last_failure)
        secret = {} if self.password is None else {"password": self.password}
        try:
            connection = Connection.connect(
                make_conninfo(**(self._parameters | secret)), autocommit=True, prepare_threshold=None
            )
        except psycopg.Error as error:
            self._not_before = Monotonic(self._clock.monotonic() + RECONNECT_AFTER_S)
            self._last_failure = " ".join(str(error).removeprefix("connection failed: ").split())[:_SHOWN_LENGTH]
            raise CannotConnectError(self._last_failure) from None
        connection.answers_within_s = answers_within_s
        return connection


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
