"""The API of the bench, as cheap as it can be: one answer per execution, of which every n-th changes its status."""

import asyncio
import time

from bench.answers import ID_LENGTH, PIPELINE, answer
from bench.counters import Counters

_ID_STARTS = len(f"GET /public/pipelines/{PIPELINE}/executions/")
_RUNNING, _PAUSED = answer("running"), answer("paused")


class _Connection(asyncio.Protocol):
    """Answers one request at a time: whoever asks waits for the answer, so a segment holds no more than one."""

    def __init__(self, counters: Counters, paused: set[bytes]) -> None:
        self._ledger = counters
        self._paused = paused
        self._begun = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        request, self._begun = self._begun + data, b""
        if not request.endswith(b"\r\n\r\n"):
            self._begun = request
            return
        execution = request[_ID_STARTS : _ID_STARTS + ID_LENGTH]
        self._count(execution)
        body = _PAUSED if execution in self._paused else _RUNNING
        self._transport.write(body.before + execution + body.after)

    def _count(self, execution: bytes) -> None:
        counters = self._ledger
        counters.first_at = counters.first_at or time.monotonic()
        counters.served_count += 1
        if counters.change_every and counters.served_count % counters.change_every == 0:
            self._paused ^= {execution}


async def _serve(counters: Counters) -> None:
    paused: set[bytes] = set()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(counters, paused), "127.0.0.1", 0)
    counters.port = server.sockets[0].getsockname()[1]
    await server.serve_forever()


def serve_load(counters: Counters) -> None:
    """Serve until the process is ended; the port it serves on is in the counters."""
    asyncio.run(_serve(counters))
