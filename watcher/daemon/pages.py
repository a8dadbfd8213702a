"""The daemon over HTTP: at which address, and what it says as long as the store is not open."""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from errno import EADDRNOTAVAIL

from watcher.config.models import Settings
from watcher.daemon.ownership import Ownership
from watcher.domain.errors import ListenDeniedError, ListenError, StoreError
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.runtime.scheduler import Schedule
from watcher.runtime.units import parse_address
from watcher.store.sql_store import SqlStore
from watcher.web.access import access
from watcher.web.api import api_routes
from watcher.web.health import Checks, Recent, health_routes
from watcher.web.pages import page_routes
from watcher.web.server import HttpServer
from watcher.web.shown import Console

FRESH_S = 1.0
"""A write to disk a second is cheap, whoever asks for more."""

STORE_ANSWERS_WITHIN_S = 2.0


async def _not_open() -> Sequence[str]:
    return ["the store cannot be used yet"]


async def _nothing() -> None:
    """Refresh nothing."""


BEFORE_THE_STORE = Checks(stalled=lambda: (), unready=_not_open, refresh=_nothing)
"""Until the store is open the daemon is alive and not ready."""


class Pages:
    """`/livez`, `/readyz` and `/metrics`, which ask `checks`; the API and the pages, which work with `console`."""

    def __init__(self, metrics: Metrics, *, settings: Callable[[], Settings], clock: Clock) -> None:
        """Serve nothing yet. `address` is where they are, once they are served; `settings` are those of now."""
        self.checks = BEFORE_THE_STORE
        self.console: Console | None = None
        self._settings = settings
        self.address = ""
        self._metrics = metrics
        self._clock = clock
        self._server: HttpServer | None = None

    async def serve(self, listen: str) -> None:
        """Serve them from now on, unless they are already. Raises `ListenError` if the address cannot be had."""
        if self._server is not None:
            return
        routes = [
            *health_routes(lambda: self.checks, self._metrics.registry, clock=self._clock),
            *api_routes(lambda: self.console),
            *page_routes(lambda: self.console, self._settings, self._clock),
        ]
        server = HttpServer(
            routes, clock=self._clock, access=[access(self._settings, listen=listen, clock=self._clock)]
        )
        try:
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
        self.console = None
        server, self._server = self._server, None
        if server is not None:
            await server.close()


def _why_not(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.gaierror):
        return error.strerror or "its name is not known"
    # From Python 3.12 on asyncio gives no number where the host has none of the addresses.
    return os.strerror(getattr(error, "errno", None) or EADDRNOTAVAIL)


class Readiness:
    """Whether every loop has run once, and whether the store is usable, which is found out by writing.

    What is read, or was written a while ago, proves nothing.
    """

    def __init__(self, store: SqlStore, schedule: Schedule, ownership: Ownership, *, clock: Clock) -> None:
        """Know nothing yet."""
        self._store = store
        self._schedule = schedule
        self._ownership = ownership
        self._probe = Recent(self._probe_writable, fresh_s=FRESH_S, clock=clock)

    async def problems(self) -> list[str]:
        """Return what is not ready."""
        found = [f"{name} has not run yet" for name in self._schedule.not_yet_run()]
        return [*found, *filter(None, (await self.store_problem(), self._ownership.problem()))]

    async def store_problem(self) -> str | None:
        """Return what is wrong with the store, if anything is."""
        try:
            async with asyncio.timeout(STORE_ANSWERS_WITHIN_S):
                return await self._probe.get()
        except TimeoutError:
            return "the store does not answer"

    async def _probe_writable(self) -> str | None:
        try:
            await self._store.probe_writable()
        except StoreError:
            return "the store cannot be written"
        return None
