"""What a container asks every few seconds, against a real server."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]


class Daemon(HTTPServer):
    """Answers as the test says, and notes what it was asked."""

    status = 200
    body = b"ok\n"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked: list[str] = []


class _Answers(BaseHTTPRequestHandler):
    server: Daemon

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon() as daemon:
        thread = threading.Thread(target=daemon.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield daemon
        daemon.shutdown()
        thread.join()


def test_a_ready_daemon_is_healthy(daemon: Daemon, command: Command) -> None:
    Path("watcher.yaml").write_text(f"http: {{listen: '127.0.0.1:{daemon.server_port}'}}")
    assert command("health") == (0, "ready\n", "")
    assert daemon.asked == ["/readyz?verbose"]


def test_one_that_is_not_says_what_is_missing_in_one_line(daemon: Daemon, command: Command) -> None:
    daemon.status, daemon.body = 503, b"not ok: maintenance has not run yet\nnot ok: \x1b[31mstore\n"
    code, out, err = command("health", WATCHER_HTTP_LISTEN=f"0.0.0.0:{daemon.server_port}")
    assert (code, out, err) == (1, "not ready: maintenance has not run yet; \\x1b[31mstore\n", "")


def test_a_stranger_on_the_port_is_reported(daemon: Daemon, command: Command) -> None:
    daemon.status = 404
    code, out, _ = command("health", WATCHER_HTTP_LISTEN=f":{daemon.server_port}")
    assert (code, out) == (1, "not ready: it answers 404; is clerk-watcher listening there?\n")


@pytest.mark.parametrize(
    ("listen", "asked"), [("127.0.0.1:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), (":1", "127.0.0.1:1")]
)
def test_nobody_there_exits_4(listen: str, asked: str, command: Command) -> None:
    code, out, err = command("health", WATCHER_HTTP_LISTEN=listen)
    assert (code, out) == (4, "")
    assert err.startswith("error: no daemon answers at http://")
    assert re.findall(r"http://(\S+) \(", err) == [asked]


def test_a_port_that_is_any_free_one_cannot_be_asked(command: Command) -> None:
    code, out, err = command("health", WATCHER_HTTP_LISTEN="127.0.0.1:0")
    assert (code, out) == (4, "")
    assert "http.listen has port 0, any free one, so nobody knows which; set a port" in err


def test_neither_key_nor_secret_need_be_there(daemon: Daemon, command: Command) -> None:
    Path("mine.yaml").write_text(
        "accounts: {default: {api_key: '${CLERK_API_KEY}'}, eu: {api_key_file: /run/secrets/nowhere}}\n"
        "watch: nonsense\n"
        "http: {listen: '${HOST:-127.0.0.1}:${PORT}'}\n"
    )
    assert command("health", "--config", "mine.yaml", PORT=str(daemon.server_port))[0] == 0


def test_it_imports_nothing_heavy() -> None:
    words = "import sys; import watcher.cli.commands.health; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout.split()
    assert not {"aiohttp", "pydantic", "rich.console", "sqlalchemy"} & set(loaded)
