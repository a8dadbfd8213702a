"""The HTTP server: aiohttp's server with a limit on open connections, security headers, and few log lines.

It does not know which routes it serves.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from errno import EADDRNOTAVAIL
from socket import gaierror

import structlog
from aiohttp import web, web_response
from aiohttp.typedefs import Handler, Middleware

from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.units import Address

log = structlog.get_logger()

CONNECTIONS_COUNT = 100
"""Maximum number of open connections: a tenth of the usual limit on open files, as polling and sinks need the rest."""

BACKLOG_COUNT = 32
"""Maximum number of connections that one turn of the event loop accepts: more would delay the polls."""

TIMEOUT_S = 10.0
"""A connection that has sent no whole request within this time is closed (seconds)."""

SHUTDOWN_S = 0.2
"""Seconds for requests in progress when the server closes. A request that waits for the store might never end."""

BODY_WITHIN_S = web.AppKey("body_within_s", float)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers that every answer gets unless it sets them: pages load only our files, allow no frames, are not cached."""

# Hides the library's name in all answers: `on_response_prepare` is not called for an answer to invalid HTTP.
web_response.SERVER_SOFTWARE = "clerk-watcher"  # type: ignore[attr-defined]

_SILENT = logging.getLogger("watcher.http")
_SILENT.disabled = True  # aiohttp logs each invalid request: strangers could fill the log


async def read_body(request: web.Request) -> bytes:
    """Return the body of a request. Raises `HTTPRequestTimeout` and `HTTPRequestEntityTooLarge`."""
    try:
        async with asyncio.timeout(request.app[BODY_WITHIN_S]):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def why_not_bound(error: Exception) -> str:
    """Return the system's error message for an address that cannot be listened on."""
    why = isinstance(error, gaierror) and error.strerror
    # Since Python 3.12 asyncio gives no error number if the machine does not have the address.
    return why or os.strerror(getattr(error, "errno", None) or EADDRNOTAVAIL)


class HttpServer:
    """The HTTP server of some routes at one address."""

    def __init__(
        self,
        routes: list[web.RouteDef],
        *,
        clock: Clock,
        access: Sequence[Middleware] = (),
        at_most: int = CONNECTIONS_COUNT,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Prepare the server, without listening. The middleware `access` decides which requests reach a route."""
        self._clock = clock
        self._at_most = at_most
        self._answering: set[web.RequestHandler] = set()
        self._closed_count = 0
        self._say_at = dict.fromkeys(("crowded", "failed"), EARLIEST)
        application = web.Application(middlewares=[self._answer, *access], client_max_size=64 * 1024)
        application[BODY_WITHIN_S] = timeout_s
        application.add_routes(routes)
        application.on_response_prepare.append(_add_headers)
        self._runner = web.AppRunner(
            application,
            shutdown_timeout=SHUTDOWN_S,
            handler_cancellation=True,
            keepalive_timeout=timeout_s,  # also closes a connection that sends no request
            lingering_time=0,
            auto_decompress=False,  # a small body may decompress to a huge one
            access_log=None,
            logger=_SILENT,
        )
        self._listening: asyncio.Server | None = None

    async def listen(self, address: Address) -> int:
        """Start to listen; return the port. Raises `OSError` or `UnicodeError` if the address cannot be used."""
        await self._runner.setup()
        self._listening = await asyncio.get_running_loop().create_server(
            self._connect, address.host or None, address.port, backlog=BACKLOG_COUNT
        )
        port: int = self._listening.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening and close all connections; requests in progress get a short time to end."""
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()

    def _connect(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        if len(server.connections) >= self._at_most:
            self._make_room(server)
        return server()

    def _make_room(self, server: web.Server) -> None:
        """Close the oldest connections to make room for a new one, first those without a request in progress.

        The newest tenth is spared, because these connections had no time to send a request yet: otherwise each new
        connection would close the previous one.
        """
        open_ = [each for each in server.connections if each.transport and not each.transport.is_closing()]
        older = sorted(open_[: len(open_) - self._at_most // 10], key=self._answering.__contains__)
        for each in older[: len(open_) - self._at_most + 1]:
            assert each.transport is not None
            each.transport.abort()
            self._closed_count += 1
        if self._may_say("crowded"):
            log.warning(
                "http.crowded",
                count=self._closed_count,
                note="too many connections are open; the oldest without a request are closed",
            )
            self._closed_count = 0

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._answering.add(request.protocol)
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 (a page that fails must not end the daemon)
            if self._may_say("failed"):
                log.error("http.failed", error=type(error).__name__)  # noqa: TRY400 (its text may hold data)
            raise web.HTTPInternalServerError from None
        finally:
            self._answering.discard(request.protocol)

    def _may_say(self, what: str) -> bool:
        """Return whether a log line of this kind may be written now, and record it as written.

        One line a minute may be written, because strangers can cause any number of lines.
        """
        now = self._clock.monotonic()
        if now < self._say_at[what]:
            return False
        self._say_at[what] = Monotonic(now + 60)
        return True
