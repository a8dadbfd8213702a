"""Whether the store is usable, found out by writing: what is read, or was written a while ago, proves nothing.

Who asks often is told what was found a moment ago, and all who ask at once wait for the same write.
"""

import asyncio

from watcher.domain.errors import StoreError
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock
from watcher.store.sql_store import SqlStore

FRESH_S = 1.0
"""A write to disk a second is cheap, whoever asks for more."""

TIMEOUT_S = 2.0


class Readiness:
    """Whether the store is usable, as `/readyz` shows it."""

    def __init__(self, store: SqlStore, *, clock: Clock, timeout_s: float = TIMEOUT_S) -> None:
        """Know nothing yet. `timeout_s` is how long the store may take to answer."""
        self._store = store
        self._clock = clock
        self._timeout_s = timeout_s
        self._probe: asyncio.Task[str | None] | None = None
        self._fresh_until = EARLIEST

    async def problem(self) -> str | None:
        """Return what is wrong with the store, if anything is."""
        probe = self._current_probe()
        done, _ = await asyncio.wait([probe], timeout=self._timeout_s)
        return probe.result() if done else "the store does not answer"

    def _current_probe(self) -> asyncio.Task[str | None]:
        """Return the last probe while it is under way or fresh, else begin another."""
        if self._probe is None or (self._probe.done() and self._clock.monotonic() >= self._fresh_until):
            self._probe = asyncio.create_task(self._probe_writable())
        return self._probe

    async def _probe_writable(self) -> str | None:
        try:
            await self._store.probe_writable()
        except StoreError:
            return "the store cannot be written"
        finally:
            self._fresh_until = Monotonic(self._clock.monotonic() + FRESH_S)
        return None
