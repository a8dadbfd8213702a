"""What each answer of the API means, over a real socket, and which fields of it are read."""

import asyncio
import gzip
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import ClientError, web
from aiohttp.test_utils import TestServer, unused_port
from receiver import Receiver, answer, closes, hangs, says
from receiver import Reply as Served
from worker_rig import FakeClock

from watcher.clerk.api import ClerkApi, Reply
from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.timestamps import Monotonic
from watcher.runtime.http_client import BODY_BYTES, LARGE_BODIES, Client, Proxy

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
EXECUTION = "9a1b0000-0000-4000-8000-000000000001"
NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
PATIENT_S = 60.0
"""No answer takes so long, however busy the machine."""
TIMEOUT_S = 0.5
"""Short, for the rows of the table that wait for it."""

Question = Callable[..., Awaitable[Reply]]


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


# Replies


def ok(payload: bytes, **headers: str) -> Served:
    return says(answer(200, body=payload, **headers))


def code(status: int, retry_after: str | None = None, *, date: str | None = None) -> Served:
    headers = {"Date": date or _http_date(0)} | ({} if retry_after is None else {"Retry-After": retry_after})
    return says(answer(status, body=b"" if status in {204, 304} else b"<html>no</html>", **headers))


def begins(raw: bytes, end: Served = closes) -> Served:
    """Write a part of an answer, and end the connection."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        await says(raw)(writer)
        await end(writer)

    return reply


async def resets(writer: asyncio.StreamWriter) -> None:
    """Send a RST, not a FIN, once the other side has read what was sent before."""
    await asyncio.sleep(0.05)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def drips(writer: asyncio.StreamWriter) -> None:
    """Never be silent for longer than a tenth of the timeout, and never done."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    while True:
        await says(b" ")(writer)
        await asyncio.sleep(TIMEOUT_S / 10)


