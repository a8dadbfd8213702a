"""Connections that remember how the answer to each request began, whatever becomes of the rest of it.

A receiver that answered 2xx has the event, even if what follows breaks HTTP: a body after a 204, two lengths, a chunk
that is none. aiohttp raises an error for such an answer and does not say what its status line was.
"""

import re
from contextvars import ContextVar
from functools import partial
from ssl import SSLContext
from typing import Any, NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler

HEAD_BYTES = 64 * 1024
"""So much of an answer is kept until its headers end."""

_INTERIM = re.compile(rb"HTTP/1\.\d 1\d\d[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.\d ([2-5]\d\d)(?=[ \r\n])")
_RETRY_AFTER = re.compile(rb"\nretry-after:[ \t]*([^\r\n]*)", re.IGNORECASE)


class Head(NamedTuple):
    """What is known of an answer by its beginning."""

    status: int
    retry_after: str | None


class _Connection(ResponseHandler):
    """A connection that keeps the beginning of the answer it is receiving."""

    _head = b""

    def set_response_params(self, **params: Any) -> None:
        """Begin to wait for an answer."""
        self._head = b""
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Take in what came, as far as it belongs to the head."""
        if len(self._head) < HEAD_BYTES and b"\r\n\r\n" not in self._head:
            self._head += data[:HEAD_BYTES]
            while interim := _INTERIM.match(self._head):  # the answer itself is still to come
                self._head = self._head[interim.end() :]
        super().data_received(data)

    def head(self) -> Head | None:
        """Return how the answer began, if that is the beginning of one."""
        status = _STATUS_LINE.match(self._head)
        if status is None:
            return None
        retry_after = _RETRY_AFTER.search(self._head.partition(b"\r\n\r\n")[0])
        return Head(int(status[1]), retry_after and retry_after[1].decode("latin-1"))


_used: ContextVar[_Connection | None] = ContextVar("used", default=None)


class Connector(aiohttp.TCPConnector):
    """Makes connections that remember; each request of a task notes which one it uses."""

    def __init__(self, *, limit: int, ssl: SSLContext | None, socket_factory: aiohttp.SocketFactoryType | None) -> None:
        """Open none yet. Needs a running event loop. `socket_factory` may refuse an address, for each attempt."""
        super().__init__(limit=limit, ssl=ssl or True, socket_factory=socket_factory)
        # There is no public way to choose what a connection is made of.
        self._factory = partial(_Connection, loop=self._loop)  # type: ignore[assignment] # a subclass will do

    async def connect(self, *args: Any, **options: Any) -> aiohttp.connector.Connection:
        """Connect, and note that with the task: what a proxy answered on the way there is no answer."""
        _used.set(None)
        connection = await super().connect(*args, **options)
        if isinstance(connection.protocol, _Connection):
            _used.set(connection.protocol)
        return connection


def head_of_answer() -> Head | None:
    """Return how the answer to this task's last request began, `None` if none did."""
    used = _used.get()
    return None if used is None else used.head()
