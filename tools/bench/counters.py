"""What the bench counts: the servers that a measured program talks to, and the calls of its functions.

The servers are as cheap as they can be. Each runs in a process of its own, and counts in memory that the measuring
process reads without asking. `python -m bench.counters FILE run --config …` is the program with its calls counted.
"""

import asyncio
import ctypes
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from uuid import UUID

import watcher
from watcher.__main__ import main

spawning = multiprocessing.get_context("spawn")

DELAYS_COUNT = 100_000
PIPELINE = "77aa0000-0000-4000-8000-000000000000"
PIPELINE_ROWS, PAGE_ROWS = 60, 50
BODY_BYTES = 3_000
ID_LENGTH = 36
OURS = f"{Path(watcher.__file__).parent}{os.sep}"


class Counters(ctypes.Structure):
    """One server's counts. Moments are monotonic seconds, one clock for all processes.

    The API counts its answers in `served_count`, the executions on them in `shown_count`; it changes the status of
    every `change_every`-th that it shows (2.5: of two in five, 0: of none), `changed_count` so far. `delays_s` holds
    the receiver's first delays.
    """

    _fields_ = (
        ("port", ctypes.c_int),
        ("served_count", ctypes.c_long),
        ("first_at", ctypes.c_double),
        ("change_every", ctypes.c_double),
        ("shown_count", ctypes.c_long),
        ("changed_count", ctypes.c_long),
        ("delays_s", ctypes.c_double * DELAYS_COUNT),
    )
    port: int
    served_count: int
    first_at: float
    change_every: float
    shown_count: int
    changed_count: int
    delays_s: "ctypes.Array[ctypes.c_double]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def new_counters() -> Counters:
    """Return counters that a process started by `spawning` may be given."""
    return RawValue(Counters)


class _Connection(asyncio.Protocol):
    """Answers one request at a time: whoever asks waits for the answer, so a segment holds no more than one."""

    def __init__(self, counters: Counters, answer: Callable[[bytes, bytes], bytes]) -> None:
        self._counters, self._answer, self._begun = counters, answer, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._begun += data
        head, found, body = self._begun.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not found or len(body) < int(length[1] if length else 0):
            return
        self._begun = b""
        self._counters.first_at = self._counters.first_at or time.monotonic()
        self._transport.write(self._answer(head, body))


_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)", re.IGNORECASE)


async def _serve(counters: Counters, answer: Callable[[bytes, bytes], bytes]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(counters, answer), "127.0.0.1", 0)
    counters.port = server.sockets[0].getsockname()[1]
    await server.serve_forever()


# The API: executions and pages of them in the documented shape. Half of the answers differ from the one before in a
# field that nobody may tell: an agent that talks and works on changes its conversation and its run time, not its status


def execution_ids(count: int) -> tuple[str, ...]:
    """Return that many ids, always the same."""
    return tuple(str(UUID(int=(0x9A1B << 112) | (0x40008 << 60) | number)) for number in range(count))


def pipeline_ids(count: int) -> tuple[str, ...]:
    """Return that many ids of pipelines, always the same. Each has 60 executions, newest first."""
    return tuple(f"{PIPELINE[:-12]}{number:012}" for number in range(count))


def private_field(nth: int) -> int:
    """Return what the private field of the nth answer to a question holds: the same in two answers, then the other."""
    return nth // 2 % 2


_NOW = datetime.now(UTC).replace(microsecond=0)
_NEWEST_AT = _NOW.replace(second=0) - timedelta(hours=1)  # within any lookback
_FACTS: dict[str, Any] = {
    "pipelineVersionId": "b5c8f1e0-2c3a-4f1e-9d8a-7e6b5a4c3d2f",
    "finishedAt": None,
    "error": None,
    "aiTokensUsed": 512,
    "nodesStarted": 2,
    "triggeredBy": "message_received",
    "triggeredByEntityId": "5f0c0000-0000-4000-8000-000000000000",
    "conversationId": "6a0d0000-0000-4000-8000-000000000000",
}
_NODE = {
    "node": {"id": "1", "name": "Step", "staticId": "1", "isGoal": False, "goalName": None},
    "startedAt": "2025-11-24T10:00:01.000Z",
    "finishedAt": "2025-11-24T10:00:02.000Z",
    "status": "success",
    "errorMessage": None,
    "input": {"prompt": "Greet the contact and ask what they need."},
    "output": {"text": "Hello! How can we help you today?"},
}
_WHOLE = {
    "pipelineId": PIPELINE,
    "pipelineName": "Sales agent",
    "pipelineVersionNumber": 7,
    "startedAt": _NOW.isoformat(),  # long ago it would be polled once a minute
    "contactDetails": {"name": "A contact", "phone": "+15550100"},
    "nodesExecuted": [_NODE, _NODE],
}


