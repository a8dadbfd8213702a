"""The connections of the pages: few, short and slowly accepted, so that whoever comes costs the daemon little.

A connection has 10 s to ask and 10 s to take its answer. When there are too many, whoever has waited longest without
a whole request goes first: a probe sends its own as soon as it is there. It knows nothing of the pages.
"""

import asyncio
import resource
import socket
from collections import deque
from collections.abc import Sequence
from functools import partial

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from watcher.runtime.clock import Clock
from watcher.web.arrivals import AcceptRules, Arrivals

log = structlog.get_logger()

CONNECTIONS_COUNT = 250
SERVED_COUNT = 50
"""So many are served at a time; the others wait for their first byte, or for a place. These are twice as many as are
accepted at once, so that who asks is heard before a crowd takes its place."""

SHARE = 4
"""Of the files the process may open one in so many is a connection: the rest is for polling, sinks and the store."""

PATIENCE_S = 10.0
REQUESTS_PER_S = 250.0
"""More than arrive: who comes with a request has its turn before it has to go."""
SAID_EVERY_S = 60.0

FIRST_MOMENT_S = 0.1
"""For so long nobody is closed: what it has sent may not have been read yet."""
FIRST_ANSWER_S = 3.0
"""For so long nobody is closed who waits for a first answer: the pages take less."""

WAITS = 2

READ_BYTES = 16 * 1024
HEADERS_COUNT = 64


def connections_at_most() -> int:
    """Return how many connections this process can spare."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_COUNT if files < 0 else max(1, min(CONNECTIONS_COUNT, files // SHARE))


class ClientConnection(web.RequestHandler):
    """One connection: as aiohttp has it, but nobody may leave an answer lying, nor fill the log."""

    __slots__ = ("_connections", "asking", "came_at", "served")

    def __init__(self, server: web.Server, *, connections: "Connections", patience_s: float) -> None:
        """Serve with what that server serves with.

        `asking` is set from a whole request until its answer is taken, `served` once there was one.
        `came_at` is of the event loop's clock.
        """
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=patience_s,  # also of a connection that has not asked yet
            lingering_time=0,
            read_bufsize=READ_BYTES,
            auto_decompress=False,  # nobody reads a body
            max_headers=HEADERS_COUNT,
            access_log=None,  # type: ignore[arg-type] # as the runner passes it on
        )
        self._connections = connections
        self.asking = False
        self.served = False
        self.came_at = self._loop.time()

    @property
    def claim(self) -> int:
        """Return how much it deserves to stay: most while it waits for a first answer, least if it asks nothing."""
        return self.asking * (1 if self.served else WAITS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it no more."""
        self._connections.remove(self)
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
            self._connections.answered(self)

    def log_exception(self, *_: object, exc_info: BaseException | None = None, **__: object) -> None:
        """Say that a page failed; what a client sends that is no HTTP is its own affair."""
        if not isinstance(exc_info, HttpProcessingError):
            self._connections.say_failed(type(exc_info).__name__)


