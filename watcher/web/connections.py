"""The connections of the pages: few, short and slowly accepted, so that whoever comes costs the daemon little.

A connection has 10 s to ask and 10 s to take its answer. When there are too many, whoever has waited longest without
asking goes first: a probe asks as soon as it is there. It knows nothing of the pages.
"""

import asyncio
import errno
import resource
import socket
from collections.abc import Sequence
from functools import partial

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from watcher.aside import begin
from watcher.clock import Clock
from watcher.units import Address

log = structlog.get_logger()

CONNECTIONS_COUNT = 100
SHARE = 4
"""Of the files the process may open one in so many is a connection: the rest is for polling, sinks and the store."""

PATIENCE_S = 10.0
BACKLOG_COUNT = 128
ACCEPTED_AT_ONCE = 10
ACCEPT_EVERY_S = 0.05
REQUESTS_PER_S = 250.0
"""More than connections are accepted: who comes with a request is not closed before its turn."""
SAID_EVERY_S = 60.0
RESOLVED_WITHIN_S = 5.0

READ_BYTES = 16 * 1024
HEADERS_COUNT = 64

NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def connections_at_most() -> int:
    """Return how many connections this process can spare."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_COUNT if files < 0 else max(1, min(CONNECTIONS_COUNT, files // SHARE))


async def bind(address: Address) -> list[socket.socket]:
    """Return sockets that listen at each address of the host. Raises `OSError` and `UnicodeError`."""
    resolve = partial(
        socket.getaddrinfo, address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    async with asyncio.timeout(RESOLVED_WITHIN_S):
        found = await asyncio.wrap_future(begin(resolve, name="resolve"))
    sockets: list[socket.socket] = []
    failures: list[OSError] = []
    for family, _, _, _, place in dict.fromkeys(found):
        try:
            listening = socket.create_server(place[:2], family=family, backlog=BACKLOG_COUNT)
        except OSError as error:
            failures.append(error)
        else:
            listening.setblocking(False)
            sockets.append(listening)
    serious = [error for error in failures if error.errno not in NO_SUCH_FAMILY]
    if failures and (serious or not sockets):
        for each in sockets:
            each.close()
        raise (serious or failures)[0]
    return sockets


class Guest(web.RequestHandler):
    """One connection: as aiohttp has it, but nobody may leave an answer lying, nor fill the log."""

    __slots__ = ("_connections", "asking", "served")

    def __init__(self, server: web.Server, *, connections: "Connections", patience_s: float) -> None:
        """Serve with what that server serves with.

        `asking` is set while an answer is being made and taken, `served` once there was one.
        """
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=patience_s,  # also of a connection that has not asked yet
            lingering_time=0,
            read_bufsize=READ_BYTES,
            max_headers=HEADERS_COUNT,
            access_log=None,  # type: ignore[arg-type] # as the runner passes it on
        )
        self._connections = connections
        self.asking = False
        self.served = False

    @property
    def claim(self) -> int:
        """Return how much it would be a pity to close this one: least if it asks nothing, most if it never had any."""
        return self.asking + (self.asking and not self.served)

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
    """Accepts connections at some sockets, until closed."""

    def __init__(
        self,
        runner: web.AppRunner,
        *,
        clock: Clock,
        at_most: int | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Accept nothing yet. The runner is set up; what it serves are the pages."""
        self._runner = runner
        self._clock = clock
        self._at_most = at_most or connections_at_most()
        self._patience_s = patience_s
        self._guests: dict[Guest, None] = {}
        self._sockets: Sequence[socket.socket] = ()
        self._arrivals: set[asyncio.Task[object]] = set()
        self._crowded_count = 0
        self._say_at = dict.fromkeys(("crowded", "failed"), float("-inf"))

    def open(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections from now on."""
        self._sockets = sockets
        for listening in sockets:
            self._await(listening)

    async def close(self) -> None:
        """Accept nothing more, let go of who is not being answered, and then of everybody."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            loop.remove_reader(listening)
            listening.close()
        self._sockets = ()
        await self._runner.cleanup()
        for guest in list(self._guests):
            guest.abort()

    def add(self, guest: Guest) -> None:
        """Count a connection, and let another go if that is one too many."""
        if len(self._guests) >= self._at_most:
            leaving = min(self._guests, key=lambda each: each.claim)  # of equals the one that waits longest
            del self._guests[leaving]
            leaving.abort()
            self._say_crowded(f"at most {self._at_most} connections are open; whoever waits longest is closed")
        self._guests[guest] = None

    def remove(self, guest: Guest) -> None:
        """Count a connection no more."""
        self._guests.pop(guest, None)

    def answered(self, guest: Guest) -> None:
        """Note that a connection asks nothing now: it is the last that has to go."""
        guest.asking, guest.served = False, True
        if guest in self._guests:
            del self._guests[guest]
            self._guests[guest] = None

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

    def _await(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accept some; the rest waits a moment, so that a crowd costs no more than that."""
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._say_crowded("the process has no file descriptor left; raise its limit (ulimit -n)")
                    break
                continue  # it is gone already
            self._admit(connection)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        loop.call_later(ACCEPT_EVERY_S, self._await, listening)

    def _admit(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        server = self._runner.server
        assert server is not None  # noqa: S101 (it is set up)
        guest = partial(Guest, server, connections=self, patience_s=self._patience_s)
        arrival = loop.create_task(loop.connect_accepted_socket(guest, connection))
        self._arrivals.add(arrival)
        arrival.add_done_callback(self._arrived)

    def _arrived(self, arrival: asyncio.Task[object]) -> None:
        self._arrivals.discard(arrival)
        if not arrival.cancelled():
            arrival.exception()  # it is gone again already


def gate(*, clock: Clock, per_s: float = REQUESTS_PER_S) -> Middleware:
    """Return what lets requests through to the pages, so many a second: the others wait, one of each connection."""
    step_s, free_at = 1 / per_s, float("-inf")

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal free_at
        if isinstance(request.protocol, Guest):
            request.protocol.asking = True
        now = clock.monotonic()
        at, free_at = free_at, max(now, free_at) + step_s
        if at > now:
            await asyncio.sleep(at - now)
        return await handler(request)

    return middleware
