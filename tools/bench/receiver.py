"""The webhook receiver of the bench: takes whatever comes, and notes how long ago its event was observed."""

import asyncio
import re
import time
from datetime import datetime

from bench.counters import DELAYS_COUNT, Counters, serve

_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)
_OBSERVED_AT = re.compile(rb'"observed":\{"at":"([^"]+)"')
_TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
_FOR_SLACK = b'"blocks":'
_EVENT = b'{"specversion":'
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class _Connection(asyncio.Protocol):
    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._begun = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._begun += data
        head, found, body = self._begun.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if not found or length is None or len(body) < int(length[1]):
            return
        self._begun = b""
        self._note(body)
        self._transport.write(_OK if _FOR_SLACK in body else _TAKEN)

    def _note(self, body: bytes) -> None:
        counters, observed = self._counters, _OBSERVED_AT.search(body)
        counters.first_at = counters.first_at or time.monotonic()
        if observed is not None and counters.served_count < DELAYS_COUNT:
            observed_at = datetime.fromisoformat(observed[1].decode()).timestamp()
            counters.delays_s[counters.served_count] = time.time() - observed_at
        counters.served_count += body.count(_EVENT) if body.startswith(b"[") else 1


def receive(counters: Counters) -> None:
    """Receive until the process is ended; the port is in the counters."""
    asyncio.run(serve(counters, lambda: _Connection(counters)))
