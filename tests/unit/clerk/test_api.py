"""What each answer of the API means, over a real socket, and which fields of it are read."""

import asyncio
import gzip
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import ClientError, web
from aiohttp.test_utils import TestServer, unused_port
from worker_rig import FakeClock

from watcher.clerk.api import ClerkApi, Reply
from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.timestamps import Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import BODY_BYTES, LARGE_BODIES, Client, Proxy
from watcher.simulator.server import Simulator
from watcher.simulator.world import Lifecycle, SimPipeline, StatusPhase, World

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
EXECUTION = "9a1b0000-0000-4000-8000-000000000001"
NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
PATIENT_S = 60.0
"""No answer takes so long, however busy the machine."""
TIMEOUT_S = 0.5
"""Short, for the rows of the table that wait for it."""

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Wire = Callable[[asyncio.StreamWriter], Awaitable[None]]
Serving = AbstractAsyncContextManager[str]


def body(**fields: object) -> bytes:
    """Return what is both an execution and a page of a list."""
    row = {"id": EXECUTION, "status": "running"}
    return json.dumps({"data": [row], "total": 1, **row, **fields}).encode()


def body_of_size(size: int) -> bytes:
    return body(environment="x" * (size - len(body(environment=""))))


@asynccontextmanager
async def api_at(base_url: str, *, timeout_s: float = PATIENT_S) -> AsyncIterator[ClerkApi]:
    async with Client(api_key="k-1", timeout_s=timeout_s, connections=20, proxy=Proxy()) as client:
        yield ClerkApi(client, base_url=base_url, clock=FakeClock())


async def ask(base_url: str, *, timeout_s: float = PATIENT_S) -> Reply:
    async with api_at(base_url, timeout_s=timeout_s) as api:
        return await api.get(pipeline=PIPELINE, execution=EXECUTION)


async def ask_list(base_url: str, *, page: int = 1, timeout_s: float = PATIENT_S) -> Reply:
    async with api_at(base_url, timeout_s=timeout_s) as api:
        return await api.list(pipeline=PIPELINE, page=page)


# Servers that answer


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/public/pipelines/{pipeline}/executions/{execution}", answer)
    app.router.add_get("/public/pipelines/{pipeline}/executions", answer)
    async with TestServer(app, skip_url_asserts=True) as server:
        yield str(server.make_url("")).rstrip("/")


def says(payload: bytes, headers: Mapping[str, str] | None = None, *, status: int = 200) -> Serving:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=payload, headers=headers)

    return serving(answer)


def code(status: int, retry_after: str | None = None, *, date: str | None = None) -> Serving:
    headers = {"Date": date or _http_date(0)} | ({} if retry_after is None else {"Retry-After": retry_after})
    return says(b"" if status in {204, 304} else b"<html>no</html>", headers, status=status)


def endless() -> Serving:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        with suppress(ClientError, ConnectionError):
            while True:
                await response.write(b" " * 65536)
        return response

    return serving(answer)


# Servers that break the wire


