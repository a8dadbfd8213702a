"""Connections until they say something: thousands may come, and a silent one costs next to nothing.

What is accepted waits here for its first byte; then it is handed over, so many a second. When too many wait, the one
that has been silent for longest is closed. It knows nothing of HTTP.
"""

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from watcher.runtime.threads import begin
from watcher.runtime.units import Address

BACKLOG_COUNT = 1024
RESOLVED_WITHIN_S = 5.0

TICK_S = 0.05
ACCEPTED_AT_ONCE = 100
ADMITTED_AT_ONCE = 10

NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptRules:
    """How many connections may wait, and for how long for their first byte.

    `admit` takes one over when there is `room`. `crowded` is told why one was closed, or not accepted.
    """

    room: Callable[[], bool]
    admit: Callable[[socket.socket], None]
    crowded: Callable[[str], None]
    at_most: int
    patience_s: float


class Arrivals:
    """Accepts connections at some sockets, until closed."""

    def __init__(self, rules: AcceptRules) -> None:
        """Accept nothing yet. Needs a running event loop."""
        self._rules = rules
        self._loop = asyncio.get_running_loop()
        self._sockets: Sequence[socket.socket] = ()
        self._silent: dict[socket.socket, asyncio.TimerHandle] = {}
        self._speaking: deque[socket.socket] = deque()
        self._admitted_count = 0
        self._ticking = False

    def open(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections from now on."""
        self._sockets = sockets
        for listening in sockets:
            self._await(listening)

    def close(self) -> None:
        """Accept no more, and close what waits."""
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets = ()
        for connection in list(self._silent):
            self._close_silent(connection)
        while self._speaking:
            self._speaking.popleft().close()

    def _await(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accept some; the rest waits a moment, so that a crowd costs no more than that."""
        for _ in range(ACCEPTED_AT_ONCE):
            if not self._may_come():
                break
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    continue  # it is gone already
                self._rules.crowded("the process has no file descriptor left; raise its limit (ulimit -n)")
                break
            self._let_in(connection)
        self._loop.remove_reader(listening)
        self._loop.call_later(TICK_S, self._await, listening)

    def _may_come(self) -> bool:
        """Tell whether there is a place for another, or one that is silent can go for it: not if it has just come."""
        if not self._is_full():
            return True
        patience = next(iter(self._silent.values()), None)
        return patience is not None and self._loop.time() > patience.when() - self._rules.patience_s + TICK_S

    def _is_full(self) -> bool:
        return len(self._silent) + len(self._speaking) >= self._rules.at_most

    def _let_in(self, connection: socket.socket) -> None:
        if self._is_full():
            self._close_silent(next(iter(self._silent)))
            self._rules.crowded("too many connections wait; whoever has been silent for longest is closed")
        connection.setblocking(False)
        if not self._hear(connection):
            self._silent[connection] = self._loop.call_later(self._rules.patience_s, self._close_silent, connection)
            self._loop.add_reader(connection, self._wake, connection)

    def _close_silent(self, connection: socket.socket) -> None:
        self._leave_silent(connection)
        connection.close()

    def _leave_silent(self, connection: socket.socket) -> None:
        self._silent.pop(connection).cancel()
        self._loop.remove_reader(connection)

    def _wake(self, connection: socket.socket) -> None:
        self._leave_silent(connection)
        self._hear(connection)

    def _hear(self, connection: socket.socket) -> bool:
        """Have a connection that says something handed over, soon if many do. Tell whether it has not been silent."""
        try:
            says_something = bool(connection.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        except OSError:
            says_something = False
        if says_something:
            self._speaking.append(connection)
            self._admit()
        else:
            connection.close()
        return True

    def _admit(self) -> None:
        while self._speaking and self._admitted_count < ADMITTED_AT_ONCE and self._rules.room():
            self._admitted_count += 1
            self._rules.admit(self._speaking.popleft())
        if not self._ticking and (self._speaking or self._admitted_count):
            self._ticking = True
            self._loop.call_later(TICK_S, self._admit_more)

    def _admit_more(self) -> None:
        self._ticking, self._admitted_count = False, 0
        self._admit()
