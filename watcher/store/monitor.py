"""Whether the store works: all that is asked of it is noted here, each edge logged once, and each cause in between.

Metrics show the same.

What is read proves nothing. Nor does a small write, such as that of a row of no meaning: on a full disk it still fits
where SQLite's log has a page to spare, and a change does not.
"""

from collections.abc import Callable
from enum import IntEnum

import structlog
from sqlalchemy import Connection, insert, update

from watcher.domain.errors import StoreError
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic
from watcher.runtime.clock import Clock
from watcher.store.database import DatabaseFault
from watcher.store.tables import meta

log = structlog.get_logger()

PROVED_AT = "proved_at"

REMEMBERED_S = 30.0
"""What was refused comes due again within this time, unless nobody wants it any more."""


class Writing(IntEnum):
    """How much is written: where a small write passes, changes need not."""

    NOTHING = 0
    A_LITTLE = 1
    CHANGES = 2


class StoreMonitor:
    """The trouble with one store, from the first error until a write shows that it has ended.

    `failing_since` is since when it takes no writes (monotonic seconds); `None` while it does. `on_failure` is called
    whenever something could not be read or written.
    """

    def __init__(self, *, explain: Callable[[Exception], DatabaseFault], clock: Clock) -> None:
        """Take the store to be well. `explain` says what an error of it means."""
        self.failing_since: Monotonic | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self._explain = explain
        self._clock = clock
        self._fault: DatabaseFault | None = None
        self._said: set[str] = set()  # since it was well: two causes may come by turns, many times a second
        self._refused = Writing.NOTHING
        self._failed_at = EARLIEST

    @property
    def problem(self) -> str:
        """Return what is wrong, in words fit to be shown; nothing if all is well."""
        return "" if self._fault is None else self._fault.text

    def failed(self, error: Exception, writing: Writing) -> DatabaseFault:
        """Say what an error means, and note it if the trouble is the store's and no bug or lost ownership."""
        fault = self._explain(error)
        if not fault.concerns_all and fault.kind is not StoreError:
            return fault
        self.on_failure()
        if self._fault is None or (fault.concerns_all and fault.text not in self._said):
            log.error("store.failed", problem=fault.text)
            self._said.add(fault.text)
        if self._fault is None or fault.concerns_all:
            self._fault = fault
        if fault.concerns_all:
            self._refused = max(self._refused, min(writing, Writing.A_LITTLE) if fault.is_away else writing)
        self._failed_at = self._clock.monotonic()
        if self._refused and self.failing_since is None:
            self.failing_since = self._failed_at
        return fault

    def wrote(self, amount: Writing) -> None:
        """Note that so much was written.

        Trouble ends when as much is written as was refused; else when nothing was refused for a while.
        """
        if self._fault is None or not amount:
            return
        if Writing.NOTHING < self._refused <= amount or self._clock.monotonic() >= self._failed_at + REMEMBERED_S:
            log.info("store.recovered")
            self._fault, self._refused, self.failing_since = None, Writing.NOTHING, None
            self._said.clear()

    def check(self) -> None:
        """Raise the `StoreError` of what stands in the way of every write, if anything does."""
        if self._fault is not None and self._refused:
            raise self._fault.error()


def write_probe(connection: Connection, *, now: Micros) -> None:
    """Write that moment: SQLite writes nothing at all where a row keeps its value."""
    row = {"value": str(now)}
    if not connection.execute(update(meta).where(meta.c.key == PROVED_AT), row).rowcount:
        connection.execute(insert(meta), row | {"key": PROVED_AT})
