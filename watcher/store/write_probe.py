"""Proof that the database takes writes: a row of no meaning, and what became of the writes that had one.

The row alone would lie: on a full disk it still fits where SQLite's log has a page to spare, and a change does not.
"""

from collections.abc import Callable

from sqlalchemy import Connection, insert, update

from watcher.runtime.clock import Clock
from watcher.store.db_errors import DatabaseFault
from watcher.store.tables import meta

PROVED_AT = "proved_at"

REMEMBERED_S = 30.0
"""What was refused comes due again within this time, unless nobody wants it any more."""


class LastWriteError:
    """The last trouble that stood in the way of every write, until one passes."""

    def __init__(self, explain: Callable[[Exception], DatabaseFault], *, clock: Clock) -> None:
        """Start with none."""
        self._explain = explain
        self._clock = clock
        self._trouble: DatabaseFault | None = None
        self._since = 0.0

    def explain(self, error: Exception) -> DatabaseFault:
        """Say what an error of a write means, and remember it if it concerns them all."""
        trouble = self._explain(error)
        if trouble.concerns_all:
            self._trouble, self._since = trouble, self._clock.monotonic()
        return trouble

    def forget(self) -> None:
        """Note that a write passed."""
        self._trouble = None

    def check(self) -> None:
        """Raise the `StoreError` of the last write if it was refused a while ago at most."""
        if self._trouble is not None and self._clock.monotonic() < self._since + REMEMBERED_S:
            raise self._trouble.error()


def write_probe(connection: Connection, *, now: int) -> None:
    """Write that moment: SQLite writes nothing at all where a row keeps its value."""
    row = {"value": str(now)}
    if not connection.execute(update(meta).where(meta.c.key == PROVED_AT), row).rowcount:
        connection.execute(insert(meta), row | {"key": PROVED_AT})
