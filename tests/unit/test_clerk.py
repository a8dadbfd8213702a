"""What each answer of the API means, over a real socket, and which fields of it are read."""

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import ClientError, web
from aiohttp.test_utils import TestServer, unused_port

from watcher.clerk import ClerkApi, outcome_of, parse_execution
from watcher.client import BODY_BYTES, Client
from watcher.models import Execution, FailedNode, Outcome
from watcher.ports import Reply
from watcher.proxy import Proxy

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
EXECUTION = "9a1b0000-0000-4000-8000-000000000001"
NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
TIMEOUT_S = 0.5
"""Short, for three rows of the table wait for it; no other comes near."""

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Wire = Callable[[asyncio.StreamWriter], Awaitable[None]]
Serving = AbstractAsyncContextManager[str]


class FrozenClock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 1000.0

    def steady_us(self) -> int:
        return 0


def body(**fields: object) -> bytes:
    return json.dumps({"id": EXECUTION, "status": "running", **fields}).encode()


def body_of_size(size: int) -> bytes:
    return body(environment="x" * (size - len(body(environment=""))))


async def ask(base_url: str) -> Reply:
    async with Client(api_key="k-1", timeout_s=TIMEOUT_S, connections=4, proxy=Proxy()) as client:
        api = ClerkApi(client, base_url=base_url, clock=FrozenClock())
        return await api.get(pipeline=PIPELINE, execution=EXECUTION)


# Servers that answer


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/public/pipelines/{pipeline}/executions/{execution}", answer)
    async with TestServer(app, skip_url_asserts=True) as server:
        yield str(server.make_url("")).rstrip("/")


def says(payload: bytes, headers: Mapping[str, str] | None = None, *, status: int = 200) -> Serving:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=payload, headers=headers)

    return serving(answer)


def code(status: int, retry_after: str | None = None) -> Serving:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
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
    retry_after_s: float | None = None


def _http_date(in_s: float) -> str:
    return (NOW + timedelta(seconds=in_s)).strftime("%a, %d %b %Y %H:%M:%S GMT")


