"""The daemon's pages: the address they are at, and what they say as long as the store is not open."""

import os
import socket
from collections.abc import Sequence

from aiohttp import web

from watcher.domain.errors import ListenDeniedError, ListenError
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.runtime.units import parse_address
from watcher.web.client_connection import throttle
from watcher.web.connections import RESOLVED_WITHIN_S, Connections, bind
from watcher.web.health import Checks, health_routes

LAST_PAGE_S = 0.2
"""How long a page that is asked for may take still: one that hangs on the store would never come."""

NOT_OPEN = "the store cannot be used yet"


class Pages:
    """`/livez`, `/readyz` and `/metrics`. Until there are `checks` the daemon is alive and not ready."""

    def __init__(self, metrics: Metrics, *, clock: Clock) -> None:
        """Serve nothing yet. `address` is where they are, once they are served."""
        self.checks: Checks | None = None
        self.address = ""
        self._metrics = metrics
        self._clock = clock
        self._connections: Connections | None = None

    async def serve(self, listen: str) -> None:
        """Serve them from now on, unless they are already. Raises `ListenError` if the address cannot be had."""
        if self._connections is not None:
            return
        application = web.Application(middlewares=[throttle()])
        checks = Checks(self._stalled, self._unready, self._refresh)
        application.add_routes(health_routes(checks, self._metrics.registry, clock=self._clock))
        try:
            sockets = await bind(parse_address(listen))
        except (OSError, UnicodeError) as error:
            kind = ListenDeniedError if isinstance(error, PermissionError | UnicodeError) else ListenError
            text = f"http.listen: cannot listen on {listen} ({_why_not(error)}); choose another address or port"
            raise kind(text) from None
        runner = web.AppRunner(application, shutdown_timeout=LAST_PAGE_S, handler_cancellation=True)
        await runner.setup()
        self._connections = Connections(runner, clock=self._clock)
        self._connections.open(sockets)
        self.address = f"{listen.rpartition(':')[0]}:{sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Serve nothing more."""
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.close()

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
    return os.strerror(error.errno) if error.errno else type(error).__name__
