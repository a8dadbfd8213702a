"""One connection to the pages, and the pace of all requests, so that who asks for much costs the daemon little.

It knows nothing of the pages, and nothing of how many connections there may be.
"""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

REQUESTS_PER_S = 250.0
"""More than arrive: who comes with a request has its turn before it has to go."""

READ_BYTES = 16 * 1024
HEADERS_COUNT = 64


class ClientConnection(web.RequestHandler):
    """A connection as aiohttp has it, but an answer has to be taken in time, and no client can fill the log.

    It is one of `clients` while it is open: these are in the order in which they came, or had their last answer.
    `asking` is set from a whole request until its answer is taken, `served` once there was one. `came_at` is of the
    event loop's clock.
    """

    __slots__ = ("_clients", "_failed", "asking", "came_at", "served")

    def __init__(
        self,
        server: web.Server,
        *,
        clients: "dict[ClientConnection, None]",
        failed: Callable[[str], None],
        timeout_s: float,
    ) -> None:
        """Serve with what that server serves with. `failed` is given the name of what a page raised."""
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=timeout_s,  # also of a connection that has not asked yet
            lingering_time=0,
            read_bufsize=READ_BYTES,
            auto_decompress=False,  # nobody reads a body
            max_headers=HEADERS_COUNT,
            access_log=None,  # type: ignore[arg-type] # as the runner passes it on
        )
        self._clients = clients
        self._failed = failed
        self.asking = False
        self.served = False
        self.came_at = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        super().connection_made(transport)
        self._clients[self] = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it no more."""
        self._clients.pop(self, None)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close it, whatever is not sent yet."""
        if self.transport is not None:
            self.transport.abort()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer, as long as it is taken in time."""
        try:
            async with asyncio.timeout(self.keepalive_timeout):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self.abort()
            return resp, True
        finally:
            self.asking, self.served = False, True
            if self in self._clients:
                self._clients[self] = self._clients.pop(self)

    def log_exception(self, *_: object, exc_info: BaseException | None = None, **__: object) -> None:
        """Say that a page failed; what a client sends that is no HTTP is its own affair.

        Nor is it a page's when aiohttp, at the end, sets the result of a future that it has cancelled.
        """
        if not isinstance(exc_info, HttpProcessingError | asyncio.InvalidStateError):
            self._failed(type(exc_info).__name__)


def throttle(*, per_s: float = REQUESTS_PER_S) -> Middleware:
    """Return what lets so many requests a second through to the pages: the others wait, one of each connection.

    Whoever has had no answer yet goes first, so a probe waits for nobody who asks all the time.
    """
    waiting: list[tuple[bool, int, asyncio.Future[None]]] = []
    is_free, came_count = True, 0

    def close() -> None:
        nonlocal is_free
        is_free = False
        asyncio.get_running_loop().call_later(1 / per_s, let_through)

    def let_through() -> None:
        nonlocal is_free
        is_free = True
        while is_free and waiting:
            *_, turn = heappop(waiting)
            if not turn.done():  # whoever waits for it is still there
                turn.set_result(None)
                close()

    @web.middleware
    async def wait(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal came_count
        client = request.protocol
        was_served = False
        if isinstance(client, ClientConnection):
            client.asking, was_served = True, client.served
        if is_free:
            close()
        else:
            came_count += 1
            turn = asyncio.get_running_loop().create_future()
            heappush(waiting, (was_served, came_count, turn))
            await turn
        return await handler(request)

    return wait