CASES = {
    "200": Case(lambda: says(body()), Outcome.OK),
    "200 with the id in capitals": Case(lambda: says(body(id=EXECUTION.upper())), Outcome.OK),
    "200 gzipped": Case(lambda: says(gzip.compress(body()), {"Content-Encoding": "gzip"}), Outcome.OK),
    "200 called text": Case(lambda: says(body(), {"Content-Type": "text/html"}), Outcome.OK),
    "200 of exactly 8 MiB": Case(lambda: says(body_of_size(BODY_BYTES)), Outcome.OK),
    "200 but HTML": Case(lambda: says(b"<html>Sign in</html>", {"Content-Type": "text/html"}), Outcome.INVALID),
    "200 but empty": Case(lambda: says(b""), Outcome.INVALID),
    "200 but truncated": Case(lambda: says(body()[:-9]), Outcome.INVALID),
    "200 but a list": Case(lambda: says(b"[" + body() + b"]"), Outcome.INVALID),
    "200 but null": Case(lambda: says(b"null"), Outcome.INVALID),
    "200 but not UTF-8": Case(lambda: says(b'{"id": "\xff"}'), Outcome.INVALID),
    "200 of another id": Case(lambda: says(body(id=PIPELINE)), Outcome.INVALID),
    "200 without a status": Case(lambda: says(json.dumps({"id": EXECUTION}).encode()), Outcome.INVALID),
    "200 with a status that is no word": Case(lambda: says(body(status=3)), Outcome.INVALID),
    "200 shorter than it says": Case(lambda: writes(_page(body(), length=5000)), Outcome.INVALID),
    "200 not gzip though it says so": Case(lambda: says(b"x" * 99, {"Content-Encoding": "gzip"}), Outcome.INVALID),
    "200 over 8 MiB": Case(lambda: says(body_of_size(BODY_BYTES + 1)), Outcome.INVALID),
    "200 over 8 MiB once unpacked": Case(
        lambda: says(gzip.compress(body_of_size(BODY_BYTES + 1)), {"Content-Encoding": "gzip"}), Outcome.INVALID
    ),
    "200 without an end": Case(endless, Outcome.INVALID),
    "201": Case(lambda: says(body(), status=201), Outcome.INVALID),
    "204": Case(lambda: code(204), Outcome.INVALID),
    "304": Case(lambda: code(304), Outcome.REDIRECT),
    "400": Case(lambda: code(400), Outcome.REJECTED),
    "401": Case(lambda: code(401), Outcome.UNAUTHORIZED),
    "402": Case(lambda: code(402), Outcome.INVALID),
    "403": Case(lambda: code(403), Outcome.FORBIDDEN),
    "404": Case(lambda: code(404), Outcome.NOT_FOUND),
    "404 with the execution in it": Case(lambda: says(body(), status=404), Outcome.NOT_FOUND),
    "405": Case(lambda: code(405), Outcome.INVALID),
    "408": Case(lambda: code(408), Outcome.TIMEOUT),
    "410": Case(lambda: code(410), Outcome.NOT_FOUND),
    "418": Case(lambda: code(418), Outcome.INVALID),
    "422": Case(lambda: code(422), Outcome.REJECTED),
    "429": Case(lambda: code(429), Outcome.RATE_LIMITED),
    "429 for 7 s": Case(lambda: code(429, "7"), Outcome.RATE_LIMITED, 7.0),
    "429 until a date": Case(lambda: code(429, _http_date(90)), Outcome.RATE_LIMITED, 90.0),
    "429 until yesterday": Case(lambda: code(429, _http_date(-86400)), Outcome.RATE_LIMITED, 0.0),
    "429 for nonsense": Case(lambda: code(429, "soon"), Outcome.RATE_LIMITED),
    "500": Case(lambda: code(500), Outcome.SERVER_ERROR),
    "502": Case(lambda: code(502), Outcome.SERVER_ERROR),
    "503": Case(lambda: code(503), Outcome.SERVER_ERROR),
    "503 for a day": Case(lambda: code(503, "86400"), Outcome.SERVER_ERROR, 86400.0),
    "504": Case(lambda: code(504), Outcome.SERVER_ERROR),
    "599": Case(lambda: code(599), Outcome.SERVER_ERROR),
    "timeout": Case(hangs, Outcome.TIMEOUT),
    "headers, then a drip slower than the timeout": Case(lambda: drips(b" "), Outcome.TIMEOUT),
    "reset before the headers": Case(lambda: resets(b""), Outcome.CONNECTION),
    "reset in the body": Case(lambda: resets(_page(body(), length=5000)), Outcome.INVALID),
    "closed before the headers": Case(lambda: writes(b""), Outcome.CONNECTION),
    "not HTTP": Case(lambda: writes(b"220 mail.example.com ESMTP\r\n\r\n"), Outcome.CONNECTION),
    "a refused port": Case(lambda: nobody_at(f"http://127.0.0.1:{unused_port()}"), Outcome.CONNECTION),
    "a name that is not known": Case(lambda: nobody_at("http://nowhere.invalid"), Outcome.CONNECTION),
    "TLS to a port without": Case(lambda: secured(says(body())), Outcome.CONNECTION),
}


@pytest.mark.parametrize("name", CASES)
async def test_an_answer_means_what_the_table_says(name: str) -> None:
    case = CASES[name]
    async with case.server() as base_url:
        reply = await ask(base_url)
    assert (reply.outcome, reply.retry_after_s) == (case.outcome, case.retry_after_s)
    assert (reply.execution is not None) == (case.outcome is Outcome.OK)
    assert reply.sent_at == 1000.0


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
async def test_a_redirect_is_not_followed_for_the_key_would_go_to_a_stranger(status: int) -> None:
    visits: list[str] = []

    async def stranger(request: web.Request) -> web.Response:
        visits.append(request.path)
        return web.Response(body=body())

    async with serving(stranger) as elsewhere:
        target = f"{elsewhere}/public/pipelines/{PIPELINE}/executions/{EXECUTION}"
        async with says(b"", {"Location": target}, status=status) as base_url:
            reply = await ask(base_url)
    assert (reply.outcome, reply.status_code, visits) == (Outcome.REDIRECT, status, [])


