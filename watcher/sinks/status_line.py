"""Connections that remember the status line of each answer, whatever becomes of the rest of it.

A receiver that answered 2xx has the event, even if what follows breaks HTTP: servers send a 204 with a body (FastAPI:
encode/httpx#1474, aiohttp: aio-libs/aiohttp#5106). aiohttp raises an error for that, and does not say what the status
was.
"""

import re
from contextvars import ContextVar
from functools import partial
from ssl import SSLContext
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

_STATUS_LINE = re.compile(rb"HTTP/1\.\d ([2-5]\d\d)[ \r\n]")
_LENGTH = 64
"""More bytes than are looked at."""


class _Connection(ResponseHandler):
    """A connection that keeps the beginning of the answer it is receiving."""

    beginning = b""

    def set_response_params(self, **params: Any) -> None:
        """Begin to wait for an answer."""
        self.beginning = b""
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Take in what came."""
        if len(self.beginning) < _LENGTH:
            self.beginning += data[:_LENGTH]
        super().data_received(data)


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


def status_of_answer() -> int | None:
    """Return the status code that this task's last request was answered with, `None` if it was not."""
    used = _used.get()
    status = None if used is None else _STATUS_LINE.match(used.beginning)
    return None if status is None else int(status[1])
