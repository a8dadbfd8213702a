"""The daemon's pages: the address they are at, and what they say as long as the store is not open."""

import asyncio
import os
import socket
from collections.abc import Sequence

from watcher.domain.errors import ListenDeniedError, ListenError
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.runtime.units import parse_address
from watcher.web.health import Checks, health_routes
from watcher.web.server import HttpServer

RESOLVED_WITHIN_S = 5.0

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
    return os.strerror(error.errno) if error.errno else type(error).__name__