async def test_a_reply_tells_the_status_code() -> None:
    async with code(410) as base_url:
        assert (await ask(base_url)).status_code == 410
    async with says(body()) as base_url:
        assert (await ask(base_url)).status_code == 200


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("200", None),
        ("200 but HTML", "html"),
        ("200 but empty", "no_json"),
        ("200 but truncated", "no_json"),
        ("200 but a list", "no_execution"),
        ("200 but null", "no_execution"),
        ("200 but not UTF-8", "no_json"),
        ("200 of another id", "wrong_id"),
        ("200 without a status", "no_execution"),
        ("200 shorter than it says", "truncated"),
        ("200 over 8 MiB", "too_large"),
        ("402", "status_402"),
        ("timeout", "timeout"),
        ("a name that is not known", "dns"),
        ("TLS to a port without", "tls"),
    ],
)
async def test_a_word_of_ours_says_why_there_is_no_execution(name: str, reason: str | None) -> None:
    async with CASES[name].server() as base_url:
        assert (await ask(base_url)).reason == reason


async def test_without_an_answer_there_is_no_status_code() -> None:
    async with nobody_at(f"http://127.0.0.1:{unused_port()}") as base_url:
        assert (await ask(base_url)).status_code is None


@pytest.mark.parametrize("status", [*range(100, 200), *range(201, 300), 404, 599, 600, 999])
def test_no_code_but_200_is_well(status: int) -> None:
    assert outcome_of(status) is not Outcome.OK


# Which fields are read

PRIVATE = "the customer's own words"
FULL = {
    "id": EXECUTION,
    "pipelineId": PIPELINE,
    "pipelineVersionId": "v-1",
    "status": "failed",
    "pipelineName": "Sales agent",
    "pipelineVersionNumber": 7,
    "startedAt": "2026-11-24T09:59:48.600Z",
    "finishedAt": "2026-11-24T12:00:01.000+02:00",
    "error": "Node failed",
    "aiTokensUsed": 512,
    "nodesStarted": 3,
    "conversationHistory": {"messages": [PRIVATE]},
    "contactDetails": {"phone": PRIVATE},
    "environment": {"TOKEN": PRIVATE},
    "triggeredBy": "message_received",
    "triggeredByEntityId": "e-1",
    "conversationId": "c-1",
    "nodesExecuted": [
        {
            "nodeName": "Greeting",
            "node": {"id": "1", "name": "Greeting", "isGoal": True, "goalName": "Booked appointment"},
            "id": "n-1",
            "status": "success",
            "errorMessage": None,
            "input": {"text": PRIVATE},
            "output": {"text": PRIVATE},
        },
        {"id": "n-2", "nodeName": "Call", "node": {"name": "other"}, "status": "failed", "input": PRIVATE},
        {"id": "n-3", "node": {"name": "Ask", "isGoal": False, "goalName": "no"}, "errorMessage": "no answer"},
        {"id": "n-4", "status": "failed", "node": {"isGoal": True}, "errorMessage": ""},
    ],
    "pipelineMessages": [{"content": {"text": PRIVATE}}],
}
ALLOWED = Execution(
    id=EXECUTION,
    status="failed",
    pipeline_id=PIPELINE,
    version_id="v-1",
    pipeline_name="Sales agent",
    version_number=7,
    started_at=datetime(2026, 11, 24, 9, 59, 48, 600_000, tzinfo=UTC),
    finished_at=datetime(2026, 11, 24, 10, 0, 1, tzinfo=UTC),
    error="Node failed",
    ai_tokens_used=512,
    nodes_started=3,
    triggered_by="message_received",
    triggered_by_entity_id="e-1",
    conversation_id="c-1",
    failed_nodes=(
        FailedNode("n-2", "Call", None),
        FailedNode("n-3", "Ask", "no answer"),
        FailedNode("n-4", None, ""),
    ),
    goals=("Booked appointment",),
)


