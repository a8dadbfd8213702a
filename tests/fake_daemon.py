"""A server that answers a command as the daemon would: with the models of its API, over a real socket."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel

from watcher.web.models import Trouble
from watcher.web.overview import StatusView


class Asked(NamedTuple):
    method: str
    path: str
    query: list[tuple[str, str]]
    body: Any
    token: str


class Raw(NamedTuple):
    """An answer that is none of the API's."""

    code: int
    body: bytes


Reply = BaseModel | Raw | Callable[[Asked], "BaseModel | Raw"]


def status_view(**fields: Any) -> StatusView:
    """Return the overview of a daemon of which nothing is known but these fields."""
    nothing: dict[str, Any] = {name: [] for name in ("needs", "pipelines", "sinks", "accounts", "silences")}
    return StatusView.model_validate({"version": "1", "open": {}, **nothing, **fields})


class FakeDaemon(ThreadingHTTPServer):
    """Answers `replies`, of a list of them one after the other and the last for ever, and notes what it was `asked`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.replies: dict[str, Reply | list[Reply]] = {"GET /status": status_view()}
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def reply_to(self, asked: Asked) -> BaseModel | Raw:
        self.asked.append(asked)
        reply = self.replies.get(f"{asked.method} {asked.path}") or Raw(404, b"404: Not Found")
        if isinstance(reply, list):
            reply = reply.pop(0) if len(reply) > 1 else reply[0]
        return reply if isinstance(reply, BaseModel | Raw) else reply(asked)


class _Answers(BaseHTTPRequestHandler):
    server: FakeDaemon

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command != "GET":
            assert self.headers["Content-Type"] == "application/json"
        path = parts.path.removeprefix("/api/v1")
        query = parse_qsl(parts.query, keep_blank_values=True)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        asked = Asked(self.command, path, query, json.loads(body or "null"), token)
        reply = self.server.reply_to(asked)
        if isinstance(reply, BaseModel):
            code = reply.status if isinstance(reply, Trouble) else 200
            reply = Raw(code, reply.model_dump_json(by_alias=True, exclude_none=True).encode())
        if reply.code:  # else the connection ends without an answer
            self.send_response(reply.code)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 (as the standard library calls them)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def fake_daemon() -> Iterator[FakeDaemon]:
    """Serve until the end of the block."""
    with FakeDaemon() as daemon:
        thread = threading.Thread(target=daemon.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield daemon
        daemon.shutdown()
        thread.join()