async def floods(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        await writer.drain()


LONGER_THAN_IT_IS = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + body()


@dataclass(frozen=True)
class Case:
    reply: Served
    outcome: Outcome
    reason: str | None = None
    retry_after_s: float | None = None
    timeout_s: float = PATIENT_S


def _http_date(in_s: float) -> str:
    return (NOW + timedelta(seconds=in_s)).strftime("%a, %d %b %Y %H:%M:%S GMT")


CASES = {
    "200": Case(ok(body()), Outcome.OK),
    "200 with the id in capitals": Case(ok(body().replace(b"9a1b", b"9A1B")), Outcome.OK),
    "200 gzipped": Case(ok(gzip.compress(body()), Content_Encoding="gzip"), Outcome.OK),
    "200 called text": Case(ok(body(), Content_Type="text/html"), Outcome.OK),
    "200 of exactly 8 MiB": Case(ok(body_of_size(BODY_BYTES)), Outcome.OK),
    "200 with a byte order mark": Case(ok(b"\xef\xbb\xbf" + body()), Outcome.OK),
    "200 with a header of 60 kB": Case(ok(body(), X_Long="x" * 60_000), Outcome.OK),
    "200 with 1,500 headers": Case(ok(body(), **{f"X_{number}": "x" for number in range(1500)}), Outcome.OK),
    "200 with a header of 70 kB": Case(ok(body(), X="x" * 70_000), Outcome.CONNECTION, "connection"),
    "200 with 2,500 headers": Case(
        ok(body(), **{f"X_{number}": "x" for number in range(2500)}), Outcome.CONNECTION, "connection"
    ),
    "200 but HTML": Case(ok(b"<html>Sign in</html>", Content_Type="text/html"), Outcome.INVALID, "html"),
    "200 but empty": Case(ok(b""), Outcome.INVALID, "no_json"),
    "200 but truncated": Case(ok(body()[:-9]), Outcome.INVALID, "no_json"),
    "200 shorter than it says": Case(begins(LONGER_THAN_IT_IS), Outcome.INVALID, "truncated"),
    "200 not gzip though it says so": Case(ok(b"x" * 99, Content_Encoding="gzip"), Outcome.INVALID),
    "200 over 8 MiB": Case(ok(body_of_size(BODY_BYTES + 1)), Outcome.INVALID, "too_large"),
    "200 over 8 MiB once unpacked": Case(
        ok(gzip.compress(body_of_size(BODY_BYTES + 1)), Content_Encoding="gzip"), Outcome.INVALID
    ),
    "200 without an end": Case(floods, Outcome.INVALID),
    "201": Case(says(answer(201, body=body())), Outcome.INVALID),
    "204": Case(code(204), Outcome.INVALID),
    "304": Case(code(304), Outcome.REDIRECT),
    "400": Case(code(400), Outcome.REJECTED),
    "401": Case(code(401), Outcome.UNAUTHORIZED),
    "402": Case(code(402), Outcome.INVALID, "status_402"),
    "403": Case(code(403), Outcome.FORBIDDEN),
    "404": Case(code(404), Outcome.NOT_FOUND),
    "404 with the execution in it": Case(says(answer(404, body=body())), Outcome.NOT_FOUND),
    "405": Case(code(405), Outcome.INVALID),
    "408": Case(code(408), Outcome.TIMEOUT),
    "410": Case(code(410), Outcome.NOT_FOUND),
    "418": Case(code(418), Outcome.INVALID),
    "422": Case(code(422), Outcome.REJECTED),
    "429": Case(code(429), Outcome.RATE_LIMITED),
    "429 for 7 s": Case(code(429, "7"), Outcome.RATE_LIMITED, retry_after_s=7.0),
    "429 until a date": Case(code(429, _http_date(90)), Outcome.RATE_LIMITED, retry_after_s=90.0),
    "429 until a date of its own clock": Case(
        code(429, _http_date(-1110), date=_http_date(-1200)), Outcome.RATE_LIMITED, retry_after_s=90.0
    ),
    "429 until a year that nobody can count": Case(
        code(429, "Tue, 15 Nov 99999999999 08:12:31 GMT"), Outcome.RATE_LIMITED
    ),
    "429 until yesterday": Case(code(429, _http_date(-86400)), Outcome.RATE_LIMITED, retry_after_s=0.0),
    "429 for nonsense": Case(code(429, "soon"), Outcome.RATE_LIMITED),
    "500": Case(code(500), Outcome.SERVER_ERROR),
    "502": Case(code(502), Outcome.SERVER_ERROR),
    "503": Case(code(503), Outcome.SERVER_ERROR),
    "503 for a day": Case(code(503, "86400"), Outcome.SERVER_ERROR, retry_after_s=86400.0),
    "504": Case(code(504), Outcome.SERVER_ERROR),
    "599": Case(code(599), Outcome.SERVER_ERROR),
    "timeout": Case(hangs, Outcome.TIMEOUT, "timeout", timeout_s=TIMEOUT_S),
    "headers, then a drip slower than the timeout": Case(drips, Outcome.TIMEOUT, timeout_s=TIMEOUT_S),
    "reset before the headers": Case(resets, Outcome.CONNECTION, "reset"),
    "reset in the body": Case(begins(LONGER_THAN_IT_IS, resets), Outcome.INVALID, "truncated"),
    "closed before the headers": Case(closes, Outcome.CONNECTION, "reset"),
    "not HTTP": Case(says(b"220 mail.example.com ESMTP\r\n\r\n"), Outcome.CONNECTION, "connection"),
}


each_question = pytest.mark.parametrize("question", [ask, ask_list])


@each_question
@pytest.mark.parametrize("name", CASES)
async def test_an_answer_means_what_the_table_says(question: Question, name: str) -> None:
    case = CASES[name]
    async with Receiver(case.reply) as receiver:
        reply = await question(receiver.url, timeout_s=case.timeout_s)
    assert (reply.outcome, reply.retry_after_s) == (case.outcome, case.retry_after_s)
    assert case.reason in {None, reply.reason}
    assert ((reply.execution or reply.rows) is not None) == (case.outcome is Outcome.OK)
    assert reply.sent_at == 1000.0


@each_question
@pytest.mark.parametrize(("host", "reason"), [("127.0.0.1", "refused"), ("nowhere.invalid", "dns")])
async def test_a_server_that_is_not_there_is_no_connection(question: Question, host: str, reason: str) -> None:
    reply = await question(f"http://{host}:{unused_port()}")
    assert (reply.outcome, reply.reason) == (Outcome.CONNECTION, reason)


@each_question
async def test_tls_to_a_port_without_is_no_connection(question: Question) -> None:
    left = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(400))
        await reader.read()  # the client's greeting, and its end
        writer.close()
        left.set()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        reply = await question(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await left.wait()
    assert (reply.outcome, reply.reason) == (Outcome.CONNECTION, "tls")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
async def test_a_redirect_is_not_followed_for_the_key_would_go_to_a_stranger(status: int) -> None:
    async with Receiver(ok(body())) as stranger, Receiver() as receiver:
        target = f"{stranger.url}/public/pipelines/{PIPELINE}/executions/{EXECUTION}"
        receiver.reply = says(answer(status, Location=target))
        replies = (await ask(receiver.url), await ask_list(receiver.url))
    assert [(reply.outcome, reply.status_code) for reply in replies] == [(Outcome.REDIRECT, status)] * 2
    assert stranger.requests == []


async def test_an_empty_list_is_a_list_and_a_page_asked_for_by_number() -> None:
    async with Receiver(ok(body(id=PIPELINE))) as receiver:
        assert (await ask(receiver.url)).reason == "wrong_id"
    async with Receiver(ok(b'{"data": [], "total": 0}')) as receiver:
        assert (await ask_list(receiver.url)).rows == ()
    async with Receiver(ok(body())) as receiver:
        reply = await ask_list(receiver.url, page=7)
    (request,) = receiver.requests
    assert request.line == f"GET /public/pipelines/{PIPELINE}/executions?limit=50&page=7 HTTP/1.1"
    rows = (ExecutionSnapshot(EXECUTION, "running"),)
    assert reply == Reply(
        Outcome.OK, Monotonic(1000.0), None, 200, body_hash=hash(body()), rows=rows, skipped=0, total=1
    )


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


@pytest.mark.ci
@pytest.mark.parametrize("name", WORST)
async def test_no_answer_holds_up_the_event_loop(name: str) -> None:
    """By itself each of these took 1 to 9 s to parse.

    It is the CPU time of this process, in all threads, that passes between two turns of the loop: a parser that keeps
    the interpreter to itself does so in whatever thread, and each time. The loop also waits while the system runs the
    parser's thread in its place, on a machine that has much to do: so one of five tries has to do.
    """
    packed = gzip.compress(b'{"id":"%s","status":"running",%s' % (EXECUTION.encode(), WORST[name]), 1)
    async with Receiver(ok(packed, Content_Encoding="gzip")) as receiver, api_at(receiver.url) as api:
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


@asynccontextmanager
async def serving(slow: "Slow") -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/public/pipelines/{pipeline}/executions/{execution}", slow.answer)
    async with TestServer(app, skip_url_asserts=True) as server:
        yield str(server.make_url("")).rstrip("/")


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


@pytest.mark.ci
async def test_large_bodies_are_read_a_few_at_a_time_and_all_in_the_end() -> None:
    slow = Slow(asyncio.Event())
    async with (
        serving(slow) as base_url,
        Receiver(ok(body())) as elsewhere,
        Client(api_key="k-1", timeout_s=PATIENT_S, connections=20, proxy=Proxy()) as client,
    ):
        api = ClerkApi(client, base_url=base_url, clock=FakeClock())
        polls = [asyncio.create_task(api.get(pipeline=PIPELINE, execution=EXECUTION)) for _ in range(10)]
        await slow.until(sent=LARGE_BODIES, sending=10)
        small = ClerkApi(client, base_url=elsewhere.url, clock=FakeClock())
        assert (await small.get(pipeline=PIPELINE, execution=EXECUTION)).outcome is Outcome.OK
        slow.may_end.set()
        replies = await asyncio.gather(*polls)
    assert [reply.outcome for reply in replies] == [Outcome.OK] * 10
    assert slow.most <= LARGE_BODIES


async def test_whoever_waits_for_a_place_waits_no_longer_than_its_timeout() -> None:
    slow = Slow(asyncio.Event())
    async with serving(slow) as base_url, api_at(base_url, timeout_s=TIMEOUT_S) as api:
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
async def test_how_far_its_clock_is_off_is_known_by_its_dates(
    date: str, known_s: float | None, took_s: float, ahead_s: float
) -> None:
    clock = FakeClock()
    clock.elapsed_s = -took_s

    async def reply(writer: asyncio.StreamWriter) -> None:
        clock.elapsed_s = 0.0
        await ok(body(), Date=date)(writer)

    async with (
        Receiver(reply) as receiver,
        Client(api_key="k-1", timeout_s=PATIENT_S, connections=1, proxy=Proxy()) as client,
    ):
        api = ClerkApi(client, base_url=receiver.url, clock=clock)
        api.ahead_us = None if known_s is None else round(known_s * 1_000_000)
        assert (await api.get(pipeline=PIPELINE, execution=EXECUTION)).outcome is Outcome.OK
        assert api.ahead_us == ahead_s * 1_000_000


@pytest.mark.parametrize("payload", [None, b"<html>busy</html>"])
async def test_the_date_of_an_error_says_nothing_of_its_clock(payload: bytes | None) -> None:
    date = "Tue, 24 Nov 2026 10:20:00 GMT"
    gateway = code(502, date=date) if payload is None else ok(payload, Date=date)
    async with Receiver(gateway) as receiver, api_at(receiver.url) as api:
        await api.get(pipeline=PIPELINE, execution=EXECUTION)
        assert api.ahead_us is None


@pytest.mark.parametrize("ahead_s", [None, 0, 1200])
async def test_a_date_to_retry_after_is_compared_with_that_of_its_own_answer(ahead_s: int | None) -> None:
    refusal = code(503, "Tue, 24 Nov 2026 10:20:30 GMT", date="Tue, 24 Nov 2026 10:20:00 GMT")
    async with Receiver(refusal) as receiver, api_at(receiver.url) as api:
        api.ahead_us = None if ahead_s is None else ahead_s * 1_000_000
        assert (await api.get(pipeline=PIPELINE, execution=EXECUTION)).retry_after_s == 30


@pytest.mark.parametrize(
    ("finished", "ended_s"), [("09:40:00", 0.0), ("09:40:02", 2.0), ("09:40:15", 2.0), ("09:40:15.001", None)]
)
async def test_dates_are_turned_into_our_clock_unless_in_its_future(finished: str, ended_s: float | None) -> None:
    payload = body(status="failed", startedAt="2026-11-24T09:39:50Z", finishedAt=f"2026-11-24T{finished}Z")
    reply = ok(payload, Date="Tue, 24 Nov 2026 09:40:00 GMT")
    async with Receiver(reply) as receiver, api_at(receiver.url) as api:
        execution = (await api.get(pipeline=PIPELINE, execution=EXECUTION)).execution
    now = FakeClock().steady_us()
    assert execution is not None
    assert execution.began_at == now - 10_000_000
    assert execution.ended_at == (None if ended_s is None else now + ended_s * 1_000_000)