def parse(**fields: object) -> Execution | None:
    return parse_execution(body(**fields), asked=EXECUTION)


def test_the_allowed_fields_are_read_and_no_others() -> None:
    assert parse_execution(json.dumps(FULL).encode(), asked=EXECUTION) == ALLOWED


async def test_private_fields_appear_in_nothing_that_is_returned() -> None:
    async with says(json.dumps(FULL).encode()) as base_url:
        assert PRIVATE not in repr(await ask(base_url))


def test_the_required_fields_are_enough() -> None:
    assert parse() == Execution(id=EXECUTION, status="running")


@pytest.mark.parametrize("wrong", [None, [], {}, {"a": 1}, [1], "odd", 1e300, -1, True])
@pytest.mark.parametrize("field", sorted(FULL.keys() - {"id", "status"}))
def test_an_optional_field_of_any_type_costs_at_most_itself(field: str, wrong: object) -> None:
    execution = parse(**FULL | {"status": "paused", field: wrong})
    assert execution is not None
    assert execution.status == "paused"
    others = {"started_at", "goals", "error", "version_number"} - {_ATTRIBUTES.get(field, "")}
    assert all(getattr(execution, name) == getattr(ALLOWED, name) for name in others)


_ATTRIBUTES = {
    "startedAt": "started_at",
    "nodesExecuted": "goals",
    "error": "error",
    "pipelineVersionNumber": "version_number",
}


def test_a_node_of_the_wrong_type_costs_only_itself() -> None:
    nodes = [None, 7, "x", {"id": 5, "node": "y", "errorMessage": "bad"}, {"node": {"isGoal": True, "goalName": "G"}}]
    execution = parse(nodesExecuted=nodes)
    assert execution is not None
    assert execution.failed_nodes == (FailedNode(None, None, "bad"),)
    assert execution.goals == ("G",)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 400, "-" + "9" * 4000])
def test_a_number_beyond_all_measure_is_absent(number: str) -> None:
    raw = body(aiTokensUsed="N").replace(b'"N"', number.encode())
    execution = parse_execution(raw, asked=EXECUTION)
    assert execution is not None
    assert execution.ai_tokens_used is None


@pytest.mark.parametrize("number", [0, 1, 512, 1.5, -3, 2**53])
def test_an_everyday_number_is_kept(number: float) -> None:
    execution = parse(aiTokensUsed=number)
    assert execution is not None
    assert execution.ai_tokens_used == number


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-24T10:00:00", NOW),
        ("2026-11-24T10:00:00Z", NOW),
        ("2026-11-24T12:00:00+02:00", NOW),
        ("1969-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59Z", None),
        ("12026-01-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_time_is_read_as_utc_and_an_impossible_one_as_absent(text: str, moment: datetime | None) -> None:
    execution = parse(startedAt=text, finishedAt=text)
    assert execution is not None
    assert (execution.started_at, execution.finished_at) == (moment, moment)


def test_half_a_surrogate_pair_somewhere_does_not_make_an_execution_unreadable() -> None:
    """JavaScript writes one wherever a text was cut in the middle of an emoji."""
    raw = body(error="N", conversationHistory={"text": "x"}, pipelineName="P")
    raw = raw.replace(b'"N"', rb'"cut \ud83d"').replace(b'"x"', rb'"\udE00 \\ud83d \ud83d\ude00"')
    raw = raw.replace(b'"P"', rb'"\\ud83d \ud83d\ude00 \\\ud83d\n"')
    execution = parse_execution(raw, asked=EXECUTION)
    assert execution is not None
    assert execution.error == "cut "
    assert execution.pipeline_name == "\\ud83d \U0001f600 \\\n"


def test_an_id_is_compared_without_regard_to_capitals_and_kept_as_asked() -> None:
    assert parse(id=EXECUTION.upper()) == Execution(id=EXECUTION, status="running")
