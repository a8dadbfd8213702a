"""The API of the bench, as cheap as it can be: executions and pages of them, of which every n-th changes its status.

Half of its answers differ from the one before in a private field.
"""

import asyncio
import re
import time
from collections import Counter

from bench.answers import ID_LENGTH, PIPELINE, Answer, answer, page_answer, private_field, rows_of
from bench.counters import Counters, serve

_PIPELINE_STARTS = len("GET /public/pipelines/")
_ID_STARTS = len(f"GET /public/pipelines/{PIPELINE}/executions/")
_PAGE = re.compile(rb"[?&]page=(\d+)")
_ANSWERS = {status: [answer(status, private=private) for private in (0, 1)] for status in ("running", "paused")}


class _Api:
    """What all connections share: which executions are paused, and how often each question was asked."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._paused: set[str] = set()
        self._asked: Counter[tuple[str, int]] = Counter()

    def answer_to(self, execution: str) -> Answer:
        return _ANSWERS[self._show(execution)][self._private(execution, 0)]

    def page_of(self, pipeline: str, page: int) -> bytes:
        rows, private = rows_of(pipeline, page=page), self._private(pipeline, page)
        return page_answer(rows, page=page, status_of=self._show, private=private)

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


class _Connection(asyncio.Protocol):
    """Answers one request at a time: whoever asks waits for the answer, so a segment holds no more than one."""

    def __init__(self, counters: Counters, api: _Api) -> None:
        self._counters = counters
        self._api = api
        self._begun = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        request, self._begun = self._begun + data, b""
        if not request.endswith(b"\r\n\r\n"):
            self._begun = request
            return
        counters = self._counters
        counters.first_at = counters.first_at or time.monotonic()
        counters.served_count += 1
        page = _PAGE.search(request, _ID_STARTS - 1, request.index(b"\r\n"))
        self._transport.write(self._execution(request) if page is None else self._page(request, int(page[1])))

    def _execution(self, request: bytes) -> bytes:
        execution = request[_ID_STARTS : _ID_STARTS + ID_LENGTH]
        body = self._api.answer_to(execution.decode())
        return body.before + execution + body.after

    def _page(self, request: bytes, page: int) -> bytes:
        return self._api.page_of(request[_PIPELINE_STARTS : _PIPELINE_STARTS + ID_LENGTH].decode(), page)


def serve_load(counters: Counters) -> None:
    """Serve until the process is ended; the port it serves on is in the counters."""
    api = _Api(counters)
    asyncio.run(serve(counters, lambda: _Connection(counters, api)))
