"""Connections over real sockets: silent, slow, greedy, broken and many."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from structlog.testing import capture_logs
from virtual import FakeClock

from watcher.runtime.units import Address
from watcher.web.server import HttpServer, read_body

TIMEOUT_S = 0.3
ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"x" * 20_000_000
"""More than a system keeps for a client that does not read."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Site:
    """A server and its pages."""

    def __init__(self, *, at_most: int, timeout_s: float) -> None:
        self.clock = FakeClock()
        self.asked_count = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        pages = {"/": self.page, "/large": self.large, "/broken": self.broken}
        routes = [*(web.get(path, page) for path, page in pages.items()), web.post("/read", self.read)]
        self.server = HttpServer(routes, clock=self.clock, at_most=at_most, timeout_s=timeout_s)
        self.port = 0
        self.streams: list[Stream] = []

    async def page(self, _: web.Request) -> web.Response:
        self.asked_count += 1
        await self.may_answer.wait()
        return web.Response(text="here")

    async def read(self, request: web.Request) -> web.Response:
        return web.Response(text=f"{len(await read_body(request))}")

    async def large(self, _: web.Request) -> web.Response:
        return web.Response(body=LARGE)

    async def broken(self, _: web.Request) -> web.Response:
        raise ZeroDivisionError

    async def connect(self, data: bytes = b"") -> Stream:
        """Send something over a connection that stays until the end of the test, if nobody closes it."""
        self.streams.append(await asyncio.open_connection("127.0.0.1", self.port))
        self.streams[-1][1].write(data)
        return self.streams[-1]

    async def ask(self, data: bytes = ASK) -> bytes:
        """Send something over a connection of its own; return what comes until it is closed."""
        return await until_closed(await self.connect(data))

    async def ask_until_held(self) -> Stream:
        """Ask for a page over a connection of its own, and wait until the page is asked for an answer."""
        asked_count = self.asked_count
        stream = await self.connect(ASK)
        async with asyncio.timeout(10):
            while self.asked_count == asked_count:
                await asyncio.sleep(0.001)
        return stream


async def until_closed(stream: Stream) -> bytes:
    received = b""
    async with asyncio.timeout(10):
        with suppress(ConnectionResetError):
            while chunk := await stream[0].read(65_536):
                received += chunk
    return received


async def are_answered(*streams: Stream) -> None:
    """Wait until each of these has got its page."""
    async with asyncio.timeout(10):
        for reader, _ in streams:
            assert b"200 OK" in await reader.readuntil(b"here")


@asynccontextmanager
async def a_site(*, at_most: int = 4, timeout_s: float = 10.0) -> AsyncIterator[Site]:
    site = Site(at_most=at_most, timeout_s=timeout_s)
    site.port = await site.server.listen(Address("127.0.0.1", 0))
    yield site
    await site.server.close()
    for _, writer in site.streams:
        writer.close()


POST = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        *((sent, b"") for sent in (b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n")),
        *((POST + body, b"HTTP/1.1 " + status) for body, status in ((b"12", b"408"), (b"123", b"200"), (b"", b"408"))),
    ],
)
async def test_headers_and_a_body_have_as_much_time_each(sent: bytes, answer: bytes) -> None:
    async with a_site(timeout_s=TIMEOUT_S) as site:
        found = await site.ask(sent)
        assert found.startswith(answer) if answer else found == b""


async def test_headers_that_drip_are_given_no_more_time() -> None:
    async with a_site(timeout_s=TIMEOUT_S) as site:
        stream = await site.connect()

        async def drip() -> None:
            with suppress(ConnectionError):
                for byte in b"GET / HTTP/1.1\r\nHost: " + b"x" * 1000:
                    stream[1].write(bytes([byte]))
                    await asyncio.sleep(TIMEOUT_S / 10)

        dripping = asyncio.create_task(drip())
        assert await until_closed(stream) == b""
        dripping.cancel()


async def test_a_connection_may_ask_again_in_time_and_is_let_go_when_it_does_not() -> None:
    async with a_site(timeout_s=TIMEOUT_S) as site:
        stream = await site.connect()
        for _ in range(3):
            stream[1].write(ASK)
            await are_answered(stream)
        assert await until_closed(stream) == b""