class Connections:
    """Serves the pages of a runner to whoever connects at some sockets, until closed."""

    def __init__(
        self,
        runner: web.AppRunner,
        *,
        clock: Clock,
        at_most: int | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Accept nothing yet. The runner is set up. Of `at_most` connections half may not have said anything."""
        self._runner = runner
        self._clock = clock
        in_all = at_most or connections_at_most()
        self._at_most = max(1, min(SERVED_COUNT, in_all // 2))
        self._patience_s = patience_s
        self._clients: dict[ClientConnection, None] = {}
        self._admissions: set[asyncio.Task[object]] = set()
        self._crowded_count = 0
        self._say_at = dict.fromkeys(("crowded", "failed"), float("-inf"))
        rules = AcceptRules(
            room=self._make_space,
            admit=self._admit,
            crowded=self._say_crowded,
            at_most=max(1, in_all - self._at_most),
            patience_s=patience_s,
        )
        self._arrivals = Arrivals(rules)

    def open(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections from now on."""
        self._arrivals.open(sockets)

    async def close(self) -> None:
        """Accept nothing more, let go of who is not being answered, and then of everybody."""
        self._arrivals.close()
        await self._runner.cleanup()
        for client in list(self._clients):
            client.abort()

    def add(self, client: ClientConnection) -> None:
        """Count a connection."""
        self._clients[client] = None

    def _make_space(self) -> bool:
        """Tell whether another may come, which one may have to go for: not who has just come for a first answer."""
        if len(self._clients) + len(self._admissions) < self._at_most:
            return True
        leaving = min(self._clients, key=lambda each: each.claim, default=None)  # of equals who waits longest
        if leaving is None:
            return False
        stays_s = FIRST_ANSWER_S if leaving.claim == WAITS else FIRST_MOMENT_S
        if asyncio.get_running_loop().time() - leaving.came_at < stays_s:
            return False
        del self._clients[leaving]
        leaving.abort()
        self._say_crowded("too many connections are open; whoever asks nothing for longest is closed")
        return True

    def remove(self, client: ClientConnection) -> None:
        """Count a connection no more."""
        self._clients.pop(client, None)

    def answered(self, client: ClientConnection) -> None:
        """Note that a connection asks nothing now: it is the last that has to go."""
        client.asking, client.served = False, True
        if client in self._clients:
            del self._clients[client]
            self._clients[client] = None

    def say_failed(self, error: str) -> None:
        """Say that a page could not be made."""
        if self._may_say("failed"):
            log.error("http.failed", error=error)

    def _say_crowded(self, note: str) -> None:
        self._crowded_count += 1
        if self._may_say("crowded"):
            log.warning("http.crowded", count=self._crowded_count, note=note)
            self._crowded_count = 0

    def _may_say(self, what: str) -> bool:
        """Tell whether the last such line is long ago: strangers decide how often there is a reason for one."""
        now = self._clock.monotonic()
        if now < self._say_at[what]:
            return False
        self._say_at[what] = now + SAID_EVERY_S
        return True

    def _admit(self, connection: socket.socket) -> None:
        server = self._runner.server
        assert server is not None  # noqa: S101 (it is set up)
        client = partial(ClientConnection, server, connections=self, patience_s=self._patience_s)
        admission = asyncio.create_task(asyncio.get_running_loop().connect_accepted_socket(client, connection))
        self._admissions.add(admission)
        admission.add_done_callback(self._admitted)

    def _admitted(self, admission: asyncio.Task[object]) -> None:
        self._admissions.discard(admission)
        if not admission.cancelled():
            admission.exception()  # it is gone again already


class Throttle:
    """Lets requests through to the pages, so many a second: the others wait, one of each connection.

    Whoever has had no answer yet goes first, so a probe waits for nobody who asks all the time.
    """

    def __init__(self, *, per_s: float = REQUESTS_PER_S) -> None:
        """Let the first through at once. Needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._step_s = 1 / per_s
        self._is_free = True
        self._new: deque[asyncio.Future[None]] = deque()
        self._known: deque[asyncio.Future[None]] = deque()

    def middleware(self) -> Middleware:
        """Return what has each request wait for its turn."""

        @web.middleware
        async def wait(request: web.Request, handler: Handler) -> web.StreamResponse:
            client = request.protocol
            known = isinstance(client, ClientConnection) and client.served
            if isinstance(client, ClientConnection):
                client.asking = True
            await self._turn(self._known if known else self._new)
            return await handler(request)

        return wait

    async def _turn(self, queue: deque[asyncio.Future[None]]) -> None:
        if self._is_free:
            self._close()
            return
        turn = self._loop.create_future()
        queue.append(turn)
        await turn

    def _close(self) -> None:
        self._is_free = False
        self._loop.call_later(self._step_s, self._next)

    def _next(self) -> None:
        """Let the next through who is still there."""
        for queue in (self._new, self._known):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    self._close()
                    return
        self._is_free = True
