"""A receiver of webhooks on a real socket, which keeps what it got and answers as the test says, byte by byte."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from worker_rig import FakeClock

from watcher.runtime.clock import Clock
from watcher.sinks.protocol import Sink, SinkContext
from watcher.sinks.registry import SINK_KINDS

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


def answer(status: int = 204, *, body: bytes = b"", **headers: str) -> bytes:
    """Return a whole answer; `retry_after` is the header Retry-After."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{key.replace('_', '-')}: {value}" for key, value in headers.items())]
    if status not in {204, 304}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def says(*parts: bytes) -> Reply:
    """Write the parts one by one, each on its way before the next."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)  # else the kernel may hand them over as one

    return reply


async def hangs(writer: asyncio.StreamWriter) -> None:
    """Say nothing until the other side goes."""
    await writer.wait_closed()


async def closes(writer: asyncio.StreamWriter) -> None:
    """Close the connection without a word."""
    writer.close()


async def resets(writer: asyncio.StreamWriter) -> None:
    """Break the connection."""
    writer.transport.abort()


class Receiver:
    """Listens on a free port of the loopback interface."""

    def __init__(self, reply: Reply | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.reply = reply or says(answer())
        self.requests: list[Request] = []
        self.peers: list[object] = []
        self.connections_count = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()  # a farewell of TLS would outlive the test

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_count += 1
        self._writers.append(writer)
        self.peers.append(writer.get_extra_info("peercert"))
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                self.requests.append(await _read_request(reader))
                await self.reply(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in rest)}
    return Request(line, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@asynccontextmanager
async def sink_to(
    url: str,
    *,
    clock: Clock | None = None,
    before_request: Callable[[], None] = lambda: None,
    take_slot: Callable[[], float] = lambda: 0.0,
    public_url: str = "",
    **more: Any,
) -> AsyncIterator[Sink]:
    """Open a sink of type webhook, or of another, with these settings."""
    block = {"type": "webhook", "url": url, **more}
    context = SinkContext(
        clock or FakeClock(), take_slot=take_slot, before_request=before_request, public_url=public_url
    )
    sink = SINK_KINDS[str(block["type"])].model_validate(block).open(context)
    try:
        yield sink
    finally:
        await sink.close()