async def test_of_too_many_connections_the_oldest_that_asks_nothing_goes() -> None:
    async with a_site(at_most=3) as site:
        silent = [await site.connect() for _ in range(3)]
        with capture_logs() as logs:
            newer = await site.connect()
            assert await until_closed(silent[0]) == b""
            newest = await site.connect()
            assert await until_closed(silent[1]) == b""
        assert [(entry["event"], entry["log_level"]) for entry in logs] == [("http.crowded", "warning")]
        for _, writer in (silent[2], newer, newest):
            writer.write(ASK)
        await are_answered(silent[2], newer, newest)


async def test_who_is_answered_stays_unless_all_ask_then_the_oldest_goes() -> None:
    async with a_site(at_most=2) as site:
        site.may_answer.clear()
        asking = await site.ask_until_held()
        silent, newest = await site.connect(), await site.connect(ASK)
        assert await until_closed(silent) == b""
        site.may_answer.set()
        await are_answered(asking, newest)
    async with a_site(at_most=2) as site:
        site.may_answer.clear()
        oldest, *others = [await site.ask_until_held() for _ in range(3)]
        assert await until_closed(oldest) == b""
        site.may_answer.set()
        await are_answered(*others)


async def test_who_has_had_no_time_to_ask_stays_where_all_others_have_asked() -> None:
    async with a_site(at_most=20) as site:
        site.may_answer.clear()
        asking = [await site.ask_until_held() for _ in range(20)]
        new, newer = await site.connect(), await site.connect()
        for stream in asking[:2]:
            assert await until_closed(stream) == b""
        site.may_answer.set()
        for _, writer in (new, newer):
            writer.write(ASK)
        await are_answered(new, newer)


async def test_who_does_not_take_its_answer_makes_room() -> None:
    async with a_site(at_most=1) as site:
        taker = socket.create_connection(("127.0.0.1", site.port))
        taker.sendall(ASK.replace(b"/ ", b"/large ", 1))
        await asyncio.sleep(0.1)  # it is answered, and the answer is on its way
        assert (await site.ask(ASK.replace(b"1.1", b"1.0"))).endswith(b"here")
        received = 0
        with suppress(ConnectionResetError):
            while chunk := taker.recv(1_000_000):
                received += len(chunk)
        assert received < len(LARGE)
        taker.close()


async def test_a_crowd_is_counted_once_a_minute_and_all_go_at_the_end() -> None:
    async with a_site() as site:
        site.may_answer.clear()
        silent, asking = await site.connect(), await site.ask_until_held()
        ending = asyncio.create_task(site.server.close())
        for stream in (silent, asking):
            assert await until_closed(stream) == b""
        await ending
    with capture_logs() as logs:
        async with a_site(at_most=1) as site:
            streams = [await site.connect() for _ in range(5)]
            for stream in streams[:4]:
                await until_closed(stream)
            site.clock.advance(60)
            await site.connect()
            await until_closed(streams[4])
    assert [entry["count"] for entry in logs] == [1, 4]


NO_REQUESTS = {
    "noise": os.urandom(512).replace(b"\n", b"") + b"\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64 + b"\r\n\r\n",
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "length": b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "path": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "header": b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
    "headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
}


async def test_what_is_no_request_fills_no_log_and_a_broken_page_one_line() -> None:
    with capture_logs() as logs:
        async with a_site(timeout_s=TIMEOUT_S) as site:
            for name, sent in NO_REQUESTS.items():
                answer = await site.ask(sent)
                assert answer == b"" or answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400")), name
    assert logs == []
    with capture_logs() as logs:
        async with a_site() as site:
            for _ in range(3):
                answer = await site.ask(b"GET /broken HTTP/1.0\r\n\r\n")
                assert b"500 Internal Server Error" in answer
                assert b"ZeroDivision" not in answer
    assert [(entry["event"], entry["error"]) for entry in logs] == [("http.failed", "ZeroDivisionError")]


async def test_an_address_that_is_taken_is_an_error_and_a_burst_answered() -> None:
    async with a_site(at_most=100) as site:
        answers = await asyncio.gather(*(site.ask(ASK.replace(b"1.1", b"1.0")) for _ in range(45)))
        assert all(answer.endswith(b"here") for answer in answers)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use") as caught:
        await Site(at_most=1, timeout_s=1).server.listen(Address("127.0.0.1", taken.getsockname()[1]))
    assert caught.value.errno == errno.EADDRINUSE
