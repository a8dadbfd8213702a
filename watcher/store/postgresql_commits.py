"""Whether a transaction was committed to whose COMMIT no answer came.

To take it for lost would be wrong as often as not, and what its writer then writes again would find itself there. So
each transaction begins with its number, written into a row of this process.
"""

from threading import Event
from uuid import uuid4

import psycopg
from sqlalchemy import Connection, delete, insert

from watcher.domain.timestamps import Micros
from watcher.runtime.clock import Clock
from watcher.store.postgresql_connector import RECONNECT_BASE_S, Connector
from watcher.store.tables import meta

_PREFIX = "commit:"
_KEPT_US = 7 * 86_400 * 1_000_000
"""The rows of processes that were killed go after this time."""

_ASK = "SELECT value FROM meta WHERE key = %s FOR UPDATE"
"""It waits for a transaction that is still being committed."""


class CommitLog:
    """The number of the last transaction of this process, and where it is written."""

    def __init__(self, connector: Connector, *, clock: Clock) -> None:
        """Name the row after nobody else's."""
        self._connector = connector
        self._clock = clock
        self._key = f"{_PREFIX}{uuid4()}"
        self._number = 0
        self._given_up = Event()

    def begin(self, connection: Connection, *, now: Micros) -> None:
        """Make the row, and clear away what others left long ago by the server's clock."""
        old = Micros(now - _KEPT_US)
        connection.execute(delete(meta).where(meta.c.key.startswith(_PREFIX), meta.c.value < _value(old, 0)))
        connection.execute(insert(meta), {"key": self._key, "value": _value(now, self._number)})

    def next(self) -> str:
        """Return the statement that writes the number of the transaction that begins."""
        self._number += 1
        return f"UPDATE meta SET value = '{_value(self._clock.steady_us(), self._number)}' WHERE key = '{self._key}'"

    def was_committed(self) -> bool:
        """Return whether the last transaction was committed, as soon as the server can be asked, however long it takes.

        Whoever waits for that must not be told that nothing was written.
        """
        while True:
            try:
                with self._connector.connect() as connection:
                    row = connection.execute(_ASK, (self._key,)).fetchone()
                    return row is not None and row[0].endswith(f" {self._number}")
            except psycopg.Error:
                if self._given_up.wait(RECONNECT_BASE_S):
                    return False

    def give_up(self) -> None:
        """Wait for no server any more: the program ends."""
        self._given_up.set()


def _value(now: Micros, number: int) -> str:
    return f"{now:020d} {number}"
