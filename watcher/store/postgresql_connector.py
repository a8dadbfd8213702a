"""Makes the connections to PostgreSQL: what libpq is told, the password, and pauses while there is none to be had."""

from random import random
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from watcher.domain.timestamps import Monotonic
from watcher.runtime.backoff import doubling, spread
from watcher.runtime.clock import Clock

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

LOOK_EVERY_S = 0.1
"""Whether a signal has come is asked so often while the server is waited for, as psycopg does."""

T = TypeVar("T")

RECONNECT_BASE_S, RECONNECT_CAP_S = 0.1, 1.0
_JITTER_SHARE = 0.2

_SHOWN_LENGTH = 300


class CannotConnectError(psycopg.OperationalError):
    """No connection could be made. Its text is libpq's, in one line, and holds no password."""


class Connection(psycopg.Connection[Any]):
    """A connection that is closed when the server says nothing for too long: it may be frozen, and its machine not."""

    answers_within_s: float | None = None

    def wait(self, gen: PQGen[T], interval: float = LOOK_EVERY_S, timeout: float | None = None) -> T:
        """Return what comes of one exchange with the server. Raises `psycopg.OperationalError` if nothing does."""
        try:
            return super().wait(gen, interval, self.answers_within_s if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001 (it has no public name)
            self.close()
            raise psycopg.OperationalError("the server did not answer") from None


class Connector:
    """Makes connections. After a failure it makes no attempt for a while, longer each time: many ask for one."""

    def __init__(self, url: str, *, password: str | None, clock: Clock) -> None:
        """Read the URL, which libpq can: `check_postgresql_url` has seen to that."""
        self.password = password
        given = {key: value for key, value in conninfo_to_dict(url).items() if value not in {None, ""}}
        self._parameters = _CONNECTION | given | _ALWAYS
        self._clock = clock
        self._failures = 0
        self._last_failure = ""
        self._not_before = self._clock.monotonic()

    def connect(self, *, answers_within_s: float | None = None) -> Connection:
        """Return a connection that begins nothing by itself. Raises `CannotConnectError`."""
        if self._failures and self._clock.monotonic() < self._not_before:
            raise CannotConnectError(self._last_failure)
        secret = {} if self.password is None else {"password": self.password}
        try:
            connection = Connection.connect(
                make_conninfo(**(self._parameters | secret)), autocommit=True, prepare_threshold=None
            )
        except psycopg.Error as error:
            self._failures += 1
            delay_s = doubling(self._failures, base_s=RECONNECT_BASE_S, cap_s=RECONNECT_CAP_S)
            self._not_before = Monotonic(self._clock.monotonic() + spread(delay_s, share=_JITTER_SHARE, jitter=random))
            self._last_failure = " ".join(str(error).removeprefix("connection failed: ").split())[:_SHOWN_LENGTH]
            raise CannotConnectError(self._last_failure) from None
        self._failures = 0
        connection.answers_within_s = answers_within_s
        return connection
