"""The connections of the pages: few, short and slowly accepted, so that whoever comes costs the daemon little.

Thousands may come. What is accepted waits for its first byte, which costs next to nothing; then it is served, so many
at a time. A connection has 10 s to ask and 10 s to take its answer. When there are too many, whoever has waited longest
without a whole request goes first: a probe sends its own as soon as it is there. It knows nothing of the pages.
"""

import asyncio
import errno
import resource
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import structlog
from aiohttp import web

from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.threads import run_detached
from watcher.runtime.units import Address
from watcher.web.client_connection import ClientConnection

log = structlog.get_logger()

BACKLOG_COUNT = 1024
RESOLVED_WITHIN_S = 5.0

CONNECTIONS_COUNT = 250
SERVED_COUNT = 50
"""So many are served at a time; the others wait for their first byte, or for a place. These are twice as many as are
accepted at once, so that who asks is heard before a crowd takes its place."""

SHARE = 4
"""Of the files the process may open one in so many is a connection: the rest is for polling, sinks and the store."""

TICK_S = 0.05
ACCEPTED_AT_ONCE = 100
SERVED_AT_ONCE = 10

TIMEOUT_S = 10.0
SAID_EVERY_S = 60.0

FIRST_MOMENT_S = 0.1
"""For so long nobody is closed: what it has sent may not have been read yet."""
FIRST_ANSWER_S = 3.0
"""For so long nobody is closed who waits for a first answer: the pages take less."""

NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