@asynccontextmanager
async def breaking(wire: Wire) -> AsyncIterator[str]:
    connections: list[asyncio.Task[None]] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await wire(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.create_task(converse(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
    await asyncio.sleep(0)  # closed transports let go of their sockets in the next turn of the loop


def writes(raw: bytes) -> Serving:
    async def wire(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return breaking(wire)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Send a RST, not a FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def resets(raw: bytes) -> Serving:
    async def wire(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        await asyncio.sleep(0.05 if raw else 0)  # a RST overtakes what the other side has not read yet
        _reset(writer)

    return breaking(wire)


def drips(piece: bytes) -> Serving:
    """Never silent for longer than a tenth of the timeout, and never done."""

    async def wire(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(TIMEOUT_S / 10)

    return breaking(wire)


def hangs() -> Serving:
    async def wire(_: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    return breaking(wire)


@asynccontextmanager
async def nobody_at(base_url: str) -> AsyncIterator[str]:
    yield base_url


@asynccontextmanager
async def secured(plain: Serving) -> AsyncIterator[str]:
    async with plain as base_url:
        yield base_url.replace("http://", "https://")


def _page(payload: bytes, *, length: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (length, payload)


@dataclass(frozen=True)
class Case:
    server: Callable[[], Serving]
    outcome: Outcome
    reason: str | None = None
    retry_after_s: float | None = None
    timeout_s: float = PATIENT_S


def _http_date(in_s: float) -> str:
    return (NOW + timedelta(seconds=in_s)).strftime("%a, %d %b %Y %H:%M:%S GMT")


CASES = {
    "200": Case(lambda: says(body()), Outcome.OK),
    "200 with the id in capitals": Case(lambda: says(body().replace(b"9a1b", b"9A1B")), Outcome.OK),
    "200 gzipped": Case(lambda: says(gzip.compress(body()), {"Content-Encoding": "gzip"}), Outcome.OK),
    "200 called text": Case(lambda: says(body(), {"Content-Type": "text/html"}), Outcome.OK),
    "200 of exactly 8 MiB": Case(lambda: says(body_of_size(BODY_BYTES)), Outcome.OK),
    "200 with a byte order mark": Case(lambda: says(b"\xef\xbb\xbf" + body()), Outcome.OK),
    "200 with a header of 60 kB": Case(lambda: says(body(), {"X-Long": "x" * 60_000}), Outcome.OK),
    "200 with 1,500 headers": Case(lambda: says(body(), {f"X-{number}": "x" for number in range(1500)}), Outcome.OK),
    "200 with a header of 70 kB": Case(lambda: says(body(), {"X": "x" * 70_000}), Outcome.CONNECTION, "connection"),
    "200 with 2,500 headers": Case(
        lambda: says(body(), {f"X-{number}": "x" for number in range(2500)}), Outcome.CONNECTION, "connection"
    ),
    "200 but HTML": Case(lambda: says(b"<html>Sign in</html>", {"Content-Type": "text/html"}), Outcome.INVALID, "html"),
    "200 but empty": Case(lambda: says(b""), Outcome.INVALID, "no_json"),
    "200 but truncated": Case(lambda: says(body()[:-9]), Outcome.INVALID, "no_json"),
    "200 shorter than it says": Case(lambda: writes(_page(body(), length=5000)), Outcome.INVALID, "truncated"),
    "200 not gzip though it says so": Case(lambda: says(b"x" * 99, {"Content-Encoding": "gzip"}), Outcome.INVALID),
    "200 over 8 MiB": Case(lambda: says(body_of_size(BODY_BYTES + 1)), Outcome.INVALID, "too_large"),
    "200 over 8 MiB once unpacked": Case(
        lambda: says(gzip.compress(body_of_size(BODY_BYTES + 1)), {"Content-Encoding": "gzip"}), Outcome.INVALID
    ),
    "200 without an end": Case(endless, Outcome.INVALID),
    "201": Case(lambda: says(body(), status=201), Outcome.INVALID),
    "204": Case(lambda: code(204), Outcome.INVALID),
    "304": Case(lambda: code(304), Outcome.REDIRECT),
    "400": Case(lambda: code(400), Outcome.REJECTED),
    "401": Case(lambda: code(401), Outcome.UNAUTHORIZED),
    "402": Case(lambda: code(402), Outcome.INVALID, "status_402"),
    "403": Case(lambda: code(403), Outcome.FORBIDDEN),
    "404": Case(lambda: code(404), Outcome.NOT_FOUND),
    "404 with the execution in it": Case(lambda: says(body(), status=404), Outcome.NOT_FOUND),
    "405": Case(lambda: code(405), Outcome.INVALID),
    "408": Case(lambda: code(408), Outcome.TIMEOUT),
    "410": Case(lambda: code(410), Outcome.NOT_FOUND),
    "418": Case(lambda: code(418), Outcome.INVALID),
    "422": Case(lambda: code(422), Outcome.REJECTED),
    "429": Case(lambda: code(429), Outcome.RATE_LIMITED),
    "429 for 7 s": Case(lambda: code(429, "7"), Outcome.RATE_LIMITED, retry_after_s=7.0),
    "429 until a date": Case(lambda: code(429, _http_date(90)), Outcome.RATE_LIMITED, retry_after_s=90.0),
    "429 until a date of its own clock": Case(
        lambda: code(429, _http_date(-1110), date=_http_date(-1200)), Outcome.RATE_LIMITED, retry_after_s=90.0
    ),
    "429 until a year that nobody can count": Case(
        lambda: code(429, "Tue, 15 Nov 99999999999 08:12:31 GMT"), Outcome.RATE_LIMITED
    ),
    "429 until yesterday": Case(lambda: code(429, _http_date(-86400)), Outcome.RATE_LIMITED, retry_after_s=0.0),
    "429 for nonsense": Case(lambda: code(429, "soon"), Outcome.RATE_LIMITED),
    "500": Case(lambda: code(500), Outcome.SERVER_ERROR),
    "502": Case(lambda: code(502), Outcome.SERVER_ERROR),
    "503": Case(lambda: code(503), Outcome.SERVER_ERROR),
    "503 for a day": Case(lambda: code(503, "86400"), Outcome.SERVER_ERROR, retry_after_s=86400.0),
    "504": Case(lambda: code(504), Outcome.SERVER_ERROR),
    "599": Case(lambda: code(599), Outcome.SERVER_ERROR),
    "timeout": Case(hangs, Outcome.TIMEOUT, "timeout", timeout_s=TIMEOUT_S),
    "headers, then a drip slower than the timeout": Case(lambda: drips(b" "), Outcome.TIMEOUT, timeout_s=TIMEOUT_S),
    "reset before the headers": Case(lambda: resets(b""), Outcome.CONNECTION, "reset"),
    "reset in the body": Case(lambda: resets(_page(body(), length=5000)), Outcome.INVALID, "truncated"),
    "closed before the headers": Case(lambda: writes(b""), Outcome.CONNECTION, "reset"),
    "not HTTP": Case(lambda: writes(b"220 mail.example.com ESMTP\r\n\r\n"), Outcome.CONNECTION, "connection"),
    "a refused port": Case(lambda: nobody_at(f"http://127.0.0.1:{unused_port()}"), Outcome.CONNECTION, "refused"),
    "a name that is not known": Case(lambda: nobody_at("http://nowhere.invalid"), Outcome.CONNECTION, "dns"),
    "TLS to a port without": Case(lambda: secured(says(body())), Outcome.CONNECTION, "tls"),
}


@pytest.mark.parametrize("question", [ask, ask_list])
@pytest.mark.parametrize("name", CASES)
async def test_an_answer_means_what_the_table_says(question: Callable[..., Awaitable[Reply]], name: str) -> None:
    case = CASES[name]
    async with case.server() as base_url:
        reply = await question(base_url, timeout_s=case.timeout_s)
    assert (reply.outcome, reply.retry_after_s) == (case.outcome, case.retry_after_s)
    assert case.reason in {None, reply.reason}
    assert ((reply.execution or reply.rows) is not None) == (case.outcome is Outcome.OK)
    assert reply.sent_at == 1000.0


async def test_an_execution_that_was_not_asked_for_is_none_and_an_empty_list_is_a_list() -> None:
    async with says(body(id=PIPELINE)) as base_url:
        assert (await ask(base_url)).reason == "wrong_id"
    async with says(b'{"data": [], "total": 0}') as base_url:
        assert (await ask_list(base_url)).rows == ()


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
async def test_a_redirect_is_not_followed_for_the_key_would_go_to_a_stranger(status: int) -> None:
    visits: list[str] = []

    async def stranger(request: web.Request) -> web.Response:
        visits.append(request.path)
        return web.Response(body=body())

    async with serving(stranger) as elsewhere:
        target = f"{elsewhere}/public/pipelines/{PIPELINE}/executions/{EXECUTION}"
        async with says(b"", {"Location": target}, status=status) as base_url:
            replies = (await ask(base_url), await ask_list(base_url))
    assert [(reply.outcome, reply.status_code) for reply in replies] == [(Outcome.REDIRECT, status)] * 2
    assert visits == []


async def test_a_page_is_asked_for_by_number_fifty_rows_at_a_time() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        return web.Response(body=body())

    async with serving(answer) as base_url:
        reply = await ask_list(base_url, page=7)
    assert asked == [f"/public/pipelines/{PIPELINE}/executions?limit=50&page=7"]
    rows = (ExecutionSnapshot(EXECUTION, "running"),)
    assert reply._replace(ahead_us=0) == Reply(
        Outcome.OK, Monotonic(1000.0), None, 200, body_hash=hash(body()), rows=rows, skipped=0, total=1
    )


@pytest.mark.parametrize("newest_first", [True, False])
async def test_the_simulators_list_is_read_in_its_order_to_its_end(*, newest_first: bool) -> None:
    world = World(Clock(), newest_first=newest_first)
    pipeline = SimPipeline(PIPELINE, "Sales agent")
    ids = [f"9a1b0000-0000-4000-8000-{number:012d}" for number in range(60)]
    for number, name in enumerate(ids):
        lifecycle = Lifecycle(name, (StatusPhase("running", 0.0), StatusPhase("success", 1.0)))
        world.add(lifecycle, pipeline=pipeline, begins_s=number - 5000.0)
    async with Simulator(world, api_keys=["k-1"]) as simulator, api_at(simulator.base_url) as api:
        replies = [await api.list(pipeline=PIPELINE, page=page) for page in (1, 2, 3)]
    emitted = [row.id for reply in replies for row in reply.rows or ()]
    assert emitted == (ids[::-1] if newest_first else ids)
    assert [(len(reply.rows or ()), reply.total) for reply in replies] == [(50, 60), (10, 60), (0, 60)]
    assert all(row.status == "success" and row.started_at and row.finished_at for row in replies[0].rows or ())


# Answers that are hard to read

WORST = {
    "nodes without end": b'"nodesExecuted":[%s{}]}' % (b"{}," * 2_700_000),
    "rows without end": b'"data":[%s{}]}' % (b"{}," * 2_700_000),
    "levels without end": b'"x":%s}' % (b"[" * 4_000_000 + b"]" * 4_000_000),
    "a list that is none": b'"data":%s}' % (b"[" * 4_000_000 + b"]" * 4_000_000),
    "half pairs without end": b'"error":"%s"}' % (rb"\ud800" * 1_300_000),
    "backslashes without end": b'"x":"%s}' % (b"\\" * 8_000_000),
    "keys without end": b'%s"a":1}' % (b'"status":"running",' * 400_000),
    "cut rows": b'"data":[%s' % (b'{"a":1},' * 1_000_000),
}


@pytest.mark.untraced
@pytest.mark.parametrize("name", WORST)
async def test_no_answer_holds_up_the_event_loop(name: str) -> None:
    """By itself each of these took 1 to 9 s to parse.

    It is the CPU time of this process, in all threads, that passes between two turns of the loop: a parser that keeps
    the interpreter to itself does so in whatever thread, and each time. The loop also waits while the system runs the
    parser's thread in its place, on a machine that has much to do: so one of five tries has to do.
    """
    packed = gzip.compress(b'{"id":"%s","status":"running",%s' % (EXECUTION.encode(), WORST[name]), 1)
    async with says(packed, {"Content-Encoding": "gzip"}) as base_url, api_at(base_url) as api:
        for _ in range(5):
            longest_s = await longest_turn_s(api)
            if longest_s < 0.2:
                break
    assert longest_s < 0.2


async def longest_turn_s(api: ClerkApi) -> float:
    gaps: list[float] = []

    async def watch_the_loop() -> None:
        before = time.process_time()
        while True:
            await asyncio.sleep(0.001)
            gaps.append(time.process_time() - before)
            before = time.process_time()

    watching = asyncio.create_task(watch_the_loop())
    await api.get(pipeline=PIPELINE, execution=EXECUTION)
    await api.list(pipeline=PIPELINE, page=1)
    watching.cancel()
    return max(gaps)


@dataclass
class Slow:
    """A server of large bodies that lack their ends until they may end. `sent` counts those that lack no more."""

    may_end: asyncio.Event
    size: int = BODY_BYTES
    sending: int = 0
    sent: int = 0
    most: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = self.size
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # type: ignore[union-attr]
        await self.count(sending=1)
        with suppress(ClientError, ConnectionError, asyncio.CancelledError):
            await response.prepare(request)
            payload = body_of_size(self.size)
            for at in range(0, self.size - 65536, 65536):
                await response.write(payload[at : at + 65536])
            await self.count(sent=1)
            await self.may_end.wait()
            await self.count(sent=-1)
            await response.write(payload[-65536:])
        return response

    async def until(self, *, sent: int, sending: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.sent >= sent and self.sending >= sending)

    async def count(self, *, sending: int = 0, sent: int = 0) -> None:
        async with self.changed:
            self.sending += sending
            self.sent += sent
            self.most = max(self.most, self.sent)
            self.changed.notify_all()


async def test_large_bodies_are_read_a_few_at_a_time_and_all_in_the_end() -> None:
    slow = Slow(asyncio.Event())
    async with (
        serving(slow.answer) as base_url,
        says(body()) as elsewhere,
        Client(api_key="k-1", timeout_s=PATIENT_S, connections=20, proxy=Proxy()) as client,
    ):
        api = ClerkApi(client, base_url=base_url, clock=FakeClock())
        polls = [asyncio.create_task(api.get(pipeline=PIPELINE, execution=EXECUTION)) for _ in range(10)]
        await slow.until(sent=LARGE_BODIES, sending=10)
        small = ClerkApi(client, base_url=elsewhere, clock=FakeClock())
        assert (await small.get(pipeline=PIPELINE, execution=EXECUTION)).outcome is Outcome.OK
        slow.may_end.set()
        replies = await asyncio.gather(*polls)
    assert [reply.outcome for reply in replies] == [Outcome.OK] * 10
    assert slow.most <= LARGE_BODIES


async def test_a_large_body_that_is_given_up_makes_way_for_the_next() -> None:
    slow = Slow(asyncio.Event())
    async with serving(slow.answer) as base_url, api_at(base_url) as api:
        polls = [asyncio.create_task(api.get(pipeline=PIPELINE, execution=EXECUTION)) for _ in range(10)]
        await slow.until(sent=LARGE_BODIES, sending=10)
        for poll in polls[:9]:
            poll.cancel()
        slow.may_end.set()
        assert (await polls[9]).outcome is Outcome.OK
        await asyncio.gather(*polls, return_exceptions=True)
        slow.may_end.clear()
        again = [asyncio.create_task(api.get(pipeline=PIPELINE, execution=EXECUTION)) for _ in range(LARGE_BODIES)]
        await slow.until(sent=LARGE_BODIES, sending=10 + LARGE_BODIES)
        slow.may_end.set()
        assert [reply.outcome for reply in await asyncio.gather(*again)] == [Outcome.OK] * LARGE_BODIES


async def test_whoever_waits_for_a_place_waits_no_longer_than_its_timeout() -> None:
    slow = Slow(asyncio.Event())
    async with serving(slow.answer) as base_url, api_at(base_url, timeout_s=TIMEOUT_S) as api:
        polls = [api.get(pipeline=PIPELINE, execution=EXECUTION) for _ in range(10)]
        assert {reply.outcome for reply in await asyncio.gather(*polls)} == {Outcome.TIMEOUT}
        slow.may_end.set()


@pytest.mark.parametrize(
    ("date", "known_s", "took_s", "ahead_s"),
    [
        ("Tue, 24 Nov 2026 09:40:00 GMT", None, 0, -1200),
        ("Tue, 24 Nov 2026 09:40:00 GMT", 0, 0, -1200),
        ("Tue, 24 Nov 2026 09:40:00 GMT", -1202, 0, -1202),  # no contradiction by more than two seconds
        ("Tue, 24 Nov 2026 09:40:00 GMT", -1202.5, 0, -1200),
        ("Tue, 24 Nov 2026 09:40:00 GMT", -1197, 0, -1197),  # it may have shown 09:40:00.999
        ("Tue, 24 Nov 2026 09:40:00 GMT", -1196.5, 0, -1200),
        ("Tue, 24 Nov 2026 09:40:00 GMT", -1190, 8, -1190),  # it may have been written eight seconds ago
        ("Tue, 24 Nov 2026 09:59:59 GMT", 0, 0, 0),
        ("Tue, 24 Nov 2026 10:30:00 GMT", 0, 0, 1800),
        ("Tue, 24 Nov 99999 10:30:00 GMT", 0, 0, 0),
        ("yesterday", 5, 0, 5),
        ("yesterday", None, 0, 0),
    ],
)
async def test_how_far_its_clock_is_from_ours_is_known_by_the_dates_of_its_answers(
    date: str, known_s: float | None, took_s: float, ahead_s: float
) -> None:
    clock = FakeClock()
    clock.passed_s = -took_s

    async def answer(_: web.Request) -> web.StreamResponse:
        clock.passed_s = 0.0
        return web.Response(body=body(), headers={"Date": date})

    async with (
        serving(answer) as url,
        Client(api_key="k-1", timeout_s=PATIENT_S, connections=1, proxy=Proxy()) as client,
    ):
        api = ClerkApi(client, base_url=url, clock=clock)
        api.ahead_us = None if known_s is None else round(known_s * 1_000_000)
        assert (await api.get(pipeline=PIPELINE, execution=EXECUTION)).outcome is Outcome.OK
        assert api.ahead_us == ahead_s * 1_000_000


@pytest.mark.parametrize("payload", [None, b"<html>busy</html>"])
async def test_the_date_of_an_error_or_of_what_cannot_be_read_says_nothing_of_its_clock(payload: bytes | None) -> None:
    date = "Tue, 24 Nov 2026 10:20:00 GMT"
    gateway = code(502, date=date) if payload is None else says(payload, {"Date": date})
    async with gateway as url, api_at(url) as api:
        await api.get(pipeline=PIPELINE, execution=EXECUTION)
        assert api.ahead_us is None


@pytest.mark.parametrize("ahead_s", [None, 0, 1200])
async def test_a_date_to_retry_after_is_compared_with_that_of_its_own_answer(ahead_s: int | None) -> None:
    refusal = code(503, "Tue, 24 Nov 2026 10:20:30 GMT", date="Tue, 24 Nov 2026 10:20:00 GMT")
    async with refusal as url, api_at(url) as api:
        api.ahead_us = None if ahead_s is None else ahead_s * 1_000_000
        assert (await api.get(pipeline=PIPELINE, execution=EXECUTION)).retry_after_s == 30


@pytest.mark.parametrize(
    ("finished", "ended_s"), [("09:40:00", 0.0), ("09:40:02", 2.0), ("09:40:15", 2.0), ("09:40:15.001", None)]
)
async def test_dates_are_turned_into_our_clock_but_for_those_in_its_future(
    finished: str, ended_s: float | None
) -> None:
    payload = body(status="failed", startedAt="2026-11-24T09:39:50Z", finishedAt=f"2026-11-24T{finished}Z")
    async with says(payload, {"Date": "Tue, 24 Nov 2026 09:40:00 GMT"}) as url, api_at(url) as api:
        execution = (await api.get(pipeline=PIPELINE, execution=EXECUTION)).execution
    now = FakeClock().steady_us()
    assert execution is not None
    assert execution.began_at == now - 10_000_000
    assert execution.ended_at == (None if ended_s is None else now + ended_s * 1_000_000)
