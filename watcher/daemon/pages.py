"""The daemon's pages: the address they are at, and what they say as long as the store is not open."""

import asyncio
import os
import socket
from collections.abc import Sequence
from errno import EADDRNOTAVAIL

from watcher.domain.errors import ListenDeniedError, ListenError, StoreError
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.runtime.units import parse_address
from watcher.store.sql_store import SqlStore
from watcher.web.health import Checks, health_routes
from watcher.web.server import HttpServer

RESOLVED_WITHIN_S = 5.0

FRESH_S = 1.0
"""A write to disk a second is cheap, whoever asks for more."""

STORE_ANSWERS_WITHIN_S = 2.0

NOT_OPEN = "the store cannot be used yet"


class Pages:
    """`/livez`, `/readyz` and `/metrics`. Until there are `checks` the daemon is alive and not ready."""

    def __init__(self, metrics: Metrics, *, clock: Clock) -> None:
        """Serve nothing yet. `address` is where they are, once they are served."""
        self.checks: Checks | None = None
        self.address = ""
        self._metrics = metrics
        self._clock = clock
        self._server: HttpServer | None = None

    async def serve(self, listen: str) -> None:
        """Serve them from now on, unless they are already. Raises `ListenError` if the address cannot be had."""
        if self._server is not None:
            return
        checks = Checks(self._stalled, self._unready, self._refresh)
        server = HttpServer(health_routes(checks, self._metrics.registry, clock=self._clock), clock=self._clock)
        try:
            async with asyncio.timeout(RESOLVED_WITHIN_S):
                port = await server.listen(parse_address(listen))
        except (OSError, UnicodeError) as error:
            await server.close()
            kind = ListenDeniedError if isinstance(error, PermissionError | UnicodeError) else ListenError
            text = f"http.listen: cannot listen on {listen} ({_why_not(error)}); choose another address or port"
            raise kind(text) from None
        self._server = server
        self.address = f"{listen.rpartition(':')[0]}:{port}"

    async def close(self) -> None:
        """Serve nothing more."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    def _stalled(self) -> Sequence[str]:
        return self.checks.stalled() if self.checks else ()

    async def _unready(self) -> Sequence[str]:
        return await self.checks.unready() if self.checks else [NOT_OPEN]

    async def _refresh(self) -> None:
        if self.checks:
            await self.checks.refresh()


def _why_not(error: OSError | UnicodeError) -> str:
    match error:
        case UnicodeError():
            return "that is no name of a host"
        case TimeoutError():
            return f"its name was not resolved within {RESOLVED_WITHIN_S:g} s"
        case socket.gaierror():
            return error.strerror or "its name is not known"
    # From Python 3.12 on asyncio gives no number where the host has none of the addresses.
    return os.strerror(error.errno or EADDRNOTAVAIL)


class Readiness:
    """Whether the store is usable, found out by writing: what is read, or was written a while ago, proves nothing.

    Who asks often is told what was found a moment ago, and all who ask at once wait for the same write.
    """

    def __init__(self, store: SqlStore, *, clock: Clock, timeout_s: float = STORE_ANSWERS_WITHIN_S) -> None:
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
