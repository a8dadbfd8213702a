"""The API of the bench, as cheap as it can be: one answer per execution, of which every n-th changes its status."""

import asyncio
import time

from bench.answers import ID_LENGTH, PIPELINE, answer
from bench.ledger import Ledger

_ID_STARTS = len(f"GET /public/pipelines/{PIPELINE}/executions/")
_RUNNING, _PAUSED = answer("running"), answer("paused")


class _Connection(asyncio.Protocol):
    """Answers one request at a time: whoever asks waits for the answer, so a segment holds no more than one."""

    def __init__(self, ledger: Ledger, paused: set[bytes]) -> None:
        self._ledger = ledger
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
        ledger = self._ledger
        ledger.first_at = ledger.first_at or time.monotonic()
        ledger.served_count += 1
        if ledger.change_every and ledger.served_count % ledger.change_every == 0:
            self._paused ^= {execution}


async def _serve(ledger: Ledger) -> None:
    paused: set[bytes] = set()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(ledger, paused), "127.0.0.1", 0)
    ledger.port = server.sockets[0].getsockname()[1]
    await server.serve_forever()


def serve_load(ledger: Ledger) -> None:
    """Serve until the process is ended; the port it serves on is in the ledger."""
    asyncio.run(_serve(ledger))