def _body(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def execution_body(execution: str, status: str, *, private: int) -> bytes:
    """Return an execution, in about 3 kB."""
    document = {"id": execution, "status": status, **_FACTS, **_WHOLE, "conversationHistory": f"{private} "}
    missing = BODY_BYTES - len(_body(document))
    return _body(document | {"conversationHistory": f"{private} {'What day suits you best? ' * 200}"[:missing]})


def page_body(rows: Sequence[str], *, page: int, status_of: Callable[[str], str], private: int) -> bytes:
    """Return a page with these rows."""
    data = [
        {"id": execution, "status": status_of(execution), "startedAt": started_at.isoformat(), **_FACTS}
        | {"runTime": 2000 + private}
        for nth, execution in enumerate(rows, (page - 1) * PAGE_ROWS)
        for started_at in [_NEWEST_AT - timedelta(minutes=nth)]
    ]
    return _body({"data": data, "total": PIPELINE_ROWS})


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


_ANSWERS = {
    (status, private): _answer(execution_body(f"{'x' * ID_LENGTH}", status, private=private)).split(b"x" * ID_LENGTH)
    for status in ("running", "paused")
    for private in (0, 1)
}
_PIPELINE_STARTS = len("GET /public/pipelines/")
_ID_STARTS = len(f"GET /public/pipelines/{PIPELINE}/executions/")
_PAGE = re.compile(rb"[?&]page=(\d+)")


class _Api:
    """Answers requests; knows which executions are paused, and how often each question was asked."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._paused: set[str] = set()
        self._asked: Counter[tuple[str, int]] = Counter()

    def answer(self, head: bytes, _body: bytes) -> bytes:
        self._counters.served_count += 1
        page = _PAGE.search(head, _ID_STARTS - 1)
        if page is not None:
            return self._page(head[_PIPELINE_STARTS : _PIPELINE_STARTS + ID_LENGTH].decode(), int(page[1]))
        execution = head[_ID_STARTS : _ID_STARTS + ID_LENGTH]
        text = execution.decode()
        return execution.join(_ANSWERS[self._show(text), self._private(text, 0)])

    def _page(self, pipeline: str, page: int) -> bytes:
        first, private = int(pipeline[-12:]) * PIPELINE_ROWS, self._private(pipeline, page)
        rows = execution_ids(first + PIPELINE_ROWS)[first:][(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
        return _answer(page_body(rows, page=page, status_of=self._show, private=private))

    def _private(self, of: str, page: int) -> int:
        self._asked[of, page] += 1
        return private_field(self._asked[of, page])

    def _show(self, execution: str) -> str:
        """Return the status of an execution, which changes if it is its turn."""
        counters = self._counters
        counters.shown_count += 1
        if counters.change_every and counters.shown_count % counters.change_every < 1:
            self._paused ^= {execution}
            counters.changed_count += 1
        return "paused" if execution in self._paused else "running"


def serve_load(counters: Counters) -> None:
    """Serve the API until the process is ended; the port it serves on is in the counters."""
    asyncio.run(_serve(counters, _Api(counters).answer))


# The receiver takes whatever comes, and notes how long ago its event was observed

_OBSERVED_AT = re.compile(rb'"observed":\{"at":"([^"]+)"')


def receive(counters: Counters) -> None:
    """Receive until the process is ended; the port is in the counters."""

    def answer(_head: bytes, body: bytes) -> bytes:
        observed = _OBSERVED_AT.search(body)
        if observed is not None and counters.served_count < DELAYS_COUNT:
            observed_at = datetime.fromisoformat(observed[1].decode()).timestamp()
            counters.delays_s[counters.served_count] = time.time() - observed_at
        counters.served_count += body.count(b'{"specversion":') if body.startswith(b"[") else 1
        is_slack = b'"blocks":' in body
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" if is_slack else b"HTTP/1.1 204 No Content\r\n\r\n"

    asyncio.run(_serve(counters, answer))


# The calls of the program


def count_calls(file: Path) -> None:
    """Count each call of our code in all threads. On SIGUSR1 write how often each was called since the last time."""
    calls = Counter[CodeType]()

    def see(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            calls[frame.f_code] += 1

    def write(_number: int, _frame: FrameType | None) -> None:
        counted = dict(calls)
        calls.clear()
        named = Counter[str]()
        for code, count in counted.items():
            if code.co_filename.startswith(OURS):
                named[f"{code.co_filename.removeprefix(OURS)}:{code.co_firstlineno} {code.co_qualname}"] += count
        unfinished = file.with_suffix(".new")
        unfinished.write_text(json.dumps(named))
        unfinished.rename(file)

    signal.signal(signal.SIGUSR1, write)
    threading.setprofile(see)
    sys.setprofile(see)


if __name__ == "__main__":
    count_calls(Path(sys.argv.pop(1)))
    main()