async def bind(address: Address) -> list[socket.socket]:
    """Return sockets that listen at each address of the host. Raises `OSError` and `UnicodeError`."""
    resolve = partial(
        socket.getaddrinfo, address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    async with asyncio.timeout(RESOLVED_WITHIN_S):
        found = await run_detached(resolve, name="resolve")
    sockets: list[socket.socket] = []
    failures: list[OSError] = []
    for family, _, _, _, sockaddr in dict.fromkeys(found):
        try:
            sockets.append(socket.create_server(sockaddr[:2], family=family, backlog=BACKLOG_COUNT))
        except OSError as error:
            failures.append(error)
    serious = [error for error in failures if error.errno not in NO_SUCH_FAMILY]
    if failures and (serious or not sockets):
        for each in sockets:
            each.close()
        raise (serious or failures)[0]
    return sockets


def connections_at_most() -> int:
    """Return how many connections this process can spare."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_COUNT if files < 0 else max(1, min(CONNECTIONS_COUNT, files // SHARE))


def _has_sent(connection: socket.socket) -> bool:
    with suppress(OSError):  # nothing is there, or it is gone
        return bool(connection.recv(1, socket.MSG_PEEK))
    return False


class Connections:
    """Serves the pages of a runner to whoever connects at some sockets, until closed."""

    def __init__(
        self,
        runner: web.AppRunner,
        *,
        clock: Clock,
        at_most: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Accept nothing yet. The runner is set up. Of `at_most` connections half may not have said anything.

        Needs a running event loop.
        """
        self._runner = runner
        self._clock = clock
        in_all = at_most or connections_at_most()
        self._served_at_most = max(1, min(SERVED_COUNT, in_all // 2))
        self._waiting_at_most = max(1, in_all - self._served_at_most)
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._sockets: Sequence[socket.socket] = ()
        self._idle: dict[socket.socket, asyncio.TimerHandle] = {}
        self._readable: deque[socket.socket] = deque()
        self._beginning: set[asyncio.Task[None]] = set()
        self._clients: dict[ClientConnection, None] = {}
        self._begun_count = 0  # in this tick
        self._ticking = False
        self._crowded_count = 0
        self._say_at = dict.fromkeys(("crowded", "failed"), EARLIEST)

    def open(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections from now on."""
        self._sockets = sockets
        for listening in sockets:
            listening.setblocking(False)
            self._listen(listening)

    async def close(self) -> None:
        """Accept nothing more, let go of who is not being answered, and then of everybody."""
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets = ()
        for connection in list(self._idle):
            self._close_idle(connection)
        while self._readable:
            self._readable.popleft().close()
        await self._runner.cleanup()
        for client in list(self._clients):
            client.abort()

    def _listen(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accept some; the rest waits a moment, so that a crowd costs no more than that."""
        for _ in range(ACCEPTED_AT_ONCE):
            is_full = len(self._idle) + len(self._readable) >= self._waiting_at_most
            if is_full and self._oldest_that_may_go() is None:
                break
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    continue  # it is gone already
                self._say_crowded("the process has no file descriptor left; raise its limit (ulimit -n)")
                break
            if is_full:
                self._close_silent()
            connection.setblocking(False)
            self._idle[connection] = self._loop.call_later(self._timeout_s, self._close_idle, connection)
            self._loop.add_reader(connection, self._on_readable, connection)
        self._loop.remove_reader(listening)
        self._loop.call_later(TICK_S, self._listen, listening)

    def _oldest_that_may_go(self) -> socket.socket | None:
        """Return who has waited for its first byte for longest; who has just come is not closed for the next."""
        oldest, closing = next(iter(self._idle.items()), (None, None))
        has_just_come = closing and self._loop.time() < closing.when() - self._timeout_s + FIRST_MOMENT_S
        return None if has_just_come else oldest

    def _close_silent(self) -> None:
        """Close who has been silent for longest. Who has sent something, but has not had its turn yet, is served."""
        while oldest := self._oldest_that_may_go():
            was_silent = not _has_sent(oldest)
            self._on_readable(oldest)
            if was_silent:
                self._say_crowded("too many connections wait; whoever has been silent for longest is closed")
                return

    def _close_idle(self, connection: socket.socket) -> None:
        self._leave_idle(connection)
        connection.close()

    def _leave_idle(self, connection: socket.socket) -> None:
        self._idle.pop(connection).cancel()
        self._loop.remove_reader(connection)

    def _on_readable(self, connection: socket.socket) -> None:
        """Serve a connection that has sent something, soon if many have; close one that is gone."""
        self._leave_idle(connection)
        if _has_sent(connection):
            self._readable.append(connection)
            self._serve_some()
        else:
            connection.close()

    def _serve_some(self) -> None:
        """Serve those that have sent something, so many in a tick."""
        while self._readable and self._begun_count < SERVED_AT_ONCE and self._make_space():
            self._begun_count += 1
            task = asyncio.create_task(self._serve(self._readable.popleft()))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)
        if not self._ticking and (self._readable or self._begun_count):
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking, self._begun_count = False, 0
        self._serve_some()

    async def _serve(self, connection: socket.socket) -> None:
        server = self._runner.server
        assert server is not None
        client = partial(
            ClientConnection, server, clients=self._clients, failed=self._say_failed, timeout_s=self._timeout_s
        )
        with suppress(OSError):  # it is gone again already
            await self._loop.connect_accepted_socket(client, connection)

    def _make_space(self) -> bool:
        """Return whether another may come, which one may have to go for.

        First goes who asks nothing, then who has had an answer before, and of equals who waits longest. Who has just
        come stays, and for longer who waits for a first answer.
        """
        if len(self._clients) + len(self._beginning) < self._served_at_most:
            return True
        leaving = min(self._clients, key=lambda each: (each.asking, each.asking and not each.served), default=None)
        if leaving is None:
            return False
        stays_s = FIRST_ANSWER_S if leaving.asking and not leaving.served else FIRST_MOMENT_S
        if self._loop.time() - leaving.came_at < stays_s:
            return False
        del self._clients[leaving]
        leaving.abort()
        self._say_crowded("too many connections are open; whoever asks nothing for longest is closed")
        return True

    def _say_crowded(self, note: str) -> None:
        self._crowded_count += 1
        if self._may_say("crowded"):
            log.warning("http.crowded", count=self._crowded_count, note=note)
            self._crowded_count = 0

    def _say_failed(self, error: str) -> None:
        if self._may_say("failed"):
            log.error("http.failed", error=error)

    def _may_say(self, what: str) -> bool:
        """Return whether the last such line is long ago: strangers decide how often there is a reason for one."""
        now = self._clock.monotonic()
        if now < self._say_at[what]:
            return False
        self._say_at[what] = Monotonic(now + SAID_EVERY_S)
        return True
